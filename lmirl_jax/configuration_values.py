"""Checks the values in gin files against the annotations of the parameters that they are bound to, before anything runs.

The value of a reference with brackets is not known yet. `arguments.check_arguments` checks it when its function is called, and
the error then has the same words.
"""

import contextlib
import copy
import inspect
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import gin

from lmirl_jax import argument_rules, arguments
from lmirl_jax.types import UserError

Bindings = Mapping[tuple[str, str], Mapping[str, Any]]
MACRO, CONSTANT = "gin.macro", "gin.constant"


class _Resolved(NamedTuple):
    """A value with its references resolved, and the macro that holds it, if there is one."""

    macro: str | None
    value: Any


def bindings() -> dict[tuple[str, str], dict[str, Any]]:
    """A copy of the current bindings by scope and selector, which shows later what a flag has replaced."""
    return {key: dict(parameters) for key, parameters in gin.config._CONFIG.items()}


def check(before: Bindings, complete: bool) -> None:
    """Raises a UserError for the first value that its parameter cannot take.

    Args:
        before: the bindings of the gin files without the flags; their values serve as examples.
        complete: whether nothing else will be bound, so that functions that are called must have all their arguments.
    """
    functions = []
    for (scope, selector), parameters in gin.config._CONFIG.items():
        for parameter, value in parameters.items():
            if complete:
                _check_calls(f"{_name(scope, selector)}.{parameter}", scope, selector, value)
            if selector in (MACRO, CONSTANT):
                continue
            place, hint = (scope, selector, parameter), _hints(selector).get(parameter, Any)
            if callable(_resolve(value).value) and argument_rules.takes_functions(hint):
                functions.append((place, value))
            else:
                _check_one(place, value, before)
    # Functions are called with the values that are bound to them, so these values are checked first.
    for place, value in functions:
        _check_one(place, value, before)


def check_macro(name: str, value: Any, hint: Any) -> None:
    """Raises a UserError where the value of a macro that a command reads does not fit."""
    if not argument_rules.fits(value, hint):
        raise UserError(
            _message(name, arguments.show(value), argument_rules.expectation(value, hint), "", None)
        )


@contextlib.contextmanager
def explain_errors() -> Iterator[None]:
    """Within the block, an error about an argument names the macro or parameter by which gin files set it."""
    try:
        yield
    except arguments.ArgumentError as error:
        for (scope, selector), parameters in gin.config._CONFIG.items():
            same = selector.rpartition(".")[2] == error.function.rpartition(".")[2]
            if same and error.parameter in parameters:
                name, place = _names((scope, selector, error.parameter), parameters[error.parameter])
                text = arguments.show(error.value)
                raise UserError(_message(name, text, error.expected, place, None)) from None
        raise


def _check_one(place: tuple[str, str, str], value: Any, before: Bindings) -> None:
    _, selector, parameter = place
    hint = _hints(selector).get(parameter, Any)
    name, where = _names(place, value)
    if argument_rules.given_by_caller(hint):
        raise UserError(
            f"{name} has no effect: the caller of {_short(selector)} gives {parameter}; leave it out"
        )
    resolved = _resolve(value)
    if argument_rules.fits(resolved.value, hint):
        return
    expected = argument_rules.expectation(resolved.value, hint)
    text = arguments.show(resolved.value) if not _references_in(value) else repr(_raw(value))
    if callable(resolved.value) and not argument_rules.takes_functions(hint):
        raise UserError(
            f"{name}={text} is a function, and {parameter} of {_short(selector)} must be {expected}: with brackets, "
            f"{text}(), it is what the function makes"
        )
    raise UserError(_message(name, text, expected, where, _example(place, name, hint, before)))


def _check_calls(where: str, scope: str, selector: str, value: Any) -> None:
    """Raises a UserError for a reference with brackets to a function that lacks arguments."""
    for reference in _references(value):
        if not reference.evaluate or reference.selector.startswith("gin."):
            continue
        target = gin.config._REGISTRY.get_match(reference.selector)
        # Gin has resolved the reference.
        assert target is not None
        bound_names = {
            name
            for (_, other), parameters in gin.config._CONFIG.items()
            if other == target.selector
            for name in parameters
        }
        missing = [name for name in _required_parameters(target.wrapped) if name not in bound_names]
        if missing:
            name = scope if selector == MACRO else where
            text = f"@{reference.scoped_selector}"
            raise UserError(
                f"{name}={text}() calls {_short(target.selector)} without {' and '.join(missing)}: leave the brackets "
                f"out, {text}, for the function itself, or bind what is missing"
            )


