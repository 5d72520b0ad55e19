"""The number that a worked answer ends with, as GSM8K writes it, or as a model may."""

import collections
import re
from fractions import Fraction

MAX_LENGTH = 100  # characters of a number; a longer one is none

_DIGITS = r"(?:[0-9][0-9,]*(?:\.[0-9]+)?|\.[0-9]+)"
# A minus after a letter, a digit or a bracket is between two numbers. The dollar may stand before or after the sign.
_NUMBER = re.compile(
    r"(?:(?<![\w)])(?P<minus>-))?(?:\\?\$\s*(?P<inner>-)?)?"
    rf"(?:(?:(?P<whole>[0-9]+)\s+)?(?P<above>{_DIGITS})\s*/\s*(?P<below>{_DIGITS})"
    rf"|(?P<number>{_DIGITS}(?:[eE][-+]?[0-9]{{1,2}}(?![0-9]))?))"
)
_MARK = "####"
_BOXED = re.compile(r"\\boxed\s*\{([^{}]*(?:\{[^{}]*\}[^{}]*)*)\}")
_FRACTION = re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")


def final_number(answer: str, *, lenient: bool = False) -> Fraction | None:
    r"""The number that an answer ends with.

    Strictly it is what stands directly after the last `####`, as in GSM8K's own answers. Leniently, where there is none, it is
    the last number in the last `\boxed{}`, and where there is none, the last number of the text: the two readings of
    lm-evaluation-harness, `strict-match` and `flexible-extract`.

    Both know a minus as `-` and as U+2212, `$` before or after it, commas (all are left out), decimals, `1/2`, `2 1/2`,
    `\frac{1}{2}` and `1e3`; what follows, such as a period, `%` or a unit, is not looked at. Equal values are equal numbers.

    Args:
        answer: the text.
        lenient: which reading.

    Returns:
        The exact value; None where there is none, or a division by zero, or more than 100 characters.
    """
    text = _FRACTION.sub(r"\1/\2", answer.replace("\u2212", "-").replace("{,}", ",").replace("\\!", ""))
    _, mark, after = text.rpartition(_MARK)
    found = _NUMBER.match(after.lstrip()) if mark else None
    if found is None and lenient:
        boxed = _BOXED.findall(text)
        found = (_last(boxed[-1]) if boxed else None) or _last(text)
    return None if found is None else _value(found)


def _last(text: str) -> re.Match[str] | None:
    found = collections.deque(_NUMBER.finditer(text), maxlen=1)
    return found[0] if found else None


def _value(match: re.Match[str]) -> Fraction | None:
    if len(match[0]) > MAX_LENGTH:
        return None
    sign = -1 if bool(match["minus"]) != bool(match["inner"]) else 1
    if match["number"]:
        return sign * _plain(match["number"])
    below = _plain(match["below"])
    if not below:
        return None
    return sign * (_plain(match["whole"] or "0") + _plain(match["above"]) / below)


def _plain(digits: str) -> Fraction:
    return Fraction(digits.replace(",", ""))
