"""What an argument may be, declared in its annotation and judged in one place.

A signature says `batch_size: Count` or `clip_norm: Positive | None`. `checked` refuses on each call what does not fit, and
`lmirl_jax.configuration` judges by the same rules what gin files bind, before anything runs.
"""

import collections.abc
import dataclasses
import functools
import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, TypeVar

import jax
import jaxtyping
import numpy as np

from lmirl_jax import types as arrays
from lmirl_jax.types import Objective, SoftQ, UserError

_Target = TypeVar("_Target", bound=Callable[..., Any])
OBJECTIVE_ARRAYS = ("discounts", "td_weight", "mle_weight", "penalty_weight", "rewards")
UNKNOWN = object()
"""Stands for a value that is not known yet, and fits everywhere."""


class Rule:
    """Metadata of an annotation: what a value of the right type must fulfil as well."""

    def describe(self, base: str) -> str:
        """The words for a value that fits, given those for its type."""
        return base

    def holds(self, value: Any) -> bool:
        raise TypeError("a rule of an annotation says what holds")


@dataclasses.dataclass(frozen=True)
class Within(Rule):
    """Bounds of a number; an open bound is not itself within."""

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
            value = np.float32(value)  # 0.99999999 is 1 there.
        above = value > self.low if self.open_low else value >= self.low
        return bool(above and (value < self.high if self.open_high else value <= self.high))


@dataclasses.dataclass(frozen=True)
class Words(Rule):
    """A condition with words of its own, which replace those of the type."""

    words: str
    condition: Callable[[Any], bool]

    def describe(self, base: str) -> str:
        return self.words

    def holds(self, value: Any) -> bool:
        return self.condition(value)


@dataclasses.dataclass(frozen=True)
class Is(Rule):
    """What a value that the type checker takes for anything must be."""

    hint: Any

    def describe(self, base: str) -> str:
        return describe(self.hint)

    def holds(self, value: Any) -> bool:
        return fits(value, self.hint)


@dataclasses.dataclass(frozen=True)
class GivenByCaller(Rule):
    """Marks an argument that whoever calls the function always gives: to configure it would have no effect."""

    def holds(self, value: Any) -> bool:
        return True


def _not_empty(value: Any) -> bool:
    return len(value) > 0


def _traces(*shapes: tuple[int, ...], dtype: Any = np.float32) -> Callable[[Any], bool]:
    """The condition that a function takes arrays of these shapes, and returns numbers of the last one's shape."""

    def condition(function: Any) -> bool:
        try:
            out = jax.eval_shape(function, *(jax.ShapeDtypeStruct(shape, dtype) for shape in shapes))
            return out.shape == shapes[-1] and bool(np.issubdtype(out.dtype, np.floating))
        except Exception:
            return False

    return condition


def _is_schedule(function: Any) -> bool:
    """Whether a function of the number of updates gives a finite number at the first of them."""
    if not _traces((), dtype=np.int32)(function):
        return False
    return bool(np.isfinite(function(np.int32(0))))


def trace_objective(function: Callable[..., Any], absent: tuple[str, ...] = ()) -> Any:
    """Calls an objective on shapes of one row of two tokens, with what else it names.

    Args:
        function: the objective.
        absent: fields of the soft Q-values that are not there.

    Returns:
        The shape of the loss.
    """
    array = jax.ShapeDtypeStruct((1, 2), np.float32)
    fields = [field.name for field in dataclasses.fields(SoftQ) if field.name not in absent]
    names = inspect.signature(function).parameters
    given = {name: array for name in OBJECTIVE_ARRAYS if name in names}
    sizes = {"vocab_size": 8} if "vocab_size" in names else {}
    soft_q = SoftQ(**dict.fromkeys(fields, array))
    return jax.eval_shape(lambda soft_q, given: function(soft_q, **given, **sizes), soft_q, given)


def _is_objective(function: Any) -> bool:
    """Whether a function of soft Q-values, and of what else it names, gives a number for each token."""
    try:
        return trace_objective(function).shape == (1, 2)
    except (TypeError, AttributeError, ValueError, UserError):
        return False


def _takes(count: int) -> Callable[[Any], bool]:
    """The condition that a function can be called with that many arguments."""

    def condition(function: Any) -> bool:
        try:
            inspect.signature(function).bind(*range(count))
        except TypeError:
            return False
        except ValueError:  # A builtin without a signature.
            return True
        return True

    return condition


def has_parameter(*names: str) -> Callable[[Any], bool]:
    """The condition that a function names one of these among its arguments."""

    def condition(function: Any) -> bool:
        # Gin's wrapper of a class has another signature than its constructor, which it leaves as it is.
        called = function.__init__ if isinstance(function, type) else function
        try:
            return not set(names).isdisjoint(inspect.signature(called).parameters)
        except (TypeError, ValueError):
            return False

    return condition


Count = Annotated[int, Within(1)]
Whole = Annotated[int, Within(0)]
Seed = Annotated[int, Words(f"a whole number from 0 to {2**32 - 1}", lambda value: 0 <= value < 2**32)]
Positive = Annotated[float, Within(0, open_low=True)]
NonNegative = Annotated[float, Within(0)]
Share = Annotated[float, Within(0, 1)]
PositiveShare = Annotated[float, Within(0, 1, open_low=True)]
ShareBelowOne = Annotated[float, Within(0, 1, open_high=True)]
Text = Annotated[str, Words("a text in quotes", _not_empty)]
Path = Annotated[str, Words("a path in quotes", _not_empty)]
Lengths = Annotated[
    Mapping[str, int],
    Words(
        "{'inputs': 512, 'targets': 256} or other whole numbers of 1 or more for just these two",
        lambda value: set(value) == {"inputs", "targets"} and all(fits(n, Count) for n in value.values()),
    ),
]
Schedule = Annotated[
    arrays.Schedule, Words("a schedule such as @training.constant(), with brackets", _is_schedule)
]
Elementwise = Annotated[
    Callable[..., Any], Words("a function of an array such as @objectives.chi_squared", _traces((3,)))
]
LossFunction = Annotated[
    Objective, Words("a loss of tokens such as @objectives.mle, without brackets", _is_objective)
]
GivenText = Annotated[str, GivenByCaller()]
Corruption = Annotated[
    Callable[..., str],
    Words("a function (inputs, targets, random) such as @rewards.wrong_digit", _takes(3)),
]


