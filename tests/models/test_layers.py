"""The parts of a layer against numbers worked out by hand: activations, norms, grouped queries, windows, rotary positions."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lmirl_jax.models import T5GemmaConfig
from lmirl_jax.models.attention import Attention, AttentionConfig
from lmirl_jax.models.layers import RMSNorm
from lmirl_jax.models.masks import mask_to_bias, window_mask
from lmirl_jax.models.mlp import ACTIVATIONS, MLP
from lmirl_jax.models.rotary import rotate, rotation
from lmirl_jax.types import UserError
from tests.batches import batch_of
from tests.models.families import build, call, stack, t5

KEY = jax.random.key(0)


def test_activations():
    x = jnp.array([-2.0, 0.0, 1.0])
    cubic = math.sqrt(2 / math.pi) * (1 + 0.044715)
    expected = {
        "relu": [0.0, 0.0, 1.0],
        "linear": [-2.0, 0.0, 1.0],
        "silu": [-2 / (1 + math.e**2), 0.0, 1 / (1 + 1 / math.e)],
        "gelu": [-0.0454023, 0.0, 0.5 * (1 + math.tanh(cubic))],
        "gelu_exact": [-2 * 0.5 * math.erfc(2 / math.sqrt(2)), 0.0, 0.5 * (1 + math.erf(1 / math.sqrt(2)))],
    }
    assert set(expected) == set(ACTIVATIONS)
    for name, values in expected.items():
        np.testing.assert_allclose(ACTIVATIONS[name](x), values, atol=1e-6, err_msg=name)


def test_a_plain_and_a_gated_mlp():
    x = jax.random.normal(KEY, (1, 2, 3))
    plain = MLP(3, 4, ("relu",), 0.0, key=KEY)
    assert set(nnx.to_pure_dict(nnx.state(plain))) == {"wi", "wo"}
    by_hand = np.maximum(x @ plain.wi.kernel[...], 0) @ plain.wo.kernel[...]
    np.testing.assert_allclose(plain(x, None), by_hand, atol=1e-6)
    gated = MLP(3, 4, ("relu", "linear"), 0.0, key=KEY)
    assert set(nnx.to_pure_dict(nnx.state(gated))) == {"wi_0", "wi_1", "wo"}
    inner = np.maximum(x @ gated.wi_0.kernel[...], 0) * (x @ gated.wi_1.kernel[...])
    np.testing.assert_allclose(gated(x, None), inner @ gated.wo.kernel[...], atol=1e-6)


def test_norms():
    """Of (3, 4) the mean square is 12.5; Gemma's scale is 1 plus its parameter, which starts at 0."""
    x = jnp.array([[3.0, 4.0]])
    plain, around_one = RMSNorm(2, key=KEY), RMSNorm(2, epsilon=3.5, offset=1.0, key=KEY)
    np.testing.assert_allclose(plain(x), x / math.sqrt(12.5), rtol=1e-6)
    np.testing.assert_array_equal(around_one.scale[...], 0.0)
    around_one.scale[...] = jnp.array([1.0, -1.0])
    np.testing.assert_allclose(around_one(x), [[2 * 3 / 4.0, 0.0]], rtol=1e-6)


def test_grouped_queries_equal_repeated_heads():
    """Query heads 0 and 1 read key-value head 0, query heads 2 and 3 read head 1."""
    config = AttentionConfig(4, 2, 8, dropout_rate=0.0, query_scale=0.3, soft_cap=1.5)
    grouped = Attention(config, 6, 5, key=KEY)
    every = Attention(dataclasses.replace(config, num_kv_heads=4), 6, 5, key=KEY)
    for name in ("query", "out"):
        getattr(every, name).kernel[...] = getattr(grouped, name).kernel[...]
    for name in ("key", "value"):
        getattr(every, name).kernel[...] = jnp.repeat(getattr(grouped, name).kernel[...], 2, axis=1)
    x, source = jax.random.normal(KEY, (2, 3, 6)), jax.random.normal(jax.random.key(1), (2, 7, 5))
    bias = mask_to_bias(jax.random.bernoulli(KEY, 0.8, (2, 1, 3, 7)))
    found = grouped(x, grouped.keys_values(source), bias)
    np.testing.assert_allclose(found, every(x, every.keys_values(source), bias), atol=1e-5)
    by_hand = attention_by_hand(every, x, source, bias)
    np.testing.assert_allclose(found, by_hand, atol=1e-5)


def attention_by_hand(attention, x, source, bias):
    """The definition, in numpy: scaled, bounded and masked scores, their softmax, the mean of the values."""
    q, k, v = (
        np.einsum("bte,ehd->bhtd", inputs, getattr(attention, name).kernel[...])
        for inputs, name in ((x, "query"), (source, "key"), (source, "value"))
    )
    scores = 1.5 * np.tanh(0.3 * np.einsum("bhqd,bhkd->bhqk", q, k) / 1.5) + bias
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    heads = np.einsum("bhqk,bhkd->bhqd", weights, v)
    return np.einsum("bhqd,hde->bqe", heads, attention.out.kernel[...])


