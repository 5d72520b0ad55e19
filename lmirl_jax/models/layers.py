"""Building blocks that the model families share: parameters with logical axes, norms, dropout, linear maps."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from flax.core import spmd
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int, Key

Initializer = Callable[[Key[Array, ""], Sequence[int], jnp.dtype], Array]


def parameter(key: Key[Array, ""], init: Initializer, shape: Sequence[int], axes: Sequence[str]) -> nnx.Param:
    """A float32 parameter that knows the logical name of each of its axes; `sharding` turns these into placements."""
    # Not sharded here: models can be built without a mesh, and the trainer places them in one jitted call.
    return nnx.Param(init(key, tuple(shape), jnp.float32), out_sharding=tuple(axes), eager_sharding=False)


def constrain(x: Array, *axes: str | None) -> Array:
    """Asks the compiler to shard an activation by its logical axes; no-op outside a mesh with rules."""
    rules = dict(spmd.get_logical_axis_rules() or ())
    if not rules or jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(
        x, PartitionSpec(*(None if axis is None else rules.get(axis) for axis in axes))
    )


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


class Dense(nnx.Module):
    """A linear map without bias."""

    def __init__(self, shape: tuple[int, int], axes: tuple[str, str], *, key: Key[Array, ""]):
        init = nnx.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")
        self.kernel = parameter(key, init, shape, axes)

    def __call__(self, x: Float[Array, "batch length d_in"]) -> Float[Array, "batch length d_out"]:
        return x @ self.kernel[...].astype(x.dtype)
