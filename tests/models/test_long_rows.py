"""Long rows: blocks equal the whole, hold no scores of all pairs of tokens, and leave out what no query sees."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.extend.core import jaxprs_in_params

from lmirl_jax.models import attention_kernels
from lmirl_jax.models.attention import AttentionConfig
from lmirl_jax.models.block_plan import make_plan
from lmirl_jax.models.blocked_attention import attend_in_blocks, by_pairs
from lmirl_jax.models.dot_products import attend
from lmirl_jax.models.masks import RowMask, Sees, mask_to_bias
from lmirl_jax.types import PromptBatch
from tests.batches import batch_of
from tests.models.families import FAMILIES, build, call

KEY = jax.random.key(0)
SEGMENTS = jnp.array([[1] * 20, [1] * 7 + [2] * 9 + [0] * 4])
PROMPTS = jnp.array([[1] * 12 + [0] * 8, [1] * 5 + [0] * 2 + [1] * 6 + [0] * 7], bool)
INPUTS = jnp.array([[1] * 13, [1] * 5 + [2] * 6 + [0] * 2])
PLAIN = AttentionConfig(4, 2, 8, dropout_rate=0.0, query_scale=0.3)
CAPPED = dataclasses.replace(PLAIN, soft_cap=1.5)
# No two segments of the second row are aligned with blocks of 8 tokens; the rows are 20 long, and the encoder's 13.
MASKS = {
    "causal": RowMask(SEGMENTS),
    "prompts": RowMask(SEGMENTS, PROMPTS),
    "both ways": RowMask(SEGMENTS, causal=False),
    "cross": RowMask(INPUTS, queries=SEGMENTS, causal=False),
}


def dense(options, queries, keys_values, mask, window, bias):
    """Attention with all scores at once; the bias of each pair is looked up by its distance."""
    count, keys = mask.shape
    whole = mask_to_bias(mask.whole(window))
    if bias is not None:
        distance = jnp.arange(keys)[None, :] - jnp.arange(count)[:, None]
        whole = whole + bias[:, distance + count - 1][None]
    return attend(options, queries, [keys_values], whole)


def check_blocks(options, mask, window, *, biased=False, block=8):
    """The outputs at real tokens, and the gradients by all arrays, are those of all scores at once."""
    count, keys = mask.shape
    heads, kv_heads = options.num_heads, options.num_kv_heads
    shapes = [(2, heads, count, 8), (2, kv_heads, keys, 8), (2, kv_heads, keys, 8), (heads, count + keys - 1)]
    arrays = [
        jax.random.normal(key, shape) for key, shape in zip(jax.random.split(KEY, 4), shapes, strict=True)
    ]
    real = (mask.asking.segment_ids > 0)[:, None, :, None]
    mixture = jax.random.normal(jax.random.key(1), shapes[0])

    def loss(attend, queries, keys, values, bias):
        means = attend(options, queries, (keys, values), mask, window, bias if biased else None)
        means = jnp.where(real, means, 0)
        return jnp.sum(means * mixture), means

    def run(attend):
        of_all = jax.grad(lambda *x: loss(attend, *x), argnums=(0, 1, 2, 3), has_aux=True)
        return jax.jit(of_all)(*arrays)

    (found, means), (expected, whole) = run(lambda *x: attend_in_blocks(*x, block=block)), run(dense)
    np.testing.assert_allclose(means, whole, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5, rtol=2e-5), found, expected)


@pytest.mark.parametrize("options", [PLAIN, CAPPED], ids=["plain", "capped"])
@pytest.mark.parametrize("name", list(MASKS))
def test_blocks_equal_the_whole(name, options):
    check_blocks(options, MASKS[name], None)


@pytest.mark.parametrize(("window", "block"), [(1, 8), (5, 6), (19, 20), (40, 64)])
@pytest.mark.parametrize("name", ["prompts", "both ways"])
def test_blocks_equal_the_whole_with_windows(name, window, block):
    check_blocks(CAPPED, MASKS[name], window, block=block)


@pytest.mark.parametrize("name", ["causal", "both ways", "cross"])
def test_blocks_have_the_bias_of_each_distance_and_its_gradient(name):
    check_blocks(dataclasses.replace(PLAIN, num_kv_heads=4), MASKS[name], None, biased=True)


def test_a_bias_by_distance():
    """Two queries and three keys: distances from -1 to 2."""
    bias = jnp.array([[10.0, 20.0, 30.0, 40.0]])
    np.testing.assert_array_equal(by_pairs(bias, 2, 3), [[[20.0, 30.0, 40.0], [10.0, 20.0, 30.0]]])


def test_a_query_without_keys_reads_the_mean_of_the_values_as_in_short_rows():
    """An empty prompt of an encoder-decoder."""
    mask = RowMask(jnp.zeros((1, 13), jnp.int32), queries=jnp.ones((1, 3), jnp.int32), causal=False)
    queries, values = jax.random.normal(KEY, (1, 4, 3, 8)), jax.random.normal(KEY, (1, 2, 13, 8))
    found = attend_in_blocks(PLAIN, queries, (values, values), mask, None, None, 8)
    mean = jnp.repeat(jnp.mean(values, axis=2, keepdims=True), 2, axis=1)
    np.testing.assert_allclose(found, jnp.broadcast_to(mean, found.shape), atol=1e-5)


def pairs(sees):
    return list(make_plan(PLAIN, sees, 32, 32, 8).pairs)


def test_blocks_that_no_query_sees_are_left_out():
    """32 tokens in blocks of 8. A causal window of 9 reaches the block before; one of 10 the one before that: 16 sees 7."""
    below = [(i, j) for i in range(4) for j in range(i + 1)]
    assert pairs(Sees(causal=True)) == below
    assert pairs(Sees(True, 9)) == [(i, j) for i, j in below if i - j <= 1]
    assert pairs(Sees(True, 10)) == [(i, j) for i, j in below if i - j <= 2]
    assert pairs(Sees(False, 1)) == [(i, j) for i in range(4) for j in range(4) if abs(i - j) <= 1]
    assert len(pairs(Sees(causal=False))) == 16


@pytest.fixture
def _blocks(monkeypatch):
    """Rows of more than 4 tokens are long, in blocks of 8."""
    monkeypatch.setitem(attention_kernels.DENSE, "cpu", 4)
    monkeypatch.setitem(attention_kernels.BLOCK, "cpu", 8)


def reading(name, dropout):
    """The hidden states of rows of 18 places, and their gradients."""
    model = build(FAMILIES[name])
    inputs = np.array([[5, 6, 7, 8, 9, 10, 11, 12, 13, 1], [9, 3, 1, 0, 0, 0, 0, 0, 0, 0]])
    batch = batch_of(inputs, [[11, 12, 13, 14, 15, 16, 17, 1], [21, 22, 23, 24, 1, 0, 0, 0]])
    real = jnp.asarray(batch.segment_ids > 0)[..., None]
    keys = jax.random.split(jax.random.key(3), 2) if dropout else None

    def run(model):
        graph, state = nnx.split(model)

        def loss(state):
            hidden = nnx.merge(graph, state).hidden(batch, keys)
            # Its derivative is at most 1, so that gradients are no small sums of large terms.
            return jnp.sum(jnp.where(real, jnp.sin(hidden), 0)), jnp.where(real, hidden, 0)

        return jax.grad(loss, has_aux=True)(state)

    return call(model, run)


LONG = [(name, False) for name in ("t5_1_1", "umt5", "t5gemma", "gemma2", "gemma3", "prefix", "llama")]


@pytest.mark.parametrize(("name", "dropout"), [*LONG, ("t5_1_1", True)])
def test_a_model_reads_long_rows_as_it_reads_short_ones(name, dropout, request):
    """Values and gradients; with dropout the same weights are dropped."""
    whole = reading(name, dropout)
    request.getfixturevalue("_blocks")
    blocks = reading(name, dropout)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4, rtol=1e-4), whole, blocks)


def gradient_of(name, length):
    """The gradient of the sum of one row's hidden states by the parameters, with dropout, and the shapes of its arguments."""
    config = FAMILIES[name]
    batch = jax.eval_shape(lambda: batch_of(np.ones((1, length), np.int32), np.ones((1, length), np.int32)))
    graph, state = nnx.split(jax.eval_shape(lambda: config.build(KEY)))

    def loss(state, batch, keys):
        return jnp.sum(nnx.merge(graph, state).hidden(batch, keys))

    return jax.grad(loss), (state, batch, jax.eval_shape(lambda: jax.random.split(KEY, 1)))


