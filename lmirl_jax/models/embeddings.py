"""The ends of every network: tokens become vectors, and rows of a cache change places."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int


def embed(
    table: nnx.Param, tokens: Int[Array, "batch length"], dtype: str, *, scaled: bool
) -> Float[Array, "batch length embed"]:
    """Embeds tokens; with `scaled`, multiplied by sqrt(emb_dim), as Gemma does."""
    x = jnp.take(table[...], tokens, axis=0).astype(dtype)
    return x * jnp.asarray(math.sqrt(x.shape[-1]), x.dtype) if scaled else x


def reorder_samples(cache: Any, parents: Int[Array, "prompts samples"]) -> Any:
    """Lets row j of each prompt go on from what the prompt's row `parents[prompt, j]` has read."""

    def move(x: Float[Array, "rows *rest"]) -> Float[Array, "rows *rest"]:
        by_prompt = jnp.reshape(x, (*parents.shape, *x.shape[1:]))
        moved = jax.vmap(lambda y, rows: jnp.take(y, rows, axis=0))(by_prompt, parents)
        return jnp.reshape(moved, x.shape)

    return jax.tree.map(move, cache)
