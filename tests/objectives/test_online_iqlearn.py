"""Online IQLearn: the offline loss on expert tokens and on the policy's own, with the weights of `online_weights`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from lmirl_jax import objectives, soft_q
from lmirl_jax.types import UserError
from tests.objectives.bandit import DIVERGENCES, ended, random_case

TD_WEIGHT = 0.4
MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])  # Of expert and samples; the second row has three tokens.
DISCOUNTS = np.array([[0.9, 0.9, 0.9, 0.9, 0], [0.9, 0.9, 0, 0, 0]])
every_divergence = pytest.mark.parametrize("phi", DIVERGENCES.values(), ids=DIVERGENCES)


def online(logits, targets, samples, *, alpha, phi, copies=1, rescale=True):
    """The loss of one batch of expert rows and sampled ones, each by its own count; `copies` repeats the samples."""
    rows = [targets, *[samples] * copies]
    from_samples = jnp.repeat(jnp.array([0.0] + copies * [1.0], logits.dtype), 2)[:, None]
    mask, discounts = (jnp.concatenate([x.astype(logits.dtype)] * len(rows)) for x in (MASK, DISCOUNTS))
    weights = objectives.online_weights(from_samples, alpha=alpha, rescale=rescale)
    loss = objectives.iqlearn(
        soft_q.from_logits(jnp.concatenate([logits] * len(rows)), jnp.concatenate(rows)),
        discounts,
        td_weight=weights.td_factor * TD_WEIGHT * mask,
        mle_weight=weights.mle_weight,
        penalty_weight=weights.penalty_weight,
        phi=phi,
    )
    expert, sampled = mask * (1 - from_samples), mask * from_samples
    return jnp.sum(expert * loss) / jnp.sum(expert) + jnp.sum(sampled * loss) / jnp.sum(sampled)


def offline(logits, targets, *, td_weight, phi):
    mask = jnp.asarray(MASK, logits.dtype)
    out = soft_q.from_logits(logits, targets)
    loss = objectives.iqlearn(out, jnp.asarray(DISCOUNTS, logits.dtype), td_weight=td_weight * mask, phi=phi)
    return jnp.sum(mask * loss) / jnp.sum(mask)


def same(left, right, logits):
    """Equal in value and in gradient."""
    (value, slope), (other, other_slope) = (jax.value_and_grad(f)(logits) for f in (left, right))
    np.testing.assert_allclose(value, other, rtol=1e-12)
    np.testing.assert_allclose(slope, other_slope, atol=1e-12)


def test_weights():
    from_samples = jnp.array([[0.0, 1.0, 1.0]])
    mle_weight, penalty_weight, factor = objectives.online_weights(from_samples, alpha=0.25)
    np.testing.assert_array_equal(mle_weight, [[1.0, 0.0, 0.0]])
    np.testing.assert_array_equal(penalty_weight, [[0.75, 0.25, 0.25]])
    assert factor == 16 / 9
    assert objectives.online_weights(from_samples, alpha=0.25, rescale=False).td_factor == 1.0


@pytest.mark.parametrize("alpha", [-0.1, 1.0, float("nan")])
def test_alpha_out_of_range_is_refused(alpha):
    with pytest.raises(UserError, match=r"online_weights: alpha=.* must be a number from 0 to below 1"):
        objectives.online_weights(jnp.zeros(2), alpha=alpha)


@every_divergence
def test_the_penalty_weight_multiplies_the_penalty_alone(phi):
    logits, targets = random_case(5)
    out = soft_q.from_logits(logits, targets)

    def loss(**weights):
        return objectives.iqlearn(out, ended(5, 1.0), td_weight=0.3, phi=phi, **weights)

    penalty = loss(mle_weight=0.0)
    np.testing.assert_allclose(loss(penalty_weight=0.25), objectives.mle(out) + 0.25 * penalty, rtol=1e-6)
    rows = jnp.array([[0.0], [3.0]])
    np.testing.assert_allclose(loss(penalty_weight=rows, mle_weight=0.0), rows * penalty, rtol=1e-6)


@every_divergence
def test_fact_6_alpha_0_is_offline_whatever_was_sampled(phi):
    with jax.enable_x64(True):
        logits, targets = random_case(8)
        samples = random_case(9)[1]
        same(
            lambda x: online(x, targets, samples, alpha=0.0, phi=phi),
            lambda x: offline(x, targets, td_weight=TD_WEIGHT, phi=phi),
            logits,
        )


@every_divergence
@pytest.mark.parametrize(("alpha", "copies"), [(0.1, 1), (0.5, 3)])
def test_fact_6_samples_that_equal_the_demonstrations(phi, alpha, copies):
    """They give offline at lambda_eff = lambda / (1 - alpha) ** 2, or at lambda itself without the factor."""
    with jax.enable_x64(True):
        logits, targets = random_case(8)
        for rescale, effective in ((True, TD_WEIGHT / (1 - alpha) ** 2), (False, TD_WEIGHT)):
            same(
                lambda x, rescale=rescale: online(
                    x, targets, targets, alpha=alpha, phi=phi, copies=copies, rescale=rescale
                ),
                lambda x, effective=effective: offline(x, targets, td_weight=effective, phi=phi),
                logits,
            )


def test_chi_squared_is_the_documented_sum():
    """-log pi on expert, and lambda_eff [(1 - alpha) r ** 2 on expert + alpha r ** 2 on samples]."""
    with jax.enable_x64(True):
        logits, targets = random_case(8)
        samples, alpha = random_case(9)[1], 0.3
        means = []
        for tokens in (targets, samples):
            out = soft_q.from_logits(logits, tokens)
            rewards = objectives.implied_rewards(out, jnp.asarray(DISCOUNTS))
            means.append([jnp.sum(x[MASK == 1]) / 8 for x in (objectives.mle(out), rewards**2)])
        (nll, on_expert), (_, on_samples) = means
        expected = nll + TD_WEIGHT / 0.7**2 * (0.7 * on_expert + 0.3 * on_samples)
        loss = online(logits, targets, samples, alpha=alpha, phi=objectives.chi_squared)
        np.testing.assert_allclose(loss, expected, rtol=1e-12)


@pytest.mark.parametrize("name", ["chi_squared", "hellinger"])
def test_gradients_against_finite_differences(name):
    with jax.enable_x64(True):
        logits, targets = random_case(4)
        samples = random_case(3)[1]

        def loss(x):
            return online(jnp.asarray(x), targets, samples, alpha=0.3, phi=DIVERGENCES[name])

        check_grads(loss, (logits,), order=1, modes=["rev"], atol=1e-5, rtol=1e-5)
