"""Attention of long rows, a block of queries and a block of keys at a time: memory grows with the length, not its square.

Source of the softmax over blocks, and of its gradient: https://arxiv.org/abs/2205.14135.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from lmirl_jax.models.block_plan import Plan, make_plan
from lmirl_jax.models.dot_products import KeysValues, Options, bounded_scores, grouped, ungrouped
from lmirl_jax.models.masks import RowMask, Sees, Side, mask_to_bias, visible

# Below every masked score: of the keys that only fill the last block, and of a softmax that has seen no key yet.
NO_KEY = -1e30


def attend_in_blocks(
    options: Options,
    queries: Float[Array, "batch heads queries head_dim"],
    keys_values: KeysValues,
    mask: RowMask,
    window: int | None,
    bias: Float[Array, "heads distances"] | None,
    block: int,
) -> Float[Array, "batch heads queries head_dim"]:
    """Attends within rows; the scores of a block of queries and a block of keys are in memory at a time.

        softmax(soft_cap * tanh(scale * q k / soft_cap) + bias[k - q] + mask) v

    Blocks that no query may see are left out. The backward pass computes the scores of each block again.

    Args:
        options: the scale and the bound; see `dot_products.attend`.
        queries: the queries.
        keys_values: keys and values.
        mask: which keys each query sees.
        window: how far it sees; None for no window.
        bias: what is added to the scores by distance, place of the key minus place of the query, from 1 - queries on, in nats.
        block: the most tokens of a block.
    """
    sees = Sees(mask.causal, window)
    # Prompts that see each other see later keys too.
    reach = Sees(False, window) if mask.prompts is not None else sees
    plan = make_plan(options, reach, queries.shape[2], keys_values[0].shape[2], block)
    return attend_planned(
        dataclasses.replace(plan, sees=sees), queries, keys_values, (mask.asking, mask.asked), bias
    )


def attend_planned(
    plan: Plan,
    queries: Float[Array, "batch heads queries head_dim"],
    keys_values: KeysValues,
    sides: tuple[Side, Side],
    bias: Float[Array, "heads distances"] | None = None,
) -> Float[Array, "batch heads queries head_dim"]:
    """The same, with a plan that was made before; the places of the queries may be those of a part of a row.

    The bias begins at the distance of the first key from the last query.
    """
    asking, asked = (
        _side_in_blocks(side, size)
        for side, size in zip(sides, (plan.query_block, plan.key_block), strict=True)
    )
    q = _in_blocks(queries, plan.query_block)
    k, v = (_in_blocks(x, plan.key_block) for x in keys_values)
    if bias is not None:
        bias = jnp.pad(bias, ((0, 0), (len(q) * q.shape[3] - plan.queries, len(k) * k.shape[3] - plan.keys)))
    # Without the barrier, JAX would take the masks and biases of all pairs of blocks out of the scan over layers, and so out of
    # the scan over pairs, because they are the same in all layers.
    tensors, sides = jax.lax.optimization_barrier(((q, k, v, bias), (asking, asked)))
    found = _attend(plan, tensors, sides)
    whole = jnp.reshape(jnp.moveaxis(found, 0, 2), (*queries.shape[:2], -1, queries.shape[3]))
    return whole[:, :, : plan.queries]


def _in_blocks(
    x: Float[Array, "batch heads length head_dim"], block: int
) -> Float[Array, "blocks batch heads block head_dim"]:
    """Blocks come first, so that those of a step lie together in memory."""
    blocks = -(-x.shape[2] // block)
    x = jnp.pad(x, ((0, 0), (0, 0), (0, blocks * block - x.shape[2]), (0, 0)))
    return jnp.moveaxis(jnp.reshape(x, (*x.shape[:2], blocks, block, x.shape[3])), 2, 0)


def _side_in_blocks(side: Side, block: int) -> Side:
    """The side cut into blocks along a leading axis; what fills the last one has segment -1."""
    length = side.segment_ids.shape[1]
    blocks = -(-length // block)

    def cut(x: Array, filler: int) -> Array:
        x = jnp.pad(x, ((0, 0), (0, blocks * block - length)), constant_values=filler)
        return jnp.moveaxis(jnp.reshape(x, (x.shape[0], blocks, block)), 1, 0)

    return Side(
        cut(side.segment_ids, -1),
        cut(side.places[None], 0)[:, 0],
        None if side.prompts is None else cut(side.prompts, 0),
    )


Tensors = tuple[Array, Array, Array, Array | None]
Sides = tuple[Side, Side]


def _of_pair(plan: Plan, tensors: Tensors, sides: Sides, pair: Int[Array, "2"]) -> tuple[Tensors, Array]:
    """A pair's queries, keys, values and biases, and what masks its scores."""
    q, k, v, bias = tensors
    i, j = pair[0], pair[1]
    near = None
    if bias is not None:
        near = jax.lax.dynamic_slice_in_dim(
            bias, _first(plan, len(q), i, j), plan.query_block + plan.key_block - 1, 1
        )
    asking, asked = (jax.tree.map(lambda x, n=n: x[n], side) for side, n in zip(sides, (i, j), strict=True))
    masked = mask_to_bias(visible(asking, asked, plan.sees))
    masked = jnp.where((asked.segment_ids < 0)[:, None, None, :], NO_KEY, masked)
    return (q[i], k[j], v[j], near), masked


