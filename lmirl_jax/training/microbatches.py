"""Computes gradients and values of a batch in parts, one after the other, so that only one part is in memory.

The entries of the leading axis are distributed to the parts. Rows that belong together, such as the samples of a prompt or a
chosen and a rejected answer, are grouped first, so that a group stays in one part.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from lmirl_jax.models.trainable import join, split
from lmirl_jax.training.sums import Sums


def gradient_of(loss: Callable) -> Callable:
    """The gradient by the parameters that are trained, for `sum_over_parts`.

    Args:
        loss: a function of all parameters, a part of the batch and its keys that returns the loss and sums.

    Returns:
        A function of the same arguments that returns gradients and sums. Frozen parameters have no gradient.
    """

    def gradient(params: Any, part: Any, keys: Any) -> tuple[Any, Sums]:
        trained, kept = split(params)
        return jax.grad(lambda trained: loss(join(trained, kept), part, keys), has_aux=True)(trained)

    return gradient


def sum_over_parts(gradient: Callable, params: Any, batch: Any, keys: Any, parts: int) -> tuple[Any, Sums]:
    """Adds up the gradients and the sums of all parts of the batch.

    Args:
        gradient: a function of the parameters, a part of the batch and its keys that returns gradients and sums.
        params: the parameters.
        batch: a tree of arrays, each with a leading axis that `parts` divides.
        keys: the dropout keys, a tree with the same leading axis.
        parts: the number of parts.
    """
    if parts == 1:
        return gradient(params, batch, keys)

    def add(sums, piece):
        return jax.tree.map(jnp.add, sums, gradient(params, *piece)), None

    pieces = jax.tree.map(lambda x: _split(x, parts), (batch, keys))
    shapes = jax.eval_shape(gradient, params, *jax.tree.map(lambda x: x[0], pieces))
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    return jax.lax.scan(add, zeros, pieces)[0]


def map_over_parts(function: Callable, batch: Any, parts: int) -> Any:
    """Applies a function of rows to rows to each part of the batch; the results come back in the order of the batch."""
    if parts == 1:
        return function(batch)
    results = jax.lax.map(function, jax.tree.map(lambda x: _split(x, parts), batch))
    return jax.tree.map(lambda x: jnp.reshape(jnp.swapaxes(x, 0, 1), (-1, *x.shape[2:])), results)


def group_rows(tree: Any, size: int) -> Any:
    """Reshapes [groups * size, ...] to [groups, size, ...], so that consecutive rows stay in one part of the batch."""
    return jax.tree.map(lambda x: jnp.reshape(x, (-1, size, *x.shape[1:])), tree)


def flatten_groups(tree: Any) -> Any:
    """The inverse of `group_rows`."""
    return jax.tree.map(lambda x: jnp.reshape(x, (-1, *x.shape[2:])), tree)


def _split(x: Array, parts: int) -> Array:
    # Every parts-th entry goes to the same part, so that each device splits its own rows and none moves.
    return jnp.swapaxes(jnp.reshape(x, (x.shape[0] // parts, parts, *x.shape[1:])), 0, 1)
