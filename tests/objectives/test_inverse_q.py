"""IQLearn held to the facts of the method: literals, identities, stationary points."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from lmirl_jax import objectives, soft_q
from lmirl_jax.types import SoftQ
from tests.objectives.bandit import (
    DIVERGENCES,
    EXPERT,
    ended,
    expected,
    minimise,
    optimum,
    random_case,
    total_variation_optimum,
)

LOGITS = jnp.log(jnp.array([[[1.0, 3.0], [2.0, 6.0]]]))
TARGETS = jnp.array([[1, 0]])
every_divergence = pytest.mark.parametrize("phi", DIVERGENCES.values(), ids=DIVERGENCES)


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit])
def test_literals(transform):
    """q = log 3, log 2 and v = log 4, log 8; with gamma 1/2, r_1 = log 3 - log(8)/2 and r_2 = log 2."""
    discounts = jnp.array([[0.5, 0.0]])

    def loss(x):
        return objectives.iqlearn(soft_q.from_logits(x, TARGETS), discounts, td_weight=0.5)

    rewards = np.array([[np.log(3) - 0.5 * np.log(8), np.log(2)]])
    np.testing.assert_allclose(
        objectives.implied_rewards(soft_q.from_logits(LOGITS, TARGETS), discounts), rewards, rtol=1e-5
    )
    np.testing.assert_allclose(transform(loss)(LOGITS), np.log([[4 / 3, 4.0]]) + 0.5 * rewards**2, rtol=1e-6)


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit])
def test_literals_of_another_divergence(transform):
    """With x = 2 r and lambda 1/2, Hellinger's penalty (x - x / (1 + x)) / 2 is x ** 2 / (1 + x) / 2."""
    discounts = jnp.array([[0.5, 0.0]])

    def loss(x):
        out = soft_q.from_logits(x, TARGETS)
        return objectives.iqlearn(out, discounts, td_weight=0.5, phi=objectives.hellinger)

    x = 2 * np.array([[np.log(3) - 0.5 * np.log(8), np.log(2)]])
    np.testing.assert_allclose(
        transform(loss)(LOGITS), np.log([[4 / 3, 4.0]]) + x**2 / (1 + x) / 2, rtol=1e-6
    )


def test_chi_squared_through_a_wrapper_is_the_same():
    """A configuration hands over a wrapper of the function."""
    logits, targets = random_case(5)
    out = soft_q.from_logits(logits, targets)

    @functools.wraps(objectives.chi_squared)
    def wrapped(x):
        return jnp.full_like(x, jnp.nan)  # It would show: chi-squared's penalty is computed directly.

    plain = objectives.iqlearn(out, ended(5, 1.0), td_weight=0.3)
    np.testing.assert_array_equal(objectives.iqlearn(out, ended(5, 1.0), td_weight=0.3, phi=wrapped), plain)
    with jax.enable_x64(True):  # The general form with the same phi, which no name gives away.
        out = jax.tree.map(lambda x: x.astype(jnp.float64), out)
        general = objectives.iqlearn(
            out, ended(5, 1.0), td_weight=0.3, phi=lambda x: objectives.chi_squared(x)
        )
        np.testing.assert_allclose(general, objectives.iqlearn(out, ended(5, 1.0), td_weight=0.3), rtol=1e-12)


@every_divergence
def test_weights_and_masks(phi):
    out = soft_q.from_logits(LOGITS, TARGETS)
    discounts = jnp.array([[1.0, 0.0]])
    mask = jnp.array([[1.0, 0.0]])
    whole = objectives.iqlearn(out, discounts, td_weight=0.3, phi=phi)
    penalty = whole - objectives.mle(out)
    masked = objectives.iqlearn(out, discounts, td_weight=0.3 * mask, mle_weight=2.0, phi=phi)
    np.testing.assert_allclose(masked, 2 * objectives.mle(out) + mask * penalty, rtol=1e-6)
    mle_weight = jnp.array([[0.0, 1.0]])
    weighed = objectives.iqlearn(out, discounts, td_weight=0.3, mle_weight=mle_weight, phi=phi)
    np.testing.assert_allclose(weighed, mle_weight * objectives.mle(out) + penalty, rtol=1e-6, atol=1e-7)
    assert masked[0, 1] == 2 * objectives.mle(out)[0, 1]  # Exactly nothing is added.


