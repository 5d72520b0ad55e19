"""Offline IQLearn held to the facts of the method: literals, identities, stationary points."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from lmirl_jax import objectives, soft_q

LOGITS = jnp.log(jnp.array([[[1.0, 3.0], [2.0, 6.0]]]))
TARGETS = jnp.array([[1, 0]])


def random_case(seed: int, length: int = 5, vocab: int = 7):
    keys = jax.random.split(jax.random.key(seed), 2)
    logits = 3 * jax.random.normal(keys[0], (2, length, vocab), jnp.result_type(float))
    return logits, jax.random.randint(keys[1], (2, length), 0, vocab)


def ended(length: int, gamma: float, rows: int = 2):
    return jnp.full((rows, length), gamma).at[:, -1].set(0.0)


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


def test_terms_and_their_weights():
    out = soft_q.from_logits(LOGITS, TARGETS)
    discounts = jnp.array([[1.0, 0.0]])
    likelihood, squared_reward = objectives.iqlearn_terms(out, discounts)
    np.testing.assert_array_equal(likelihood, objectives.mle(out))
    np.testing.assert_array_equal(squared_reward, objectives.implied_rewards(out, discounts) ** 2)
    mask = jnp.array([[1.0, 0.0]])
    loss = objectives.iqlearn(out, discounts, td_weight=0.3 * mask, mle_weight=2.0)
    np.testing.assert_allclose(loss, 2 * likelihood + 0.3 * mask * squared_reward, rtol=1e-6)


def test_fact_1_lambda_0_is_cross_entropy_in_value_and_gradient():
    logits, targets = random_case(0)
    discounts = ended(5, 0.9)

    def ours(x):
        return jnp.sum(objectives.iqlearn(soft_q.from_logits(x, targets), discounts, td_weight=0.0))

    def cross_entropy(x):
        return jnp.sum(objectives.mle(soft_q.from_logits(x, targets)))

    assert ours(logits) == cross_entropy(logits)
    np.testing.assert_array_equal(jax.grad(ours)(logits), jax.grad(cross_entropy)(logits))
    optaxs = jax.grad(lambda x: jnp.sum(optax.softmax_cross_entropy_with_integer_labels(x, targets)))(logits)
    np.testing.assert_allclose(jax.grad(ours)(logits), optaxs, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**16), length=st.integers(1, 6), gamma=st.floats(0, 1))
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


def minimise(loss, logits):
    """The stationary point of a smooth loss of logits, to about 1e-9."""
    gradient = jax.jit(jax.value_and_grad(loss))

    def both(flat):
        value, slope = gradient(jnp.reshape(flat, logits.shape))
        return float(value), np.asarray(slope).ravel()

    out = scipy.optimize.minimize(
        both, np.asarray(logits).ravel(), jac=True, method="BFGS", options={"gtol": 1e-9}
    )
    return jnp.asarray(out.x).reshape(logits.shape), out.fun


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
        expert = jnp.array([0.7, 0.2, 0.1])
        actions = jnp.arange(3)[:, None]  # three sequences of one token, weighted by the expert's policy

        def objective(logits):
            out = soft_q.from_logits(jnp.broadcast_to(logits, (3, 1, 3)), actions)
            return jnp.sum(expert * objectives.iqlearn(out, jnp.zeros((3, 1)), td_weight=td_weight)[:, 0])

        logits, value = minimise(objective, jnp.zeros(3))
        found = jax.nn.softmax(logits)
        np.testing.assert_allclose(found, policy, atol=1e-5)
        np.testing.assert_allclose(value, loss, atol=1e-6)
        np.testing.assert_allclose(found, expert * (1 - 2 * td_weight * logits), atol=1e-8)


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


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**16), padding=st.integers(1, 4), td_weight=st.floats(0, 2))
def test_fact_5_padding_changes_nothing(seed, padding, td_weight):
    with jax.enable_x64(True):
        logits, targets = random_case(seed)
        mask = jnp.ones((2, 5))

        def total(x, y, mask, discounts):
            out = soft_q.from_logits(x, y)
            return jnp.sum(mask * objectives.iqlearn(out, discounts, td_weight=td_weight * mask)) / jnp.sum(
                mask
            )

        def pad(x):
            return jnp.pad(x, ((0, 0), (0, padding)))

        padded_logits = jnp.concatenate([logits, 100 * jnp.ones((2, padding, 7))], axis=1)
        short, short_slope = jax.value_and_grad(total)(logits, targets, mask, ended(5, 1.0))
        long, long_slope = jax.value_and_grad(total)(
            padded_logits, pad(targets), pad(mask), pad(ended(5, 1.0))
        )
        np.testing.assert_allclose(long, short, rtol=1e-12)
        np.testing.assert_allclose(long_slope[:, :5], short_slope, atol=1e-12)
        np.testing.assert_array_equal(long_slope[:, 5:], 0.0)


def test_fact_5_packed_neighbours_are_severed():
    logits, targets = random_case(1)
    packed = soft_q.from_logits(logits.reshape(1, 10, 7), targets.reshape(1, 10))
    apart = soft_q.from_logits(logits, targets)
    together = objectives.iqlearn(packed, ended(5, 1.0).reshape(1, 10), td_weight=0.5)
    np.testing.assert_allclose(
        together.reshape(2, 5), objectives.iqlearn(apart, ended(5, 1.0), td_weight=0.5), rtol=1e-6
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


def test_gradient_flows_through_the_next_value():
    logits, targets = random_case(2)
    discounts = ended(5, 1.0)

    def first_reward(x):
        return objectives.implied_rewards(soft_q.from_logits(x, targets), discounts)[0, 0]

    gradient = jax.grad(first_reward)(logits)
    np.testing.assert_allclose(gradient[0, 1], -jax.nn.softmax(logits[0, 1]), atol=1e-6)
    np.testing.assert_array_equal(gradient[0, 2:], 0.0)


def test_gradients_against_finite_differences():
    with jax.enable_x64(True):
        logits, targets = random_case(4)

        def f(x):
            out = soft_q.from_logits(jnp.asarray(x), targets)
            return jnp.sum(objectives.iqlearn(out, ended(5, 0.95), td_weight=0.7))

        check_grads(f, (logits,), order=1, modes=["rev"], atol=1e-5, rtol=1e-5)
