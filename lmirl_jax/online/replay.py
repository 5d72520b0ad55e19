"""A replay buffer on the devices: it holds the newest draws of rollouts, from which each update samples rows at random.

Each device stores and samples its own rows, so that nothing moves between devices. The buffer is part of the train state.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int, Key

from lmirl_jax import sharding
from lmirl_jax.online.experience import Experience


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Replay:
    """The newest draws.

    Args:
        experience: the rollouts of each draw, [draws, rows, ...].
        born: the number of updates before each draw, [draws]; -1 for a place without a draw.
    """

    experience: Experience
    born: Any


def make_empty(draws: int, experience: Experience) -> Replay:
    """Makes an empty buffer for this number of draws with the shapes of `experience` (arrays, or their shapes)."""
    return Replay(
        jax.tree.map(lambda x: jnp.zeros((draws, *x.shape), x.dtype), experience),
        jnp.full((draws,), -1, jnp.int32),
    )


def shardings(mesh: Mesh, replay: Replay) -> Replay:
    """The shardings of a buffer: rows are split like those of a batch, so that a row lies on the same device in every draw."""
    rows = NamedSharding(mesh, PartitionSpec(None, sharding.BATCH_AXES))
    return Replay(jax.tree.map(lambda _: rows, replay.experience), sharding.replicated_sharding(mesh))


def put(replay: Replay, experience: Experience, step: Int[Array, ""]) -> Replay:
    """Replaces the oldest draw by a new one."""
    oldest = jnp.argmin(replay.born)
    draws = jax.tree.map(lambda old, new: old.at[oldest].set(new), replay.experience, experience)
    return Replay(draws, replay.born.at[oldest].set(step))


def sample_rows(
    replay: Replay, key: Key[Array, ""], step: Int[Array, ""], max_age: int | None = None
) -> tuple[Experience, Int[Array, " rows"]]:
    """Samples rows: row i is row i of a random draw among the draws that are not older than `max_age`.

    Args:
        replay: the buffer; at least one draw in it must be young enough.
        key: the key of the random choice.
        step: the number of updates so far.
        max_age: the number of updates after which a draw is no longer used; None for no limit.

    Returns:
        The rows, and the age of each row in updates.
    """
    usable = replay.born >= 0
    if max_age is not None:
        usable &= step - replay.born <= max_age
    rows = replay.experience.behaviour_log_probs.shape[1]
    chosen = jax.random.categorical(key, jnp.where(usable, 0.0, -jnp.inf), shape=(rows,))

    def pick(x: Array) -> Array:
        index = jnp.reshape(chosen, (1, rows) + (1,) * (x.ndim - 2))
        return jnp.take_along_axis(x, index, axis=0)[0]

    return jax.tree.map(pick, replay.experience), step - replay.born[chosen]
