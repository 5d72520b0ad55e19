"""Rewards of texts: at which token they land, what a function is given, and what it may not return."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmirl_jax import sharding
from lmirl_jax.online.reward_sources import RewardFunction
from lmirl_jax.types import UserError
from tests.batches import answer_batch, rollouts_of
from tests.online.fakes import Prompts
from tests.training.fakes import mesh_of

INPUTS = jnp.array([[7, 8, 0], [9, 0, 0]])
TOKENS = jnp.array([[5, 1, 0, 0], [5, 6, 7, 8]])
TARGETS = jnp.array([[5, 1, 0, 0], [6, 1, 0, 0]])


def score(function, mesh=None):
    mesh = mesh or mesh_of(2, 2, 1, 1)
    sharding_of_rows = sharding.batch_sharding(mesh)
    experience = dataclasses.replace(rollouts_of(INPUTS, TOKENS), demonstrations=answer_batch(TARGETS))
    scored = RewardFunction(function).score(jax.device_put(experience, sharding_of_rows), Prompts(2), mesh)
    assert scored.rewards.sharding.is_equivalent_to(sharding_of_rows, 2)
    return np.asarray(scored.rewards)


def test_one_number_is_the_last_tokens():
    seen = []
    rewards = score(lambda prompt, answer: seen.append((prompt, answer)) or len(answer))
    assert seen == [("7 8", "5 1"), ("9", "5 6 7 8")]
    np.testing.assert_array_equal(rewards, [[0, 3, 0, 0], [0, 0, 0, 7]])


def test_an_array_has_one_for_each_token():
    rewards = score(lambda prompt, answer, tokens: [token / 2 for token in tokens])
    np.testing.assert_array_equal(rewards, [[2.5, 0.5, 0, 0], [2.5, 3, 3.5, 4]])


def test_the_reference_is_given_where_it_is_asked_for():
    rewards = score(lambda prompt, answer, reference: answer == reference)
    np.testing.assert_array_equal(rewards, [[0, 1, 0, 0], [0, 0, 0, 0]])


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (float("nan"), r"gave nan for the answer '5 1' to '7 8': return finite numbers"),
        ([1.0, 2.0, 3.0], r"gave \(3,\) for the 2 tokens of '5 1': return one number, or one for each token"),
        ("good", r"gave 'good' for the answer '5 1' to '7 8': return a number, or one for each token"),
        (None, r"gave None for the answer '5 1' to '7 8': return a number"),
    ],
)
def test_what_is_no_reward(value, line):
    with pytest.raises(UserError, match=line):
        score(lambda prompt, answer: value)
