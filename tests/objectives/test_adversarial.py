"""The discriminator's losses and the rewards of its logit: hand-worked values, optima, and nothing at chance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from lmirl_jax import objectives
from lmirl_jax.types import UserError
from tests.objectives.bandit import EXPERT

REWARDS = [objectives.softplus_reward, objectives.log_sigmoid_reward, objectives.logit_reward]
LOGITS = jnp.log(jnp.array([[3.0, 3.0], [1 / 3, 1.0]]))  # sigmoid: 3/4, 3/4; 1/4, 1/2
IS_EXPERT = jnp.array([[True, False], [True, False]])


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit])
def test_literals_of_the_losses(transform):
    loss = transform(objectives.discriminator_loss)(LOGITS, IS_EXPERT)
    np.testing.assert_allclose(loss, np.log([[4 / 3, 4.0], [4.0, 2.0]]), rtol=1e-6)
    smoothed = transform(lambda x: objectives.discriminator_loss(x, IS_EXPERT, label_smoothing=0.25))
    mixed = 0.75 * np.log([[4 / 3, 4.0], [4.0, 2.0]]) + 0.25 * np.log([[4.0, 4 / 3], [4 / 3, 2.0]])
    np.testing.assert_allclose(smoothed(LOGITS), mixed, rtol=1e-6)
    pairs = transform(objectives.relativistic_loss)(
        jnp.log(jnp.array([[3.0], [1.0]])), jnp.log(jnp.array([[1.0, 9.0], [1.0, 3.0]]))
    )
    np.testing.assert_allclose(pairs, np.log([[4 / 3, 4.0], [2.0, 4.0]]), rtol=1e-6)


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit])
def test_literals_of_the_rewards(transform):
    found = [transform(reward)(LOGITS[:, 0]) for reward in REWARDS]
    by_hand = [np.log([2.0, 2 / 3]), np.log([1.5, 0.5]), np.log([3.0, 1 / 3])]
    np.testing.assert_allclose(found, by_hand, rtol=1e-6)


def test_one_label_a_row():
    rows = jnp.array([[True], [False]])
    whole = objectives.discriminator_loss(LOGITS, jnp.broadcast_to(rows, LOGITS.shape))
    np.testing.assert_array_equal(objectives.discriminator_loss(LOGITS, rows), whole)


def test_the_discriminator_ends_at_the_ratio_of_the_occupancies():
    with jax.enable_x64(True):
        expert, policy = jnp.array(EXPERT), jnp.array([0.2, 0.2, 0.6])

        def loss(logits, smoothing):
            of_expert, of_policy = (
                objectives.discriminator_loss(logits, jnp.full(3, label), label_smoothing=smoothing)
                for label in (True, False)
            )
            return jnp.sum(expert * of_expert + policy * of_policy)

        slope = jax.grad(loss)(jnp.log(expert / policy), 0.0)
        np.testing.assert_allclose(slope, 0.0, atol=1e-15)
        smoothed = jnp.log((0.9 * expert + 0.1 * policy) / (0.1 * expert + 0.9 * policy))
        np.testing.assert_allclose(jax.grad(loss)(smoothed, 0.1), 0.0, atol=1e-15)


@pytest.mark.parametrize("size", [1e-6, 30.0, 1e4])
def test_far_logits_keep_their_digits(size):
    """A sure discriminator that is right has a loss of exp(-size), not 0; one that is wrong, a loss of size."""
    logits = jnp.array([size, -size])
    right = objectives.discriminator_loss(logits, jnp.array([True, False]))
    np.testing.assert_allclose(right, np.log1p(np.exp(-size)), rtol=1e-6)
    wrong = objectives.discriminator_loss(logits, jnp.array([False, True]))
    np.testing.assert_allclose(wrong, np.log1p(np.exp(-size)) + size, rtol=1e-6)
    reward = np.log1p(np.expm1(-size) / 2)
    np.testing.assert_allclose(objectives.softplus_reward(logits), [size + reward, reward], rtol=1e-6)
    np.testing.assert_allclose(objectives.log_sigmoid_reward(logits), [-reward, -size - reward], rtol=1e-6)


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit])
@pytest.mark.parametrize("reward", REWARDS)
def test_at_chance_no_length_pays(transform, reward):
    """Logit and value 0 everywhere: an answer that is EOS alone, one that ends later, and one cut at the maximal length."""

    def returns_and_advantages(logits, values):
        lengths = jnp.array([1, 4, 8])
        real = jnp.arange(8)[None, :] < lengths[:, None]
        last = jnp.arange(8)[None, :] == lengths[:, None] - 1
        rewards = reward(logits)
        continues = real & ~last
        discounts = (continues | (last & (lengths == 8)[:, None])).astype(jnp.float32)
        returns = jnp.sum(jnp.where(real, rewards, 0.0), axis=-1)
        advantages = objectives.gae(rewards, values[:, :-1], values[:, 1:], discounts, continues)
        return (
            returns,
            advantages,
            objectives.group_relative(returns[None]),
            objectives.leave_one_out(returns[None]),
        )

    for found in transform(returns_and_advantages)(jnp.zeros((3, 8)), jnp.zeros((3, 9))):
        np.testing.assert_array_equal(found, 0.0)


@pytest.mark.parametrize("reward", REWARDS)
def test_rewards_rise_with_the_logit(reward):
    x = jnp.arange(-12.0, 13.0)
    slope = jax.vmap(jax.grad(lambda d: reward(d)))(x)
    np.testing.assert_allclose(slope[12], 1.0 if reward is objectives.logit_reward else 0.5)
    assert np.all(slope > 0)


def test_gradients_against_finite_differences():
    with jax.enable_x64(True):
        x, y = (3 * jax.random.normal(key, (2, 5), float) for key in jax.random.split(jax.random.key(0)))
        functions = [
            *REWARDS,
            lambda d: objectives.discriminator_loss(d, y > 0, label_smoothing=0.1),
            lambda d: objectives.discriminator_loss(d, y[:, :1] > 0),
            lambda d: objectives.relativistic_loss(d[:, :1], d[:, 1:]),
        ]
        for function in functions:
            check_grads(
                lambda d, f=function: jnp.sum(jnp.sin(f(jnp.asarray(d)))),
                (x,),
                order=1,
                modes=["rev"],
                atol=1e-6,
                rtol=1e-6,
            )


def test_errors():
    with pytest.raises(UserError, match=r"label_smoothing = 0\.5 is not in \[0, 0\.5\)"):
        objectives.discriminator_loss(LOGITS, IS_EXPERT, label_smoothing=0.5)
