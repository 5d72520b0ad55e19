"""Advantages against hand-worked values; what padding, packing and equal returns may not do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from lmirl_jax import objectives
from lmirl_jax.types import UserError

# An answer that ended, and one that was truncated after its third token.
REWARDS = jnp.array([[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]])
VALUES = jnp.array([[1.0, 2.0, 4.0], [1.0, 2.0, 4.0]])
NEXT = jnp.array([[2.0, 4.0, 9.0], [2.0, 4.0, 6.0]])
DISCOUNTS = jnp.array([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]])
CONTINUES = jnp.array([[True, True, False], [True, True, False]])
CASE = (REWARDS, VALUES, NEXT, DISCOUNTS, CONTINUES)


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit])
def test_gae_literals(transform):
    """Temporal differences 2, 3, -3 and 2, 3, 3 (the last with the value of what would have followed)."""
    advantages = transform(lambda *case: objectives.gae(*case, trace=0.5))(*CASE)
    np.testing.assert_array_equal(advantages, [[2.75, 1.5, -3.0], [4.25, 4.5, 3.0]])
    halved = transform(lambda *case: objectives.gae(*case, trace=1.0))(*CASE[:3], DISCOUNTS / 2, CONTINUES)
    np.testing.assert_array_equal(halved, [[0.75, -0.5, -3.0], [1.5, 1.0, 0.0]])


def test_the_ends_of_the_trace():
    """0: the temporal differences; 1: the sum of the rewards to come (and what the cut leaves), less the value."""
    deltas = REWARDS + DISCOUNTS * NEXT - VALUES
    np.testing.assert_array_equal(objectives.gae(*CASE, trace=0.0), deltas)
    to_come = np.array([[3.0, 2.0, 1.0], [9.0, 8.0, 7.0]])
    np.testing.assert_array_equal(objectives.gae(*CASE, trace=1.0), to_come - VALUES)


def test_without_batch_axes_and_with_two():
    whole = objectives.gae(*CASE)
    np.testing.assert_array_equal(objectives.gae(*(x[1] for x in CASE)), whole[1])
    np.testing.assert_array_equal(objectives.gae(*(x[None] for x in CASE))[0], whole)


def test_packed_equals_unpacked_and_padding_is_not_looked_at():
    """The cut answer lies before the ended one in a row that ends in padding full of NaN."""
    row = [jnp.concatenate([x[1], x[0], jnp.full(2, jnp.nan)]) for x in CASE[:4]]
    packed = objectives.gae(*row, jnp.append(CONTINUES.ravel(), jnp.zeros(2, bool)))
    np.testing.assert_array_equal(packed[:6].reshape(2, 3), objectives.gae(*CASE)[::-1])


def test_no_gradient_from_padding_or_a_packed_neighbour():
    row = [x.ravel() for x in CASE]

    def first(rewards, values):
        return jnp.sum(objectives.gae(rewards, values, *row[2:])[:3])

    for slope in jax.grad(first, argnums=(0, 1))(*row[:2]):
        assert np.all(slope[:3] != 0)
        np.testing.assert_array_equal(slope[3:], 0.0)


def test_the_fields_of_a_batch_give_discounts_and_continues():
    """As the docstring says it: gamma 0.9, an answer with its EOS, one without, then padding."""
    weights = jnp.array([[1.0, 1, 0], [1, 1, 0]])
    td_weights = jnp.array([[1.0, 1, 0], [1, 0, 0]])
    batch_discounts = jnp.array([[0.9, 0, 0], [0.9, 0, 0]])
    discounts = batch_discounts + 0.9 * (weights - td_weights)
    np.testing.assert_allclose(discounts, [[0.9, 0, 0], [0.9, 0.9, 0]])
    advantages = objectives.gae(REWARDS, VALUES, NEXT, discounts, batch_discounts != 0, trace=1.0)
    np.testing.assert_allclose(advantages[:, :2], [[0.9, -1.0], [1 + 0.9 + 0.81 * 4 - 1, 2.6]], rtol=1e-6)


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit])
def test_literals_of_a_group(transform):
    returns = jnp.array([[1.0, 2.0, 6.0]])
    left_out = transform(objectives.leave_one_out)(returns)
    np.testing.assert_allclose(left_out, [[-3.0, -1.5, 4.5]], rtol=1e-6)
    centred = np.array([[-2.0, -1.0, 3.0]])
    group = transform(lambda x: objectives.group_relative(x, epsilon=0.5))(returns)
    np.testing.assert_allclose(group, centred / (np.sqrt(14 / 3) + 0.5), rtol=1e-6)
    sample = transform(lambda x: objectives.group_relative(x, epsilon=0.5, ddof=1))(returns)
    np.testing.assert_allclose(sample, centred / (np.sqrt(14 / 2) + 0.5), rtol=1e-6)
    plain = transform(lambda x: objectives.group_relative(x, scale=False))(returns)
    np.testing.assert_allclose(plain, centred, rtol=1e-6)


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit])
@pytest.mark.parametrize("value", [0.1, -1e6 / 3, 0.0])
def test_equal_values_give_exactly_0(transform, value):
    """Their mean is not them, by rounding, and a tiny deviation would blow the rest up."""
    same = jnp.full((4, 7), value)
    np.testing.assert_array_equal(transform(objectives.leave_one_out)(same), 0.0)
    np.testing.assert_array_equal(transform(objectives.group_relative)(same), 0.0)
    np.testing.assert_array_equal(transform(objectives.whiten)(same, jnp.ones_like(same)), 0.0)


def test_prompts_do_not_touch_one_another():
    returns = jnp.array([[1.0, 3.0], [100.0, 100.0]])
    np.testing.assert_array_equal(objectives.leave_one_out(returns), [[-2.0, 2.0], [0.0, 0.0]])


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit])
def test_whiten_literals(transform):
    whiten = transform(lambda x, w: objectives.whiten(x, w, epsilon=0.0))
    found = whiten(jnp.array([[1.0, 3.0], [1e9, jnp.nan]]), jnp.array([[1.0, 1.0], [0.0, 0.0]]))
    np.testing.assert_allclose(found, [[-1.0, 1.0], [0.0, 0.0]], rtol=1e-6)
    found = whiten(jnp.array([0.0, 4.0]), jnp.array([3.0, 1.0]))  # mean 1, variance 3
    np.testing.assert_allclose(found, np.array([-1.0, 3.0]) / np.sqrt(3), rtol=1e-6)


def test_whiten_of_nothing_is_0():
    np.testing.assert_array_equal(objectives.whiten(jnp.ones(3), jnp.zeros(3)), 0.0)


def test_gradients_against_finite_differences():
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(0), 3)
        x, y, z = (jax.random.normal(key, (2, 5), float) for key in keys)
        discounts = jnp.full((2, 5), 0.9).at[:, -1].set(0.0)

        def estimates(*case):
            rewards, values = map(jnp.asarray, case)
            advantages = objectives.gae(rewards, values, z, discounts, discounts != 0)
            weighted = objectives.whiten(advantages, jnp.abs(z))
            return jnp.sum(z * (weighted + objectives.group_relative(rewards)))

        check_grads(estimates, (x, y), order=1, modes=["rev"], atol=1e-6, rtol=1e-6)


def test_errors():
    with pytest.raises(UserError, match=r"leave_one_out compares .* there is 1 a prompt; sample 2 or more"):
        objectives.leave_one_out(jnp.ones((3, 1)))
    with pytest.raises(UserError, match=r"group_relative compares .* there is 1 a prompt"):
        objectives.group_relative(jnp.ones((3, 1)))
    with pytest.raises(UserError, match="ddof=2 must be 0 or 1"):
        objectives.group_relative(jnp.ones((3, 4)), ddof=2)
    with pytest.raises(UserError, match=r"trace=1\.5 must be a number from 0 to 1"):
        objectives.gae(*CASE, trace=1.5)
