"""An answer's steps."""

import pytest

from lmirl_jax.data.steps import split_steps


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("3+8=11 5+9=14 11+14=25", ["3+8=11", "5+9=14", "11+14=25"]),
        (
            "He has 3.5 apples. He eats one! So? #### 2.5",
            ["He has 3.5 apples.", "He eats one!", "So?", "#### 2.5"],
        ),
        ("One. Two.\n\nThree. ", ["One. Two.", "Three. "]),
        ("48/2 = [48/2=24]24 clips. ; #### 24", ["48/2 = [48/2=24]24 clips.", "#### 24"]),
        ("two words", ["two words"]),
        ("", []),
    ],
)
def test_steps_are_guessed(text, steps):
    assert [text[begin:end] for begin, end in split_steps(text)] == steps


def test_a_given_separator():
    assert split_steps("a, b. c", r", ") == [(0, 1), (3, 7)]