@every_divergence
def test_fact_1_lambda_0_is_cross_entropy_in_value_and_gradient(phi):
    logits, targets = random_case(0)
    discounts = ended(5, 0.9)

    def ours(x, td_weight=0.0):
        out = soft_q.from_logits(x, targets)
        return jnp.sum(objectives.iqlearn(out, discounts, td_weight=td_weight, phi=phi))

    def cross_entropy(x):
        return jnp.sum(objectives.mle(soft_q.from_logits(x, targets)))

    assert ours(logits) == cross_entropy(logits)
    np.testing.assert_array_equal(jax.grad(ours)(logits), jax.grad(cross_entropy)(logits))
    traced = jax.jit(jax.grad(ours))(logits, jnp.asarray(0.0))  # A schedule's lambda is an array.
    np.testing.assert_array_equal(traced, jax.jit(jax.grad(cross_entropy))(logits))
    optaxs = jax.grad(lambda x: jnp.sum(optax.softmax_cross_entropy_with_integer_labels(x, targets)))(logits)
    np.testing.assert_allclose(jax.grad(ours)(logits), optaxs, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "strength"),
    [("chi_squared", 1), ("hellinger", 4), ("reverse_kl", 2), ("forward_kl", 2), ("jensen_shannon", 4)],
)
def test_small_lambda_is_a_squared_reward(name, strength):
    """(x - phi(x)) / (4 lambda) goes to -2 phi''(0) lambda r ** 2."""
    with jax.enable_x64(True):
        logits, targets = random_case(6)
        out = soft_q.from_logits(logits, targets)
        rewards = objectives.implied_rewards(out, ended(5, 1.0))
        loss = objectives.iqlearn(out, ended(5, 1.0), td_weight=1e-7, phi=DIVERGENCES[name])
        penalty = loss - objectives.mle(out)
        np.testing.assert_allclose(penalty, strength * 1e-7 * rewards**2, rtol=1e-3, atol=1e-12)


@every_divergence
@pytest.mark.parametrize("td_weight", [1e-30, 1e-8, 1e-4])
def test_small_lambda_in_float32_loses_nothing(phi, td_weight):
    logits, targets = random_case(6)

    def total(x, weight):
        out = soft_q.from_logits(x, targets)
        return jnp.sum(objectives.iqlearn(out, ended(5, 1.0), td_weight=weight, phi=phi))

    loss, slope = jax.value_and_grad(total)(logits, jnp.asarray(td_weight, jnp.float32))
    mle_loss, mle_slope = jax.value_and_grad(total)(logits, jnp.asarray(0.0))
    np.testing.assert_allclose(loss, mle_loss, rtol=0.01)
    np.testing.assert_allclose(slope, mle_slope, atol=0.01)


@every_divergence
@pytest.mark.parametrize("td_weight", [0.1, 0.5, 1.0])
def test_finite_at_a_reward_of_minus_12(phi, td_weight):
    """A randomly initialised model: each logit so low, or the next value so high, that r is -12."""

    def loss(q, v):
        out = SoftQ(q, v)
        return jnp.sum(objectives.iqlearn(out, jnp.array([[1.0, 0.0]]), td_weight=td_weight, phi=phi))

    q, v = jnp.array([[-2.0, -12.0]]), jnp.array([[10.0, 10.0]])
    rewards = objectives.implied_rewards(SoftQ(q, v), jnp.array([[1.0, 0.0]]))
    np.testing.assert_array_equal(rewards, -12.0)
    value, slopes = jax.value_and_grad(loss, argnums=(0, 1))(q, v)
    assert np.isfinite(value) and all(np.isfinite(slope).all() for slope in slopes)
    assert np.all(slopes[0] < -1)  # Upwards, and harder than likelihood alone pulls.


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**16), length=st.sampled_from((1, 2, 6)), gamma=st.floats(0, 1))
def test_fact_2_rewards_telescope(seed, length, gamma):
    with jax.enable_x64(True):
        logits, targets = random_case(seed, length)
        out = soft_q.from_logits(logits, targets)
        rewards = objectives.implied_rewards(out, ended(length, gamma))
        powers = (gamma ** jnp.arange(length, dtype=float))[None]
        log_pi = out.q - out.v
        np.testing.assert_allclose(
            jnp.sum(powers * rewards, -1), out.v[:, 0] + jnp.sum(powers * log_pi, -1), atol=1e-10
        )


