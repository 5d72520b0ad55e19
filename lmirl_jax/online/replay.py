"""A replay buffer on the devices: the newest draws, of which each update takes rows at random.

Each device keeps and takes rows of its own: nothing moves between devices, and the whole is part of the train state.
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
    """The last draws.

    Args:
        experience: [draws, rows, ...].
        born: how many updates had been made at each draw, -1 while there is none, [draws].
    """

    experience: Experience
    born: Any


def empty(draws: int, experience: Experience) -> Replay:
    """A buffer of that many draws like the given one (arrays, or their shapes)."""
    return Replay(
        jax.tree.map(lambda x: jnp.zeros((draws, *x.shape), x.dtype), experience),
        jnp.full((draws,), -1, jnp.int32),
    )


def shardings(mesh: Mesh, replay: Replay) -> Replay:
    """Rows are split as a batch's are; a row keeps its place from draw to draw."""
    rows = NamedSharding(mesh, PartitionSpec(None, sharding.BATCH_AXES))
    return Replay(jax.tree.map(lambda _: rows, replay.experience), sharding.replicated(mesh))


def put(replay: Replay, experience: Experience, step: Int[Array, ""]) -> Replay:
    """Puts a draw in the place of the oldest one."""
    oldest = jnp.argmin(replay.born)
    stored = jax.tree.map(lambda old, new: old.at[oldest].set(new), replay.experience, experience)
    return Replay(stored, replay.born.at[oldest].set(step))


def sample_rows(
    replay: Replay, key: Key[Array, ""], step: Int[Array, ""], max_age: int | None = None
) -> tuple[Experience, Int[Array, " rows"]]:
    """Takes for each row of a draw the same row of a draw at random, among those that are young enough.

    Args:
        replay: the buffer; it holds a draw that is young enough.
        key: of the choice.
        step: updates made.
        max_age: updates after which a draw is not used any more; None: never.

    Returns:
        The rows, and the age of each in updates.
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
