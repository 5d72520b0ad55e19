"""Reads annotations: whether a value fits one, and a description of the values that fit.

An annotation is a type, to which `Annotated` adds rules. `lmirl_jax.arguments` defines the annotations that signatures use.
"""

import collections.abc
import dataclasses
import math
import types
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import jax
import jaxtyping
import numpy as np

from lmirl_jax.types import Objective, SoftQ

UNKNOWN = object()
"""A value that is not known yet; it fits every annotation."""


class Rule:
    """Metadata of an annotation: a condition on values of the right type."""

    def describe(self, base: str) -> str:
        """A description of the values that fit, from the description of their type."""
        return base

    def holds(self, value: Any) -> bool:
        raise TypeError("a rule of an annotation says what holds")


@dataclasses.dataclass(frozen=True)
class Within(Rule):
    """Bounds of a number; an open bound is excluded."""

    low: float
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def describe(self, base: str) -> str:
        if self.high == math.inf:
            return f"{base} above {self.low:g}" if self.open_low else f"{base} of {self.low:g} or more"
        below = "below " if self.open_high else ""
        above = (
            f"above {self.low:g} and at most" if self.open_low else f"from {self.low:g} to {below}".rstrip()
        )
        return f"{base} {above} {self.high:g}"

    def holds(self, value: Any) -> bool:
        if isinstance(value, (float, np.floating)):
            # Devices compute in float32, where 0.99999999 is 1.
            value = np.float32(value)
        above = value > self.low if self.open_low else value >= self.low
        return bool(above and (value < self.high if self.open_high else value <= self.high))


@dataclasses.dataclass(frozen=True)
class Words(Rule):
    """A condition with its own description, which replaces that of the type."""

    words: str
    condition: Callable[[Any], bool]

    def describe(self, base: str) -> str:
        return self.words

    def holds(self, value: Any) -> bool:
        return self.condition(value)


@dataclasses.dataclass(frozen=True)
class Is(Rule):
    """The annotation that a value must fit, where the type checker sees `Any`."""

    hint: Any

    def describe(self, base: str) -> str:
        return describe(self.hint)

    def holds(self, value: Any) -> bool:
        return fits(value, self.hint)


@dataclasses.dataclass(frozen=True)
class GivenByCaller(Rule):
    """Marks an argument that every caller of the function passes, so that binding it in a gin file would have no effect."""

    def holds(self, value: Any) -> bool:
        return True


def given_by_caller(hint: Any) -> bool:
    """Whether every caller of the function passes such an argument, so that no gin file can set it."""
    return is_array(hint) or hint is SoftQ or any(isinstance(rule, GivenByCaller) for rule in _rules(hint))


def takes_functions(hint: Any) -> bool:
    """Whether functions fit such an annotation."""
    return any(_origin(part) in (collections.abc.Callable, Objective) for part in _alternatives(hint))


def describe(hint: Any) -> str:
    """A description of the values that fit: `a whole number of 1 or more, or None`."""
    parts = [_describe_one(part) for part in _alternatives(hint)]
    parts = list(dict.fromkeys(parts))
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])}, or {parts[-1]}"


def expectation(value: Any, hint: Any) -> str:
    """A description of the values that fit, for an error about this value, which does not fit."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return describe(hint) + (" (float32 does not hold this one)" if number and not _is_float32(value) else "")


def fits(value: Any, hint: Any) -> bool:
    """Whether a value has the type of an annotation, and is finite and within its bounds in float32, in which devices compute.

    Containers are checked item by item. Every value fits an annotation that cannot be checked.
    """
    if value is UNKNOWN or hint is Any:
        return True
    return any(_fits_one(value, part) for part in _alternatives(hint))


def _alternatives(hint: Any) -> tuple[Any, ...]:
    """The members of a union, flattened; another type is its only member."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return tuple(part for member in typing.get_args(hint) for part in _alternatives(member))
    return (hint,)


