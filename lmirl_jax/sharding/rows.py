"""The rows of batches: which device holds which, and sizes that the mesh can split."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Int

from lmirl_jax.types import Batch, UserError

# The mesh axes that split the rows of a batch.
BATCH_AXES = ("slices", "data", "fsdp")


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows are split over `slices`, `data` and `fsdp`; every other axis of a batch is whole."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def check_batch_size(
    mesh: Mesh, batch_size: int, microbatches: int = 1, name: str = "BATCH_SIZE", together: int = 1
) -> None:
    """Raises a UserError unless the mesh, the microbatches and the rows that stay together divide the batch size."""
    parts = math.prod(mesh.shape[axis] for axis in BATCH_AXES) * microbatches * together
    if batch_size < 1 or batch_size % parts:
        micro = f" x {microbatches} microbatches" if microbatches > 1 else ""
        micro += f" x {together} rows that stay together" if together > 1 else ""
        below, above = batch_size // parts * parts, (batch_size // parts + 1) * parts
        nearest = f"{below} or {above}" if below > 0 else f"{above}"
        axes = " x ".join(
            f"{axis}={mesh.shape[axis]}" for axis in BATCH_AXES if axis != "slices" or mesh.shape[axis] > 1
        )
        raise UserError(
            f"{name}={batch_size} cannot be split over the mesh {axes}{micro}: "
            f"make it a multiple of {parts} (such as {nearest}), or change the mesh"
        )


def check_lengths(mesh: Mesh, lengths: Mapping[str, int], name: str = "TASK_FEATURE_LENGTHS") -> None:
    """Raises a UserError unless the mesh's `sequence` divides each length, in tokens."""
    parts = mesh.shape["sequence"]
    for feature, length in lengths.items():
        if length % parts:
            below, above = length // parts * parts, (length // parts + 1) * parts
            nearest = f"{below} or {above}" if below else f"{above}"
            raise UserError(
                f"{name}: {length} tokens of {feature} cannot be split over sequence={parts}: make it a multiple of {parts} "
                f"(such as {nearest}), or set sharding.make_mesh.sequence to a divisor of {length}"
            )


def local_rows(mesh: Mesh, batch_size: int) -> Int[np.ndarray, " rows"]:
    """The numbers of the rows of a global batch that this process's devices hold, in order.

    On TPUs they hardly ever lie together: neighbours in the mesh are neighbours in the torus, and a ring of chips comes through a
    host several times. There are none on a mesh of devices that this machine lacks, for which programs are only compiled.
    """
    index_map = batch_sharding(mesh).addressable_devices_indices_map((batch_size,))
    parts = {index[0].indices(batch_size)[:2] for index in index_map.values() if index is not None}
    rows = [np.arange(start, stop) for start, stop in sorted(parts)]
    return np.concatenate([np.zeros(0, np.int64), *rows])


def to_global(mesh: Mesh, batch: Batch, batch_size: int) -> Batch:
    """Puts the rows of this process (numpy) on its devices, as its part of the global batch."""
    own = local_rows(mesh, batch_size)
    return jax.tree.map(lambda rows: _place(mesh, rows, own, batch_size), batch)


def rows_to_global(mesh: Mesh, rows: np.ndarray, batch_size: int) -> jax.Array:
    """Puts the rows of one array on the devices of this process; see `to_global`."""
    return _place(mesh, rows, local_rows(mesh, batch_size), batch_size)


def _place(mesh: Mesh, rows: np.ndarray, own: Int[np.ndarray, " rows"], batch_size: int) -> jax.Array:
    if len(rows) != len(own):
        raise ValueError(f"{len(rows)} rows for the {len(own)} that this process holds of {batch_size}")

    def part(index: Any) -> np.ndarray:
        start, stop, _ = index[0].indices(batch_size)
        first = int(np.searchsorted(own, start))
        return rows[first : first + stop - start]

    return jax.make_array_from_callback((batch_size, *rows.shape[1:]), batch_sharding(mesh), part)


def local_part(array: jax.Array) -> np.ndarray:
    """The rows of a batch's array that this process's devices hold: the inverse of `rows_to_global`."""
    parts = {shard.index[0].indices(array.shape[0])[0]: shard.data for shard in array.addressable_shards}
    return np.concatenate([np.asarray(parts[start]) for start in sorted(parts)])
