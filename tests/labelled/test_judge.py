"""A language model as a labeller, in whose place a function stands."""

import pytest

from lmirl_jax.labelled import TwoStageJudge
from lmirl_jax.types import UserError


@pytest.mark.parametrize(
    ("reply", "choice"),
    [
        ("0", 0),
        ("1.", 1),
        ("0.5", None),
        ("I choose 1", 1),
        ("-1", None),
        ("10 of 10", None),
        ("neither", None),
        ("Answer: 0\nnot 1", 0),
        ("(1)", 1),
    ],
)
def test_the_first_number_that_stands_alone_is_the_choice(reply, choice):
    replies = iter(["the first one is longer", reply])
    assert TwoStageJudge(lambda question: next(replies))("a", "b", "c") == choice


def test_the_second_question_has_the_comparison_and_not_the_answers():
    asked = []

    def complete(question):
        asked.append(question)
        return "it {first} says 7" if len(asked) == 1 else "1"

    assert TwoStageJudge(complete, goal="be {brief}")("ask", "an answer {second}", "another") == 1
    first, second = asked
    assert all(text in first for text in ("ask", "an answer {second}", "another", "be {brief}"))
    assert "it {first} says 7" in second and "an answer" not in second


def test_a_model_that_gives_no_text_is_named():
    with pytest.raises(UserError, match="complete gave NoneType; return a text"):
        TwoStageJudge(lambda question: None)("a", "b", "c")
