"""The calculator by hand, and on what should never reach it."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmirl_jax.tasks.gsm8k_calculator import calculate, number_text, with_calculator


@pytest.mark.parametrize(
    "expression, value",
    [
        ("48/2", 24),
        ("16-3-4", 9),
        ("2+3*4", 14),
        ("(2+3)*4", 20),
        ("560//10", 56),
        ("-7//2", -4),
        ("7/2/2", Fraction(7, 4)),
        ("5*-2", -10),
        ("-2**2", -4),
        ("2**3**2", 512),
        ("2**-1", Fraction(1, 2)),
        ("3^2", 9),
        ("80000*.01", 800),
        ("20%*50", 10),
        (" 1,250 + 1 ", 1251),
        ("08/2.", 4),
        ("1/3*3", 1),
    ],
)
def test_values_by_hand(expression, value):
    assert calculate(expression) == value


@pytest.mark.parametrize(
    "expression",
    [
        *(
            "",
            "()",
            "1+",
            "+",
            "2(3)",
            "1 2",
            "(1",
            "1)",
            "1..2",
            "1,00",
            "1e3",
            "0x10",
            "x",
            "1_000",
            "²",
            "٣",
        ),
        *("1/0", "1//0", "1/(2-2)", "0**-1", "2**.5"),
        *("9**9**9**9", "10**1000000", "2**65", "9**64**2", "9" * 200, "9" * 300, "(" * 90 + "1" + ")" * 90),
        *(
            "-" * 150 + "1",
            "*".join(["99999999"] * 20),
            "__import__('os')",
            "[].append(1)",
            "1if 1else 2",
            "\x00",
        ),
    ],
)
def test_no_value(expression):
    assert calculate(expression) is None


def test_right_results_stay_as_they_are():
    for answer in (
        "She sold 48/2 = <<48/2=24>>24 clips.\n#### 24",
        "<<10*3=30.00>>$30.00 and <<10/3=3.33>>3.33 and <<2/3=1>>1\n#### 30",
        "<<apples*2=3>>3 <<1/0=7>>7 <<=>> << 1+1=3 \n#### 7",
        "#### 5",
        "",
    ):
        assert with_calculator(answer) == answer


def test_a_wrong_result_is_carried_through():
    slip = "He has <<48/2=25>>25, then <<48+25=73>> $73, 25 days.\n#### 73"
    assert with_calculator(slip) == "He has <<48/2=24>>24, then <<48+24=72>> $72, 25 days.\n#### 72"
    # The value is carried on, not its ten decimals.
    assert with_calculator("<<10/3=4>>4 <<4*3=12>>12 #### 12") == (
        "<<10/3=3.3333333333>>3.3333333333 <<3.3333333333*3=10>>10 #### 10"
    )
    assert with_calculator("<<2-5=3>>3 <<4-3=1>>1 #### $1") == "<<2-5=-3>>-3 <<4-(-3)=7>>7 #### $7"


def test_only_the_number_itself_is_replaced():
    assert with_calculator("<<48/2=25>>250 <<250+1.25=251.25>> #### 125") == (
        "<<48/2=24>>250 <<250+1.25=251.25>> #### 125"
    )
    assert with_calculator("<<1000*2=3000>>3,000.\n#### 3,000") == "<<1000*2=2000>>2000.\n#### 2000"


def test_a_number_means_its_newest_result():
    assert with_calculator("<<1+1=3>>3 <<1+2=3>>3 <<3*2=6>>6 #### 6") == (
        "<<1+1=2>>2 <<1+2=3>>3 <<3*2=6>>6 #### 6"
    )


def test_a_missing_result_is_filled_in():
    assert with_calculator("<<48/2=>> and <<48/2=many>>many") == "<<48/2=24>> and <<48/2=24>>many"


def test_numbers_as_text():
    values = [Fraction(24), Fraction(-1, 2), Fraction(10, 3), Fraction(100), Fraction(0), Fraction(1, 10**12)]
    assert list(map(number_text, values)) == ["24", "-0.5", "3.3333333333", "100", "0", "0"]


ARITHMETIC = st.text("0123456789.,+-*/^()%<>=# $\n", max_size=80)


@given(ARITHMETIC | st.text(max_size=40))
def test_hostile_texts(text):
    calculate(text)
    worked = with_calculator(f"<<{text}=1>>1 {text} #### {text}")
    assert isinstance(worked, str)


def test_hostile_lengths():
    for text in (
        "<<" * 20000,
        "<<1=2>>" * 5000,
        "<<1=2>>" + " " * 20000,
        "#### " + "9" * 20000,
        "<<1=" + "9" * 20000,
    ):
        with_calculator(text)
    assert with_calculator("<<1=2>>2 #### " + "9" * 6000) == "<<1=1>>1 #### " + "9" * 6000


@st.composite
def expressions(draw, depth=3):
    """A random expression, with the value Python gives it."""
    if depth == 0 or draw(st.booleans()):
        number = draw(st.integers(0, 999))
        return str(number), Fraction(number)
    left, a = draw(expressions(depth - 1))
    right, b = draw(expressions(depth - 1))
    sign = draw(st.sampled_from("+-*/" if b else "+-*"))
    value = {"+": a + b, "-": a - b, "*": a * b, "/": a / b if b else a}[sign]
    return f"({left}{sign}{right})", value


@given(expressions())
def test_agrees_with_fractions(pair):
    expression, value = pair
    assert calculate(expression) == value


def test_the_calculator_corrects_a_final_number_with_a_sign():
    assert with_calculator("<<2-22=-30>>-30 #### -$30") == "<<2-22=-20>>-20 #### $-20"
    assert with_calculator("<<2-22=-30>>-30 #### \u221230.") == "<<2-22=-20>>-20 #### -20."
    assert with_calculator("<<1+1=2>>2 #### -$2") == "<<1+1=2>>2 #### -$2"
