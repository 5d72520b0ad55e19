"""soft_q against values worked out by hand, optax and finite differences."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.test_util import check_grads

from lmirl_jax import soft_q
from lmirl_jax.models import T5Config
from tests.batches import batch_of

# exp(Q) are whole numbers, so that the values are logarithms one can do by hand.
LOGITS = jnp.log(jnp.array([[[1.0, 3.0], [2.0, 6.0]]]))
TARGETS = jnp.array([[1, 0]])


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit])
def test_literals(transform):
    out = transform(
        lambda x: soft_q.from_logits(
            x, TARGETS, temperature=0.5, with_entropy=True, with_sum=True, with_max=True
        )
    )(LOGITS)
    np.testing.assert_allclose(out.q, np.log([[3.0, 2.0]]), rtol=1e-6)
    np.testing.assert_allclose(out.v, np.log([[4.0, 8.0]]), rtol=1e-6)
    quarter = 0.25 * np.log(4) + 0.75 * np.log(4 / 3)  # both rows are the policy (1/4, 3/4)
    np.testing.assert_allclose(out.entropy, [[quarter, quarter]], rtol=1e-5)
    np.testing.assert_allclose(out.tempered, 0.5 * np.log([[10.0, 40.0]]), rtol=1e-6)
    np.testing.assert_allclose(out.sum_logits, np.log([[3.0, 12.0]]), rtol=1e-6)
    np.testing.assert_allclose(out.max_logit, np.log([[3.0, 6.0]]), rtol=1e-6)


def test_only_what_is_asked_for():
    out = soft_q.from_logits(LOGITS, TARGETS)
    assert (out.entropy, out.tempered, out.sum_logits, out.max_logit) == (None, None, None, None)


def test_agrees_with_optax_in_value_and_gradient():
    logits = jax.random.normal(jax.random.key(0), (3, 5, 7)) * 4
    targets = jax.random.randint(jax.random.key(1), (3, 5), 0, 7)

    def ours(x):
        out = soft_q.from_logits(x, targets)
        return jnp.sum(out.v - out.q)

    def theirs(x):
        return jnp.sum(optax.softmax_cross_entropy_with_integer_labels(x, targets))

    np.testing.assert_allclose(ours(logits), theirs(logits), rtol=1e-6)
    np.testing.assert_allclose(jax.grad(ours)(logits), jax.grad(theirs)(logits), atol=1e-6)


@pytest.mark.parametrize("name", ["q", "v", "entropy", "tempered", "sum_logits"])
def test_gradients_against_finite_differences(name):
    with jax.enable_x64(True):
        logits = jax.random.normal(jax.random.key(0), (2, 3, 5), jnp.float64)
        targets = jnp.array([[0, 1, 4], [2, 2, 3]])

        def f(x):
            out = soft_q.from_logits(
                jnp.asarray(x), targets, temperature=0.7, with_entropy=True, with_sum=True
            )
            return jnp.sum(getattr(out, name) * jnp.arange(6.0).reshape(2, 3))

        check_grads(f, (logits,), order=1, modes=["rev"], atol=1e-6, rtol=1e-6)


def test_no_gradient_through_the_maximum():
    gradient = jax.grad(lambda x: jnp.sum(soft_q.from_logits(x, TARGETS, with_max=True).max_logit))(LOGITS)
    np.testing.assert_array_equal(gradient, 0.0)


def test_extreme_logits_stay_finite():
    logits = jnp.array([[[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4]]])
    out = soft_q.from_logits(logits, jnp.array([[1, 0]]), with_entropy=True, temperature=0.7)
    np.testing.assert_allclose(out.v, [[1e4, -1e4 + np.log(3)]], rtol=1e-6)
    np.testing.assert_allclose(out.entropy, [[0.0, np.log(3)]], atol=2e-3)  # float32 carries 1e-3 at 1e4
    assert np.isfinite(out.tempered).all()


def test_bfloat16_logits_are_summed_in_float32():
    logits = jnp.zeros((1, 1, 1024), jnp.bfloat16)
    out = soft_q.from_logits(logits, jnp.zeros((1, 1), jnp.int32))
    assert out.v.dtype == jnp.float32
    np.testing.assert_allclose(out.v, np.log(1024), rtol=1e-6)


def test_hidden_states_with_scale_and_soft_cap():
    hidden = jnp.array([[[1.0, 2.0]]])
    unembedding = jnp.array([[1.0, 0.0, 2.0], [0.0, 1.0, 1.0]])
    logits = soft_q.logits_from_hidden(hidden, unembedding, scale=0.5, soft_cap=3.0)
    np.testing.assert_allclose(logits[0, 0], 3 * np.tanh(np.array([0.5, 1.0, 2.0]) / 3), rtol=1e-6)
    targets = jnp.array([[2]])
    from_hidden = soft_q.from_hidden(hidden, unembedding, targets, scale=0.5, soft_cap=3.0)
    np.testing.assert_array_equal(from_hidden.q, logits[..., 2])


def test_a_token_without_weight_still_gives_its_value_to_the_one_before():
    """Target 2 carries no loss, but target 1 leads to it: its value is read; that of the padding after it is not."""
    model = T5Config(vocab_size=128, emb_dim=8, num_heads=2, head_dim=4, mlp_dim=8).build(jax.random.key(0))
    tokens = jnp.array([[5, 6, 7, 1, 0]])
    weights = jnp.array([[1.0, 0.0, 1.0, 1.0, 0.0]])
    discounts = jnp.array([[1.0, 1.0, 1.0, 0.0, 0.0]])
    batch = dataclasses.replace(batch_of(tokens, tokens), weights=weights, discounts=discounts)
    everywhere = soft_q.from_logits(model.hidden(batch) @ model.unembedding().kernel, tokens)
    out = soft_q.from_model(model, batch)
    np.testing.assert_allclose(out.v[:, :4], everywhere.v[:, :4], rtol=1e-6)
    np.testing.assert_array_equal(out.v[:, 4:], 0.0)
