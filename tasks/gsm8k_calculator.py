"""GSM8K's calculator: computes the annotations `<<48/2=24>>` of an answer again and corrects their results."""

import math
import re
from collections.abc import Mapping
from fractions import Fraction

# The limits of expressions. Calculations of word problems stay within them; an expression beyond them has no value, so that
# nothing hangs or overflows. They are: characters of an expression, levels of brackets, signs and powers, the size of an
# exponent, and bits of the numerator and the denominator of a value.
MAX_LENGTH = 200
MAX_DEPTH = 20
MAX_POWER = 64
MAX_BITS = 512
# The most decimals of a corrected result.
DECIMALS = 10

_NUMBER = r"(?:[0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?|\.[0-9]+)"
_TOKEN = re.compile(rf"\s*({_NUMBER}\.?|\*\*|//|[-+*/^()%])")
# An annotation, and the number directly after it, which usually repeats the result.
_ANNOTATION = re.compile(rf"<<([^<>\n=]*)=([^<>\n=]*)>>(?:(\s*(?:\$\s*)?)(-?{_NUMBER}))?")
_FINAL = re.compile(rf"(####\s*)([-\u2212]?)(\$\s*)?([-\u2212]?)({_NUMBER})")


def with_calculator(answer: str) -> str:
    """Corrects a complete GSM8K answer as if its author had used a calculator.

    Annotations `<<expression=result>>` are processed from left to right. Where the expression has a value and the result
    differs from it, then

    - the result is replaced by the value (10 decimals at most);
    - the number directly after the annotation is replaced too, if it equals the old result: in `<<48/2=25>>25`,
      `<<48/2=25>> $25`;
    - the old result is replaced in the expressions of later annotations, which are computed with the value, and after the
      last `####`; until the result of another annotation is the same number, which then means the newer one.

    A result with the same value keeps its form (`24.00`), and so does a correct rounding of an infinite decimal
    (`<<10/3=3.33>>`). Expressions without a value (see `calculate`) and all other text stay unchanged, and so does an answer
    whose results are right.

    Source: Cobbe et al., https://arxiv.org/abs/2110.14168, whose calculator acts while the model writes; carrying a
    result on by its number is what Wei et al., https://arxiv.org/abs/2201.11903, do with finished answers.
    """
    corrections: dict[Fraction, Fraction] = {}
    text = _ANNOTATION.sub(lambda match: _recalculate(match, corrections), answer)
    start = text.rfind("####")
    if start < 0:
        return text
    return text[:start] + _FINAL.sub(lambda match: _correct_final(match, corrections), text[start:])


def calculate(expression: str, corrections: Mapping[Fraction, Fraction] | None = None) -> Fraction | None:
    """The exact value of an arithmetic expression, or None where it has none.

    It accepts decimal numbers (also with commas between thousands), `+ - * / //`, `**` and `^`, brackets, signs and a percent
    sign after a number, with the usual precedence. There are no names and no calls, and nothing is executed.

    Args:
        expression: an expression such as `(16-3-4)*2`.
        corrections: numbers to replace in the expression, with their replacements.

    Returns:
        The value; None where the text is not an expression, divides by zero, or exceeds the limits of this file.
    """
    if len(expression) > MAX_LENGTH:
        return None
    try:
        return _Parser(expression, corrections or {}).value()
    except _NoValueError:
        return None


def _recalculate(match: re.Match[str], corrections: dict[Fraction, Fraction]) -> str:
    """Corrects an annotation and the number after it, and adds a wrong result to the corrections."""
    expression, result, space, repetition = match.groups()
    value, old_value = calculate(expression, corrections), calculate(result)
    corrected_expression = re.sub(
        _NUMBER, lambda number: _correct(number[0], corrections, brackets=True), expression
    )
    if old_value is not None:
        corrections.pop(old_value, None)
    if value is None:
        return match[0]
    new_correction: dict[Fraction, Fraction] = {}
    if old_value is None or not _says(result, old_value, value):
        result = number_text(value)
        new_correction = {} if old_value is None else {old_value: value}
        corrections.update(new_correction)
    again = "" if repetition is None else space + _correct(repetition, new_correction)
    return f"<<{corrected_expression}={result}>>{again}"


def _correct_final(match: re.Match[str], corrections: Mapping[Fraction, Fraction]) -> str:
    """Corrects the number after `####`, whose sign may come before or after a dollar."""
    before, minus, dollar, inner, digits = match.groups()
    number = f"-{digits}" if minus or inner else digits
    corrected = _correct(number, corrections)
    return match[0] if corrected == number else f"{before}{dollar or ''}{corrected}"


def _says(text: str, old_value: Fraction, value: Fraction) -> bool:
    """Whether a result equals the value, or is an infinite decimal rounded to the decimals of its text."""
    endless = pow(10, MAX_BITS, value.denominator) != 0
    return old_value == value or (endless and old_value == round(value, len(text.strip().partition(".")[2])))


def _correct(number: str, corrections: Mapping[Fraction, Fraction], brackets: bool = False) -> str:
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
    """A recursive-descent parser, with one method for each level of precedence."""

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

    def _take(self, *choices: str) -> str | None:
        """Consumes the next token and returns it if it is one of these; otherwise returns None."""
        if self.place < len(self.tokens) and self.tokens[self.place] in choices:
            self.place += 1
            return self.tokens[self.place - 1]
        return None

    def _sum(self) -> Fraction:
        value = self._product()
        while sign := self._take("+", "-"):
            other = self._product()
            value = _check_bounds(value + other if sign == "+" else value - other)
        return value

    def _product(self) -> Fraction:
        value = self._signed()
        while sign := self._take("*", "/", "//"):
            other = self._signed()
            if sign != "*" and not other:
                raise _NoValueError
            exact = value * other if sign == "*" else value / other
            value = _check_bounds(Fraction(math.floor(exact)) if sign == "//" else exact)
        return value

    def _signed(self) -> Fraction:
        """A factor with its sign. Every deeper level passes through this method, which therefore counts the depth."""
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
        # Powers group from the right, and a sign binds less than a power: -2**2 is -4, and 2**-1 is 1/2.
        exponent = self._signed()
        if exponent.denominator != 1 or abs(exponent) > MAX_POWER or (exponent < 0 and not base):
            raise _NoValueError
        return _check_bounds(base ** int(exponent))

    def _atom(self) -> Fraction:
        if self._take("("):
            value = self._sum()
            if not self._take(")"):
                raise _NoValueError
        elif self.place < len(self.tokens) and self.tokens[self.place][0] in "0123456789.":
            number = Fraction(self.tokens[self.place].rstrip(".").replace(",", ""))
            value = _check_bounds(self.corrections.get(number, number))
            self.place += 1
        else:
            raise _NoValueError
        return value / 100 if self._take("%") else value


def _check_bounds(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
        raise _NoValueError
    return value
