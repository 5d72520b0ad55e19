"""Objectives on preferences: literals by hand, gradients, and the optima that are known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from jax.test_util import check_grads

from lmirl_jax import objectives
from lmirl_jax.types import UserError

MARGINS = jnp.array([0.0, 2.0, -2.0])


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit])
def test_literals(transform):
    """With beta 1/2 the rewards are 0, 1 and -1: log(1 + e^0), log(1 + 1/e) and log(1 + e)."""
    dpo = transform(lambda h: objectives.dpo(h, beta=0.5))
    np.testing.assert_allclose(dpo(MARGINS), [0.693147, 0.313262, 1.313262], rtol=1e-5)
    smooth = transform(lambda h: objectives.dpo(h, beta=0.5, label_smoothing=0.1))
    np.testing.assert_allclose(smooth(MARGINS), [0.693147, 0.413262, 1.213262], rtol=1e-5)
    hinge = transform(lambda h: objectives.hinge(h, beta=0.25))
    np.testing.assert_allclose(hinge(jnp.array([0.0, 2.0, -2.0, 5.0])), [1.0, 0.5, 1.5, 0.0])
    ipo = transform(lambda h: objectives.ipo(h, beta=0.25))
    np.testing.assert_allclose(ipo(MARGINS), [4.0, 0.0, 16.0])


@pytest.mark.parametrize("loss", [objectives.dpo, objectives.hinge, objectives.ipo])
def test_gradients(loss):
    def of(margins):
        return loss(jnp.asarray(margins), beta=0.5)

    with jax.enable_x64(True):
        check_grads(of, (jnp.array([0.3, 1.2, -3.0]),), order=1, modes=["rev"])


def test_the_hinge_leaves_a_pair_beyond_its_margin_alone():
    gradient = jax.grad(lambda h: objectives.hinge(h, beta=0.5).sum())(jnp.array([2.1, 1.9]))
    np.testing.assert_array_equal(gradient, [0.0, -0.5])


@pytest.mark.parametrize("share", [0.5, 0.7, 0.99])
def test_the_optimum_of_sampled_preferences_is_their_log_odds_over_beta(share):
    """So that beta log pi / pi_ref is the reward of Bradley-Terry. Label smoothing 1 - share on sure preferences is the same."""
    beta = 0.3
    expected = np.log(share / (1 - share)) / beta

    def sampled(h):
        h = jnp.array([h, -h])
        return float(jnp.dot(jnp.array([share, 1 - share]), objectives.dpo(h, beta=beta)))

    def smoothed(h):
        return float(objectives.dpo(jnp.array([h]), beta=beta, label_smoothing=1 - share)[0])

    for loss in (sampled, smoothed):
        found = scipy.optimize.minimize_scalar(loss, bounds=(-40, 40), method="bounded").x
        assert abs(found - expected) < 0.05


def test_ipo_has_a_finite_optimum_for_sure_preferences():
    gradient = jax.grad(lambda h: objectives.ipo(h, beta=0.1).sum())(jnp.array([5.0]))
    np.testing.assert_array_equal(gradient, [0.0])


def test_label_smoothing_of_one_is_refused():
    with pytest.raises(UserError, match="label_smoothing=1"):
        objectives.dpo(MARGINS, label_smoothing=1.0)