def memory(length):
    """The bytes that the gradient of a T5 uses beside arguments and results."""
    gradient, arguments = gradient_of("t5_1_1", length)
    return jax.jit(gradient).lower(*arguments).compile().memory_analysis().temp_size_in_bytes


def test_memory_grows_with_the_length():
    assert memory(2048) < 2.2 * memory(1024), "it grows with the length, not with its square"


def sizes(jaxpr):
    """The number of elements of every array that a program computes, those within its loops and calls included."""
    for equation in jaxpr.eqns:
        yield from (variable.aval.size for variable in equation.outvars if hasattr(variable.aval, "size"))
        for inner in jaxprs_in_params(equation.params):
            yield from sizes(inner)


@pytest.mark.parametrize("name", ["t5_1_1", "t5gemma", "gemma3", "prefix"])
def test_no_scores_of_all_pairs_of_tokens(name):
    """At 32,768 tokens, no array in the gradient by the parameters has a tenth of the elements of one head's scores."""
    length = 32768
    gradient, arguments = gradient_of(name, length)
    assert length * 16 < max(sizes(jax.make_jaxpr(gradient)(*arguments).jaxpr)) < length * length / 10


def test_a_cache_holds_no_keys_beyond_a_window():
    """Prompts have room for 10 tokens and answers for 8; the window of layer 0 is 3."""
    prompts = PromptBatch(jnp.ones((2, 10), jnp.int32), jnp.array([10, 2]))
    cache, _ = build(FAMILIES["gemma2"]).start_decoding(prompts, 8, num_samples=2)
    assert [keys.shape[:3] for keys, _ in cache.prompts] == [(2, 2, 3), (2, 2, 10)]
    assert [keys.shape[:3] for keys, _ in cache.answers] == [(4, 2, 3), (4, 2, 8)]
