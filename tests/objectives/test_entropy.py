"""Entropy-regularised likelihood and GEM: hand-worked values, gradients and optima."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from lmirl_jax import objectives, soft_q
from lmirl_jax.types import SoftQ, UserError
from tests.objectives.bandit import EXPERT, optimum, random_case

LOGITS = jnp.log(jnp.array([[[1.0, 3.0], [1.0, 4.0]]]))
TARGETS = jnp.array([[1, 0]])


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit])
def test_literals(transform):
    """pi = (1/4, 3/4) and (1/5, 4/5); at temperature 1/2 the logits' exponentials are squared."""

    def losses(x):
        out = soft_q.from_logits(x, TARGETS, with_entropy=True, temperature=0.5)
        return objectives.entropy_regularised_mle(out, entropy_weight=0.5), objectives.gem(out)

    regularised, gem = transform(losses)(LOGITS)
    entropy = np.array([[np.log(4) - 0.75 * np.log(3), np.log(5) - 0.8 * np.log(4)]])
    np.testing.assert_allclose(regularised, np.log([[4 / 3, 5.0]]) - 0.5 * entropy, atol=1e-7)
    np.testing.assert_allclose(gem, [[0.5 * np.log(10) - np.log(3), 0.5 * np.log(17)]], rtol=1e-6)


def test_both_meet_likelihood():
    logits, targets = random_case(0)
    out = soft_q.from_logits(logits, targets, with_entropy=True, temperature=1.0)
    np.testing.assert_array_equal(
        objectives.entropy_regularised_mle(out, entropy_weight=0.0), objectives.mle(out)
    )
    np.testing.assert_allclose(objectives.gem(out), objectives.mle(out), rtol=1e-6)


def test_the_gradient_of_gem_is_the_tempered_policy_less_one_at_the_target():
    logits, targets = random_case(1)
    gradient = jax.grad(lambda x: jnp.sum(objectives.gem(soft_q.from_logits(x, targets, temperature=0.7))))(
        logits
    )
    by_hand = jax.nn.softmax(logits / 0.7) - jax.nn.one_hot(targets, 7)
    np.testing.assert_allclose(gradient, by_hand, atol=1e-6)


def test_gem_is_the_published_game_at_its_equilibrium():
    """The source's loss: -sum_a stop_gradient(softmax(logits / beta))_a (log pi(y) - log pi(a))."""
    logits, targets = random_case(2)

    def published(x):
        log_pi = jax.nn.log_softmax(x)
        weights = jax.lax.stop_gradient(jax.nn.softmax(x / 0.7))
        taken = jnp.take_along_axis(log_pi, targets[..., None], -1)
        return -jnp.sum(weights * (taken - log_pi))

    ours = jax.grad(lambda x: jnp.sum(objectives.gem(soft_q.from_logits(x, targets, temperature=0.7))))
    np.testing.assert_allclose(ours(logits), jax.grad(published)(logits), atol=1e-6)


@pytest.mark.parametrize("name", ["entropy_regularised_mle", "gem"])
def test_gradients_against_finite_differences(name):
    with jax.enable_x64(True):
        logits, targets = random_case(3)

        def f(x):
            out = soft_q.from_logits(jnp.asarray(x), targets, with_entropy=True, temperature=0.7)
            return jnp.sum(getattr(objectives, name)(out))

        check_grads(f, (logits,), order=1, modes=["rev"], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("weight", "policy"),
    [
        (0.1, (0.67004, 0.21483, 0.11513)),
        (0.5, (0.57906, 0.25215, 0.16879)),
        (1.0, (0.51446, 0.27389, 0.21165)),
    ],
)
def test_the_optimum_under_entropy_regularisation(weight, policy):
    with jax.enable_x64(True):
        logits, _ = optimum(
            lambda out: objectives.entropy_regularised_mle(out, entropy_weight=weight), with_entropy=True
        )
        log_pi = jax.nn.log_softmax(logits)
        pi = jnp.exp(log_pi)
        np.testing.assert_allclose(pi, policy, atol=1e-5)
        entropy = -jnp.sum(pi * log_pi)
        np.testing.assert_allclose(pi * (1 + weight * (log_pi + entropy)), EXPERT, atol=1e-7)


@pytest.mark.parametrize(
    ("unused", "policy", "each"),
    [
        (1_000, (0.65961866, 0.21112662, 0.11301881), 1.6235903e-5),
        (32_125, (0.58789781, 0.18594721, 0.09878296), 3.9648873e-6),
    ],
)
def test_entropy_gives_weight_to_words_that_the_expert_never_uses(unused, policy, each):
    """exp(-1/weight - H) to each, at weight 0.1: 1.6% in all of 1,000 such words, 13% of a T5 vocabulary."""
    with jax.enable_x64(True):
        pi = jnp.concatenate([jnp.array(policy), jnp.full(unused, each)])
        np.testing.assert_allclose(jnp.sum(pi), 1.0, atol=1e-7)
        np.testing.assert_allclose(each, jnp.exp(-10 + jnp.sum(pi * jnp.log(pi))), rtol=1e-4)

        def loss(logits):
            out = soft_q.from_logits(
                jnp.broadcast_to(logits, (3, 1, unused + 3)), jnp.arange(3)[:, None], with_entropy=True
            )
            return jnp.sum(
                jnp.array(EXPERT) * objectives.entropy_regularised_mle(out, entropy_weight=0.1)[:, 0]
            )

        np.testing.assert_allclose(jax.grad(loss)(jnp.log(pi)), 0.0, atol=1e-8)


@pytest.mark.parametrize(
    ("beta", "policy"), [(0.5, (0.52288, 0.27949, 0.19763)), (0.7, (0.59803, 0.24881, 0.15316))]
)
def test_the_optimum_under_gem(beta, policy):
    with jax.enable_x64(True):
        logits, _ = optimum(objectives.gem, temperature=beta)
        pi = jax.nn.softmax(logits)
        np.testing.assert_allclose(pi, policy, atol=1e-5)
        powers = np.array(EXPERT) ** beta
        np.testing.assert_allclose(pi, powers / powers.sum(), atol=1e-7)


@pytest.mark.parametrize(
    ("objective", "says"),
    [(objectives.entropy_regularised_mle, "with_entropy=True"), (objectives.gem, "SOFT_Q_TEMPERATURE = 0.7")],
)
def test_what_was_not_asked_for_is_one_line(objective, says):
    x = jnp.ones((1, 2))
    with pytest.raises(UserError, match=says) as error:
        objective(SoftQ(x, x))
    assert "\n" not in str(error.value)