def _rules(hint: Any) -> list[Rule]:
    metadata = typing.get_args(hint)[1:] if typing.get_origin(hint) is Annotated else ()
    return [rule for rule in metadata if isinstance(rule, Rule)]


def _origin(hint: Any) -> Any:
    if typing.get_origin(hint) is Annotated:
        return _origin(typing.get_args(hint)[0])
    return typing.get_origin(hint) or hint


def is_array(hint: Any) -> bool:
    """Whether an annotation has only array types: such arguments are data, not settings."""
    return all(
        isinstance(part, type) and issubclass(part, (jaxtyping.AbstractArray, jax.Array))
        for part in _alternatives(hint)
    )


def _describe_one(hint: Any) -> str:
    if typing.get_origin(hint) is Annotated:
        words = _describe_one(typing.get_args(hint)[0])
        for rule in _rules(hint):
            words = rule.describe(words)
        return words
    if typing.get_origin(hint) is Literal:
        return " or ".join(repr(choice) for choice in typing.get_args(hint))
    arguments = typing.get_args(hint)
    plain: dict[Any, str] = {
        type(None): "None",
        bool: "True or False",
        int: "a whole number",
        float: "a number",
        str: "a text in quotes",
        collections.abc.Callable: "a function",
    }
    origin = typing.get_origin(hint) or hint
    if origin in plain:
        return plain[origin]
    if origin in (collections.abc.Sequence, list, tuple):
        return f"a list, each item {describe(arguments[0])}" if arguments else "a list"
    if origin in (collections.abc.Mapping, dict):
        return "a dictionary" + (f", each value {describe(arguments[1])}" if arguments else "")
    return f"a {getattr(origin, '__name__', str(origin))}"


def _fits_one(value: Any, hint: Any) -> bool:
    if typing.get_origin(hint) is Annotated:
        base, *_ = typing.get_args(hint)
        return fits(value, base) and all(rule.holds(value) for rule in _rules(hint))
    origin, arguments = typing.get_origin(hint) or hint, typing.get_args(hint)
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in arguments)
    if origin is type(None):
        return value is None
    if origin in (bool, int, float, str):
        return _fits_scalar(value, origin)
    if origin is collections.abc.Callable:
        return callable(value)
    if origin in (collections.abc.Sequence, list, tuple):
        item = arguments[0] if arguments else Any
        return isinstance(value, (list, tuple)) and all(fits(part, item) for part in value)
    if origin in (collections.abc.Mapping, dict):
        return isinstance(value, Mapping) and _fits_items(value, arguments)
    return _is_instance(value, origin)


def _fits_items(value: Mapping[Any, Any], arguments: tuple[Any, ...]) -> bool:
    key, item = arguments if len(arguments) == 2 else (Any, Any)
    return all(fits(name, key) and fits(part, item) for name, part in value.items())


def _fits_scalar(value: Any, kind: type) -> bool:
    if kind is bool:
        return isinstance(value, (bool, np.bool_))
    if kind is str:
        return isinstance(value, str)
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer, float, np.floating)):
        return False
    if kind is int:
        # Counts are int32 on devices; seeds are the only whole numbers that may be larger.
        return isinstance(value, (int, np.integer)) and abs(int(value)) < 2**32
    return _is_float32(value)


def _is_float32(value: Any) -> bool:
    """Whether float32 holds a number: it is finite, and not so small that devices flush it to 0."""
    limits = np.finfo(np.float32)
    try:
        size = abs(float(value))
    except OverflowError:
        return False
    return size == 0 or float(limits.tiny) <= size <= float(limits.max)


def _is_instance(value: Any, kind: Any) -> bool:
    if is_array(kind):
        return hasattr(value, "shape") and hasattr(value, "dtype")
    if not isinstance(kind, type):
        return True
    if getattr(kind, "_is_protocol", False):
        if not getattr(kind, "_is_runtime_protocol", False):
            return True
        # A class has the methods of its instances but is not one of them: the gin file lacks brackets.
        return not isinstance(value, type) and isinstance(value, kind)
    return isinstance(value, kind)
