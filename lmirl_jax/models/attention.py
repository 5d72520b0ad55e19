"""Multi-head attention over given keys and values, and its masks: training and cached decoding share it."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key

from lmirl_jax.models.layers import Initializer, adapted, constrain, dropout, parameter
from lmirl_jax.models.rotary import Rotation, rotate

# Heads come before positions, as in the matrix products of attention, so that a cache is never transposed.
KeysValues = tuple[Float[Array, "batch heads keys head_dim"], Float[Array, "batch heads keys head_dim"]]

# The value is finite, so that a row without any key to attend to has no NaN.
MASKED = -1e10
# The window of a layer without one: more than any two positions are apart.
NO_WINDOW = 2**30

_project_in = nnx.initializers.variance_scaling(1.0, "fan_in", "normal", in_axis=0, out_axis=(1, 2))
_project_out = nnx.initializers.variance_scaling(1.0, "fan_in", "normal", in_axis=(0, 1), out_axis=2)


def _scaled_down(key, shape, dtype):
    """T5 puts 1/sqrt(head_dim) into the query's initial values instead of into the scores."""
    return _project_in(key, shape, dtype) / math.sqrt(shape[-1])


@dataclasses.dataclass(frozen=True)
class AttentionConfig:
    """The sizes and options of attention.

    Args:
        num_heads: the number of heads of the queries.
        num_kv_heads: the number of heads of keys and values, a divisor of `num_heads`; groups of queries share each.
        head_dim: the width of each head.
        dropout_rate: the share of attention weights that are dropped.
        query_scale: a factor on the scores; None for none, as in T5.
        soft_cap: the bound of the scores, soft_cap * tanh(score / soft_cap); None for no bound.
    """

    num_heads: int
    num_kv_heads: int
    head_dim: int
    dropout_rate: float
    query_scale: float | None = None
    soft_cap: float | None = None

    @property
    def kv_axis(self) -> str:
        """The logical axis of the heads of keys and values."""
        return "heads" if self.num_kv_heads == self.num_heads else "kv_heads"


class Projection(nnx.Module):
    """A linear map from the embedding to heads."""

    def __init__(
        self, init: Initializer, shape: tuple[int, int, int], heads_axis: str, *, key: Key[Array, ""]
    ):
        self.heads_axis = heads_axis
        self.kernel = parameter(key, init, shape, ("embed", heads_axis, "kv"))

    def __call__(self, x: Float[Array, "batch length embed"]) -> Float[Array, "batch heads length head_dim"]:
        # Not an einsum, which would transpose the kernel, at every token of a decoding.
        y = adapted(self, x, jnp.tensordot(x, self.kernel[...].astype(x.dtype), 1))
        return constrain(jnp.swapaxes(y, 1, 2), "batch", self.heads_axis, "length", "kv")


class OutputProjection(nnx.Module):
    """A linear map from heads back to the embedding."""

    def __init__(self, emb_dim: int, heads: int, head_dim: int, *, key: Key[Array, ""]):
        self.kernel = parameter(key, _project_out, (heads, head_dim, emb_dim), ("heads", "kv", "embed"))

    def __call__(self, x: Float[Array, "batch heads length head_dim"]) -> Float[Array, "batch length embed"]:
        x = jnp.swapaxes(x, 1, 2)
        return adapted(self, x, jnp.tensordot(x, self.kernel[...].astype(x.dtype), 2))


class Attention(nnx.Module):
    """Multi-head attention without biases; with fewer heads of keys and values than of queries, grouped-query attention.

    Args:
        config: sizes and options.
        emb_dim: the width of the queries' activations, and of the output.
        source_dim: the width of the activations that keys and values are made of.

    Source of grouped queries: https://arxiv.org/abs/2305.13245.
    """

    def __init__(self, config: AttentionConfig, emb_dim: int, source_dim: int, *, key: Key[Array, ""]):
        keys = jax.random.split(key, 4)
        self.config = config
        init_query = _scaled_down if config.query_scale is None else _project_in
        query_shape = (emb_dim, config.num_heads, config.head_dim)
        source_shape = (source_dim, config.num_kv_heads, config.head_dim)
        self.query = Projection(init_query, query_shape, "heads", key=keys[0])
        self.key = Projection(_project_in, source_shape, config.kv_axis, key=keys[1])
        self.value = Projection(_project_in, source_shape, config.kv_axis, key=keys[2])
        self.out = OutputProjection(emb_dim, config.num_heads, config.head_dim, key=keys[3])

    def keys_values(
        self, x: Float[Array, "batch keys source"], rotation: Rotation | None = None
    ) -> KeysValues:
        """Keys and values of activations; with a rotation, the keys are rotated by their positions."""
        keys, values = self.key(x), self.value(x)
        return keys if rotation is None else rotate(keys, rotation), values

    def __call__(
        self,
        x: Float[Array, "batch queries embed"],
        keys_values: KeysValues,
        bias: Float[Array, "#batch #heads #queries keys"],
        dropout_keys: Key[Array, " batch"] | None = None,
        rotation: Rotation | None = None,
    ) -> Float[Array, "batch queries embed"]:
        """Attends from `x`; `bias` is added to the scores, in nats. The softmax is taken in float32."""
        config = self.config
        keys, values = keys_values
        queries = self.query(x)
        if rotation is not None:
            queries = rotate(queries, rotation)
        shape = queries.shape
        # The queries of a group lie one after the other, as those of one head; reshaping moves no element.
        grouped = (shape[0], config.num_kv_heads, -1, config.head_dim)
        scores = jnp.einsum(
            "bhqk,bhsk->bhqs", jnp.reshape(queries, grouped), keys, preferred_element_type=jnp.float32
        )
        scores = jnp.reshape(scores, (*shape[:3], keys.shape[2]))
        if config.query_scale is not None:
            scores = scores * config.query_scale
        if config.soft_cap is not None:
            scores = config.soft_cap * jnp.tanh(scores / config.soft_cap)
        weights = jax.nn.softmax(scores + bias, axis=-1).astype(x.dtype)
        weights = dropout(weights, config.dropout_rate, dropout_keys, place=0)
        weights = jnp.reshape(weights, (*grouped[:3], keys.shape[2]))
        return self.out(jnp.reshape(jnp.einsum("bhqs,bhsk->bhqk", weights, values), shape))


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


def window_mask(
    queries: Int[Array, " queries"],
    keys: Int[Array, " keys"],
    window: int | Int[Array, ""],
    *,
    causal: bool,
) -> Bool[Array, "1 1 queries keys"]:
    """Marks the keys within a window: the last `window` up to the query itself, or, if not causal, `window` on both sides.

    Args:
        queries, keys: positions.
        window: the size of the window, in tokens.
        causal: whether later keys are hidden anyway.
    """
    distance = queries[:, None] - keys[None, :]
    inside = distance < window if causal else jnp.abs(distance) <= window
    return inside[None, None]


def mask_to_bias(mask: Bool[Array, "*shape"]) -> Float[Array, "*shape"]:
    return jnp.where(mask, 0.0, MASKED).astype(jnp.float32)
