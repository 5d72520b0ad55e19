"""The rules from logical axes to mesh axes, and the shardings of parameters that follow from them."""

import difflib
import math
import weakref
from collections.abc import Iterable, Mapping
from typing import Any

from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lmirl_jax.sharding.rows import BATCH_AXES
from lmirl_jax.types import UserError

# The mesh axes that split each logical axis; None leaves it whole.
LOGICAL_AXIS_RULES: Mapping[str, Any] = {
    "batch": BATCH_AXES,
    "length": "sequence",
    # Every query attends to keys of the whole row.
    "key_length": None,
    "embed": "fsdp",
    "vocab": "tensor",
    "mlp": "tensor",
    "heads": "tensor",
    "kv_heads": "tensor",
    "kv": None,
    "layers": None,
    "relpos_buckets": None,
    "scalar": None,
    "head": None,
    "adapter_rank": None,
}


# The data are laid out by the first; the second is whole because attention is computed so.
FIXED = ("batch", "key_length")

# The rules of meshes for which some were changed. JAX has one object for all equal meshes.
_CHANGED: weakref.WeakKeyDictionary[Mesh, Mapping[str, Any]] = weakref.WeakKeyDictionary()


def rules_of(mesh: Mesh) -> Mapping[str, Any]:
    """The mesh axes of each logical axis."""
    return _CHANGED.get(mesh, LOGICAL_AXIS_RULES)


def set_rules(mesh: Mesh, changes: Mapping[str, str | tuple[str, ...] | None] | None) -> None:
    """Replaces rules of a mesh; see `make_mesh`.

    Raises:
        UserError: there is no such logical axis or mesh axis, or the rule cannot be changed.
    """
    where = "sharding.make_mesh.logical_axis_rules"
    for logical, axes in (changes or {}).items():
        if logical in FIXED:
            raise UserError(f"{where}: the rule of {logical!r} cannot be changed: leave it out")
        if logical not in LOGICAL_AXIS_RULES:
            raise UserError(f"{where}: {_unknown(logical, 'logical axis', LOGICAL_AXIS_RULES)}")
        for axis in _names(axes):
            if axis not in mesh.axis_names:
                raise UserError(f"{where}[{logical!r}]: {_unknown(axis, 'mesh axis', mesh.axis_names)}")
    if changes:
        _CHANGED[mesh] = dict(LOGICAL_AXIS_RULES) | dict(changes)
    else:
        _CHANGED.pop(mesh, None)


def _unknown(name: str, kind: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
    return f"{name!r} is no {kind}: {hint}"


def _names(axes: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return () if axes is None else (axes,) if isinstance(axes, str) else tuple(axes)


def replicated_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of an array of which every device has a copy."""
    return NamedSharding(mesh, PartitionSpec())


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
        UserError: a mesh axis does not divide the parameter's axis that it splits, or would split two of its axes.
    """
    shardings: dict[Any, Any] = {}
    axes = logical_axes(state)
    for path, variable in nnx.to_flat_state(state):
        name = "/".join(map(str, path))
        spec = [_mesh_axes(mesh, name, *axis) for axis in zip(axes[name], variable.shape, strict=True)]
        _check_once(name, axes[name], spec)
        inner = shardings
        for part in path[:-1]:
            inner = inner.setdefault(part, {})
        inner[path[-1]] = NamedSharding(mesh, PartitionSpec(*spec))
    return shardings


def _mesh_axes(mesh: Mesh, parameter: str, logical: str, size: int) -> Any:
    axes = rules_of(mesh)[logical]
    names = _names(axes)
    if size % math.prod(mesh.shape[axis] for axis in names):
        split = " x ".join(f"{axis}={mesh.shape[axis]}" for axis in names)
        raise UserError(
            f"mesh axis {split} does not divide {logical}={size} of {parameter}: "
            f"set sharding.make_mesh.{names[-1]} to a divisor of {size}"
        )
    return axes


def _check_once(parameter: str, logical: tuple[str, ...], spec: list[Any]) -> None:
    users: dict[str, str] = {}
    for name, axes in zip(logical, spec, strict=True):
        for axis in _names(axes):
            if axis in users:
                raise UserError(
                    f"mesh axis {axis} would split both {users[axis]} and {name} of {parameter}: give one of them another "
                    "axis, or None, in sharding.make_mesh.logical_axis_rules"
                )
            users[axis] = name
