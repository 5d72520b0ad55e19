"""Policy gradients: hand-worked values, what they are the gradient of, and where they have none."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from lmirl_jax import objectives
from lmirl_jax.types import UserError

# Ratios 2, 2, 1/2, 1/2, each with an advantage of either sign.
LOG_PROBS = jnp.log(jnp.array([[0.5, 0.5, 0.5, 0.5]]))
SAMPLED = jnp.log(jnp.array([[0.25, 0.25, 1.0, 1.0]]))
ADVANTAGES = jnp.array([[1.0, -1.0, 1.0, -1.0]])


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit])
def test_literals_of_clipping(transform):
    def both(*case):
        return objectives.clipped_policy_gradient(*case), objectives.clip_share(*case)

    loss, share = transform(both)(LOG_PROBS, SAMPLED, ADVANTAGES)
    np.testing.assert_allclose(loss, [[-1.2, 2.0, -0.5, 0.8]], rtol=1e-6)
    np.testing.assert_array_equal(share, [[1.0, 0.0, 0.0, 1.0]])
    higher = transform(lambda *case: objectives.clipped_policy_gradient(*case, clip=0.6, clip_high=0.5))
    np.testing.assert_allclose(higher(LOG_PROBS, SAMPLED, ADVANTAGES), [[-1.5, 2.0, -0.5, 0.5]], rtol=1e-6)


@pytest.mark.parametrize("clip", [0.2, 0.0, math.inf])
def test_agrees_with_the_published_minimum(clip):
    keys = jax.random.split(jax.random.key(0), 3)
    new, old, advantages = (jax.random.normal(key, (4, 9)) for key in keys)
    ratio = jnp.exp(new - old)
    published = -jnp.minimum(ratio * advantages, jnp.clip(ratio, 1 - clip, 1 + clip) * advantages)
    found = objectives.clipped_policy_gradient(new, old, advantages, clip=clip)
    np.testing.assert_allclose(found, published, rtol=1e-6)


def test_on_fresh_samples_the_gradient_is_reinforce():
    def total(log_probs):
        return jnp.sum(objectives.clipped_policy_gradient(log_probs, LOG_PROBS, ADVANTAGES))

    np.testing.assert_array_equal(jax.grad(total)(LOG_PROBS), -ADVANTAGES)


def test_clipped_tokens_have_no_gradient_nor_have_advantages_or_the_sampler():
    def total(*case):
        return jnp.sum(objectives.clipped_policy_gradient(*case))

    own, sampled, advantages = jax.grad(total, argnums=(0, 1, 2))(LOG_PROBS, SAMPLED, ADVANTAGES)
    np.testing.assert_allclose(own, [[0.0, 2.0, -0.5, 0.0]], rtol=1e-6)
    assert own[0, 0] == 0 == own[0, 3]
    np.testing.assert_array_equal(sampled, 0.0)
    np.testing.assert_array_equal(advantages, 0.0)


def test_a_ratio_past_float32_that_is_clipped_is_finite():
    value, slope = jax.value_and_grad(
        lambda x: objectives.clipped_policy_gradient(x, jnp.array([-1e4]), jnp.array([1.0]))[0]
    )(jnp.array([0.0]))
    np.testing.assert_allclose(value, -1.2, rtol=1e-6)
    np.testing.assert_array_equal(slope, 0.0)


def test_one_advantage_a_sequence():
    found = objectives.clipped_policy_gradient(LOG_PROBS, SAMPLED, jnp.array([[1.0]]), clip=math.inf)
    np.testing.assert_allclose(found, [[-2.0, -2.0, -0.5, -0.5]], rtol=1e-6)


def test_no_advantage_is_not_clipped():
    np.testing.assert_array_equal(objectives.clip_share(LOG_PROBS, SAMPLED, jnp.zeros((1, 1))), 0.0)


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit])
def test_literals_of_kl_and_value(transform):
    x, y = jnp.array([[0.0, 2.0, 3.0]]), jnp.array([[0.0, 1.0, 5.0]])
    squares = [[0.0, 0.5, 2.0]]
    np.testing.assert_array_equal(transform(objectives.kl_to_reference)(x, y), squares)
    np.testing.assert_array_equal(transform(objectives.value_loss)(x, y), squares)
    estimates = transform(objectives.kl_estimate)(x, y)
    np.testing.assert_allclose(estimates, [[0.0, np.exp(-1), np.exp(2) - 3]], rtol=1e-6)


def test_kl_in_expectation():
    """Averaged over the policy's own tokens: the loss has the gradient of the KL, the estimate its value."""
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(0), 2)
        logits, other = (2 * jax.random.normal(key, (7,), float) for key in keys)
        reference = jax.nn.log_softmax(other)

        def kl(logits):
            log_pi = jax.nn.log_softmax(logits)
            return jnp.sum(jnp.exp(log_pi) * (log_pi - reference))

        def mean_over_own_tokens(per_token):
            def mean(logits):
                log_pi = jax.nn.log_softmax(logits)
                return jnp.sum(jnp.exp(jax.lax.stop_gradient(log_pi)) * per_token(log_pi, reference))

            return mean

        loss = mean_over_own_tokens(objectives.kl_to_reference)
        np.testing.assert_allclose(jax.grad(loss)(logits), jax.grad(kl)(logits), atol=1e-12)
        estimate = mean_over_own_tokens(objectives.kl_estimate)
        np.testing.assert_allclose(estimate(logits), kl(logits), rtol=1e-12)


def test_the_estimate_is_never_negative_and_has_no_gradient():
    sizes = 10.0 ** -np.arange(12.0)
    x = jnp.asarray(np.concatenate([sizes, -sizes, [40.0, -40.0]]), jnp.float32)
    assert np.all(objectives.kl_estimate(x, jnp.zeros_like(x)) >= 0)
    slope = jax.grad(lambda y: jnp.sum(objectives.kl_estimate(y, jnp.zeros_like(y))))(x)
    np.testing.assert_array_equal(slope, 0.0)


def test_references_and_targets_have_no_gradient():
    def total(x, y):
        return jnp.sum(objectives.kl_to_reference(x, y) + objectives.value_loss(x, y))

    own, given = jax.grad(total, argnums=(0, 1))(LOG_PROBS, SAMPLED)
    np.testing.assert_allclose(own, 2 * (LOG_PROBS - SAMPLED), rtol=1e-6)
    np.testing.assert_array_equal(given, 0.0)


def test_gradients_against_finite_differences():
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(1), 3)
        new, old, advantages = (jax.random.normal(key, (3, 6), float) for key in keys)
        for per_token in (
            lambda x: objectives.clipped_policy_gradient(x, old, advantages, clip=0.3, clip_high=0.5),
            lambda x: objectives.kl_to_reference(x, old),
            lambda x: objectives.value_loss(x, old),
        ):
            check_grads(
                lambda x, f=per_token: jnp.sum(f(jnp.asarray(x)) * old),
                (new,),
                order=1,
                modes=["rev"],
                atol=1e-6,
                rtol=1e-6,
            )


@pytest.mark.parametrize(
    ("clips", "says"),
    [({"clip": -0.1}, r"clip = -0\.1 must"), ({"clip_high": math.nan}, "clip_high = nan must")],
)
def test_errors(clips, says):
    with pytest.raises(UserError, match=says):
        objectives.clipped_policy_gradient(LOG_PROBS, SAMPLED, ADVANTAGES, **clips)
