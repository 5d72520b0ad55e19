"""The layers of T5 1.1, and the stack of them that encoder and decoder share.

Source: T5, https://arxiv.org/abs/1910.10683; gated GELU, https://arxiv.org/abs/2002.05202.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from lmirl_jax.models.attention import Attention, KeysValues, RelativeBias, attention_mask, mask_to_bias
from lmirl_jax.models.layers import GatedMLP, RMSNorm, constrain, dropout, fold_keys
from lmirl_jax.models.scanned import scan_layers, stack_layers

EncodedKeysValues = tuple[
    Float[Array, "prompts heads inputs head_dim"], Float[Array, "prompts heads inputs head_dim"]
]


@dataclasses.dataclass(frozen=True)
class StackConfig:
    """The sizes of a stack's layers, and how they are computed; each as in `T5Config`."""

    emb_dim: int
    num_heads: int
    head_dim: int
    mlp_dim: int
    dropout_rate: float
    remat: str
    scan_unroll: int
    relpos_buckets: int
    relpos_max_distance: int

    def attention(self, key: Key[Array, ""]) -> Attention:
        return Attention(self.emb_dim, self.num_heads, self.head_dim, self.dropout_rate, key=key)

    def mlp(self, key: Key[Array, ""]) -> GatedMLP:
        return GatedMLP(self.emb_dim, self.mlp_dim, self.dropout_rate, key=key)


class EncoderLayer(nnx.Module):
    """Self-attention and feed-forward, each with a norm before it and a residual connection."""

    def __init__(self, config: StackConfig, *, key: Key[Array, ""]):
        keys = jax.random.split(key, 4)
        self.dropout_rate = config.dropout_rate
        self.pre_attention_layer_norm = RMSNorm(config.emb_dim, key=keys[0])
        self.attention = config.attention(keys[1])
        self.pre_mlp_layer_norm = RMSNorm(config.emb_dim, key=keys[2])
        self.mlp = config.mlp(keys[3])

    def __call__(
        self,
        x: Float[Array, "batch length embed"],
        bias: Float[Array, "batch heads length length"],
        keys: Key[Array, " batch"] | None,
    ) -> Float[Array, "batch length embed"]:
        y = self.pre_attention_layer_norm(x)
        y = self.attention(y, self.attention.keys_values(y), bias, keys)
        x = x + dropout(y, self.dropout_rate, keys, place=2)
        y = self.mlp(self.pre_mlp_layer_norm(x), keys)
        return x + dropout(y, self.dropout_rate, keys, place=3)


class DecoderLayer(nnx.Module):
    """Causal self-attention, attention to the encoder, feed-forward."""

    def __init__(self, config: StackConfig, *, key: Key[Array, ""]):
        keys = jax.random.split(key, 6)
        self.dropout_rate = config.dropout_rate
        self.pre_self_attention_layer_norm = RMSNorm(config.emb_dim, key=keys[0])
        self.self_attention = config.attention(keys[1])
        self.pre_cross_attention_layer_norm = RMSNorm(config.emb_dim, key=keys[2])
        self.encoder_decoder_attention = config.attention(keys[3])
        self.pre_mlp_layer_norm = RMSNorm(config.emb_dim, key=keys[4])
        self.mlp = config.mlp(keys[5])

    def __call__(
        self,
        x: Float[Array, "batch length embed"],
        self_bias: Float[Array, "#batch heads length keys"],
        encoded: EncodedKeysValues,
        cross_bias: Float[Array, "prompts 1 #length inputs"],
        keys: Key[Array, " batch"] | None = None,
        cache: tuple[KeysValues, Int[Array, ""]] | None = None,
    ) -> tuple[Float[Array, "batch length embed"], KeysValues | None]:
        """Runs the layer. With a cache and an index, `x` is one token, which is written to the cache; returns the new cache."""
        y = self.pre_self_attention_layer_norm(x)
        keys_values = self.self_attention.keys_values(y)
        if cache is not None:
            old, index = cache
            keys_values = jax.tree.map(
                lambda x, new: jax.lax.dynamic_update_slice_in_dim(x, new, index, axis=2), old, keys_values
            )
        y = self.self_attention(y, keys_values, self_bias, keys)
        x = x + dropout(y, self.dropout_rate, keys, place=2)
        # The keys differ from those of self-attention, which has a dropout at the same place.
        cross_keys = None if keys is None else fold_keys(keys, 9)
        # In decoding, all samples of a prompt attend to the same keys and values, which are stored once.
        y = self.pre_cross_attention_layer_norm(x)
        y = jnp.reshape(y, (encoded[0].shape[0], -1, y.shape[-1]))
        y = self.encoder_decoder_attention(y, encoded, cross_bias, cross_keys)
        x = x + dropout(jnp.reshape(y, x.shape), self.dropout_rate, keys, place=3)
        y = self.mlp(self.pre_mlp_layer_norm(x), keys)
        return x + dropout(y, self.dropout_rate, keys, place=4), keys_values if cache is not None else None


class Stack(nnx.Module):
    """The encoder or the decoder: scanned layers with a shared bias of relative positions, and a final norm.

    Args:
        config: the sizes.
        layer: the class of the layers.
        count: the number of layers.
        causal: whether a token sees only those before it.
    """

    def __init__(
        self,
        config: StackConfig,
        layer: Callable[..., nnx.Module],
        count: int,
        *,
        causal: bool,
        key: Key[Array, ""],
    ):
        keys = jax.random.split(key, 3)
        self.config, self.count, self.causal = config, count, causal
        self.relpos_bias = RelativeBias(
            config.num_heads,
            bidirectional=not causal,
            buckets=config.relpos_buckets,
            max_distance=config.relpos_max_distance,
            key=keys[0],
        )
        self.layers = stack_layers(lambda k: layer(config, key=k), count, keys[1])
        self.norm = RMSNorm(config.emb_dim, key=keys[2])

    def self_bias(self, segment_ids: Int[Array, "batch length"]) -> Float[Array, "batch heads length length"]:
        """The bias of the scores of self-attention: that of relative positions, and the mask."""
        places = jnp.arange(segment_ids.shape[1])
        mask = attention_mask(segment_ids, segment_ids, causal=self.causal)
        return self.relpos_bias(places, places) + mask_to_bias(mask)

    def __call__(
        self,
        body: Callable[..., Array],
        x: Float[Array, "batch length embed"],
        keys: Key[Array, " batch"] | None,
    ) -> Float[Array, "batch length embed"]:
        """Converts embedded tokens to hidden states; `body(layer, x, keys of the layer) -> x` runs one layer."""
        config = self.config
        x = constrain(dropout(x, config.dropout_rate, keys, place=1), "batch", "length", None)
        x = scan_layers(
            self.layers, body, x, keys, count=self.count, remat=config.remat, unroll=config.scan_unroll
        )
        return self.finish(x, keys)

    def finish(
        self, x: Float[Array, "batch length embed"], keys: Key[Array, " batch"] | None
    ) -> Float[Array, "batch length embed"]:
        return dropout(self.norm(x), self.config.dropout_rate, keys, place=2)
