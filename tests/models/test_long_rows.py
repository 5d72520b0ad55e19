"""Long rows: blocks equal the whole, hold no scores of all pairs of tokens, and windows cost what they cover."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lmirl_jax.models import dot_products, stacks
from lmirl_jax.models.attention import AttentionConfig
from lmirl_jax.models.dot_products import attend, attend_in_blocks
from lmirl_jax.models.masks import RowMask, mask_to_bias
from lmirl_jax.types import PromptBatch
from tests.batches import batch_of
from tests.models.families import FAMILIES, build, call

KEY = jax.random.key(0)
SEGMENTS = jnp.array([[1] * 20, [1] * 7 + [2] * 9 + [0] * 4])
PLAIN = AttentionConfig(4, 2, 8, dropout_rate=0.0, query_scale=0.3)
CAPPED = dataclasses.replace(PLAIN, soft_cap=1.5)


def arrays(length=20):
    queries = jax.random.normal(KEY, (2, 4, length, 8))
    keys, values = jax.random.normal(jax.random.key(1), (2, 2, 2, length, 8))
    return queries, (keys, values)


@pytest.mark.parametrize("options", [PLAIN, CAPPED], ids=["plain", "capped"])
@pytest.mark.parametrize("window", [None, 1, 5, 19, 40])
@pytest.mark.parametrize("block", [4, 6, 20, 64])
def test_blocks_equal_the_whole(options, window, block):
    queries, keys_values = arrays()
    mask, places = RowMask(SEGMENTS), jnp.arange(20)
    whole = attend(options, queries, [keys_values], mask_to_bias(mask.part(places, places, window)))
    found = attend_in_blocks(options, queries, keys_values, mask, window, block)
    real = np.asarray(SEGMENTS) > 0
    np.testing.assert_allclose(
        np.moveaxis(found, 1, 2)[real], np.moveaxis(np.asarray(whole), 1, 2)[real], atol=1e-5
    )


def test_blocks_have_the_gradient_of_the_whole():
    queries, keys_values = arrays()
    mask, places, real = RowMask(SEGMENTS), jnp.arange(20), (SEGMENTS > 0)[:, None, :, None]

    def of_blocks(queries, keys_values):
        return jnp.sum(jnp.where(real, attend_in_blocks(PLAIN, queries, keys_values, mask, 5, 6), 0) ** 3)

    def of_whole(queries, keys_values):
        bias = mask_to_bias(mask.part(places, places, 5))
        return jnp.sum(jnp.where(real, attend(PLAIN, queries, [keys_values], bias), 0) ** 3)

    found, expected = (jax.grad(f, argnums=(0, 1))(queries, keys_values) for f in (of_blocks, of_whole))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), found, expected)


@pytest.mark.parametrize("name", ["gemma2", "gemma3", "prefix", "llama"])
def test_a_model_reads_long_rows_as_it_reads_short_ones(name, monkeypatch):
    """Rows of 18 places, in blocks of 4: values, gradients, and what the cache is filled with."""
    model = build(FAMILIES[name])
    inputs = np.array([[5, 6, 7, 8, 9, 10, 11, 12, 13, 1], [9, 3, 1, 0, 0, 0, 0, 0, 0, 0]])
    batch = batch_of(inputs, [[11, 12, 13, 14, 15, 16, 17, 1], [21, 22, 23, 24, 1, 0, 0, 0]])
    real = jnp.asarray(batch.segment_ids > 0)[..., None]

    def run(model):
        graph, state = nnx.split(model)

        def loss(state):
            hidden = nnx.merge(graph, state).hidden(batch)
            # Its derivative is at most 1, so that gradients are no small sums of large terms.
            return jnp.sum(jnp.where(real, jnp.sin(hidden), 0)), jnp.where(real, hidden, 0)

        return jax.grad(loss, has_aux=True)(state)

    whole = call(model, run)
    monkeypatch.setattr(stacks, "LONG", 4)
    monkeypatch.setattr(dot_products, "BLOCK", 4)
    monkeypatch.setattr(dot_products.attend_in_blocks, "__defaults__", (4,))
    blocks = call(model, run)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4, rtol=1e-4), whole, blocks)


def cost(length, window, block):
    """The memory that is used beside arguments and results, and the number of operations that XLA counts, of a block."""
    queries = jax.ShapeDtypeStruct((1, 4, length, 8), jnp.float32)
    keys = jax.ShapeDtypeStruct((1, 2, length, 8), jnp.float32)
    mask = RowMask(jnp.ones((1, length), jnp.int32))

    def loss(queries, keys, values):
        return jnp.sum(attend_in_blocks(PLAIN, queries, (keys, values), mask, window, block) ** 2)

    compiled = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(queries, keys, keys).compile()
    # Every form has loops of the same number of blocks, whose body XLA counts once.
    return compiled.memory_analysis().temp_size_in_bytes, compiled.cost_analysis()["flops"]


def test_no_scores_of_all_pairs_of_tokens():
    """At 8,192 tokens, one array of the scores of 4 heads has 1.07 GB; blocks of 512 queries need less than a third of that."""
    memory, _ = cost(8192, None, 512)
    assert memory < 4 * 8192 * 8192 * 4 / 3
    half, _ = cost(4096, None, 512)
    assert memory < 2.1 * half, "it grows with the length, not with its square"


def test_windows_cost_what_they_cover():
    """A block of 512 queries with a window of 512 reaches 1,023 keys, an eighth of 8,192."""
    (memory, work), (all_memory, all_work) = cost(8192, 512, 512), cost(8192, None, 512)
    assert work < all_work / 6
    assert memory < all_memory / 2


def test_a_cache_holds_no_keys_beyond_a_window():
    """Prompts have room for 10 tokens and answers for 8; the window of layer 0 is 3."""
    prompts = PromptBatch(jnp.ones((2, 10), jnp.int32), jnp.array([10, 2]))
    cache, _ = build(FAMILIES["gemma2"]).start_decoding(prompts, 8, num_samples=2)
    assert [keys.shape[:3] for keys, _ in cache.prompts] == [(2, 2, 3), (2, 2, 10)]
    assert [keys.shape[:3] for keys, _ in cache.answers] == [(4, 2, 3), (4, 2, 8)]
