"""Building blocks that the model families share: parameters with logical axes, norms, dropout, linear maps."""

import contextlib
import contextvars
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from flax.core import spmd
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int, Key

from lmirl_jax.types import UserError

Initializer = Callable[[Key[Array, ""], Sequence[int], jnp.dtype], Array]


def parameter(key: Key[Array, ""], init: Initializer, shape: Sequence[int], axes: Sequence[str]) -> nnx.Param:
    """A float32 parameter that knows the logical name of each of its axes; `sharding` turns these into placements."""
    # Not sharded here: models can be built without a mesh, and the trainer places them in one jitted call.
    return nnx.Param(init(key, tuple(shape), jnp.float32), out_sharding=tuple(axes), eager_sharding=False)


class Constraint(NamedTuple):
    """The sharding of an activation that a model asks for: its shape, its type, and its logical and mesh axes."""

    shape: tuple[int, ...]
    dtype: jnp.dtype
    logical: tuple[str | None, ...]
    spec: PartitionSpec


_RECORDED: contextvars.ContextVar[list[Constraint] | None] = contextvars.ContextVar("recorded", default=None)


@contextlib.contextmanager
def record_constraints() -> Iterator[list[Constraint]]:
    """Within the block the list takes the activations that traced models shard, in their order."""
    found: list[Constraint] = []
    token = _RECORDED.set(found)
    try:
        yield found
    finally:
        _RECORDED.reset(token)


def constrain(x: Array, *axes: str | None) -> Array:
    """Asks the compiler to shard an activation by its logical axes; no-op outside a mesh with rules.

    An axis that the mesh does not divide stays whole, except for the length of rows.

    Raises:
        UserError: the mesh does not divide the length of rows; the single tokens of decoding are not split.
    """
    rules, mesh = dict(spmd.get_logical_axis_rules() or ()), jax.sharding.get_abstract_mesh()
    if not rules or mesh.empty:
        return x
    spec, free = [], set(mesh.axis_names)
    for logical, size in zip(axes, x.shape, strict=True):
        names = rules.get(logical) or () if logical is not None else ()
        # A mesh axis splits only one axis of an array.
        names = tuple(name for name in ((names,) if isinstance(names, str) else names) if name in free)
        parts = math.prod(mesh.shape[name] for name in names)
        if logical == "length" and size > 1 and size % parts:
            _refuse_length(size, names[-1], parts)
        names = names if size % parts == 0 else ()
        free -= set(names)
        spec.append(names or None)
    recorded = _RECORDED.get()
    if recorded is not None:
        recorded.append(Constraint(x.shape, x.dtype, axes, PartitionSpec(*spec)))
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*spec))


def refuse_sequence(what: str) -> None:
    """Raises a UserError where the mesh in force splits the length of rows."""
    mesh = jax.sharding.get_abstract_mesh()
    parts = 1 if mesh.empty else dict(mesh.shape).get("sequence", 1)
    if parts > 1:
        raise UserError(
            f"{what} is not possible on a mesh with sequence={parts}: set sharding.make_mesh.sequence to 1 for it"
        )


def _refuse_length(length: int, axis: str, parts: int) -> None:
    raise UserError(
        f"rows of {length} tokens cannot be split over {axis}={parts}: make the lengths of prompts and answers "
        f"(TASK_FEATURE_LENGTHS) multiples of {parts}, or set sharding.make_mesh.{axis} to a divisor of {length}"
    )


def mesh_axes(logical: str, size: int) -> tuple[str, ...]:
    """The mesh axes, of more than one part, that split an axis by the rules in force; none if they do not divide its size."""
    mesh, rules = jax.sharding.get_abstract_mesh(), dict(spmd.get_logical_axis_rules() or ())
    if not rules or mesh.empty or mesh.manual_axes:
        return ()
    axes = rules.get(logical) or ()
    axes = tuple(axis for axis in ((axes,) if isinstance(axes, str) else axes) if mesh.shape[axis] > 1)
    return axes if size % math.prod(mesh.shape[axis] for axis in axes) == 0 else ()


class RMSNorm(nnx.Module):
    """T5's layer norm: no mean, no bias; computed in float32.

        y = scale * x / sqrt(mean(x ** 2) + epsilon)

    Args:
        size: the width of the activations.
        epsilon: keeps the norm of zeros finite.
        offset: what is added to the parameter to make the scale: 0, or 1 as in Gemma, where it is stored around 0.
        axis: the logical name of the normalised axis.
    """

    def __init__(
        self,
        size: int,
        *,
        epsilon: float = 1e-6,
        offset: float = 0.0,
        axis: str = "embed",
        key: Key[Array, ""],
    ):
        self.epsilon, self.offset = epsilon, offset
        self.scale = parameter(key, nnx.initializers.constant(1.0 - offset), (size,), (axis,))

    def __call__(self, x: Float[Array, "*batch embed"]) -> Float[Array, "*batch embed"]:
        wide = x.astype(jnp.float32)
        inverse = jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + self.epsilon)
        scale = self.scale[...] + self.offset if self.offset else self.scale[...]
        return (wide * inverse * jnp.reshape(scale, (1,) * (x.ndim - 1) + (-1,))).astype(x.dtype)


def fold_keys(keys: Key[Array, " batch"], number: int | Int[Array, ""]) -> Key[Array, " batch"]:
    """Derives from each row's key another one for a numbered place in the network."""
    return jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)


def dropout(
    x: Float[Array, "batch *rest"],
    rate: float,
    keys: Key[Array, " batch"] | None,
    place: int,
    shared_axis: int = -2,
) -> Float[Array, "batch *rest"]:
    """Dropout with a key for each row, so that a row's mask depends neither on its neighbours nor on the mesh.

    Args:
        x: activations.
        rate: the share of units that are dropped; the others grow by 1 / (1 - rate).
        keys: one key for each row; None for no dropout.
        place: distinguishes the dropouts of a layer.
        shared_axis: the mask is the same along this axis: the length (or the query), as in T5.

    Returns:
        `x`, with units set to 0.
    """
    if keys is None or rate == 0.0:
        return x
    shape = list(x.shape[1:])
    shape[shared_axis] = 1
    keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1.0 - rate, shape))(fold_keys(keys, place))
    return jnp.where(keep, x / (1.0 - rate), jnp.zeros((), x.dtype))


def adapted(linear: nnx.Module, x: Array, y: Array) -> Array:
    """The output `y` of a linear map for `x`, with what the map's adapter adds if it has one; see `models.adapters`."""
    adapter = getattr(linear, "adapter", None)
    return y if adapter is None else y + adapter(x)


def give_dropout_keys(layer: nnx.Module, keys: Key[Array, " batch"] | None) -> Any:
    """Gives the adapters of a layer its dropout keys, because linear maps are called without any; returns the layer.

    The layer must be a new one, made for this trace.
    """
    if keys is not None:
        for _, module in nnx.iter_modules(layer):
            adapter = getattr(module, "adapter", None)
            if adapter is not None:
                adapter.dropout_keys = keys
    return layer


class Dense(nnx.Module):
    """A linear map without bias."""

    def __init__(self, shape: tuple[int, int], axes: tuple[str, str], *, key: Key[Array, ""]):
        init = nnx.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")
        self.kernel = parameter(key, init, shape, axes)

    def __call__(self, x: Float[Array, "batch length d_in"]) -> Float[Array, "batch length d_out"]:
        return adapted(self, x, x @ self.kernel[...].astype(x.dtype))
