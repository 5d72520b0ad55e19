"""Training sets of scored answers, on values written by hand."""

import dataclasses
import json
import math

import numpy as np
import pytest

from lmirl_jax.rewards import FilterConfig, filter_scored
from lmirl_jax.rewards.filtering import exponential_weights
from lmirl_jax.types import UserError
from tests.rewards.test_scored_file import ANSWER

# Prompt, answer, normalised return: the answer "d" lacks its EOS.
ANSWERS = [("p", "a", -1.0), ("q", "b", -3.0), ("p", "c", -2.0), ("q", "d", 0.0), ("q", "e", -2.0)]


@pytest.fixture
def scored(tmp_path):
    path = tmp_path / "scored.jsonl"
    path.write_text("".join(json.dumps(answer(*values).to_row()) + "\n" for values in ANSWERS))
    return path


def answer(prompt, targets, value, **changes):
    made = dataclasses.replace(
        *(ANSWER,),
        example=ord(prompt),
        inputs=prompt,
        targets=targets,
        id=None,
        truncated=targets == "d",
        normalised_return=value,
        total=10 * value,
        metrics={"rouge_1": -value},
    )
    return dataclasses.replace(made, **changes)


def kept(scored, **settings):
    output = scored.parent / "kept.jsonl"
    found = filter_scored(scored, output, FilterConfig(**settings))
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert found.kept == len(rows) and found.answers == 5
    return rows


def texts(rows):
    return "".join(row["targets"] for row in rows)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "abce"),
        ({"truncated": "rank"}, "abcde"),
        ({"keep": 0.75}, "ace"),
        ({"keep": 0.5}, "ac"),  # of c and e, which are equal, the earlier one
        ({"keep": 0.001}, "a"),
        ({"keep": 0.4, "truncated": "rank"}, "ad"),
        ({"keep": 0.5, "by": "return"}, "ac"),
        ({"keep": 0.5, "by": "rouge_1"}, "bc"),
        ({"per_prompt": 1}, "ae"),
        ({"per_prompt": 1, "truncated": "rank"}, "ad"),
        ({"per_prompt": 2}, "abce"),
        ({"per_prompt": 1, "keep": 0.5}, "a"),
    ],
)
def test_the_selection_keeps_the_order_of_the_file(scored, settings, expected):
    rows = kept(scored, **settings)
    assert texts(rows) == expected
    assert set(rows[0]) == {"inputs", "targets"}


def test_weights_by_hand(scored):
    rows = kept(scored, weight_temperature=2.0)
    # Of -1, -3, -2 and -2: exp(0), exp(-1), exp(-1/2) twice, over their mean.
    raw = [1, math.exp(-1), math.exp(-0.5), math.exp(-0.5)]
    assert [row["weight"] for row in rows] == pytest.approx([4 * w / sum(raw) for w in raw], rel=1e-5)


def test_weights_neither_overflow_nor_depend_on_an_added_constant():
    values = np.array([-1e4, 3.0, 2.0])
    found = exponential_weights(values, 0.5)
    np.testing.assert_allclose(found, exponential_weights(values + 1e4, 0.5), rtol=1e-6)
    np.testing.assert_allclose(found, [0, 3 / (1 + math.exp(-2)), 3 / (1 + math.exp(2))], rtol=1e-6)


def test_an_id_stays_with_its_answer(tmp_path):
    path = tmp_path / "scored.jsonl"
    path.write_text(json.dumps(answer("p", "é", 1.0, id="x").to_row()) + "\n")
    filter_scored(path, tmp_path / "kept.jsonl")
    line = (tmp_path / "kept.jsonl").read_text(encoding="utf-8")
    assert line == '{"inputs": "p", "targets": "é", "id": "x"}\n'


def test_the_result_says_how_many_answers_it_has(scored):
    output = scored.parent / "kept.jsonl"
    found = filter_scored(scored, output, FilterConfig(keep=0.5))
    assert str(found) == f"{output}: 2 of 5 answers, down to -2; 1 without EOS left out"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"keep": 0}, r"keep=0 must be a number above 0 and at most 1"),
        ({"keep": 2}, r"keep=2 must be"),
        ({"keep": True}, r"keep=True must be"),
        ({"per_prompt": 0}, r"per_prompt=0 must be a whole number of 1 or more"),
        ({"truncated": "no"}, r"truncated='no' must be 'drop' or 'rank'"),
        ({"weight_temperature": 0.0}, r"weight_temperature=0\.0 must be a number above 0"),
        ({"weight_temperature": math.nan}, r"weight_temperature=nan must be a number above 0"),
        ({"by": "rouge"}, r"answer 1: no measure BY='rouge': did you mean 'rouge_1'\?"),
        ({"by": "x"}, r"no measure BY='x': it has normalised_return, .*, rouge_1"),
        ({"by": "centred_return"}, r"answer 1: no centred_return, as its prompt has one answer alone"),
    ],
)
def test_errors_leave_nothing_behind(scored, settings, message):
    with pytest.raises(UserError, match=message):
        kept(scored, **settings)
    assert [path.name for path in scored.parent.iterdir()] == ["scored.jsonl"]


def test_values_and_paths_that_do_not_fit(scored, tmp_path):
    with pytest.raises(UserError, match="is the scored file itself"):
        filter_scored(scored, scored)
    with pytest.raises(UserError, match=r"is a folder: name a file, such as '.*kept\.jsonl'"):
        filter_scored(scored, tmp_path)
    nan = tmp_path / "nan.jsonl"
    nan.write_text(json.dumps(answer("p", "a", math.nan).to_row()) + "\n")
    with pytest.raises(UserError, match=r"answer 1: normalised_return is nan, which ranks nowhere"):
        filter_scored(nan, tmp_path / "kept.jsonl")
    cut = tmp_path / "cut.jsonl"
    cut.write_text(json.dumps(answer("p", "d", 1.0).to_row()) + "\n")
    with pytest.raises(UserError, match=r"every answer lacks its EOS"):
        filter_scored(cut, tmp_path / "kept.jsonl")


def test_weights_that_float32_does_not_hold_are_0():
    """exp(-100) is 3.7e-44: training would take it for 0, and refuses it."""
    found = exponential_weights(np.array([0.0, -100.0, -1.0]), 1.0)
    np.testing.assert_allclose(
        found, [3 / (1 + np.exp(-1)), 0.0, 3 * np.exp(-1) / (1 + np.exp(-1))], rtol=1e-12
    )
    assert found[1] == 0.0
