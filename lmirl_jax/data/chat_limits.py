"""Limits of chat templates, which are programs of strangers: each rendering ends after bounded steps in bounded memory.

Operators, functions and filters that may make much of little are judged before they run; `chat_tree` measures the rest.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

# The steps of all loops and macros of a rendering; the largest text or list, and all of them together, in characters.
MAX_STEPS = 1_000_000
STEPS_OF_A_MACRO = 10
MAX_SIZE = 2**26
_MAX_WORK = 2**31
# An item of a list counts as this number of characters.
_ITEM = 64
# The largest whole number, in bits: what Python writes as a text without complaint.
_MAX_BITS = 12_000
# The name of the budget among a template's variables; no template can write it.
BUDGET = "0budget"

# Widths and precisions of more than a million; widths that an argument gives.
_WIDE = re.compile(r"%[-+ #0.\d]*(?:\d{7}|\*)|\{[^{}]*:[^{}]*(?:\d{7}|\{)")


class Budget:
    """What is left of the steps and of the work of one rendering."""

    def __init__(self) -> None:
        self._steps, self._work = MAX_STEPS, _MAX_WORK

    def count(self, items: Iterable[Any]) -> Iterator[Any]:
        """The items of a loop, each of which is a step."""
        for item in items:
            self._steps -= 1
            if self._steps < 0:
                self.step()
            yield item

    def step(self, count: int = 1) -> None:
        self._steps -= count
        if self._steps < 0:
            raise OverflowError(f"loops of more than {MAX_STEPS} steps in all")

    def measure(self, value: Any, deep: bool = False) -> Any:
        """Returns a value, unless it is too large; the size of all values together is limited too."""
        size = _deep_size(value) if deep else _size(value)
        check_size(size)
        self._spend(size)
        return value

    def range(self, *args: int) -> range:
        """The function `range`; a filter may make a list of it."""
        numbers = range(*args)
        if len(numbers) > MAX_STEPS:
            raise OverflowError(f"loops of more than {MAX_STEPS} steps in all")
        self._spend(_ITEM * len(numbers))
        return numbers

    def _spend(self, work: int) -> None:
        self._work -= work
        if self._work < 0:
            raise OverflowError("texts and lists that are too long in all")


def check_operation(operator: str, left: Any, right: Any) -> None:
    """Raises an OverflowError for an operation whose result is too large."""
    if operator == "%" and isinstance(left, str):
        check_format(left)
    if operator == "**" and max(abs(left), abs(right)) > 1000:
        raise OverflowError("a power of a number above 1000, or by one, is too large")
    if operator == "+" and isinstance(left, (str, list, tuple)) and isinstance(right, (str, list, tuple)):
        check_size(_size(left) + _size(right))
    if operator != "*":
        return
    if (
        isinstance(left, int)
        and isinstance(right, int)
        and left.bit_length() + right.bit_length() > _MAX_BITS
    ):
        raise OverflowError("a number of too many digits")
    for sequence, times in ((left, right), (right, left)):
        if isinstance(sequence, (str, list, tuple)) and len(sequence) * times > MAX_STEPS:
            raise OverflowError(f"a sequence of more than {MAX_STEPS} elements")


def check_method(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Raises an OverflowError for a method of a text or a number whose result would be too large."""
    value, name = getattr(function, "__self__", None), getattr(function, "__name__", "")
    if not isinstance(value, (str, bytes, int)):
        return
    values = [*args, *kwargs.values()]
    if any(isinstance(each, int) and abs(each) > MAX_STEPS for each in values):
        raise OverflowError(f"{name} with a number above {MAX_STEPS}")
    if isinstance(value, str):
        _check_text_method(value, name, values)


def check_filter(name: str, value: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Raises an OverflowError for a filter whose result would be too large."""
    values = [*args, *kwargs.values()]
    if any(isinstance(each, (int, float)) and abs(each) > MAX_STEPS for each in values):
        raise OverflowError(f"the filter {name} with a number above {MAX_STEPS}")
    if name == "indent":
        width = max(
            [
                4,
                *(
                    each if isinstance(each, int) else len(each)
                    for each in values
                    if isinstance(each, (int, str))
                ),
            ]
        )
        check_size((str(value).count("\n") + 1) * width)
    elif name == "tojson":
        check_size(_deep_size(value) * max([1, *(each for each in values if isinstance(each, int))]))
    elif name in ("join", "replace", "format"):
        _check_text_method(
            str(args[0]) if name == "join" and args else str(value),
            name,
            [value] if name == "join" else values,
        )


def check_size(size: int) -> None:
    if size > MAX_SIZE:
        raise OverflowError(
            f"a text of more than {MAX_SIZE} characters, or a list of more than {MAX_SIZE // _ITEM} items"
        )


def _check_text_method(text: str, name: str, values: Sequence[Any]) -> None:
    """Of `join`, `text` is what stands between the parts."""
    if name in ("format", "format_map"):
        check_format(text)
    elif name == "replace" and len(values) > 1:
        check_size(len(text) + text.count(str(values[0])) * len(str(values[1])))
    elif name == "join" and values and isinstance(values[0], (str, list, tuple, dict)):
        check_size(_deep_size(values[0]) + len(values[0]) * len(text))
    elif name == "expandtabs":
        check_size(
            len(text) + text.count("\t") * max([8, *(each for each in values if isinstance(each, int))])
        )
    elif name == "translate" and values and isinstance(values[0], dict):
        check_size(len(text) * max([1, *(_size(each) for each in values[0].values())]))


def check_format(text: str) -> None:
    """Raises an OverflowError for a format that may make a long text of a short one."""
    if _WIDE.search(text):
        raise OverflowError("a format with a width of a million or more, or one that an argument gives")


def _size(value: Any) -> int:
    if isinstance(value, (str, bytes)):
        return len(value)
    return _ITEM * len(value) if isinstance(value, (list, tuple, dict)) else 1


def _deep_size(value: Any) -> int:
    """The characters and items in a value, counted up to the largest size."""
    total, waiting = 0, [value]
    while waiting and total <= MAX_SIZE:
        each = waiting.pop()
        total += 1
        if isinstance(each, (str, bytes)):
            total += len(each)
        elif isinstance(each, dict):
            total += _ITEM * len(each)
            waiting += [*each.keys(), *each.values()] if total <= MAX_SIZE else []
        elif isinstance(each, (list, tuple)):
            total += _ITEM * len(each)
            waiting += each if total <= MAX_SIZE else []
    return total
