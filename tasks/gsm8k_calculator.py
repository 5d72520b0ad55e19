"""GSM8K's calculator: the annotations `<<48/2=24>>` of an answer computed anew, and what they say corrected."""

import math
import re
from collections.abc import Mapping
from fractions import Fraction

# Beyond these an expression is no calculation of a word problem and has no value: nothing hangs, nothing overflows.
MAX_LENGTH = 200  # characters of an expression
MAX_DEPTH = 20  # of brackets, signs and powers within one another
MAX_POWER = 64  # the largest exponent, of either sign
MAX_BITS = 512  # of a value's numerator and denominator
DECIMALS = 10  # of a corrected result at most

_NUMBER = r"(?:[0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?|\.[0-9]+)"
_TOKEN = re.compile(rf"\s*({_NUMBER}\.?|\*\*|//|[-+*/^()%])")
# An annotation, and the number directly after it, which usually says the result again.
_ANNOTATION = re.compile(rf"<<([^<>\n=]*)=([^<>\n=]*)>>(?:(\s*(?:\$\s*)?)(-?{_NUMBER}))?")
_FINAL = re.compile(rf"(####\s*)([-\u2212]?)(\$\s*)?([-\u2212]?)({_NUMBER})")


def with_calculator(answer: str) -> str:
    """A finished GSM8K answer as it would say what it says with a calculator at hand.

    Annotations `<<expression=result>>` are worked through from left to right. Where the expression has a value and the
    result is another, then

    - the result is replaced by the value (10 decimals at most);
    - so is the number directly after the annotation, if it says the same as the old result: in `<<48/2=25>>25`,
      `<<48/2=25>> $25`;
    - so is that number in the expressions of later annotations, which are computed with the value, and after the last
      `####`; until an annotation's result is that number again, which then means the newer one.

    A result of the same value stays as it is written (`24.00`), and so does a correct rounding of a value without end
    (`<<10/3=3.33>>`). Expressions without a value (see `calculate`) and all other text stay as they are: an answer whose
    results are right comes back unchanged.

    Source: Cobbe et al., https://arxiv.org/abs/2110.14168, whose calculator acts while the model writes; carrying a
    result on by its number is what Wei et al., https://arxiv.org/abs/2201.11903, do with finished answers.
    """
    corrections: dict[Fraction, Fraction] = {}
    worked = _ANNOTATION.sub(lambda match: _recalculated(match, corrections), answer)
    start = worked.rfind("####")
    if start < 0:
        return worked
    return worked[:start] + _FINAL.sub(lambda match: _corrected_final(match, corrections), worked[start:])


def calculate(expression: str, corrections: Mapping[Fraction, Fraction] | None = None) -> Fraction | None:
    """The exact value of an arithmetic expression, or None where it has none.

    It knows decimal numbers (with commas between thousands too), `+ - * / //`, `**` and `^`, brackets, signs and a percent
    sign after a number, with the usual precedence, and nothing else: no names, no calls, nothing is executed.

    Args:
        expression: such as `(16-3-4)*2`.
        corrections: numbers that stand for others.

    Returns:
        The value; None for what is no expression, divides by zero, or goes beyond this file's limits.
    """
    if len(expression) > MAX_LENGTH:
        return None
    try:
        return _Parser(expression, corrections or {}).value()
    except _NoValueError:
        return None


def _recalculated(match: re.Match[str], corrections: dict[Fraction, Fraction]) -> str:
    """The annotation with what follows it; a wrong result is noted among the corrections."""
    expression, result, space, repeated = match.groups()
    value, written = calculate(expression, corrections), calculate(result)
    shown = re.sub(_NUMBER, lambda number: _corrected(number[0], corrections, brackets=True), expression)
    if written is not None:
        corrections.pop(written, None)
    if value is None:
        return match[0]
    own: dict[Fraction, Fraction] = {}
    if written is None or not _says(result, written, value):
        result = number_text(value)
        own = {} if written is None else {written: value}
        corrections.update(own)
    again = "" if repeated is None else space + _corrected(repeated, own)
    return f"<<{shown}={result}>>{again}"


