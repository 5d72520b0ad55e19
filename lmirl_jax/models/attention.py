"""T5's multi-head attention: no biases, no scaling of the scores, and a learned bias of relative positions."""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key

from lmirl_jax.models.layers import constrain, dropout, parameter

# Heads come before positions, as in the matrix products of attention, so that a cache is never transposed.
KeysValues = tuple[Float[Array, "batch heads keys head_dim"], Float[Array, "batch heads keys head_dim"]]

# The value is finite, so that a row without any key to attend to has no NaN.
MASKED = -1e10

_project_in = nnx.initializers.variance_scaling(1.0, "fan_in", "normal", in_axis=0, out_axis=(1, 2))
_project_out = nnx.initializers.variance_scaling(1.0, "fan_in", "normal", in_axis=(0, 1), out_axis=2)


def _scaled_down(key, shape, dtype):
    """T5 puts 1/sqrt(head_dim) into the query's initial values instead of into the scores."""
    return _project_in(key, shape, dtype) / math.sqrt(shape[-1])


class Projection(nnx.Module):
    """A linear map from the embedding to heads."""

    def __init__(self, init, emb_dim: int, heads: int, head_dim: int, *, key: Key[Array, ""]):
        self.kernel = parameter(key, init, (emb_dim, heads, head_dim), ("embed", "heads", "kv"))

    def __call__(self, x: Float[Array, "batch length embed"]) -> Float[Array, "batch heads length head_dim"]:
        # Not an einsum, which would transpose the kernel, at every token of a decoding.
        y = jnp.tensordot(x, self.kernel[...].astype(x.dtype), 1)
        return constrain(jnp.swapaxes(y, 1, 2), "batch", "heads", "length", "kv")


class OutputProjection(nnx.Module):
    """A linear map from heads back to the embedding."""

    def __init__(self, emb_dim: int, heads: int, head_dim: int, *, key: Key[Array, ""]):
        self.kernel = parameter(key, _project_out, (heads, head_dim, emb_dim), ("heads", "kv", "embed"))

    def __call__(self, x: Float[Array, "batch heads length head_dim"]) -> Float[Array, "batch length embed"]:
        return jnp.tensordot(jnp.swapaxes(x, 1, 2), self.kernel[...].astype(x.dtype), 2)


class Attention(nnx.Module):
    """Multi-head attention over given keys and values, so that training and cached decoding share it."""

    def __init__(self, emb_dim: int, heads: int, head_dim: int, dropout_rate: float, *, key: Key[Array, ""]):
        keys = jax.random.split(key, 4)
        self.dropout_rate = dropout_rate
        self.query = Projection(_scaled_down, emb_dim, heads, head_dim, key=keys[0])
        self.key = Projection(_project_in, emb_dim, heads, head_dim, key=keys[1])
        self.value = Projection(_project_in, emb_dim, heads, head_dim, key=keys[2])
        self.out = OutputProjection(emb_dim, heads, head_dim, key=keys[3])

    def keys_values(self, x: Float[Array, "batch keys embed"]) -> KeysValues:
        return self.key(x), self.value(x)

    def __call__(
        self,
        x: Float[Array, "batch queries embed"],
        keys_values: KeysValues,
        bias: Float[Array, "#batch #heads #queries keys"],
        dropout_keys: Key[Array, " batch"] | None = None,
    ) -> Float[Array, "batch queries embed"]:
        """Attends from `x`; `bias` is added to the scores, in nats. The softmax is taken in float32."""
        keys, values = keys_values
        scores = jnp.einsum("bhqk,bhsk->bhqs", self.query(x), keys, preferred_element_type=jnp.float32)
        weights = jax.nn.softmax(scores + bias, axis=-1).astype(x.dtype)
        weights = dropout(weights, self.dropout_rate, dropout_keys, place=0)
        return self.out(jnp.einsum("bhqs,bhsk->bhqk", weights, values))


def attention_mask(
    queries: Int[Array, "batch queries"], keys: Int[Array, "batch keys"], *, causal: bool = False
) -> Bool[Array, "batch 1 queries keys"]:
    """Marks the keys to which each query may attend: those of its segment, but never padding.

    Args:
        queries: the segment of each query; 0 on padding.
        keys: the segment of each key; 0 on padding.
        causal: hides the keys that lie after the query.
    """
    mask = (queries[:, :, None] == keys[:, None, :]) & (keys > 0)[:, None, :]
    if causal:
        mask &= (jnp.arange(keys.shape[1])[None, :] <= jnp.arange(queries.shape[1])[:, None])[None]
    return mask[:, None]


def mask_to_bias(mask: Bool[Array, "*shape"]) -> Float[Array, "*shape"]:
    return jnp.where(mask, 0.0, MASKED).astype(jnp.float32)


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
    """A learnt bias of the scores for each head and bucket of relative positions, shared by the layers of a stack."""

    def __init__(
        self, heads: int, *, bidirectional: bool, buckets: int, max_distance: int, key: Key[Array, ""]
    ):
        self.bidirectional, self.buckets, self.max_distance = bidirectional, buckets, max_distance
        init = nnx.initializers.variance_scaling(1.0, "fan_avg", "uniform")
        self.rel_embedding = parameter(key, init, (heads, buckets), ("heads", "relpos_buckets"))

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
