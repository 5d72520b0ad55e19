"""The jinja2 environment of chat templates: the dialect of Hugging Face's checkpoints, in a sandbox, because a template is code.

Only this module and `chat_tree` import jinja2; runs without a chat template never load it.
"""

import datetime
import json
from collections.abc import Iterable
from typing import Any

import jinja2
import jinja2.ext
import jinja2.sandbox
from jinja2 import nodes
from jinja2.parser import Parser
from jinja2.runtime import LoopContext
from jinja2.utils import Namespace

from lmirl_jax.data.chat_limits import BUDGET, Budget, check_format, check_method, check_operation
from lmirl_jax.data.chat_tree import limit, limited_filters

# The name that jinja2 gives to the source of a template in tracebacks.
SOURCE = "<template>"
TAGS = {"generation"}


class Refusal(jinja2.TemplateError):
    """A template refuses a conversation, by `raise_exception`."""


class SafeNamespace(Namespace):
    """A namespace without names that begin with an underscore, which Python gives a meaning."""

    def __init__(*args: Any, **attributes: Any):
        for name in attributes:
            _check_name(name)
        Namespace.__init__(*args, **attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


class Generation(jinja2.ext.Extension):
    """Accepts `{% generation %}`, which marks assistant turns in some templates; the text within is rendered as it is."""

    tags = TAGS

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


class Sandbox(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """A sandbox in which a template can fill neither the time nor the memory; see `chat_limits` and `chat_tree`."""

    intercepted_binops = frozenset({"*", "**", "+", "%"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        check_operation(operator, left, right)
        return context.resolve(BUDGET).measure(super().call_binop(context, operator, left, right))

    def call(*args: Any, **kwargs: Any) -> Any:
        # Names such as `self` may be arguments of the template's function.
        environment, context, function, *given = args
        if isinstance(getattr(function, "__self__", None), Budget):
            return function(*given)
        if isinstance(function, LoopContext) and given:
            # A loop within a recursive loop.
            given[0] = context.resolve(BUDGET).count(given[0])
        check_method(function, given, kwargs)
        return jinja2.sandbox.ImmutableSandboxedEnvironment.call(
            environment, context, function, *given, **kwargs
        )

    def wrap_str_format(self, value: Any) -> Any:
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None

        def call(*args: Any, **kwargs: Any) -> str:
            check_format(value.__self__)
            return wrapped(*args, **kwargs)

        return call

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        return limit(super()._parse(source, name, filename))


def compile_template(source: str) -> jinja2.Template:
    """Compiles a chat template; raises `jinja2.TemplateSyntaxError`."""
    extensions: list[Any] = [Generation, jinja2.ext.loopcontrols]
    # What is optimised is computed as the template is compiled, without limits.
    environment = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=extensions, optimized=False)
    environment.filters = limited_filters({**environment.filters, "tojson": _to_json})
    # It makes random text, of any length.
    del environment.globals["lipsum"]
    functions: dict[str, Any] = {
        "raise_exception": _raise_exception,
        "strftime_now": _now,
        "dict": _dict,
        "namespace": SafeNamespace,
    }
    environment.globals |= functions
    return environment.from_string(source)


def _raise_exception(message: Any) -> None:
    raise Refusal(str(message))


def _now(form: str) -> str:
    return datetime.datetime.now().strftime(form)


def _dict(*args: Iterable[Any], **items: Any) -> dict[Any, Any]:
    return dict(*args, **items)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja2's own filter escapes letters for HTML."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _check_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.sandbox.SecurityError(f"the name {name!r} begins with an underscore")
