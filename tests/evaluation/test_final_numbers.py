"""Final numbers in every form that a model may write, strictly and leniently read; expected values by hand."""

from fractions import Fraction

import pytest

from lmirl_jax.evaluation import final_number


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("5", 5),
        ("-3", -3),
        ("\u22123", -3),
        ("$3", 3),
        ("-$3", -3),
        ("$-3", -3),
        ("\u2212$3", -3),
        (r"\$3", 3),
        ("$ 3.00", 3),
        ("3.50", Fraction(7, 2)),
        (".5", Fraction(1, 2)),
        ("-.5", Fraction(-1, 2)),
        ("1/2", Fraction(1, 2)),
        ("-1/2", Fraction(-1, 2)),
        ("2 1/2", Fraction(5, 2)),
        (r"\frac{1}{2}", Fraction(1, 2)),
        ("1,234", 1234),
        ("1{,}234", 1234),
        ("$1,234,567.5", Fraction(2469135, 2)),
        ("18.", 18),
        ("18.50.", Fraction(37, 2)),
        ("10%", 10),
        ("5 apples", 5),
        ("5kg", 5),
        ("60 miles/2 hours", 60),
        ("10 20", 10),
        ("1e3", 1000),
    ],
)
def test_forms(written, value):
    assert final_number(f"so 7\n#### {written}") == value
    assert final_number(f"#### 1\n####{written}") == value
    assert final_number(f"#### {written}", lenient=True) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r"\boxed{5}", 5),
        (r"It is \boxed{-\$3} and 7 are left", -3),
        (r"\boxed{x = \frac{1}{2}} of 4", Fraction(1, 2)),
        (r"\boxed{1} or \boxed{\text{about } 2}.", 2),
        (r"\boxed{none} of 6", 6),
        ("The answer is -$3.00.", -3),
        ("16-3=13", 13),
        ("from 16-3", 3),  # A minus between two numbers is no sign.
        ("5 - 3", 3),
        ("it is (-3)", -3),
        ("between 2 and 4/8.", Fraction(1, 2)),
        ("#### The answer is 5", 5),
        ("#### 4 and then 5", 4),
    ],
)
def test_leniently(text, value):
    assert final_number(text, lenient=True) == value
    if not text.startswith("#### 4"):
        assert final_number(text) is None


@pytest.mark.parametrize("text", ["", "####", "none", "#### none", "#### 1/0", "#### " + "9" * 101, "$", "-"])
def test_no_number(text):
    assert final_number(text) is None
    assert final_number(text, lenient=True) is None


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("9" * 50_000, None),
        (" " * 50_000, None),
        ("- $" * 20_000, None),
        (r"\boxed{" * 10_000, None),
        ("1 " * 25_000, 1),
        ("1/" * 25_000, 1),
        ("," * 50_000, None),
    ],
    ids=lambda value: str(value)[:6],
)
def test_long_texts_are_read(text, number):
    """In time that grows with their length: what takes the square of it would not come back."""
    assert final_number(text, lenient=True) == number