@pytest.mark.parametrize(
    ("td_weight", "policy", "loss"),
    [
        (0.1, (0.64765, 0.22698, 0.12536), 0.843281),
        (0.5, (0.53511, 0.28141, 0.18348), 0.931691),
        (1.0, (0.47255, 0.30723, 0.22022), 0.981049),
    ],
)
def test_fact_3_the_optimum_of_a_bandit(td_weight, policy, loss):
    with jax.enable_x64(True):
        logits, value = optimum(
            lambda out: objectives.iqlearn(out, jnp.zeros_like(out.q), td_weight=td_weight)
        )
        found = jax.nn.softmax(logits)
        np.testing.assert_allclose(found, policy, atol=1e-5)
        np.testing.assert_allclose(value, loss, atol=1e-6)
        np.testing.assert_allclose(found, jnp.array(EXPERT) * (1 - 2 * td_weight * logits), atol=1e-8)


@pytest.mark.parametrize("td_weight", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("name", ["chi_squared", "hellinger", "reverse_kl", "forward_kl", "jensen_shannon"])
def test_the_optimum_of_a_bandit_under_every_divergence(name, td_weight):
    """pi = pi_E phi'(4 lambda Q), the line below the domain included: forward KL meets it from lambda 0.5 on."""
    with jax.enable_x64(True):
        phi, expert = DIVERGENCES[name], np.array(EXPERT)
        logits, _ = optimum(
            lambda out: objectives.iqlearn(out, jnp.zeros_like(out.q), td_weight=td_weight, phi=phi)
        )
        policy = jax.nn.softmax(logits)
        slopes = jax.vmap(jax.grad(phi))(4 * td_weight * logits)
        np.testing.assert_allclose(policy, expert * slopes, atol=1e-7)
        x = 4 * td_weight * logits
        by_hand = {
            "chi_squared": expert * (1 - x / 2),
            "hellinger": expert / (1 + x) ** 2,
            "reverse_kl": expert ** (1 / (1 + 4 * td_weight)) / sum(expert ** (1 / (1 + 4 * td_weight))),
            "forward_kl": expert / (1 + np.maximum(x, -0.5)),
            "jensen_shannon": expert / (2 * np.exp(x) - 1),
        }
        np.testing.assert_allclose(policy, by_hand[name], atol=1e-7)
        if name == "forward_kl" and td_weight >= 0.5:
            np.testing.assert_allclose(policy[2], 2 * expert[2], atol=1e-7)


@pytest.mark.parametrize(
    ("td_weight", "policy"),
    [(0.1, EXPERT), (0.5, (0.49797, 0.30203, 0.2)), (1.0, (0.44974, 0.35026, 0.2))],
)
def test_the_optimum_of_a_bandit_under_total_variation(td_weight, policy):
    """It has kinks: no step away from the optimum worked by hand lowers the loss, which is convex."""
    with jax.enable_x64(True):
        loss = expected(
            lambda out: objectives.iqlearn(
                out, jnp.zeros_like(out.q), td_weight=td_weight, phi=objectives.total_variation
            )
        )
        best = jnp.asarray(total_variation_optimum(td_weight))
        np.testing.assert_allclose(jax.nn.softmax(best), policy, atol=1e-5)
        directions = jax.random.normal(jax.random.key(0), (2000, 3))
        for size in (1e-4, 1e-2, 1.0):
            assert jnp.min(jax.vmap(loss)(best[None] + size * directions)) >= loss(best) - 1e-14


@pytest.mark.parametrize(
    ("td_weight", "policy"),
    [(0.1, (0.6240, 0.2542, 0.1218)), (1.0, (0.3718, 0.4394, 0.1887)), (10.0, (0.2315, 0.5567, 0.2117))],
)
def test_the_optimum_of_a_bandit_with_rewards(td_weight, policy):
    with jax.enable_x64(True):
        rewards = jnp.array([0.0, 1.0, 0.0])
        logits, _ = optimum(
            lambda out: objectives.iqlearn(
                out, jnp.zeros_like(out.q), td_weight=td_weight, rewards=rewards[:, None]
            )
        )
        found = jax.nn.softmax(logits)
        np.testing.assert_allclose(found, policy, atol=1e-4)
        np.testing.assert_allclose(
            found, jnp.array(EXPERT) * (1 - 2 * td_weight * (logits - rewards)), atol=1e-7
        )


@pytest.mark.parametrize(
    ("td_weight", "policy"),
    [(0.1, (0.5883, 0.2781, 0.1337)), (0.5, (0.3480, 0.4486, 0.2034)), (2.0, (0.1593, 0.5935, 0.2472))],
)
def test_rewards_in_units_of_two_nats(td_weight, policy):
    """The optimum with rewards of 0, 2 and 1 nats."""
    with jax.enable_x64(True):
        rewards = jnp.array([0.0, 1.0, 0.5])[:, None]
        logits, _ = optimum(
            lambda out: objectives.iqlearn(
                out, jnp.zeros_like(out.q), td_weight=td_weight, rewards=rewards, reward_scale=2.0
            )
        )
        np.testing.assert_allclose(jax.nn.softmax(logits), policy, atol=1e-4)


def test_labelled_samples_lead_from_imitation_to_the_soft_optimal_policy():
    """Four words, the last never tried; word 1 is right (reward 1, imitated), words 0 and 2 are wrong (reward 0).

    At the optimum M pi = pi_E (m - 2 lambda (Q - g)), with m the likelihood's weights and M their mean.
    """
    with jax.enable_x64(True):
        tried = (*EXPERT, 0.0)
        rewards = right = jnp.array([0.0, 1.0, 0.0, 0.0])
        for td_weight, policy in [(0.1, (0.1087, 0.8255, 0.0658)), (1e5, jax.nn.softmax(rewards[:3]))]:
            logits, _ = optimum(
                lambda out, td_weight=td_weight: objectives.iqlearn(
                    out,
                    jnp.zeros_like(out.q),
                    td_weight=td_weight,
                    mle_weight=right[:, None],
                    rewards=rewards[:, None],
                ),
                tried,
            )
            found = jax.nn.softmax(logits)
            np.testing.assert_allclose(found[:3], policy, atol=1e-4)
            np.testing.assert_allclose(found[3], 0.0, atol=1e-5)
            if td_weight < 1:
                by_hand = jnp.array(tried) * (right - 2 * td_weight * (logits - rewards))
                np.testing.assert_allclose(0.2 * found[:3], by_hand[:3], atol=1e-6)


@every_divergence
def test_given_rewards_are_subtracted_from_the_implied_ones(phi):
    """The implied rewards themselves as the given ones leave maximum likelihood."""
    logits, targets = random_case(7)
    out = soft_q.from_logits(logits, targets)
    given_rewards = objectives.implied_rewards(out, ended(5, 1.0))
    loss = objectives.iqlearn(out, ended(5, 1.0), td_weight=0.5, rewards=given_rewards, phi=phi)
    np.testing.assert_array_equal(loss, objectives.mle(out))


class Tree:
    """Every sequence of three tokens out of two, with a tabular Q: one row of logits a prefix."""

    depth, actions = 3, 2

    def __init__(self):
        self.sequences = np.array(list(itertools.product(range(self.actions), repeat=self.depth)))
        prefixes = [p for n in range(self.depth) for p in itertools.product(range(self.actions), repeat=n)]
        self.nodes = np.array(
            [[prefixes.index(tuple(s[:t])) for t in range(self.depth)] for s in self.sequences]
        )
        expert_logits = jax.random.normal(jax.random.key(3), (len(prefixes), self.actions), jnp.float64)
        self.expert = jax.nn.log_softmax(expert_logits)
        self.probability = jnp.exp(self.log_policy(self.expert).sum(-1))

    def log_policy(self, table):
        return jax.nn.log_softmax(table)[self.nodes, self.sequences]

    def soft_q(self, table):
        return soft_q.from_logits(jnp.asarray(table)[self.nodes], jnp.asarray(self.sequences))

    def optimum(self, per_token):
        def loss(table):
            return jnp.sum(self.probability[:, None] * per_token(self.soft_q(table)))

        return minimise(loss, jnp.zeros_like(self.expert))[0]

    def ratios(self, table):
        return jnp.exp(self.log_policy(table) - self.log_policy(self.expert))


@pytest.mark.parametrize("gamma", [1.0, 0.8])
def test_fact_4_the_stationary_point_is_the_occupancy_ratio(gamma):
    with jax.enable_x64(True):
        tree, td_weight = Tree(), 0.5
        discounts = ended(tree.depth, gamma, len(tree.sequences))
        table = tree.optimum(lambda out: objectives.iqlearn(out, discounts, td_weight=td_weight))
        left = 1 - 2 * td_weight * objectives.implied_rewards(tree.soft_q(table), discounts)
        ratio = tree.ratios(table)
        expected = [ratio[:, 0]]
        for t in range(1, tree.depth):
            expected.append(ratio[:, t] * (1 - gamma + gamma * left[:, t - 1]))
        np.testing.assert_allclose(left, jnp.stack(expected, -1), atol=1e-6)
        if gamma == 1.0:
            np.testing.assert_allclose(left, jnp.cumprod(ratio, -1), atol=1e-6)


@pytest.mark.parametrize("gamma", [1.0, 0.8])
@pytest.mark.parametrize("phi", [objectives.reverse_kl, objectives.hellinger])
def test_fact_4_holds_for_other_divergences(phi, gamma):
    """phi'(4 lambda r_t) = (pi/pi_E)_t (1 - gamma + gamma phi'(4 lambda r_{t-1})): the occupancy ratio at gamma 1."""
    with jax.enable_x64(True):
        tree, td_weight = Tree(), 0.2
        discounts = ended(tree.depth, gamma, len(tree.sequences))
        table = tree.optimum(lambda out: objectives.iqlearn(out, discounts, td_weight=td_weight, phi=phi))
        rewards = objectives.implied_rewards(tree.soft_q(table), discounts)
        left = jnp.vectorize(jax.grad(phi))(4 * td_weight * rewards)
        ratio = tree.ratios(table)
        before = jnp.concatenate([jnp.ones_like(left[:, :1]), left[:, :-1]], axis=-1)
        np.testing.assert_allclose(left, ratio * (1 - gamma + gamma * before), atol=1e-6)
        if gamma == 1.0:
            np.testing.assert_allclose(left, jnp.cumprod(ratio, -1), atol=1e-6)


def test_fact_4_without_the_gradient_through_the_next_value_only_the_local_ratio():
    """How a wrong gradient would show: this one is wrong on purpose."""
    with jax.enable_x64(True):
        tree, td_weight = Tree(), 0.5
        discounts = ended(tree.depth, 1.0, len(tree.sequences))

        def update(table, _):
            def loss(x):
                out = tree.soft_q(x)
                frozen = jax.lax.stop_gradient(jnp.roll(out.v, -1, -1))
                per_token = out.v - out.q + td_weight * (out.q - discounts * frozen) ** 2
                return jnp.sum(tree.probability[:, None] * per_token)

            return table - 0.2 * jax.grad(loss)(table), None

        table = jax.lax.scan(update, jnp.zeros_like(tree.expert), None, length=40_000)[0]
        left = 1 - 2 * td_weight * objectives.implied_rewards(tree.soft_q(table), discounts)
        np.testing.assert_allclose(left, tree.ratios(table), atol=1e-6)
        assert np.abs(left - jnp.cumprod(tree.ratios(table), -1)).max() > 1e-2


@every_divergence
def test_fact_5_padding_changes_nothing(phi):
    """Fifteen random cases of each divergence; one compilation for all, because shapes do not differ."""
    padding = 3

    @jax.jit
    @jax.value_and_grad
    def total(x, y, mask, discounts, td_weight):
        out = soft_q.from_logits(x, y)
        loss = objectives.iqlearn(out, discounts, td_weight=td_weight * mask, phi=phi)
        return jnp.sum(mask * loss) / jnp.sum(mask)

    def pad(x):
        return np.pad(x, ((0, 0), (0, padding)))

    with jax.enable_x64(True):
        for seed in range(15):
            logits, targets = map(np.asarray, random_case(seed))
            td_weight, mask, discounts = 2.0 * seed / 14, np.ones((2, 5)), np.asarray(ended(5, 1.0))
            padded_logits = np.concatenate([logits, np.full((2, padding, 7), 100.0)], axis=1)
            short, short_slope = total(logits, targets, mask, discounts, td_weight)
            long, long_slope = total(padded_logits, pad(targets), pad(mask), pad(discounts), td_weight)
            np.testing.assert_allclose(long, short, rtol=1e-12)
            np.testing.assert_allclose(long_slope[:, :5], short_slope, atol=1e-12)
            np.testing.assert_array_equal(long_slope[:, 5:], 0.0)


@every_divergence
def test_fact_5_packed_neighbours_are_severed(phi):
    logits, targets = random_case(1)
    packed = soft_q.from_logits(logits.reshape(1, 10, 7), targets.reshape(1, 10))
    apart = soft_q.from_logits(logits, targets)
    together = objectives.iqlearn(packed, ended(5, 1.0).reshape(1, 10), td_weight=0.5, phi=phi)
    np.testing.assert_allclose(
        together.reshape(2, 5), objectives.iqlearn(apart, ended(5, 1.0), td_weight=0.5, phi=phi), rtol=1e-5
    )


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**16), position=st.integers(0, 4), constant=st.floats(-20, 20))
def test_fact_7_a_constant_on_one_position_moves_only_rewards(seed, position, constant):
    with jax.enable_x64(True):
        logits, targets = random_case(seed)
        discounts = ended(5, 0.9)
        before = soft_q.from_logits(logits, targets)
        after = soft_q.from_logits(logits.at[:, position].add(constant), targets)
        np.testing.assert_allclose(objectives.mle(after), objectives.mle(before), atol=1e-10)
        shift = jnp.zeros((2, 5)).at[:, position].set(constant)
        moved = objectives.implied_rewards(after, discounts) - objectives.implied_rewards(before, discounts)
        np.testing.assert_allclose(moved, shift - discounts * jnp.roll(shift, -1, -1), atol=1e-10)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**16), constant=st.floats(-5, 5), phi=st.sampled_from(sorted(DIVERGENCES)))
