"""Discriminators: which outputs are rewards, what counts as right, how sure one may be; and when a collapse is said."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from lmirl_jax import objectives
from lmirl_jax.online.adversary import Adversary, PairwiseAdversary, discriminator_metrics
from lmirl_jax.online.alarm import Collapse
from lmirl_jax.training.sums import last_tokens
from lmirl_jax.types import UserError
from tests.batches import rollout_batch_of

ANSWERS = rollout_batch_of(np.ones((2, 1)), [[5, 1, 0], [5, 6, 7]])
SCORES = jnp.array([[9.0, 1.0, -2.0, 9.0], [9.0, 3.0, 0.0, 4.0]])  # before the first token, then after each


def test_rewards_are_read_after_each_token():
    rewards = Adversary(objectives.logit_reward).rewards(SCORES, ANSWERS)
    np.testing.assert_array_equal(rewards, [[1, -2, 0], [3, 0, 4]])
    np.testing.assert_array_equal(PairwiseAdversary().rewards(SCORES, ANSWERS), [[0, -2, 0], [0, 0, 4]])
    np.testing.assert_array_equal(last_tokens(ANSWERS), [[0, 1, 0], [0, 0, 1]])
    heavy = dataclasses.replace(ANSWERS, weights=3 * ANSWERS.weights)
    np.testing.assert_array_equal(last_tokens(heavy), last_tokens(ANSWERS))


def test_what_is_watched_of_tokens():
    """The expert's tokens and the policy's at the same logits: 3 of 5 are taken for the expert's, and 0 is not."""
    sums = Adversary().sums(SCORES, ANSWERS, SCORES, ANSWERS)
    real = np.array([1.0, -2.0, 3.0, 0.0, 4.0])
    np.testing.assert_allclose(sums["loss_expert"], [np.log1p(np.exp(-real)).sum(), 5], rtol=1e-6)
    np.testing.assert_allclose(sums["loss_samples"], [np.log1p(np.exp(real)).sum(), 5], rtol=1e-6)
    metrics = discriminator_metrics(sums)
    np.testing.assert_allclose(metrics["discriminator/accuracy"], (3 / 5 + 2 / 5) / 2, rtol=1e-6)
    # Each probability is claimed once for the expert's token and once for the policy's: half of the claims come true.
    claimed = 1 / (1 + np.exp(-real))
    np.testing.assert_allclose(
        metrics["discriminator/calibration_error"], np.mean(np.abs(claimed - 0.5)), rtol=1e-5
    )


def test_a_calibrated_discriminator_has_no_error():
    """At chance everywhere, with as many tokens of each kind."""
    sums = Adversary().sums(jnp.zeros((2, 4)), ANSWERS, jnp.zeros((2, 4)), ANSWERS)
    metrics = discriminator_metrics(sums)
    np.testing.assert_allclose(metrics["discriminator/calibration_error"], 0, atol=1e-7)
    np.testing.assert_allclose(metrics["discriminator/loss"], np.log(2), rtol=1e-6)


def test_what_is_watched_of_pairs():
    """Two prompts, one demonstration and two answers each; scores are at the last tokens: -2, 4 and -2, 4, -2, 4."""
    twice = rollout_batch_of(np.ones((4, 1)), jnp.tile(ANSWERS.tokens, (2, 1)))
    sums = PairwiseAdversary().sums(SCORES, ANSWERS, jnp.tile(SCORES, (2, 1)), twice)
    margins = np.array([0.0, -6.0, 6.0, 0.0])
    np.testing.assert_allclose(sums["loss"], [np.log1p(np.exp(-margins)).sum(), 4], rtol=1e-6)
    np.testing.assert_allclose(discriminator_metrics(sums)["discriminator/accuracy"], 1 / 4)


def test_a_collapse_is_said_once():
    alarm = Collapse(patience=3)
    sure, unsure = {"discriminator/accuracy": 0.995}, {"discriminator/accuracy": 0.9}
    said = [
        alarm(metrics) for metrics in (sure, sure, unsure, sure, sure, sure, sure, unsure, sure, sure, sure)
    ]
    assert [line is not None for line in said] == [False] * 5 + [True] + [False] * 5
    assert "right on over 99% for 3 updates" in said[5] and "\n" not in said[5]
    fixed = {"samples/entropy": 0.002}
    assert "0.002 nats a token: it has collapsed" in alarm(fixed) and alarm(fixed) is None
    assert Collapse()({}) is None


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: Adversary(updates=0), "updates=0 must be a whole number of 1 or more"),
        (lambda: PairwiseAdversary(updates=True), "updates=True must be a whole number of 1 or more"),
        (lambda: Adversary(gradient_penalty=-1), "gradient_penalty=-1 must be a number of 0 or more"),
        (lambda: Adversary(label_smoothing=0.5), "label_smoothing=0.5 must be a number from 0 to below 0.5"),
    ],
)
def test_settings_out_of_range_are_one_line(make, line):
    with pytest.raises(UserError, match=line):
        make()
