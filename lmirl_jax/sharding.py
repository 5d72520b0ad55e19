"""Shardings of parameters and batches: the device mesh, and the rules from logical axes to mesh axes.

Three mesh axes: `data` copies the parameters and splits the batch, `fsdp` splits both, `tensor` splits heads, feed-forward
and vocabulary. Models name the logical axes of their parameters; the rules below are the only place that knows both.
"""

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from lmirl_jax.argument_rules import Words
from lmirl_jax.arguments import check_arguments
from lmirl_jax.types import Batch, UserError

BATCH_AXES = ("data", "fsdp")

LOGICAL_AXIS_RULES: Mapping[str, Any] = {
    "batch": BATCH_AXES,
    "length": None,
    "embed": "fsdp",
    "vocab": "tensor",
    "mlp": "tensor",
    "heads": "tensor",
    "kv_heads": "tensor",
    "kv": None,
    "layers": None,
    "relpos_buckets": None,
    "scalar": None,
    "adapter_rank": None,
}


AxisSize = Annotated[
    int,
    Words(
        "a whole number of 1 or more, or -1 for the devices that are left",
        lambda size: size == -1 or size >= 1,
    ),
]


@check_arguments
def make_mesh(data: AxisSize = -1, fsdp: AxisSize = 1, tensor: AxisSize = 1) -> Mesh:
    """A mesh over every device of every process.

    Args:
        data: the number of copies of the parameters; each has its share of the batch.
        fsdp: the number of parts of parameters, optimizer state and batch.
        tensor: the number of parts of heads, feed-forward width and vocabulary. One of the three may be -1: all devices that
            the other two leave.

    Returns:
        The mesh, with the axes `data`, `fsdp` and `tensor`.

    Raises:
        UserError: the product of the three is not the number of devices.
    """
    sizes = {"data": data, "fsdp": fsdp, "tensor": tensor}
    devices = jax.device_count()
    sizes_text = " x ".join(f"{name}={size}" for name, size in sizes.items())
    unknown = [name for name, size in sizes.items() if size == -1]
    fixed = math.prod(size for size in sizes.values() if size != -1)
    if len(unknown) > 1:
        raise UserError(
            f"mesh {sizes_text}: at most one axis is -1, the devices that are left; give the others a number"
        )
    if unknown:
        sizes[unknown[0]] = devices // fixed
    if math.prod(sizes.values()) != devices:
        raise UserError(
            f"mesh {sizes_text} does not fit the {devices} device(s) there are: "
            f"set sharding.make_mesh.{unknown[0] if unknown else 'data'} so that the three multiply to {devices}"
        )
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=(AxisType.Auto,) * 3)


@contextlib.contextmanager
def use(mesh: Mesh) -> Iterator[None]:
    """Within the block models shard their activations over `mesh` by the rules above."""
    with jax.set_mesh(mesh), nnx.logical_axis_rules(tuple(LOGICAL_AXIS_RULES.items())):
        yield


def replicated_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of an array of which every device has a copy."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows are split over `data` and `fsdp`; every other axis of a batch is whole."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def logical_axes(state: nnx.State) -> dict[str, tuple[str, ...]]:
    """The logical names of each parameter's axes, by its path, such as `encoder/norm/scale`."""
    return {
        "/".join(map(str, path)): variable.get_metadata("out_sharding")
        for path, variable in nnx.to_flat_state(state)
    }


def parameter_shardings(mesh: Mesh, state: nnx.State) -> dict[Any, Any]:
    """The sharding of each parameter, from the logical names of its axes.

    Args:
        mesh: the device mesh.
        state: a model's (abstract) state; each variable has its logical axes in `out_sharding`.

    Returns:
        A nested dict of the parameters' structure.

    Raises:
        UserError: a mesh axis does not divide the parameter's axis that it splits.
    """
    shardings: dict[Any, Any] = {}
    axes = logical_axes(state)
    for path, variable in nnx.to_flat_state(state):
        name = "/".join(map(str, path))
        spec = [_mesh_axis(mesh, name, *axis) for axis in zip(axes[name], variable.shape)]
        inner = shardings
        for part in path[:-1]:
            inner = inner.setdefault(part, {})
        inner[path[-1]] = NamedSharding(mesh, PartitionSpec(*spec))
    return shardings


def _mesh_axis(mesh: Mesh, parameter: str, logical: str, size: int) -> str | None:
    axis = LOGICAL_AXIS_RULES[logical]
    if axis is not None and size % mesh.shape[axis]:
        raise UserError(
            f"mesh axis {axis}={mesh.shape[axis]} does not divide {logical}={size} of {parameter}: "
            f"set sharding.make_mesh.{axis} to a divisor of {size}"
        )
    return axis


def check_batch_size(mesh: Mesh, batch_size: int, microbatches: int = 1, name: str = "BATCH_SIZE") -> None:
    """Raises a UserError unless the mesh and the number of microbatches divide the batch size."""
    parts = math.prod(mesh.shape[axis] for axis in BATCH_AXES) * microbatches
    if batch_size < 1 or batch_size % parts:
        micro = f" x {microbatches} microbatches" if microbatches > 1 else ""
        below, above = batch_size // parts * parts, (batch_size // parts + 1) * parts
        nearest = f"{below} or {above}" if below > 0 else f"{above}"
        raise UserError(
            f"{name}={batch_size} cannot be split over the mesh "
            f"data={mesh.shape['data']} x fsdp={mesh.shape['fsdp']}{micro}: "
            f"make it a multiple of {parts} (such as {nearest}), or change the mesh"
        )


def local_rows(mesh: Mesh, batch_size: int) -> slice:
    """The rows of a global batch that this process's devices hold."""
    index_map = batch_sharding(mesh).addressable_devices_indices_map((batch_size,))
    parts = [index[0].indices(batch_size)[:2] for index in index_map.values() if index is not None]
    start, stop = min(p[0] for p in parts), max(p[1] for p in parts)
    rows = {row for first, last in parts for row in range(first, last)}
    if len(rows) != stop - start:
        raise UserError(
            f"this process's devices hold rows of the batch that do not lie together ({start} to {stop} with gaps): "
            "choose mesh sizes that keep each process's devices together"
        )
    return slice(start, stop)


def to_global(mesh: Mesh, batch: Batch, batch_size: int) -> Batch:
    """Puts the rows of this process (numpy) on its devices, as its part of the global batch."""
    return jax.tree.map(lambda rows: rows_to_global(mesh, rows, batch_size), batch)


def rows_to_global(mesh: Mesh, rows: np.ndarray, batch_size: int) -> jax.Array:
    """Puts the rows of one array on the devices of this process; see `to_global`."""
    return jax.make_array_from_process_local_data(batch_sharding(mesh), rows, (batch_size, *rows.shape[1:]))


def local_part(array: jax.Array) -> np.ndarray:
    """The rows of a batch's array that this process's devices hold: the inverse of `rows_to_global`."""
    parts = {shard.index[0].indices(array.shape[0])[0]: shard.data for shard in array.addressable_shards}
    return np.concatenate([np.asarray(parts[start]) for start in sorted(parts)])