def test_fact_7_a_constant_everywhere_moves_only_the_last_reward(seed, constant, phi):
    """At gamma 1 the shifts of r cancel but at the end: so does every divergence's loss."""
    with jax.enable_x64(True):
        logits, targets = random_case(seed)

        def loss(x):
            out = soft_q.from_logits(x, targets)
            return objectives.iqlearn(out, ended(5, 1.0), td_weight=0.3, phi=DIVERGENCES[phi])

        before, after = loss(logits), loss(logits + constant)
        np.testing.assert_allclose(after[:, :-1], before[:, :-1], rtol=1e-8, atol=1e-8)


def test_gradient_flows_through_the_next_value():
    logits, targets = random_case(2)
    discounts = ended(5, 1.0)

    def first_reward(x):
        return objectives.implied_rewards(soft_q.from_logits(x, targets), discounts)[0, 0]

    gradient = jax.grad(first_reward)(logits)
    np.testing.assert_allclose(gradient[0, 1], -jax.nn.softmax(logits[0, 1]), atol=1e-6)
    np.testing.assert_array_equal(gradient[0, 2:], 0.0)


@every_divergence
def test_gradients_against_finite_differences(phi):
    with jax.enable_x64(True):
        logits, targets = random_case(4)

        def f(x):
            out = soft_q.from_logits(jnp.asarray(x), targets)
            return jnp.sum(objectives.iqlearn(out, ended(5, 0.95), td_weight=0.2, rewards=0.1, phi=phi))

        check_grads(f, (logits,), order=1, modes=["rev"], atol=1e-5, rtol=1e-5)
