"""Offline Q-learning: literals by hand, gradients, and the losses that it equals or tends to."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from jax.test_util import check_grads

from lmirl_jax import objectives, soft_q
from lmirl_jax.types import SoftQ, UserError

LOGITS = jnp.log(jnp.array([[[1.0, 3.0], [2.0, 6.0]]]))
TARGETS = jnp.array([[1, 0]])
DISCOUNTS = jnp.array([[0.5, 0.0]])


def random_case(seed=0, length=5, vocab=7):
    keys = jax.random.split(jax.random.key(seed), 4)
    logits = 2 * jax.random.normal(keys[0], (3, length, vocab))
    targets = jax.random.randint(keys[1], (3, length), 0, vocab)
    rewards = jax.random.normal(keys[2], (3, length))
    values = jax.random.normal(keys[3], (3, length))
    discounts = jnp.full((3, length), 0.9).at[:, -1].set(0.0)
    return logits, targets, rewards, values, discounts


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit])
def test_literals_of_q(transform):
    """Q = log 3, log 2, their logsumexps log 4, log 8, and V = 5, 0.4: the differences are log 3 - 0.2 - 1 and log 2 - 0 - 2."""
    values, rewards = jnp.array([[5.0, 0.4]]), jnp.array([[1.0, 2.0]])

    def loss(logits):
        out = soft_q.from_logits(logits, TARGETS)
        mask = jnp.array([[1.0, 0.5]])
        return objectives.conservative_q(
            out, values, DISCOUNTS, td_weight=mask, rewards=rewards, cql_weight=0.3
        )

    td = np.array([[(np.log(3) - 1.2) ** 2, 0.5 * (np.log(2) - 2) ** 2]])
    np.testing.assert_allclose(transform(loss)(LOGITS), td + 0.3 * np.log([[4 / 3, 4.0]]), rtol=1e-5)


def test_with_the_logsumexp_as_value_it_is_labelled_iqlearn():
    """Values and gradients, with a CQL weight of 1 and the temporal difference weighted by lambda."""
    logits, targets, rewards, _, discounts = random_case()

    def ours(logits):
        out = soft_q.from_logits(logits, targets)
        return objectives.conservative_q(out, out.v, discounts, td_weight=0.7, rewards=rewards)

    def theirs(logits):
        out = soft_q.from_logits(logits, targets)
        return objectives.iqlearn(out, discounts, td_weight=0.7, rewards=rewards)

    np.testing.assert_allclose(ours(logits), theirs(logits), rtol=1e-5, atol=1e-6)
    gradients = (jax.grad(lambda logits, f=f: f(logits).sum())(logits) for f in (ours, theirs))
    np.testing.assert_allclose(*gradients, rtol=1e-4, atol=1e-5)


def test_literals_of_the_expectile():
    losses = objectives.expectile(jnp.array([2.0, -1.0, 0.0]), jnp.zeros(3), tau=0.8)
    np.testing.assert_allclose(losses, [3.2, 0.2, 0.0], rtol=1e-6)


@pytest.mark.parametrize("tau, expected", [(0.5, 3.0), (0.8, 4.8), (0.999, 5.992)])
def test_the_expectile_goes_from_the_mean_to_the_maximum(tau, expected):
    """Of the targets 0 and 6, where tau (6 - v) = (1 - tau) v: v is 6 tau."""
    targets = jnp.array([0.0, 6.0])

    def loss(value):
        return float(objectives.expectile(targets, jnp.full(2, value), tau=tau).sum())

    found = scipy.optimize.minimize_scalar(loss, bounds=(-1, 7), method="bounded").x
    assert abs(found - expected) < 0.01


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit])
def test_literals_of_weighted_likelihood(transform):
    """-log pi is log 4/3 and log 4; e^(0.5 * 2) = e, and e^(0.5 * 20) is above the bound of 30."""

    def loss(logits):
        out = soft_q.from_logits(logits, TARGETS)
        return objectives.advantage_weighted(out, jnp.array([[2.0, 20.0]]), beta=0.5, max_weight=30.0)

    expected = [[np.e * np.log(4 / 3), 30 * np.log(4)]]
    np.testing.assert_allclose(transform(loss)(LOGITS), expected, rtol=1e-5)


def test_without_beta_it_is_maximum_likelihood():
    logits, targets, _, values, _ = random_case()
    out = soft_q.from_logits(logits, targets)
    np.testing.assert_array_equal(objectives.advantage_weighted(out, values, beta=0.0), objectives.mle(out))


def test_with_the_soft_advantage_its_gradient_is_that_of_dft():
    """Its weight is then pi of the token, which is what dynamic fine-tuning multiplies the likelihood with."""
    logits, targets, *_ = random_case()

    def gradient(loss):
        return jax.grad(lambda logits: loss(soft_q.from_logits(logits, targets)).sum())(logits)

    weighted = gradient(lambda out: objectives.advantage_weighted(out, out.q - out.v, beta=1.0))
    np.testing.assert_allclose(weighted, gradient(objectives.dft), rtol=1e-5, atol=1e-7)


def test_gradients_are_those_of_finite_differences():
    with jax.enable_x64(True):
        logits, targets, rewards, values, discounts = random_case()

        def of_q(logits, values):
            out = soft_q.from_logits(jnp.asarray(logits), targets)
            given = {"td_weight": 0.4, "rewards": rewards, "cql_weight": 0.2}
            return objectives.conservative_q(out, jnp.asarray(values), discounts, **given)

        def of_value(values):
            return objectives.expectile(rewards, jnp.asarray(values))

        def weighted(logits):
            out = soft_q.from_logits(jnp.asarray(logits), targets)
            return objectives.advantage_weighted(out, values, beta=0.5)

        check_grads(of_q, (logits, values), order=1, modes=["rev"])
        check_grads(of_value, (values,), order=1, modes=["rev"])
        check_grads(weighted, (logits,), order=1, modes=["rev"])


def test_what_is_fitted_to_has_no_gradient():
    values = jnp.array([0.3, -1.0])
    gradient = jax.grad(lambda targets: objectives.expectile(targets, values).sum())(jnp.array([1.0, 2.0]))
    np.testing.assert_array_equal(gradient, 0.0)
    out = SoftQ(jnp.zeros(2), jnp.ones(2))
    gradient = jax.grad(lambda a: objectives.advantage_weighted(out, a).sum())(values)
    np.testing.assert_array_equal(gradient, 0.0)


@pytest.mark.parametrize("tau", [0.0, 1.0, -1.0])
def test_an_expectile_that_is_none(tau):
    with pytest.raises(UserError, match="tau"):
        objectives.expectile(jnp.zeros(2), jnp.zeros(2), tau=tau)
