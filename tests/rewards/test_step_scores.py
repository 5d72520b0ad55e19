"""Scores of steps: sums over the tokens of each, by hand."""

import dataclasses

import numpy as np
import pytest

from lmirl_jax.rewards import step_scores
from lmirl_jax.rewards.scored import ScoredAnswer
from lmirl_jax.types import UserError

TEXT = "ab\ncd"
SCORED = ScoredAnswer(
    example=0,
    candidate=0,
    inputs="x",
    targets=TEXT,
    reference=None,
    id=None,
    truncated=False,
    tokens=(1, 2, 3, 4, 5),
    pieces=("ab", "\n", "c", "d", ""),
    offsets=((0, 2), (2, 3), (3, 4), (4, 5), (5, 5)),
    q=(1.0, 2.0, 3.0, 4.0, 5.0),
    v=(2.0, 4.0, 8.0, 16.0, 32.0),
    reward=(1.0, 10.0, 100.0, 1000.0, 10000.0),
    log_prob=(-1.0, -2.0, -4.0, -8.0, -16.0),
    entropy=(0.0,) * 5,
    reference_log_prob=(-1.0, -1.0, -1.0, -1.0, -1.0),
    total=0.0,
    normalised_return=0.0,
    centred_return=None,
    v_0=2.0,
    log_likelihood=-31.0,
    metrics={},
)


@pytest.mark.parametrize(
    "kind, expected",
    [
        ("reward", [11.0, 11100.0]),
        ("log_prob", [-3.0, -28.0]),
        ("log_ratio", [-1.0, -25.0]),
        ("value", [6.0, -8.0]),
    ],
)
def test_the_white_space_after_a_step_and_the_end_count_with_the_step_before(kind, expected):
    np.testing.assert_allclose(step_scores(SCORED, kind), expected)


def test_a_ratio_needs_a_reference():
    alone = dataclasses.replace(SCORED, reference_log_prob=None)
    with pytest.raises(UserError, match="REFERENCE_PATH"):
        step_scores(alone, "log_ratio")


def test_the_last_token_of_a_truncated_answer_has_no_reward():
    cut = dataclasses.replace(SCORED, reward=(1.0, 10.0, 100.0, 1000.0, None), truncated=True)
    np.testing.assert_allclose(step_scores(cut, "reward"), [11.0, 1100.0])


def test_an_answer_without_text_has_one_score():
    empty = dataclasses.replace(
        SCORED, targets="", tokens=(5,), pieces=("",), offsets=((0, 0),), log_prob=(-2.0,)
    )
    assert step_scores(empty, "log_prob") == [-2.0]
