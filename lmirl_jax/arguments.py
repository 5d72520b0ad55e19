"""Rules for arguments, which annotations declare and this file checks.

A signature says `batch_size: Count` or `clip_norm: Positive | None`. The decorator `check_arguments` refuses arguments that do
not fit at each call, and `lmirl_jax.configuration` checks the values in gin files by the same rules, before anything runs.
"""

import dataclasses
import functools
import inspect
import re
import traceback
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

import jax
import numpy as np

from lmirl_jax import types as arrays
from lmirl_jax.argument_rules import GivenByCaller, Within, Words, expectation, fits, is_array
from lmirl_jax.types import Objective, SoftQ, UserError

_Target = TypeVar("_Target", bound=Callable[..., Any])
OBJECTIVE_ARRAYS = ("discounts", "td_weight", "mle_weight", "penalty_weight", "rewards")


def _are_patterns(value: Any) -> bool:
    """Whether all of these texts are regular expressions."""
    try:
        return all(re.compile(text) for text in value)
    except (re.error, RecursionError, OverflowError):
        return False


def _is_range(value: Any) -> bool:
    """Whether these are none, or the first and the last of several steps."""
    return len(value) == 0 or (len(value) == 2 and 1 <= value[0] <= value[1])


def _not_empty(value: Any) -> bool:
    return len(value) > 0


def _try_out(function: Callable[..., Any], call: Callable[[], Any]) -> Any:
    """The result of a trial call of a function; None where a function of the library refuses its arguments.

    Raises:
        UserError: a function that a user wrote raises an exception; says which, and where in its file.
    """
    try:
        return call()
    except Exception as error:
        if str(getattr(function, "__module__", "")).startswith("lmirl_jax."):
            return None
        code = getattr(inspect.unwrap(function), "__code__", None)
        frames = traceback.extract_tb(error.__traceback__)
        places = [frame for frame in frames if code is not None and frame.filename == code.co_filename]
        place = f" ({places[-1].filename}, line {places[-1].lineno})" if places else ""
        what = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        raise UserError(f"{show(function)} raised {what}{place} when it was tried out on arrays") from error


def _traces(*shapes: tuple[int, ...], dtype: Any = np.float32) -> Callable[[Any], bool]:
    """The condition that a function takes arrays of these shapes, and returns numbers in the shape of the last one."""

    def condition(function: Any) -> bool:
        arguments = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]
        out = _try_out(function, lambda: jax.eval_shape(function, *arguments))
        return getattr(out, "shape", None) == shapes[-1] and bool(np.issubdtype(out.dtype, np.floating))

    return condition


def _is_schedule(function: Any) -> bool:
    """Whether a function of the number of updates returns a finite number at 0."""
    if not _traces((), dtype=np.int32)(function):
        return False
    return bool(np.isfinite(function(np.int32(0))))


def trace_objective(function: Callable[..., Any], absent: tuple[str, ...] = ()) -> Any:
    """Traces an objective on one row of two tokens, with the arrays that its arguments name.

    Args:
        function: the objective.
        absent: fields of the soft Q-values that are None.

    Returns:
        The shape of the loss.
    """
    array = jax.ShapeDtypeStruct((1, 2), np.float32)
    fields = [field.name for field in dataclasses.fields(SoftQ) if field.name not in absent]
    names = inspect.signature(function).parameters
    named_arrays = {name: array for name in OBJECTIVE_ARRAYS if name in names}
    sizes = {"vocab_size": 8} if "vocab_size" in names else {}
    soft_q = SoftQ(**dict.fromkeys(fields, array))
    return jax.eval_shape(
        lambda soft_q, named_arrays: function(soft_q, **named_arrays, **sizes), soft_q, named_arrays
    )


def _is_objective(function: Any) -> bool:
    """Whether a function of soft Q-values, and of the arrays that its arguments name, returns a number for each token."""
    return getattr(_try_out(function, lambda: trace_objective(function)), "shape", None) == (1, 2)