def _first(plan: Plan, query_blocks: int, i: Array, j: Array) -> Array:
    """Where the biases of a pair of blocks begin: at the distance of the first key from the last query."""
    return j * plan.key_block + (query_blocks - 1 - i) * plan.query_block


def _pair_scores(
    plan: Plan, queries: Array, keys: Array, near: Float[Array, "heads distances"] | None
) -> Float[Array, "batch heads queries keys"]:
    scores = bounded_scores(plan.options, queries, keys)
    return scores if near is None else scores + by_pairs(near, queries.shape[2], keys.shape[2])[None]


def by_pairs(
    bias: Float[Array, "heads distances"], queries: int, keys: int
) -> Float[Array, "heads queries keys"]:
    """The bias of each query and key, bias[key - query + queries - 1].

    Each row of it is the one above, moved by one: so it is cut out of a flat array with copies of `bias` one after the
    other. Unlike a gather, this has a gradient that is a plain sum.
    """
    heads, size = bias.shape
    copies = jnp.broadcast_to(jnp.pad(bias, ((0, 0), (0, 1)))[:, None], (heads, queries, size + 1))
    flat = jnp.reshape(copies, (heads, -1))[:, : queries * size]
    return jnp.reshape(flat, (heads, queries, size))[:, :, queries - 1 : queries - 1 + keys]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(plan: Plan, tensors: Tensors, sides: Sides) -> Float[Array, "blocks batch heads block head_dim"]:
    return _forward(plan, tensors, sides)[0]


def _forward(plan: Plan, tensors: Tensors, sides: Sides) -> tuple[Array, Any]:
    """The means, and for the backward pass the largest score of each query and the sum of its exponentials."""
    q = tensors[0]

    def step(
        state: tuple[Array, Array, Array], pair: Int[Array, "2"]
    ) -> tuple[tuple[Array, Array, Array], None]:
        (queries, keys, values, near), masked = _of_pair(plan, tensors, sides, pair)
        scores = _pair_scores(plan, queries, keys, near) + masked
        largest, total, means = (x[pair[0]] for x in state)
        new = jnp.maximum(largest, jnp.max(scores, axis=-1))
        weights, shrink = jnp.exp(scores - new[..., None]), jnp.exp(largest - new)
        total = total * shrink + jnp.sum(weights, axis=-1)
        means = means * shrink[..., None] + _sums(weights.astype(values.dtype), values)
        return jax.tree.map(lambda x, y: x.at[pair[0]].set(y), state, (new, total, means)), None

    empty = jnp.zeros(q.shape[:-1], jnp.float32)
    state = (empty + NO_KEY, empty, jnp.zeros(q.shape, jnp.float32))
    (largest, total, means), _ = jax.lax.scan(step, state, jnp.array(plan.pairs, jnp.int32))
    means = (means / total[..., None]).astype(q.dtype)
    return means, (tensors, sides, means, largest, total)


def _backward(plan: Plan, kept: Any, gradient: Array) -> tuple[Any, Any]:
    tensors, sides, means, largest, total = kept
    mixed = jnp.sum(gradient.astype(jnp.float32) * means.astype(jnp.float32), axis=-1)

    def step(state: Any, pair: Int[Array, "2"]) -> tuple[Any, None]:
        i, j = pair[0], pair[1]
        (queries, keys, values, near), masked = _of_pair(plan, tensors, sides, pair)
        scores, to_inputs = jax.vjp(functools.partial(_pair_scores, plan), queries, keys, near)
        weights = jnp.exp(scores + masked - largest[i][..., None]) / total[i][..., None]
        _, to_weights_values = jax.vjp(_sums, weights.astype(values.dtype), values)
        of_weights, of_values = to_weights_values(gradient[i].astype(jnp.float32))
        of_scores = weights * (of_weights.astype(jnp.float32) - mixed[i][..., None])
        of_queries, of_keys, of_near = to_inputs(of_scores)
        sums = [
            x.at[n].add(y.astype(x.dtype))
            for x, n, y in zip(state, (i, j, j), (of_queries, of_keys, of_values))
        ]
        of_bias = state[3]
        if of_bias is not None:
            begin = _first(plan, len(tensors[0]), i, j)
            so_far = jax.lax.dynamic_slice_in_dim(of_bias, begin, of_near.shape[1], 1)
            of_bias = jax.lax.dynamic_update_slice_in_dim(of_bias, so_far + of_near, begin, 1)
        return (*sums, of_bias), None

    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), tensors)
    sums, _ = jax.lax.scan(step, zeros, jnp.array(plan.pairs, jnp.int32))
    return jax.tree.map(lambda x, y: y.astype(x.dtype), tensors, sums), None


_attend.defvjp(_forward, _backward)


def _sums(
    weights: Float[Array, "batch heads queries keys"], values: Float[Array, "batch kv_heads keys head_dim"]
) -> Float[Array, "batch heads queries head_dim"]:
    sums = jnp.einsum("bhqs,bhsk->bhqk", grouped(weights, values), values, preferred_element_type=jnp.float32)
    return ungrouped(sums, weights, values)