def test_windows():
    """Causal: the last 2 keys with the query's own. Both ways: 2 keys on each side, which is one more."""
    places = jnp.arange(5)[None]
    causal = window_mask(jnp.array([[3]]), places, 2, causal=True)[0, 0, 0]
    np.testing.assert_array_equal(
        causal, [False, False, True, True, True]
    )  # Later keys are masked elsewhere.
    both = window_mask(jnp.array([[2, 4]]), places, 2, causal=False)[0, 0]
    np.testing.assert_array_equal(both, [[True] * 5, [False, False, True, True, True]])


def test_rotary_positions():
    """Four dimensions: 0 and 2 turn by the position, 1 and 3 by a hundredth of it; scores depend on distances alone."""
    x = jnp.array([[[[1.0, 0.0, 0.0, 2.0]]]])
    turned = rotate(x, rotation(jnp.array([[3]]), 4, 10000.0))
    expected = [math.cos(3), -2 * math.sin(0.03), math.sin(3), 2 * math.cos(0.03)]
    np.testing.assert_allclose(turned[0, 0, 0], expected, rtol=1e-5)
    q, k = jax.random.normal(KEY, (2, 1, 1, 1, 8))

    def score(at, of):
        return jnp.sum(
            rotate(q, rotation(jnp.array([[at]]), 8, 10000.0))
            * rotate(k, rotation(jnp.array([[of]]), 8, 10000.0))
        )

    np.testing.assert_allclose(score(5, 3), score(105, 103), rtol=1e-4)
    np.testing.assert_array_equal(score(0, 0), jnp.sum(q * k))
    assert abs(score(5, 3) - score(5, 4)) > 1e-3


def one_layer(kind):
    stacks = {"layer_types": (kind,), "num_layers": 1, "sliding_window": 2}
    return build(T5GemmaConfig(64, encoder=stack(24, **stacks), decoder=stack(16, **stacks)))


@pytest.mark.parametrize("kind", ["sliding_attention", "full_attention"])
def test_what_a_window_reaches_by_gradient(kind):
    """One layer: the decoder's state 5 reads tokens 4 and 5 of the window of 2, the encoder's output 3 reads inputs 1 to 5."""
    model = one_layer(kind)
    batch = batch_of([[11, 12, 13, 14, 15, 16, 17, 1]], [[21, 22, 23, 24, 25, 26, 27, 1]])

    def decoder_slope(model, offsets):
        # The offset of y_t is read at place t, one after that of its hidden state.
        wave = jnp.sin(jnp.arange(16.0))
        return jax.grad(lambda offsets: jnp.sum(model.hidden(batch, None, offsets)[0, 5] * wave))(offsets)

    reached = np.any(call(model, decoder_slope, jnp.zeros((1, 8, 16)))[0] != 0, axis=-1)
    places_read = np.flatnonzero(reached) + 1
    np.testing.assert_array_equal(places_read, [4, 5] if kind == "sliding_attention" else [1, 2, 3, 4, 5])

    def encoder_slope(model):
        graph, state = nnx.split(model)

        def output(state):
            encoded = nnx.merge(graph, state).encode(batch.prompt_tokens, batch.prompt_segment_ids)
            return jnp.sum(encoded[0, 3] * jnp.sin(jnp.arange(24.0)))

        return jax.grad(output)(state)["encoder_token_embedder"][...]

    reached = np.any(np.asarray(call(model, encoder_slope)) != 0, axis=-1)
    inputs = [12, 13, 14, 15, 16] if kind == "sliding_attention" else [1, 11, 12, 13, 14, 15, 16, 17]
    np.testing.assert_array_equal(np.flatnonzero(reached), inputs)


def test_which_layers_have_windows():
    assert stack(16, 3).windows == (3, None, 3)
    assert stack(16, 2, layer_types=["full_attention", "sliding_attention"]).windows == (None, 3)


def test_embeddings_are_read_at_unit_size():
    """T5Gemma multiplies them by sqrt(emb_dim), and starts them that much smaller; T5 does neither."""
    for config in (t5(), T5GemmaConfig(64, encoder=stack(24, 1), decoder=stack(16, 1))):
        model = build(config)
        read = model._embed(model.token_embedder, jnp.arange(64)[None])
        np.testing.assert_allclose(jnp.std(read), 1.0, atol=0.05)
        ratio = read[0, 3] / model.token_embedder[3]
        np.testing.assert_allclose(ratio, 4.0 if isinstance(config, T5GemmaConfig) else 1.0, rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: t5(mlp_activations=("gelu", "tanh")), r"mlp_activations=.* must be \('gelu', 'linear'\)"),
        (lambda: t5(mlp_activations=()), "mlp_activations=.* must be"),
        (lambda: t5(mlp_activations="gelu"), "mlp_activations='gelu' must be"),
        (lambda: stack(16, 2, num_kv_heads=3), "num_kv_heads=3 must be a divisor of num_heads=4"),
        (lambda: stack(16, 2, layer_types=("full_attention",)), "has 1 entries for num_layers=2"),
        (
            lambda: stack(16, 1, layer_types=("local",)),
            "layer_types=.* must be a list of 'sliding_attention'",
        ),
        (lambda: stack(16, 2, head_dim=5), "head_dim=5 must be even"),
        (lambda: stack(16, 2, activation="tanh"), "activation='tanh' must be one of 'gelu'"),
        (lambda: T5GemmaConfig(2, stack(16, 2), stack(16, 2)), "decoder_start_id=2 is no token"),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()
