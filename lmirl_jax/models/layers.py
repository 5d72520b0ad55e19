"""Building blocks that the model families share: parameters with logical axes, norms, dropout, stacked layers."""

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
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*(rules.get(a) for a in axes)))


class RMSNorm(nnx.Module):
    """T5's layer norm: no mean, no bias.

    y = scale * x / sqrt(mean(x ** 2) + 1e-6)
    """

    def __init__(self, size: int, *, key: Key[Array, ""]):
        self.scale = parameter(key, nnx.initializers.ones, (size,), ("embed",))

    def __call__(self, x: Float[Array, "*batch embed"]) -> Float[Array, "*batch embed"]:
        wide = x.astype(jnp.float32)
        inverse = jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + 1e-6)
        scale = jnp.reshape(self.scale[...], (1,) * (x.ndim - 1) + (-1,))
        return (wide * inverse * scale).astype(x.dtype)


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
        keys: one key a row; None switches dropout off.
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


def stack(make: Callable[[Key[Array, ""]], nnx.Module], count: int, key: Key[Array, ""]) -> nnx.Module:
    """One module whose parameters hold those of `count` layers along a leading axis named `layers`."""
    vectorised = nnx.vmap(make, in_axes=0, out_axes=0, transform_metadata={nnx.PARTITION_NAME: "layers"})
    return vectorised(jax.random.split(key, count))