def takes(count: int) -> Callable[[Any], bool]:
    """The condition that a function can be called with this many arguments."""

    def condition(function: Any) -> bool:
        try:
            inspect.signature(function).bind(*range(count))
        except TypeError:
            return False
        except ValueError:
            # Some builtin functions have no signature.
            return True
        return True

    return condition


def has_parameter(*names: str) -> Callable[[Any], bool]:
    """The condition that a function has a parameter with one of these names."""

    def condition(function: Any) -> bool:
        # Gin's wrapper of a class has another signature than the constructor, which gin leaves unchanged.
        target = function.__init__ if isinstance(function, type) else function
        try:
            return not set(names).isdisjoint(inspect.signature(target).parameters)
        except (TypeError, ValueError):
            return False

    return condition


# The most tokens of a prompt or an answer that can be asked for, 16 million; more is a slip of the keyboard.
LONGEST_ROW = 2**24
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
Patterns = Annotated[Sequence[str], Words("a list of regular expressions", _are_patterns)]
Steps = Annotated[Sequence[int], Words("the first and the last step, such as [10, 12], or []", _is_range)]
Lengths = Annotated[
    Mapping[str, int],
    Words(
        f"{{'inputs': 512, 'targets': 256}} or other whole numbers from 1 to {LONGEST_ROW:,} for just these two",
        lambda value: (
            set(value) == {"inputs", "targets"}
            and all(fits(n, Count) and n <= LONGEST_ROW for n in value.values())
        ),
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
    Words("a function (inputs, targets, random) such as @rewards.wrong_digit", takes(3)),
]


class ArgumentError(UserError):
    """An argument that its function cannot take.

    Args:
        function: the public name of the function.
        parameter: the name of the parameter.
        value: the argument.
        expected: a description of the arguments that fit.
    """

    def __init__(self, function: str, parameter: str, value: Any, expected: str):
        super().__init__(f"{function}: {parameter}={show(value)} must be {expected}")
        self.function, self.parameter, self.value, self.expected = function, parameter, value, expected


def check_arguments(target: _Target) -> _Target:
    """Makes a function, or the constructor of a class, refuse arguments that do not fit their annotations.

    Raises:
        ArgumentError: at a call; it names the first argument that does not fit.
    """
    if isinstance(target, type):
        # A class without a constructor of its own must fail here: it would change the constructor of its parent.
        vars(target)["__init__"]
        setattr(target, "__init__", _add_checks(target.__init__, public_name(target)))  # noqa: B010
        return target
    return typing.cast(_Target, _add_checks(target, public_name(target)))


@functools.cache
def annotations(target: Callable[..., Any]) -> Mapping[str, Any]:
    """The annotation of each parameter of a function or a class; an unannotated one may be anything."""
    function = target.__init__ if isinstance(target, type) else target
    hints = typing.get_type_hints(function, include_extras=True)
    names = inspect.signature(target).parameters
    return {name: hints.get(name, Any) for name in names}


def public_name(target: Callable[..., Any]) -> str:
    """The name of a function or class of the library in gin files: `training.adamw`."""
    module = target.__module__.removeprefix("lmirl_jax.")
    return f"{module.split('.')[0]}.{target.__qualname__}"


def show(value: Any) -> str:
    """A value for error messages: short, and a function by its name in gin files."""
    if callable(value) and hasattr(value, "__qualname__"):
        return f"@{value.__qualname__}"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:76]} ..."


def _add_checks(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    signature = inspect.signature(function)

    # The annotations are read at the first call, because they may name classes that the file defines further below.
    @functools.cache
    def hints_to_check() -> dict[str, Any]:
        hints = typing.get_type_hints(function, include_extras=True)
        return {key: hint for key, hint in hints.items() if not is_array(hint) and hint is not SoftQ}

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        hints = hints_to_check()
        for key, value in signature.bind(*args, **kwargs).arguments.items():
            if key in hints and not fits(value, hints[key]):
                raise ArgumentError(name, key, value, expectation(value, hints[key]))
        return function(*args, **kwargs)

    # Gin reads the signature of the wrapper, and does not look at the function below it.
    setattr(wrapper, "__signature__", signature)  # noqa: B010
    return wrapper
