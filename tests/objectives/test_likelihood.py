"""Maximum likelihood against hand-worked values, and its options against dense computations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from lmirl_jax import objectives, soft_q
from lmirl_jax.types import SoftQ, UserError
from tests.objectives.bandit import EXPERT, optimum, random_case


def smoothed(logits, targets, **options):
    out = soft_q.from_logits(logits, targets, with_sum=True)
    return objectives.mle(out, vocab_size=logits.shape[-1], **options)


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit])
def test_literals(transform):
    logits = jnp.log(jnp.array([[[1.0, 3.0], [2.0, 6.0]]]))
    loss = transform(lambda x: objectives.mle(soft_q.from_logits(x, jnp.array([[1, 0]]))))(logits)
    np.testing.assert_allclose(loss, np.log([[4 / 3, 4.0]]), rtol=1e-6)


def test_a_constant_on_one_position_changes_nothing():
    logits = jax.random.normal(jax.random.key(0), (1, 3, 5))
    targets = jnp.array([[0, 4, 2]])
    shifted = logits.at[:, 1].add(7.0)
    for options in ({}, {"label_smoothing": 0.1}):
        before, after = (smoothed(x, targets, **options) for x in (logits, shifted))
        np.testing.assert_allclose(after, before, atol=4e-6)


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit])
def test_literals_of_label_smoothing_and_z_loss(transform):
    """pi = (1/4, 3/4), targets 1 and 0: a quarter of the smoothed target on the other word, less log 4 - 3/4 log 3.

    The first policy is the smoothed target itself, so its loss is 0; v is log 4, log 8.
    """
    logits = jnp.log(jnp.array([[[1.0, 3.0], [2.0, 6.0]]]))
    targets = jnp.array([[1, 0]])
    loss = transform(lambda x: smoothed(x, targets, label_smoothing=0.25))(logits)
    np.testing.assert_allclose(loss, [[0.0, 0.5 * np.log(3)]], atol=1e-6)
    loss = transform(lambda x: smoothed(x, targets, z_loss=0.5))(logits)
    np.testing.assert_allclose(loss, np.log([[4 / 3, 4.0]]) + 0.5 * np.log([[4.0, 8.0]]) ** 2, rtol=1e-6)


def dense(logits, targets, smoothing, z_loss):
    """Cross-entropy to the smoothed one-hot target less that target's entropy, plus z-loss, with all probabilities."""
    words = logits.shape[-1]
    hot = jax.nn.one_hot(targets, words, dtype=logits.dtype)
    target = (1 - smoothing) * hot + smoothing / (words - 1) * (1 - hot)
    log_pi = jax.nn.log_softmax(logits)
    entropy = -jnp.sum(jnp.where(target > 0, target * jnp.log(jnp.where(target > 0, target, 1.0)), 0.0), -1)
    return -jnp.sum(target * log_pi, -1) - entropy + z_loss * jax.nn.logsumexp(logits, -1) ** 2


@pytest.mark.parametrize(("smoothing", "z_loss"), [(0.1, 0.0), (0.0, 1e-2), (0.3, 1e-2)])
def test_options_against_the_dense_computation(smoothing, z_loss):
    with jax.enable_x64(True):
        logits, targets = random_case(0)

        def ours(x):
            return smoothed(x, targets, label_smoothing=smoothing, z_loss=z_loss)

        np.testing.assert_allclose(ours(logits), dense(logits, targets, smoothing, z_loss), rtol=1e-12)
        slope = jax.grad(lambda x: jnp.sum(ours(x)))(logits)
        other = jax.grad(lambda x: jnp.sum(dense(x, targets, smoothing, z_loss)))(logits)
        np.testing.assert_allclose(slope, other, atol=1e-12)
        check_grads(lambda x: jnp.sum(ours(jnp.asarray(x))), (logits,), 1, ["rev"], atol=1e-6, rtol=1e-6)


def test_options_off_are_plain_likelihood_bit_for_bit():
    logits, targets = random_case(1)
    out = soft_q.from_logits(logits, targets)
    loss = objectives.mle(out, label_smoothing=0.0, z_loss=0.0, vocab_size=7)
    np.testing.assert_array_equal(loss, out.v - out.q)


def test_the_optimum_under_label_smoothing_and_z_loss():
    with jax.enable_x64(True):
        logits, loss = optimum(
            lambda out: objectives.mle(out, label_smoothing=0.1, z_loss=1e-2, vocab_size=3), with_sum=True
        )
        np.testing.assert_allclose(jax.nn.softmax(logits), [0.645, 0.22, 0.135], atol=1e-7)
        np.testing.assert_allclose(jax.nn.logsumexp(logits), 0.0, atol=1e-6)
        logits, loss = optimum(lambda out: objectives.mle(out, z_loss=1e-2))
        np.testing.assert_allclose(jax.nn.softmax(logits), EXPERT, atol=1e-7)
        np.testing.assert_allclose(loss, 0.801819, atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "options", "says"),
    [
        ({}, {"label_smoothing": 0.1, "vocab_size": 5}, "with_sum=True"),
        ({"sum_logits": True}, {"label_smoothing": 0.1}, "vocab_size = None"),
        ({"sum_logits": True}, {"label_smoothing": 0.1, "vocab_size": 1}, "vocab_size = 1"),
        (
            {"sum_logits": True},
            {"label_smoothing": 1.0, "vocab_size": 5},
            "label_smoothing=1.0 must be a number from 0",
        ),
        ({"sum_logits": True}, {"label_smoothing": -0.1, "vocab_size": 5}, "label_smoothing=-0.1 must be"),
    ],
)
def test_errors(fields, options, says):
    x = jnp.ones((1, 2))
    with pytest.raises(UserError, match=says) as error:
        objectives.mle(SoftQ(x, x, **dict.fromkeys(fields, x)), **options)
    assert "\n" not in str(error.value)
