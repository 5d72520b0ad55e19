"""The jinja2 environment of chat templates: the dialect of Hugging Face's checkpoints, in a sandbox, because a template is code.

Only this module imports jinja2; runs without a chat template never load it.
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
from jinja2.utils import Namespace

# The name that jinja2 gives to the source of a template in tracebacks.
SOURCE = "<template>"
# The largest total number of elements of all ranges of one rendering, and the largest size of a repeated sequence.
MAX_STEPS = 1_000_000
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
    """A sandbox in which products cannot fill the memory."""

    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" and max(abs(left), abs(right)) > 1000:
            raise OverflowError(f"{left} ** {right} is too large")
        for sequence, times in ((left, right), (right, left)):
            if isinstance(sequence, (str, list, tuple)) and len(sequence) * times > MAX_STEPS:
                raise OverflowError(f"a sequence of more than {MAX_STEPS} elements")
        return super().call_binop(context, operator, left, right)


class BoundedRange:
    """The function `range` for one rendering; an endless pile of loops runs out of it.

    Args:
        most: the largest total number of elements.
    """

    def __init__(self, most: int = MAX_STEPS):
        self._left = most

    def __call__(self, *args: int) -> range:
        numbers = range(*args)
        self._left -= len(numbers)
        if self._left < 0:
            raise OverflowError(f"loops of more than {MAX_STEPS} steps in all")
        return numbers


def compile_template(source: str) -> jinja2.Template:
    """Compiles a chat template; raises `jinja2.TemplateSyntaxError`."""
    extensions: list[Any] = [Generation, jinja2.ext.loopcontrols]
    environment = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
    environment.filters["tojson"] = _to_json
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
