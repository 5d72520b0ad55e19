"""The device mesh: its axes, and the order of the devices in it."""

import contextlib
import contextvars
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated

import jax
import numpy as np
from flax import nnx
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from lmirl_jax.argument_rules import Words
from lmirl_jax.arguments import Count, check_arguments
from lmirl_jax.sharding.connections import connect
from lmirl_jax.sharding.logical_axes import rules_of, set_rules
from lmirl_jax.types import UserError

AxisSize = Annotated[
    int,
    Words(
        "a whole number of 1 or more, or -1 for the devices that are left",
        lambda size: size == -1 or size >= 1,
    ),
]

# None: the devices of this run, of every process.
_DEVICES: contextvars.ContextVar[tuple[jax.Device, ...] | None] = contextvars.ContextVar(
    "devices", default=None
)


@contextlib.contextmanager
def use_devices(devices: Sequence[jax.Device]) -> Iterator[None]:
    """Within the block `make_mesh` builds over these devices, such as those of a topology that this machine lacks."""
    token = _DEVICES.set(tuple(devices))
    try:
        yield
    finally:
        _DEVICES.reset(token)


@check_arguments
def make_mesh(
    data: AxisSize = -1,
    fsdp: AxisSize = 1,
    tensor: AxisSize = 1,
    sequence: AxisSize = 1,
    slices: Count | None = None,
    logical_axis_rules: Mapping[str, str | tuple[str, ...] | None] | None = None,
) -> Mesh:
    """A mesh over every device of every process, or over those of `use_devices`.

    Args:
        data: the number of copies of the parameters in each slice; each copy has its share of the batch.
        fsdp: the number of parts of parameters, optimizer state and batch.
        tensor: the number of parts of heads, feed-forward width and vocabulary.
        sequence: the number of parts of the length of activations; each has all parameters and its part of every row. One of
            these four may be -1: all devices that the others leave.
        slices: the number of TPU slices (or hosts, or data centres) that exchange gradients over the slow network between
            them: each has copies of the parameters, and its share of the batch. None for as many as the TPUs belong to.
        logical_axis_rules: the mesh axes of logical axes, where they are not those of `LOGICAL_AXIS_RULES`, such as
            {'embed': ('fsdp', 'sequence')}; None leaves an axis whole. They hold for all equal meshes until the next call.

    Returns:
        The mesh, with the axes `slices`, `data`, `fsdp`, `sequence` and `tensor`.

    Raises:
        UserError: the product of the sizes is not the number of devices, `slices` not the number of the TPUs' slices, or a
            rule names no axis.
    """
    devices = tuple(jax.devices()) if _DEVICES.get() is None else _DEVICES.get()
    assert devices is not None
    real_slices = _count_slices(devices)
    sizes = {
        "slices": real_slices if slices is None else slices,
        "data": data,
        "fsdp": fsdp,
        "sequence": sequence,
        "tensor": tensor,
    }
    sizes = _fill_in(sizes, len(devices))
    if real_slices not in (1, sizes["slices"]):
        raise UserError(
            f"mesh {_show(sizes)} does not fit TPUs in {real_slices} slices: set sharding.make_mesh.slices to "
            f"{real_slices}, or leave it out"
        )
    order = arrange(tuple(sizes.values()), devices)
    mesh = Mesh(order, tuple(sizes), axis_types=(AxisType.Auto,) * len(sizes))
    set_rules(mesh, logical_axis_rules)
    if _DEVICES.get() is None:
        connect(mesh)
    return mesh


def _fill_in(sizes: dict[str, int], devices: int) -> dict[str, int]:
    """The sizes with the one that is -1 replaced, where their product is the number of devices."""
    shown = _show(sizes)
    unknown = [name for name, size in sizes.items() if size == -1]
    if len(unknown) > 1:
        raise UserError(
            f"mesh {shown}: at most one axis is -1, the devices that are left; give the others a number"
        )
    filled = dict(sizes)
    if unknown:
        filled[unknown[0]] = devices // math.prod(size for size in sizes.values() if size != -1)
    if math.prod(filled.values()) != devices:
        raise UserError(
            f"mesh {shown} does not fit the {devices} device(s) there are: "
            f"set sharding.make_mesh.{unknown[0] if unknown else 'data'} so that the sizes multiply to {devices}"
        )
    return filled


def _count_slices(devices: Sequence[jax.Device]) -> int:
    """The number of slices that TPUs belong to; 1 for other devices, which JAX lists host by host."""
    if devices[0].platform != "tpu":
        return 1
    return len({getattr(device, "slice_index", None) for device in devices})


def arrange(sizes: tuple[int, ...], devices: Sequence[jax.Device]) -> np.ndarray:
    """The devices in the form of the mesh, whose first axis is `slices`; neighbours on its last axes are close.

    Args:
        sizes: the size of each mesh axis.
        devices: as many as the sizes multiply to.

    Returns:
        An array of devices of these sizes.
    """
    # An axis of 4 may be a part of a torus of 8 chips: without the flag JAX builds only meshes of whole sides of the torus.
    options = {"devices": devices, "allow_split_physical_axes": True}
    if _count_slices(devices) == 1:
        return mesh_utils.create_device_mesh(sizes, **options)
    within, between = (1, *sizes[1:]), (sizes[0], *(1 for _ in sizes[1:]))
    return mesh_utils.create_hybrid_device_mesh(within, between, **options)


def describe_mesh(mesh: Mesh) -> str:
    """The mesh in words: its axes without those of size 1, as in `data=2 x fsdp=4`."""
    return _show(mesh.shape)


def _show(sizes: Mapping[str, int]) -> str:
    return " x ".join(f"{name}={size}" for name, size in sizes.items() if size != 1) or "data=1"


@contextlib.contextmanager
def use(mesh: Mesh) -> Iterator[None]:
    """Within the block models shard their activations over `mesh` by the rules of the mesh."""
    with jax.set_mesh(mesh), nnx.logical_axis_rules(tuple(rules_of(mesh).items())):
        yield
