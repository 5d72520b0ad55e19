"""T5's relative positions: buckets of distances, and a learnt bias of the scores for each."""

import math

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from lmirl_jax.models.layers import parameter


def relative_position_bucket(
    distance: Int[Array, "*shape"], *, bidirectional: bool, buckets: int = 32, max_distance: int = 128
) -> Int[Array, "*shape"]:
    """The bucket of each relative position: exact while near, logarithmic further off.

    Args:
        distance: position of the key minus position of the query, in tokens.
        bidirectional: half of the buckets for keys after the query; else those share bucket 0.
        buckets: the number of buckets.
        max_distance: everything from here on, in tokens, shares the last bucket.

    Returns:
        Numbers from 0 to `buckets - 1`.

    Source: T5, https://arxiv.org/abs/1910.10683, section 2.1.
    """
    offset = jnp.zeros_like(distance)
    if bidirectional:
        buckets //= 2
        offset = jnp.where(distance > 0, buckets, 0)
        distance = jnp.abs(distance)
    else:
        distance = jnp.maximum(-distance, 0)
    exact = buckets // 2
    # The addition of 1 keeps the logarithm finite where the other branch is used.
    ratio = jnp.maximum(distance, 1).astype(jnp.float32) / exact
    scaled = jnp.log(ratio) / math.log(max_distance / exact) * (buckets - exact)
    far = jnp.minimum(exact + scaled.astype(distance.dtype), buckets - 1)
    return offset + jnp.where(distance < exact, distance, far)


class RelativeBias(nnx.Module):
    """A learnt bias of the scores for each head and bucket of relative positions."""

    def __init__(
        self, heads: int, *, bidirectional: bool, buckets: int, max_distance: int, key: Key[Array, ""]
    ):
        self.bidirectional, self.buckets, self.max_distance = bidirectional, buckets, max_distance
        init = nnx.initializers.variance_scaling(1.0, "fan_avg", "uniform")
        self.rel_embedding = parameter(key, init, (heads, buckets), ("heads", "relpos_buckets"))

    def by_distance(self, queries: int, keys: int) -> Float[Array, "heads distances"]:
        """The bias by distance, place of the key minus place of the query: from 1 - queries to keys - 1."""
        return self(jnp.zeros(1, jnp.int32), jnp.arange(1 - queries, keys))[0, :, 0]

    def __call__(
        self, queries: Int[Array, " queries"], keys: Int[Array, " keys"]
    ) -> Float[Array, "1 heads queries keys"]:
        bucket = relative_position_bucket(
            keys[None, :] - queries[:, None],
            bidirectional=self.bidirectional,
            buckets=self.buckets,
            max_distance=self.max_distance,
        )
        return jnp.take(self.rel_embedding[...], bucket, axis=1)[None]
