"""Scores of queries and keys, their softmax in float32, and the weighted means of the values."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from lmirl_jax.models.layers import dropout

# Heads come before positions, as in the matrix products of attention, so that a cache is never transposed.
KeysValues = tuple[Float[Array, "_ kv_heads _ head_dim"], Float[Array, "_ kv_heads _ head_dim"]]


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
    scores = jnp.concatenate([bounded_scores(options, queries, keys) for keys, _ in parts], axis=-1)
    weights = jax.nn.softmax(scores + bias, axis=-1).astype(queries.dtype)
    weights = dropout(weights, options.dropout_rate, dropout_keys, place=0)
    means, begin = [], 0
    for _, values in parts:
        end = begin + values.shape[2]
        means.append(_means(weights[..., begin:end], values))
        begin = end
    return sum(means[1:], start=means[0])


def bounded_scores(
    options: Options,
    queries: Float[Array, "batch heads queries head_dim"],
    keys: Float[Array, "rows kv_heads keys head_dim"],
) -> Float[Array, "batch heads queries keys"]:
    """The scores without any bias, soft_cap * tanh(scale * q k / soft_cap), in float32."""
    scores = jnp.einsum("bhqk,bhsk->bhqs", grouped(queries, keys), keys, preferred_element_type=jnp.float32)
    scores = ungrouped(scores, queries, keys)
    if options.query_scale is not None:
        scores = scores * options.query_scale
    if options.soft_cap is not None:
        scores = options.soft_cap * jnp.tanh(scores / options.soft_cap)
    return scores


def _means(
    weights: Float[Array, "batch heads queries keys"], values: Float[Array, "rows kv_heads keys head_dim"]
) -> Float[Array, "batch heads queries head_dim"]:
    means = jnp.einsum("bhqs,bhsk->bhqk", grouped(weights, values), values)
    return ungrouped(means, weights, values)


def grouped(x: Array, shared: Array) -> Array:
    """Makes rows that share keys, and heads that do, one row and one head with more queries."""
    rows, kv_heads = shared.shape[:2]
    if x.shape[0] != rows:
        x = jnp.reshape(x, (rows, -1, *x.shape[1:]))
        x = jnp.reshape(jnp.swapaxes(x, 1, 2), (rows, x.shape[2], -1, x.shape[-1]))
    # The queries of a group lie one after the other, as those of one head; reshaping moves no element.
    return jnp.reshape(x, (rows, kv_heads, -1, x.shape[-1]))


def ungrouped(x: Array, like: Array, shared: Array) -> Array:
    """The inverse of `grouped`, for an array with another last axis."""
    rows, (batch, heads, queries, _) = shared.shape[0], like.shape
    if batch != rows:
        x = jnp.swapaxes(jnp.reshape(x, (rows, heads, batch // rows, queries, x.shape[-1])), 1, 2)
    return jnp.reshape(x, (batch, heads, queries, x.shape[-1]))
