"""Random keys of training: each depends on the run's seed, the step and the row, never on the mesh."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key


def row_keys(key: Key[Array, ""], step: Int[Array, ""], rows: int) -> Key[Array, " rows"]:
    """A key for each row of the global batch of a step."""
    return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.fold_in(key, step), jnp.arange(rows))
