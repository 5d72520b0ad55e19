"""DFT and focal loss: hand-worked values, their gradients, and the ends of the scale."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from lmirl_jax import objectives, soft_q
from lmirl_jax.types import SoftQ, UserError
from tests.objectives.bandit import EXPERT, expected, optimum, random_case

LOGITS = jnp.log(jnp.array([[[1.0, 3.0], [2.0, 6.0]]]))  # pi = (1/4, 3/4) at both
TARGETS = jnp.array([[1, 0]])


def of_log_pi(log_pi):
    """A `SoftQ` whose log-probability is the given one."""
    log_pi = jnp.asarray(log_pi)
    return SoftQ(log_pi, jnp.zeros_like(log_pi))


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit])
def test_literals(transform):
    def losses(x):
        out = soft_q.from_logits(x, TARGETS)
        return [objectives.dft(out), objectives.focal(out), objectives.focal(out, focus=0.5)]

    dft, focal, root = transform(losses)(LOGITS)
    log_pi = np.log([[3 / 4, 1 / 4]])
    np.testing.assert_allclose(dft, -np.array([[3 / 4, 1 / 4]]) * log_pi, rtol=1e-6)
    np.testing.assert_allclose(focal, -np.array([[1 / 16, 9 / 16]]) * log_pi, rtol=1e-6)
    np.testing.assert_allclose(root, -np.array([[0.5, np.sqrt(0.75)]]) * log_pi, rtol=1e-6)


def test_the_gradient_of_dft_is_that_of_likelihood_times_the_probability():
    logits, targets = random_case(0)

    def gradient(objective):
        return jax.grad(lambda x: jnp.sum(objective(soft_q.from_logits(x, targets))))(logits)

    out = soft_q.from_logits(logits, targets)
    pi = jnp.exp(out.q - out.v)[..., None]
    np.testing.assert_allclose(gradient(objectives.dft), pi * gradient(objectives.mle), rtol=1e-5, atol=1e-7)


def test_dft_ends_at_the_most_probable_word():
    with jax.enable_x64(True):
        gradient = jax.grad(expected(objectives.dft))
        descent = jax.lax.scan(lambda x, _: (x - 5.0 * gradient(x), None), jnp.zeros(3), length=5000)[0]
        np.testing.assert_allclose(jax.nn.softmax(descent), [1, 0, 0], atol=1e-3)
        # Not even the expert's own policy is left alone.
        slope = gradient(jnp.log(jnp.array(EXPERT)))
        assert slope[0] < 0 < slope[1]


def test_focus_0_is_likelihood():
    logits, targets = random_case(1)

    def total(objective):
        return lambda x: jnp.sum(objective(soft_q.from_logits(x, targets)))

    focal = total(lambda out: objectives.focal(out, focus=0.0))
    np.testing.assert_allclose(focal(logits), total(objectives.mle)(logits), rtol=1e-7)
    np.testing.assert_allclose(jax.grad(focal)(logits), jax.grad(total(objectives.mle))(logits), atol=1e-6)


@pytest.mark.parametrize("focus", [0.0, 0.5, 1.0, 1.5, 2.0, 5.0])
@pytest.mark.parametrize("wide", [False, True])
def test_focal_is_exact_from_sure_to_hopeless(focus, wide):
    """Against its limits: L ** (1 + focus) for a loss L near 0, and L itself far from it; and the slopes of both."""
    with jax.enable_x64(wide):
        tolerance = 1e-12 if wide else 2e-6

        def value_and_slope(loss):
            return jax.value_and_grad(
                lambda q: objectives.focal(of_log_pi(q[None, None]), focus=focus)[0, 0]
            )(jnp.asarray(-loss))

        for loss in (1e-30, 1e-9, 1e-20):
            value, slope = value_and_slope(loss)
            np.testing.assert_allclose(value, loss ** (1 + focus), rtol=1e-5, atol=1e-37)
            np.testing.assert_allclose(slope, -(1 + focus) * loss**focus, rtol=1e-5, atol=1e-37)
        for loss in (100.0, 1e4):
            value, slope = value_and_slope(loss)
            np.testing.assert_allclose([value, slope], [loss, -1.0], rtol=tolerance)
        for loss in (1e-5, 1e-3, 0.3, 3.0):
            pi, miss = np.exp(-loss), -np.expm1(-loss)
            value, slope = value_and_slope(loss)
            by_hand = -(miss**focus) - focus * loss * miss ** (focus - 1) * pi
            np.testing.assert_allclose(value, loss * miss**focus, rtol=tolerance)
            np.testing.assert_allclose(slope, by_hand, rtol=tolerance)


@pytest.mark.parametrize("focus", [0.0, 0.3, 1.0, 2.0])
def test_focal_at_probability_1_and_past_it_by_rounding(focus):
    for log_pi in (0.0, 1e-7):
        value, slope = jax.value_and_grad(lambda q: jnp.sum(objectives.focal(of_log_pi(q), focus=focus)))(
            jnp.array([[log_pi]])
        )
        assert value == 0.0 and np.isfinite(slope).all()


def test_focal_of_a_hopeless_token_does_not_overflow():
    """1e4 ** 13 is past float32: the branch for sure tokens, not taken here, must not see the loss."""
    value, slope = jax.value_and_grad(lambda q: jnp.sum(objectives.focal(of_log_pi(q), focus=12.0)))(
        jnp.array([[-1e4]])
    )
    np.testing.assert_array_equal([value, slope[0, 0]], [1e4, -1.0])


@pytest.mark.parametrize("focus", [0.5, 1.0, 2.0, 3.5])
def test_focal_gradients_against_finite_differences(focus):
    with jax.enable_x64(True):
        logits, targets = random_case(2)

        def f(x):
            return jnp.sum(objectives.focal(soft_q.from_logits(jnp.asarray(x), targets), focus=focus))

        check_grads(f, (logits,), order=1, modes=["rev"], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("focus", "policy"),
    [(0.0, EXPERT), (1.0, (0.59930, 0.26332, 0.13738)), (2.0, (0.53517, 0.29269, 0.17214))],
)
def test_the_optimum_under_focal_loss(focus, policy):
    """pi_E(a) times minus the slope of (1 - p) ** f * -log p at pi(a) is the same for all words."""
    with jax.enable_x64(True):
        logits, _ = optimum(lambda out: objectives.focal(out, focus=focus))
        pi = np.asarray(jax.nn.softmax(logits))
        np.testing.assert_allclose(pi, policy, atol=1e-5)
        levels = np.array(EXPERT) * ((1 - pi) ** focus / pi - focus * (1 - pi) ** (focus - 1) * np.log(pi))
        np.testing.assert_allclose(levels, levels[0], rtol=1e-6)


def test_errors():
    with pytest.raises(UserError, match=r"focus=-1\.0 must be a number of 0 or more"):
        objectives.focal(of_log_pi(jnp.ones((1, 2))), focus=-1.0)
