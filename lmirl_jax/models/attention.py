"""Multi-head attention over given keys and values: training and cached decoding share it."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from lmirl_jax.models.attention_kernels import Kernel, attend_rows
from lmirl_jax.models.dot_products import KeysValues, attend
from lmirl_jax.models.layers import Initializer, RMSNorm, adapted, constrain, parameter
from lmirl_jax.models.masks import RowMask
from lmirl_jax.models.rotary import Rotation, rotate

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
        qkv_biases: whether queries, keys and values have biases.
        query_key_norms: whether the queries and keys of each head are normalised, before they are rotated.
        norm_epsilon, norm_offset: those of these norms; see `RMSNorm`.
        kernel: how the scores of whole rows are computed; see `attention_kernels.choose`.
    """

    num_heads: int
    num_kv_heads: int
    head_dim: int
    dropout_rate: float
    query_scale: float | None = None
    soft_cap: float | None = None
    qkv_biases: bool = False
    query_key_norms: bool = False
    norm_epsilon: float = 1e-6
    norm_offset: float = 0.0
    kernel: Kernel = "auto"

    def norm(self, key: Key[Array, ""]) -> RMSNorm:
        return RMSNorm(self.head_dim, epsilon=self.norm_epsilon, offset=self.norm_offset, axis="kv", key=key)

    @property
    def kv_axis(self) -> str:
        """The logical axis of the heads of keys and values."""
        return "heads" if self.num_kv_heads == self.num_heads else "kv_heads"


class Projection(nnx.Module):
    """A linear map from the embedding to heads, with a bias if it is asked for."""

    def __init__(
        self,
        init: Initializer,
        shape: tuple[int, int, int],
        heads_axis: str,
        *,
        length_axis: str = "length",
        bias: bool = False,
        key: Key[Array, ""],
    ):
        self.heads_axis, self.length_axis = heads_axis, length_axis
        self.kernel = parameter(key, init, shape, ("embed", heads_axis, "kv"))
        self.has_bias = bias
        if bias:
            self.bias = parameter(key, nnx.initializers.zeros, shape[1:], (heads_axis, "kv"))

    def __call__(self, x: Float[Array, "batch length embed"]) -> Float[Array, "batch heads length head_dim"]:
        # Not an einsum, which would transpose the kernel, at every token of a decoding.
        y = adapted(self, x, jnp.tensordot(x, self.kernel[...].astype(x.dtype), 1))
        if self.has_bias:
            y = y + self.bias[...].astype(y.dtype)[None, None]
        return constrain(jnp.swapaxes(y, 1, 2), "batch", self.heads_axis, self.length_axis, "kv")


class OutputProjection(nnx.Module):
    """A linear map from heads back to the embedding."""

    def __init__(self, emb_dim: int, heads: int, head_dim: int, *, key: Key[Array, ""]):
        self.kernel = parameter(key, _project_out, (heads, head_dim, emb_dim), ("heads", "kv", "embed"))

    def __call__(self, x: Float[Array, "batch heads length head_dim"]) -> Float[Array, "batch length embed"]:
        x = jnp.swapaxes(x, 1, 2)
        return adapted(self, x, jnp.tensordot(x, self.kernel[...].astype(x.dtype), 2))


class Attention(nnx.Module):
    """Multi-head attention; with fewer heads of keys and values than of queries, grouped-query attention.

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
        bias = config.qkv_biases
        self.query = Projection(init_query, query_shape, "heads", bias=bias, key=keys[0])
        # Keys and values are those of whole rows on each device, also where the rows' other activations are split.
        source_axes = {"heads_axis": config.kv_axis, "length_axis": "key_length"}
        self.key = Projection(_project_in, source_shape, **source_axes, bias=bias, key=keys[1])
        self.value = Projection(_project_in, source_shape, **source_axes, bias=bias, key=keys[2])
        self.out = OutputProjection(emb_dim, config.num_heads, config.head_dim, key=keys[3])
        if config.query_key_norms:
            self.query_norm, self.key_norm = config.norm(key), config.norm(key)

    def keys_values(
        self, x: Float[Array, "batch keys source"], rotation: Rotation | None = None
    ) -> KeysValues:
        """Keys and values of activations; with a rotation, the keys are rotated by their positions."""
        keys, values = self.key(x), self.value(x)
        if self.config.query_key_norms:
            keys = self.key_norm(keys)
        return keys if rotation is None else rotate(keys, rotation), values

    def _queries(
        self, x: Float[Array, "batch queries embed"], rotation: Rotation | None
    ) -> Float[Array, "batch heads queries head_dim"]:
        queries = self.query(x)
        if self.config.query_key_norms:
            queries = self.query_norm(queries)
        return queries if rotation is None else rotate(queries, rotation)

    def __call__(
        self,
        x: Float[Array, "batch queries embed"],
        keys_values: KeysValues,
        bias: Float[Array, "#batch #heads #queries all_keys"],
        dropout_keys: Key[Array, " batch"] | None = None,
        rotation: Rotation | None = None,
        prompts: KeysValues | None = None,
    ) -> Float[Array, "batch queries embed"]:
        """Attends from `x`.

        Args:
            x: the activations that ask.
            keys_values: keys and values.
            bias: what is added to the scores, in nats; those of the prompts' keys come first.
            dropout_keys: one key for each row; None for no dropout.
            rotation: the rotation of the queries; None for none.
            prompts: further keys and values, which all samples of a prompt share; None for none.
        """
        parts = [keys_values] if prompts is None else [prompts, keys_values]
        return self.out(attend(self.config, self._queries(x, rotation), parts, bias, dropout_keys))

    def in_rows(
        self,
        x: Float[Array, "batch queries embed"],
        keys_values: KeysValues,
        mask: RowMask,
        window: int | None = None,
        bias: Float[Array, "heads distances"] | None = None,
        dropout_keys: Key[Array, " batch"] | None = None,
        rotation: Rotation | None = None,
    ) -> Float[Array, "batch queries embed"]:
        """Attends within whole rows, so that no scores of all pairs of tokens are in memory at once.

        Args:
            x: the activations that ask.
            keys_values: keys and values.
            mask: which keys each token sees.
            window: how far it sees; None for no window.
            bias: what is added to the scores by distance; None for nothing.
            dropout_keys: one key for each row; None for no dropout.
            rotation: the rotation of the queries; None for none.
        """
        queries = self._queries(x, rotation)
        return self.out(attend_rows(self.config, queries, keys_values, mask, window, bias, dropout_keys))