def _corrected_final(match: re.Match[str], corrections: Mapping[Fraction, Fraction]) -> str:
    """The number after `####`, whose sign may stand before or after a dollar."""
    before, minus, dollar, inner, digits = match.groups()
    number = f"-{digits}" if minus or inner else digits
    corrected = _corrected(number, corrections)
    return match[0] if corrected == number else f"{before}{dollar or ''}{corrected}"


def _says(text: str, written: Fraction, value: Fraction) -> bool:
    """Whether a written result is the value, or the rounding of one without end to the decimals written."""
    endless = pow(10, MAX_BITS, value.denominator) != 0
    return written == value or (endless and written == round(value, len(text.strip().partition(".")[2])))


def _corrected(number: str, corrections: Mapping[Fraction, Fraction], brackets: bool = False) -> str:
    if not corrections or len(number) > MAX_LENGTH:
        return number
    value = corrections.get(Fraction(number.replace(",", "")))
    if value is None:
        return number
    return f"({number_text(value)})" if brackets and value < 0 else number_text(value)


def number_text(value: Fraction) -> str:
    """The value in decimals, rounded to ten of them: 24, -0.5, 3.3333333333."""
    scaled = round(value * 10**DECIMALS)
    digits = f"{abs(scaled):0{DECIMALS + 1}d}"
    text = f"{digits[:-DECIMALS]}.{digits[-DECIMALS:]}".rstrip("0").rstrip(".")
    return f"-{text}" if scaled < 0 else text


class _NoValueError(Exception):
    """The text is no expression, or its value is undefined or out of bounds."""


class _Parser:
    """Recursive descent, one method a level of precedence."""

    def __init__(self, expression: str, corrections: Mapping[Fraction, Fraction]):
        self.corrections = corrections
        self.tokens: list[str] = []
        text, place = expression.strip(), 0
        while place < len(text):
            match = _TOKEN.match(text, place)
            if match is None:
                raise _NoValueError
            self.tokens.append(match[1])
            place = match.end()
        self.place, self.depth = 0, 0

    def value(self) -> Fraction:
        value = self._sum()
        if self.place < len(self.tokens):
            raise _NoValueError
        return value

    def _take(self, *wanted: str) -> str | None:
        """The next token if it is one of these; otherwise None, and nothing is taken."""
        if self.place < len(self.tokens) and self.tokens[self.place] in wanted:
            self.place += 1
            return self.tokens[self.place - 1]
        return None

    def _sum(self) -> Fraction:
        value = self._product()
        while sign := self._take("+", "-"):
            other = self._product()
            value = _bounded(value + other if sign == "+" else value - other)
        return value

    def _product(self) -> Fraction:
        value = self._signed()
        while sign := self._take("*", "/", "//"):
            other = self._signed()
            if sign != "*" and not other:
                raise _NoValueError
            exact = value * other if sign == "*" else value / other
            value = _bounded(Fraction(math.floor(exact)) if sign == "//" else exact)
        return value

    def _signed(self) -> Fraction:
        """Every way into a deeper level leads through here."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _NoValueError
        sign = self._take("+", "-")
        value = self._power() if sign is None else self._signed()
        self.depth -= 1
        return -value if sign == "-" else value

    def _power(self) -> Fraction:
        base = self._atom()
        if not self._take("**", "^"):
            return base
        exponent = (
            self._signed()
        )  # From the right; a sign binds less than a power: -2**2 is -4, and 2**-1 is 1/2.
        if exponent.denominator != 1 or abs(exponent) > MAX_POWER or (exponent < 0 and not base):
            raise _NoValueError
        return _bounded(base ** int(exponent))

    def _atom(self) -> Fraction:
        if self._take("("):
            value = self._sum()
            if not self._take(")"):
                raise _NoValueError
        elif self.place < len(self.tokens) and self.tokens[self.place][0] in "0123456789.":
            number = Fraction(self.tokens[self.place].rstrip(".").replace(",", ""))
            value = _bounded(self.corrections.get(number, number))
            self.place += 1
        else:
            raise _NoValueError
        return value / 100 if self._take("%") else value


def _bounded(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
        raise _NoValueError
    return value