class ArgumentError(UserError):
    """An argument that its function cannot take.

    Args:
        function: what it was given to, by its public name.
        parameter: its name there.
        value: the argument.
        expected: what it must be, in words.
    """

    def __init__(self, function: str, parameter: str, value: Any, expected: str):
        super().__init__(f"{function}: {parameter}={show(value)} must be {expected}")
        self.function, self.parameter, self.value, self.expected = function, parameter, value, expected


def checked(target: _Target) -> _Target:
    """A function, or a class at its construction, that refuses arguments which do not fit their annotations.

    Raises:
        ArgumentError: on a call, names the first of them.
    """
    if isinstance(target, type):
        vars(target)["__init__"]  # A class that inherits its own would change that of its parent.
        setattr(target, "__init__", _checking(target.__init__, public_name(target)))  # noqa: B010
        return target
    return typing.cast(_Target, _checking(target, public_name(target)))


def annotations(target: Callable[..., Any]) -> dict[str, Any]:
    """The annotation of each parameter of a function or a class; an unannotated one may be anything."""
    function = target.__init__ if isinstance(target, type) else target
    hints = typing.get_type_hints(function, include_extras=True)
    names = inspect.signature(target).parameters
    return {name: hints.get(name, Any) for name in names}


def public_name(target: Callable[..., Any]) -> str:
    """How gin files and users call a function or a class of the library: `training.adamw`."""
    module = target.__module__.removeprefix("lmirl_jax.")
    return f"{module.split('.')[0]}.{target.__qualname__}"


def show(value: Any) -> str:
    """A value in an error: short, functions by their names as gin writes them."""
    if callable(value) and hasattr(value, "__qualname__"):
        return f"@{value.__qualname__}"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:76]} ..."


def given_by_caller(hint: Any) -> bool:
    """Whether whoever calls the function always gives such an argument, so that no gin file can."""
    return _is_array(hint) or hint is SoftQ or any(isinstance(rule, GivenByCaller) for rule in _rules(hint))


def takes_functions(hint: Any) -> bool:
    """Whether a function itself fits, and not only what it makes."""
    return any(_origin(part) in (collections.abc.Callable, Objective) for part in _alternatives(hint))


def describe(hint: Any) -> str:
    """What fits, in words: `a whole number of 1 or more, or None`."""
    parts = [_describe_one(part) for part in _alternatives(hint)]
    parts = list(dict.fromkeys(parts))
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])}, or {parts[-1]}"


def expectation(value: Any, hint: Any) -> str:
    """What fits, in words, where this value does not."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return describe(hint) + (" (float32 does not hold this one)" if number and not _is_float32(value) else "")


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a type, finite and in its range in the precision that the devices compute in, float32.

    Containers are judged item by item. A hint that says nothing that can be judged takes everything.
    """
    if value is UNKNOWN or hint is Any:
        return True
    return any(_fits_one(value, part) for part in _alternatives(hint))


def _checking(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    signature = inspect.signature(function)

    @functools.cache  # At the first call: annotations may name what is defined further below.
    def judged() -> dict[str, Any]:
        hints = typing.get_type_hints(function, include_extras=True)
        return {key: hint for key, hint in hints.items() if not _is_array(hint) and hint is not SoftQ}

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        hints = judged()
        for key, value in signature.bind(*args, **kwargs).arguments.items():
            if key in hints and not fits(value, hints[key]):
                raise ArgumentError(name, key, value, expectation(value, hints[key]))
        return function(*args, **kwargs)

    setattr(wrapper, "__signature__", signature)  # noqa: B010  # Gin reads it, and does not look below wrappers.
    return wrapper


def _alternatives(hint: Any) -> tuple[Any, ...]:
    """The members of a union, flattened; a type alone is its own only member."""
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


def _is_array(hint: Any) -> bool:
    """Whether a hint speaks of arrays, alone or beside numbers: these are data, not settings."""
    return any(
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
        # Counts are int32 on the devices; a seed is the one whole number that may be larger.
        return isinstance(value, (int, np.integer)) and abs(int(value)) < 2**32
    return _is_float32(value)


def _is_float32(value: Any) -> bool:
    """Whether float32 holds a number as what it is: finite, and not so small that devices take it for 0."""
    limits = np.finfo(np.float32)
    try:
        size = abs(float(value))
    except OverflowError:
        return False
    return size == 0 or float(limits.tiny) <= size <= float(limits.max)


def _is_instance(value: Any, kind: Any) -> bool:
    if _is_array(kind):
        return hasattr(value, "shape") and hasattr(value, "dtype")
    if not isinstance(kind, type):
        return True
    if getattr(kind, "_is_protocol", False):
        if not getattr(kind, "_is_runtime_protocol", False):
            return True
        # A class has the methods of what it makes, and is not it: brackets are missing.
        return not isinstance(value, type) and isinstance(value, kind)
    return isinstance(value, kind)
