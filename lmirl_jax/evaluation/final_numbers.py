"""The number that a worked answer ends with, as GSM8K writes it, or as a model may."""

import collections
import re
from fractions import Fraction

# The most characters of a number; a longer one does not count.
MAX_LENGTH = 100

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

    The strict reading takes the number directly after the last `####`, as in GSM8K's own answers. Where there is none, the
    lenient reading takes the last number in the last `\boxed{}`, or else the last number of the text. These are the readings
    of lm-evaluation-harness, `strict-match` and `flexible-extract`.

    Both accept a minus as `-` and as U+2212, `$` before or after it, commas (all are ignored), decimals, `1/2`, `2 1/2`,
    `\frac{1}{2}` and `1e3`; they ignore what follows, such as a period, `%` or a unit.

    Args:
        answer: the text.
        lenient: whether to use the lenient reading.

    Returns:
        The exact value; None where there is no number, where it divides by zero, or where it has more than 100 characters.
    """
    text = _FRACTION.sub(r"\1/\2", answer.replace("\u2212", "-").replace("{,}", ",").replace("\\!", ""))
    _, mark, after = text.rpartition(_MARK)
    match = _NUMBER.match(after.lstrip()) if mark else None
    if match is None and lenient:
        boxed = _BOXED.findall(text)
        match = (_last_number(boxed[-1]) if boxed else None) or _last_number(text)
    return None if match is None else _value(match)


def _last_number(text: str) -> re.Match[str] | None:
    matches = collections.deque(_NUMBER.finditer(text), maxlen=1)
    return matches[0] if matches else None


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
