"""Rewards as they are exported: shaped by a potential, corrected by a reference; literals and the telescoping fact."""

import hypothesis
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest

from lmirl_jax import objectives, soft_q
from lmirl_jax.types import SoftQ, UserError
from tests.objectives.bandit import ended

LOGITS = jnp.log(jnp.array([[[1.0, 3.0], [2.0, 6.0]]]))
TARGETS = jnp.array([[1, 0]])
DISCOUNTS = jnp.array([[0.5, 0.0]])


def test_literals():
    """q = log 3, log 2 and v = log 4, log 8; the reference has q = log 1, log 1 and v = log 2, log 4."""
    out = soft_q.from_logits(LOGITS, TARGETS)
    reference = soft_q.from_logits(jnp.log(jnp.array([[[1.0, 1.0], [1.0, 3.0]]])), TARGETS)
    rewards = np.array([[np.log(3) - 0.5 * np.log(8), np.log(2)]])
    found = objectives.extracted_rewards(out, DISCOUNTS)
    np.testing.assert_allclose(found, rewards, rtol=1e-5)
    corrected = objectives.extracted_rewards(out, DISCOUNTS, reference=reference, beta=2.0)
    np.testing.assert_allclose(corrected, rewards - 2 * np.log([[1 / 2, 1 / 4]]), rtol=1e-5)
    shaped = objectives.extracted_rewards(out, DISCOUNTS, shaping="value")
    np.testing.assert_allclose(shaped, np.log([[3 / 4, 1 / 4]]), rtol=1e-5)  # log pi
    both = objectives.extracted_rewards(out, DISCOUNTS, shaping="value", reference=reference)
    np.testing.assert_allclose(both, np.log([[3 / 2, 1.0]]), rtol=1e-5, atol=1e-6)


def test_a_potential_by_hand():
    rewards, potentials = jnp.array([[1.0, 2.0, 3.0]]), jnp.array([[10.0, 20.0, 40.0]])
    shaped = objectives.shaped_rewards(rewards, potentials, jnp.array([[0.5, 0.5, 0.0]]))
    np.testing.assert_allclose(shaped, [[1 + 10 - 10, 2 + 20 - 20, 3 + 0 - 40]])


@hypothesis.given(st.integers(0, 1000), st.sampled_from([1.0, 0.9, 0.5]))
@hypothesis.settings(max_examples=30, deadline=None)
def test_the_discounted_sum_changes_by_the_first_potential_alone(seed, gamma):
    random = np.random.default_rng(seed)
    length = int(random.integers(1, 8))
    rewards, potentials = (jnp.asarray(random.normal(size=(1, length)), jnp.float32) for _ in range(2))
    discounts = ended(length, gamma, rows=1)
    shares = gamma ** np.arange(length)
    before = np.asarray(rewards) @ shares
    after = np.asarray(objectives.shaped_rewards(rewards, potentials, discounts)) @ shares
    np.testing.assert_allclose(after, before - np.asarray(potentials)[:, 0], atol=1e-5)


def test_packed_neighbours_keep_apart():
    """Two answers in a row of three: the second's potential does not reach the first's last token."""
    rewards, potentials = jnp.zeros((1, 3)), jnp.array([[1.0, 2.0, 100.0]])
    shaped = objectives.shaped_rewards(rewards, potentials, jnp.array([[1.0, 0.0, 0.0]]))
    np.testing.assert_allclose(shaped, [[1.0, -2.0, -100.0]])


def test_a_shaping_that_there_is_not():
    with pytest.raises(UserError, match="shaping='vale' must be 'value', or None"):
        objectives.extracted_rewards(
            SoftQ(jnp.ones((1, 2)), jnp.ones((1, 2))), jnp.ones((1, 2)), shaping="vale"
        )