def _names(place: tuple[str, str, str], value: Any) -> tuple[str, str]:
    """The name that a user sets to change a value (the macro that holds it, or the parameter), and the place that it goes to."""
    scope, selector, parameter = place
    macro = _resolve(value).macro
    if macro is None:
        return f"{_name(scope, selector)}.{parameter}", ""
    return macro, f" ({parameter} of {_short(selector)})"


def _message(name: str, text: str, expected: str, where: str, example: str | None) -> str:
    remedy = f"--gin.{name}=VALUE" if example is None else f"--gin.{name}={example}"
    such = "set" if example is None else "set it, for example"
    return f"{name}={text} must be {expected}{where}: {such} {remedy}"


def _example(place: tuple[str, str, str], name: str, hint: Any, before: Bindings) -> str | None:
    """An example that fits: the value of the gin files, or the default of the parameter."""
    scope, selector, parameter = place
    key = ((name, MACRO), "value") if (name, MACRO) in before else ((scope, selector), parameter)
    default = inspect.signature(_target(selector)).parameters[parameter].default
    for value in (before.get(key[0], {}).get(key[1], default), default):
        resolved = _resolve(value)
        if (
            value is inspect.Parameter.empty
            or resolved.value is None
            or not argument_rules.fits(resolved.value, hint)
        ):
            continue
        text = repr(_raw(value))
        if "gin.REQUIRED" not in text and " at 0x" not in text:
            return f'"{text}"' if set(text) & set("'()[]{}@% ") else text
    return None


def _raw(value: Any) -> Any:
    """Follows macros to the value in the file, with its references unresolved."""
    while isinstance(value, gin.config.ConfigurableReference) and value.selector == MACRO:
        binding = gin.config._CONFIG.get(("/".join(value.scopes), MACRO), {})
        if "value" not in binding:
            return value
        value = binding["value"]
    return value


def _references_in(value: Any) -> bool:
    return any(True for _ in _references(_raw(value)))


def _resolve(value: Any, macro: str | None = None) -> _Resolved:
    """Follows macros to the value; the result of a call that gin makes later is `argument_rules.UNKNOWN`."""
    if isinstance(value, gin.config.ConfigurableReference):
        if value.selector == MACRO:
            name = "/".join(value.scopes)
            binding = gin.config._CONFIG.get((name, MACRO), {})
            return (
                _resolve(binding["value"], name)
                if "value" in binding
                else _Resolved(name, argument_rules.UNKNOWN)
            )
        if value.evaluate or value.selector.startswith("gin."):
            return _Resolved(macro, argument_rules.UNKNOWN)
        function = copy.deepcopy(value)
        # Gin's wrapper of a class hides the arguments of its constructor.
        return _Resolved(macro, _target(value.selector) if isinstance(function, type) else function)
    if isinstance(value, (list, tuple)):
        return _Resolved(macro, type(value)(_resolve(item).value for item in value))
    if isinstance(value, dict):
        return _Resolved(macro, {_resolve(key).value: _resolve(item).value for key, item in value.items()})
    return _Resolved(macro, value)


def _references(value: Any) -> Iterator[gin.config.ConfigurableReference]:
    """The references in a value. Macros are not followed, because their values are bindings that are checked themselves."""
    return gin.config.iterate_references({("", ""): {"": value}})


def _hints(selector: str) -> Mapping[str, Any]:
    """The annotations of a function of the library; none for other functions, which Python checks."""
    target = _target(selector)
    if not str(getattr(target, "__module__", "")).startswith("lmirl_jax."):
        return {}
    return arguments.annotations(target)


def _target(selector: str) -> Any:
    """The function or class that gin calls by this name."""
    return getattr(gin.config._REGISTRY.get_match(selector), "wrapped", None)


def _required_parameters(target: Any) -> list[str]:
    """The parameters without which a function cannot be called."""
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        return []
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is inspect.Parameter.empty and p.kind not in variadic]


def _name(scope: str, selector: str) -> str:
    return f"{scope}/{_short(selector)}" if scope else _short(selector)


def _short(selector: str) -> str:
    """A selector in the form of gin files: the module that they import, and the function."""
    return ".".join(selector.split(".")[-2:])
