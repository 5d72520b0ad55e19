"""Scores of queries and keys, their softmax in float32, and the weighted means of the values."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from lmirl_jax.models.layers import dropout
from lmirl_jax.models.masks import RowMask, mask_to_bias

# Heads come before positions, as in the matrix products of attention, so that a cache is never transposed.
KeysValues = tuple[Float[Array, "_ kv_heads _ head_dim"], Float[Array, "_ kv_heads _ head_dim"]]

# The number of queries whose scores are in memory at a time, in rows that are longer than `LONG`.
BLOCK = 512
LONG = 1024


@runtime_checkable
class Options(Protocol):
    """What of an `AttentionConfig` decides about scores."""

    @property
    def dropout_rate(self) -> float: ...

    @property
    def query_scale(self) -> float | None: ...

    @property
    def soft_cap(self) -> float | None: ...


def attend(
    options: Options,
    queries: Float[Array, "batch heads queries head_dim"],
    parts: Sequence[KeysValues],
    bias: Float[Array, "#batch #heads #queries all_keys"],
    dropout_keys: Key[Array, " batch"] | None = None,
) -> Float[Array, "batch heads queries head_dim"]:
    """Attends to the keys of all parts together.

        softmax(soft_cap * tanh(scale * q k / soft_cap) + bias) v

    Args:
        options: the scale, the bound and the dropout.
        queries: the queries.
        parts: keys and values; a part with fewer rows than there are queries has one for each prompt, for all of its samples.
        bias: what is added to the scores, in nats.
        dropout_keys: one key for each row; None for no dropout.
    """
    scores = jnp.concatenate([_scores(queries, keys) for keys, _ in parts], axis=-1)
    if options.query_scale is not None:
        scores = scores * options.query_scale
    if options.soft_cap is not None:
        scores = options.soft_cap * jnp.tanh(scores / options.soft_cap)
    weights = jax.nn.softmax(scores + bias, axis=-1).astype(queries.dtype)
    weights = dropout(weights, options.dropout_rate, dropout_keys, place=0)
    means, begin = [], 0
    for _, values in parts:
        end = begin + values.shape[2]
        means.append(_means(weights[..., begin:end], values))
        begin = end
    return sum(means[1:], start=means[0])


def _scores(
    queries: Float[Array, "batch heads queries head_dim"],
    keys: Float[Array, "rows kv_heads keys head_dim"],
) -> Float[Array, "batch heads queries keys"]:
    grouped = _group(queries, keys)
    scores = jnp.einsum("bhqk,bhsk->bhqs", grouped, keys, preferred_element_type=jnp.float32)
    return _ungroup(scores, queries, keys)


def _means(
    weights: Float[Array, "batch heads queries keys"], values: Float[Array, "rows kv_heads keys head_dim"]
) -> Float[Array, "batch heads queries head_dim"]:
    means = jnp.einsum("bhqs,bhsk->bhqk", _group(weights, values), values)
    return _ungroup(means, weights, values)


def _group(x: Array, shared: Array) -> Array:
    """Makes rows that share keys, and heads that do, one row and one head with more queries."""
    rows, kv_heads = shared.shape[:2]
    if x.shape[0] != rows:
        x = jnp.reshape(x, (rows, -1, *x.shape[1:]))
        x = jnp.reshape(jnp.swapaxes(x, 1, 2), (rows, x.shape[2], -1, x.shape[-1]))
    # The queries of a group lie one after the other, as those of one head; reshaping moves no element.
    return jnp.reshape(x, (rows, kv_heads, -1, x.shape[-1]))


def _ungroup(x: Array, like: Array, shared: Array) -> Array:
    """The inverse of `_group`, for an array with another last axis."""
    rows, (batch, heads, queries, _) = shared.shape[0], like.shape
    if batch != rows:
        x = jnp.swapaxes(jnp.reshape(x, (rows, heads, batch // rows, queries, x.shape[-1])), 1, 2)
    return jnp.reshape(x, (batch, heads, queries, x.shape[-1]))


def attend_in_blocks(
    options: Options,
    queries: Float[Array, "batch heads length head_dim"],
    keys_values: KeysValues,
    mask: RowMask,
    window: int | None,
    block: int = BLOCK,
) -> Float[Array, "batch heads length head_dim"]:
    """Attends within rows, a block of queries at a time; with a window, only to the keys that the block's windows reach.

    The backward pass computes the scores of a block again.

    Args:
        options: see `attend`; without dropout.
        queries: the queries.
        keys_values: the keys and values of the same rows.
        mask: the mask.
        window: how many keys each query sees, its own included; None for all before it.
        block: the number of queries of a block.
    """
    length = queries.shape[2]
    blocks = -(-length // block)
    reach = length
    if window is not None and mask.prompts is None:
        reach = min(length, block + window - 1)
    starts = jnp.minimum(jnp.arange(blocks) * block, max(length - block, 0))

    @jax.checkpoint
    def one(start: Array) -> Float[Array, "batch heads block head_dim"]:
        size = min(block, length)
        first = jnp.clip(start + size - reach, 0, length - reach)
        asked = jax.lax.dynamic_slice_in_dim(queries, start, size, axis=2)
        reached = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, first, reach, axis=2), keys_values)
        visible = mask.part(start + jnp.arange(size), first + jnp.arange(reach), window)
        return _attend_masked(options, asked, reached, visible)

    found = jax.lax.map(one, starts)
    # The last block begins where it is whole, so that it may repeat some queries of the one before.
    rest = length - (blocks - 1) * block
    whole = jnp.moveaxis(found[:-1], 0, 2)
    whole = jnp.reshape(whole, (*queries.shape[:2], (blocks - 1) * block, queries.shape[-1]))
    return jnp.concatenate([whole, found[-1][:, :, found.shape[3] - rest :]], axis=2)


def _attend_masked(
    options: Options, queries: Array, keys_values: KeysValues, visible: Array
) -> Float[Array, "batch heads queries head_dim"]:
    if options.soft_cap is not None:
        return attend(options, queries, [keys_values], mask_to_bias(visible))
    q, k, v = (jnp.swapaxes(x, 1, 2) for x in (queries, *keys_values))
    scale = 1.0 if options.query_scale is None else options.query_scale
    return jnp.swapaxes(jax.nn.dot_product_attention(q, k, v, mask=visible, scale=scale), 1, 2)
