"""Judges what gin files bind against the annotations of what they bind it to, before anything runs.

A value that a reference with brackets still has to make is judged where it arrives, by `arguments.checked`; the error is
then told in the same words.
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


class _Bound(NamedTuple):
    """A value without references: the macro that holds it, if one does, and the value."""

    macro: str | None
    value: Any


def bindings() -> dict[tuple[str, str], dict[str, Any]]:
    """What is bound now, by scope and selector: kept, it says later what a flag has replaced."""
    return {key: dict(parameters) for key, parameters in gin.config._CONFIG.items()}


def check(before: Bindings, complete: bool) -> None:
    """Raises a UserError for the first value that its parameter cannot take.

    Args:
        before: the bindings of the gin files alone, whose values serve as examples.
        complete: whether nothing else will be bound, so that a function which is called has all its arguments.
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
    # They are tried out with what is bound to them, so these values come first.
    for place, value in functions:
        _check_one(place, value, before)


def check_macro(name: str, value: Any, hint: Any) -> None:
    """Raises a UserError for a macro that a command reads itself, where the value does not fit."""
    if not argument_rules.fits(value, hint):
        raise UserError(_line(name, arguments.show(value), argument_rules.expectation(value, hint), "", None))


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Within it, an argument that its function refuses is told by the name under which gin files set it."""
    try:
        yield
    except arguments.ArgumentError as error:
        for (scope, selector), parameters in gin.config._CONFIG.items():
            same = selector.rpartition(".")[2] == error.function.rpartition(".")[2]
            if same and error.parameter in parameters:
                name, place = _names((scope, selector, error.parameter), parameters[error.parameter])
                shown = arguments.show(error.value)
                raise UserError(_line(name, shown, error.expected, place, None)) from None
        raise


def _check_one(place: tuple[str, str, str], value: Any, before: Bindings) -> None:
    _, selector, parameter = place
    hint = _hints(selector).get(parameter, Any)
    name, where = _names(place, value)
    if argument_rules.given_by_caller(hint):
        raise UserError(
            f"{name} has no effect: the caller of {_short(selector)} gives {parameter}; leave it out"
        )
    bound = _resolve(value)
    if argument_rules.fits(bound.value, hint):
        return
    expected = argument_rules.expectation(bound.value, hint)
    shown = arguments.show(bound.value) if not _references_in(value) else repr(_raw(value))
    if callable(bound.value) and not argument_rules.takes_functions(hint):
        raise UserError(
            f"{name}={shown} is a function, and {parameter} of {_short(selector)} must be {expected}: with brackets, "
            f"{shown}(), it is what the function makes"
        )
    raise UserError(_line(name, shown, expected, where, _example(place, name, hint, before)))


def _check_calls(where: str, scope: str, selector: str, value: Any) -> None:
    """Raises a UserError for a reference with brackets to a function that lacks arguments."""
    for reference in _references(value):
        if not reference.evaluate or reference.selector.startswith("gin."):
            continue
        target = gin.config._REGISTRY.get_match(reference.selector)
        assert target is not None  # Gin has resolved the reference.
        given = {
            name
            for (_, other), parameters in gin.config._CONFIG.items()
            if other == target.selector
            for name in parameters
        }
        missing = [name for name in _required(target.wrapped) if name not in given]
        if missing:
            name = scope if selector == MACRO else where
            shown = f"@{reference.scoped_selector}"
            raise UserError(
                f"{name}={shown}() calls {_short(target.selector)} without {' and '.join(missing)}: leave the brackets "
                f"out, {shown}, for the function itself, or bind what is missing"
            )


def _names(place: tuple[str, str, str], value: Any) -> tuple[str, str]:
    """What a user sets to change a value, and where it goes: the macro that holds it, else the parameter itself."""
    scope, selector, parameter = place
    macro = _resolve(value).macro
    if macro is None:
        return f"{_name(scope, selector)}.{parameter}", ""
    return macro, f" ({parameter} of {_short(selector)})"


def _line(name: str, shown: str, expected: str, where: str, example: str | None) -> str:
    remedy = f"--gin.{name}=VALUE" if example is None else f"--gin.{name}={example}"
    such = "set" if example is None else "set it, for example"
    return f"{name}={shown} must be {expected}{where}: {such} {remedy}"


def _example(place: tuple[str, str, str], name: str, hint: Any, before: Bindings) -> str | None:
    """A value that fits: what the gin files had, else the parameter's default."""
    scope, selector, parameter = place
    key = ((name, MACRO), "value") if (name, MACRO) in before else ((scope, selector), parameter)
    default = inspect.signature(_target(selector)).parameters[parameter].default
    for value in (before.get(key[0], {}).get(key[1], default), default):
        bound = _resolve(value)
        if (
            value is inspect.Parameter.empty
            or bound.value is None
            or not argument_rules.fits(bound.value, hint)
        ):
            continue
        text = repr(_raw(value))
        if "gin.REQUIRED" not in text and " at 0x" not in text:
            return f'"{text}"' if set(text) & set("'()[]{}@% ") else text
    return None


def _raw(value: Any) -> Any:
    """Follows macros to the value as a file has it, references and all."""
    while isinstance(value, gin.config.ConfigurableReference) and value.selector == MACRO:
        held = gin.config._CONFIG.get(("/".join(value.scopes), MACRO), {})
        if "value" not in held:
            return value
        value = held["value"]
    return value


def _references_in(value: Any) -> bool:
    return any(True for _ in _references(_raw(value)))


def _resolve(value: Any, macro: str | None = None) -> _Bound:
    """Follows macros to the value; what is only made when it is asked for is `argument_rules.UNKNOWN`."""
    if isinstance(value, gin.config.ConfigurableReference):
        if value.selector == MACRO:
            name = "/".join(value.scopes)
            held = gin.config._CONFIG.get((name, MACRO), {})
            return _resolve(held["value"], name) if "value" in held else _Bound(name, argument_rules.UNKNOWN)
        if value.evaluate or value.selector.startswith("gin."):
            return _Bound(macro, argument_rules.UNKNOWN)
        function = copy.deepcopy(value)
        # Gin's wrapper of a class hides the arguments of its constructor.
        return _Bound(macro, _target(value.selector) if isinstance(function, type) else function)
    if isinstance(value, (list, tuple)):
        return _Bound(macro, type(value)(_resolve(item).value for item in value))
    if isinstance(value, dict):
        return _Bound(macro, {_resolve(key).value: _resolve(item).value for key, item in value.items()})
    return _Bound(macro, value)


def _references(value: Any) -> Iterator[gin.config.ConfigurableReference]:
    """The references in a value that are not followed through macros, which are bindings of their own."""
    return gin.config.iterate_references({("", ""): {"": value}})


def _hints(selector: str) -> Mapping[str, Any]:
    """The annotations of the library's own functions; others are left to Python."""
    target = _target(selector)
    if not str(getattr(target, "__module__", "")).startswith("lmirl_jax."):
        return {}
    return arguments.annotations(target)


def _target(selector: str) -> Any:
    """The function or class that gin calls by this name."""
    return getattr(gin.config._REGISTRY.get_match(selector), "wrapped", None)


def _required(target: Any) -> list[str]:
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
    """A selector as gin files write it: the module that they import, and the function."""
    return ".".join(selector.split(".")[-2:])
