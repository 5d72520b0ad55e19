"""T5 1.1: an encoder-decoder with relative positions, gated GELU, RMS norms, no biases and an output embedding of its own.

Module names are T5X's, the layers of each stack are held together and scanned.
Source: T5, https://arxiv.org/abs/1910.10683; gated GELU, https://arxiv.org/abs/2002.05202.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key

from lmirl_jax.arguments import Count, ShareBelowOne, checked
from lmirl_jax.models.attention import Attention, KeysValues, RelativeBias, mask_to_bias
from lmirl_jax.models.layers import RMSNorm, constrain, dropout, fold_keys, parameter, stack
from lmirl_jax.types import Batch, Unembedding

REMAT = {
    "none": None,
    "minimal": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}
EncodedKeysValues = tuple[
    Float[Array, "prompts heads inputs head_dim"], Float[Array, "prompts heads inputs head_dim"]
]


@checked
@dataclasses.dataclass(frozen=True)
class T5Config:
    """Sizes and types of a T5 1.1; names as in T5X.

    Args:
        vocab_size: rows of the embeddings; at least the vocabulary's size (a multiple of 128 suits every mesh).
        emb_dim, num_heads, head_dim, mlp_dim: widths.
        num_encoder_layers, num_decoder_layers: depths.
        dropout_rate: the share of units dropped in training.
        dtype: type of the activations, 'float32' or 'bfloat16'; parameters, softmax and logits are float32.
        remat: what the backward pass computes again instead of keeping it, as in T5X's scalable T5: 'none', 'minimal' (all
            but the products with parameters: little time, much memory), 'full' (each layer: least memory).
        scan_unroll: layers to an iteration of the scan; more run faster on a CPU, and compile slower.
        relpos_buckets, relpos_max_distance: of the bias of relative positions.
    """

    vocab_size: Count
    emb_dim: Count = 512
    num_heads: Count = 6
    head_dim: Count = 64
    mlp_dim: Count = 1024
    num_encoder_layers: Count = 8
    num_decoder_layers: Count = 8
    dropout_rate: ShareBelowOne = 0.1
    dtype: Literal["float32", "bfloat16"] = "float32"
    remat: Literal["none", "minimal", "full"] = "none"
    scan_unroll: Count = 1
    relpos_buckets: Count = 32
    relpos_max_distance: Count = 128

    def build(self, key: Key[Array, ""]) -> "T5":
        return T5(self, key=key)

    def build_trunk(self, key: Key[Array, ""]) -> "T5Trunk":
        return T5Trunk(self, key=key)


def attention(config: T5Config, key: Key[Array, ""]) -> Attention:
    return Attention(config.emb_dim, config.num_heads, config.head_dim, config.dropout_rate, key=key)


class Dense(nnx.Module):
    """A linear map without bias."""

    def __init__(self, shape: tuple[int, int], axes: tuple[str, str], *, key: Key[Array, ""]):
        init = nnx.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")
        self.kernel = parameter(key, init, shape, axes)

    def __call__(self, x: Float[Array, "batch length d_in"]) -> Float[Array, "batch length d_out"]:
        return x @ self.kernel[...].astype(x.dtype)


class GatedMLP(nnx.Module):
    """The feed-forward block.

    y = (gelu(x W_0) * x W_1) W_o
    """

    def __init__(self, config: T5Config, *, key: Key[Array, ""]):
        keys = jax.random.split(key, 3)
        wide, narrow = (config.emb_dim, config.mlp_dim), (config.mlp_dim, config.emb_dim)
        self.dropout_rate = config.dropout_rate
        self.wi_0 = Dense(wide, ("embed", "mlp"), key=keys[0])
        self.wi_1 = Dense(wide, ("embed", "mlp"), key=keys[1])
        self.wo = Dense(narrow, ("mlp", "embed"), key=keys[2])

    def __call__(
        self, x: Float[Array, "batch length embed"], dropout_keys: Key[Array, " batch"] | None
    ) -> Float[Array, "batch length embed"]:
        inner = jax.nn.gelu(self.wi_0(x), approximate=True) * self.wi_1(x)
        inner = constrain(inner, "batch", None, "mlp")
        return self.wo(dropout(inner, self.dropout_rate, dropout_keys, place=1))


class EncoderLayer(nnx.Module):
    """Self-attention and feed-forward, each normed before and added after."""

    def __init__(self, config: T5Config, *, key: Key[Array, ""]):
        keys = jax.random.split(key, 4)
        self.dropout_rate = config.dropout_rate
        self.pre_attention_layer_norm = RMSNorm(config.emb_dim, key=keys[0])
        self.attention = attention(config, keys[1])
        self.pre_mlp_layer_norm = RMSNorm(config.emb_dim, key=keys[2])
        self.mlp = GatedMLP(config, key=keys[3])

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

    def __init__(self, config: T5Config, *, key: Key[Array, ""]):
        keys = jax.random.split(key, 6)
        self.dropout_rate = config.dropout_rate
        self.pre_self_attention_layer_norm = RMSNorm(config.emb_dim, key=keys[0])
        self.self_attention = attention(config, keys[1])
        self.pre_cross_attention_layer_norm = RMSNorm(config.emb_dim, key=keys[2])
        self.encoder_decoder_attention = attention(config, keys[3])
        self.pre_mlp_layer_norm = RMSNorm(config.emb_dim, key=keys[4])
        self.mlp = GatedMLP(config, key=keys[5])

    def __call__(
        self,
        x: Float[Array, "batch length embed"],
        self_bias: Float[Array, "#batch heads length keys"],
        encoded: EncodedKeysValues,
        cross_bias: Float[Array, "prompts 1 #length inputs"],
        keys: Key[Array, " batch"] | None = None,
        cache: KeysValues | None = None,
        index: Int[Array, ""] | None = None,
    ) -> tuple[Float[Array, "batch length embed"], KeysValues | None]:
        """Runs the layer; with a cache, `x` is one token, put at `index` of the cache, which is returned updated."""
        y = self.pre_self_attention_layer_norm(x)
        keys_values = self.self_attention.keys_values(y)
        if cache is not None:
            keys_values = jax.tree.map(
                lambda old, new: jax.lax.dynamic_update_slice_in_dim(old, new, index, axis=2),
                cache,
                keys_values,
            )
        y = self.self_attention(y, keys_values, self_bias, keys)
        x = x + dropout(y, self.dropout_rate, keys, place=2)
        cross_keys = None if keys is None else fold_keys(keys, 9)  # Its scores have a dropout of their own.
        # In decoding a prompt's samples are so many queries to it: its keys and values are there once.
        y = self.pre_cross_attention_layer_norm(x)
        y = jnp.reshape(y, (encoded[0].shape[0], -1, y.shape[-1]))
        y = self.encoder_decoder_attention(y, encoded, cross_bias, cross_keys)
        x = x + dropout(jnp.reshape(y, x.shape), self.dropout_rate, keys, place=3)
        y = self.mlp(self.pre_mlp_layer_norm(x), keys)
        return x + dropout(y, self.dropout_rate, keys, place=4), keys_values if cache is not None else None


class Stack(nnx.Module):
    """What encoder and decoder share: scanned layers under one bias of relative positions and a last norm."""

    def __init__(
        self, config: T5Config, layer: Callable[..., nnx.Module], count: int, *, key: Key[Array, ""]
    ):
        keys = jax.random.split(key, 3)
        self.config, self.count = config, count
        self.relpos_bias = RelativeBias(
            config.num_heads,
            bidirectional=layer is EncoderLayer,
            buckets=config.relpos_buckets,
            max_distance=config.relpos_max_distance,
            key=keys[0],
        )
        self.layers = stack(lambda k: layer(config, key=k), count, keys[1])
        self.norm = RMSNorm(config.emb_dim, key=keys[2])

    def embed_dropout(self, x: Float[Array, "batch length embed"], keys: Key[Array, " batch"] | None):
        return constrain(dropout(x, self.config.dropout_rate, keys, place=1), "batch", None, None)

    def scan(self, body, x: Array, keys: Key[Array, " batch"] | None, per_layer=None):
        """Runs `body(layer, x, layer's keys, per_layer slice) -> (x, out)` over the layers; returns x and stacked outs."""

        # jax.lax.scan over the split module, not nnx.scan, which refuses parameters of an outer while_loop (decoding).
        graph, parameters = nnx.split(self.layers)

        def step(x, inputs):
            parameters, number, slices = inputs
            layer_keys = None if keys is None else fold_keys(keys, 100 + number)
            x, out = body(nnx.merge(graph, parameters), x, layer_keys, slices)
            return constrain(x, "batch", None, None), out

        if self.config.remat != "none":
            step = jax.checkpoint(step, policy=REMAT[self.config.remat])
        inputs = (parameters, jnp.arange(self.count), per_layer)
        return jax.lax.scan(step, x, inputs, unroll=min(self.config.scan_unroll, self.count))

    def unstacked(self) -> tuple[nnx.State, ...]:
        """The parameters of each layer by itself, for decoding: sliced once, where a scan would slice at every token."""
        parameters = nnx.state(self.layers)
        return tuple(
            jax.tree.map(lambda x, number=number: x[number], parameters) for number in range(self.count)
        )

    def merged(self, parameters: nnx.State) -> Any:
        return nnx.merge(nnx.graphdef(self.layers), parameters)

    def finish(self, x: Float[Array, "batch length embed"], keys: Key[Array, " batch"] | None):
        return dropout(self.norm(x), self.config.dropout_rate, keys, place=2)


class T5Trunk(nnx.Module):
    """Encoder and decoder without an output, as `types.Trunk` asks for it."""

    def __init__(self, config: T5Config, *, key: Key[Array, ""]):
        keys = jax.random.split(key, 4)
        self.config = config
        self.token_embedder = parameter(
            keys[0], nnx.initializers.normal(1.0), (config.vocab_size, config.emb_dim), ("vocab", "embed")
        )
        self.encoder = Stack(config, EncoderLayer, config.num_encoder_layers, key=keys[1])
        self.decoder = Stack(config, DecoderLayer, config.num_decoder_layers, key=keys[2])

    def _embed(self, tokens: Int[Array, "batch length"]) -> Float[Array, "batch length embed"]:
        return jnp.take(self.token_embedder[...], tokens, axis=0).astype(self.config.dtype)

    def encode(
        self, batch: Batch, dropout_keys: Key[Array, " batch"] | None = None
    ) -> Float[Array, "batch inputs embed"]:
        """The encoder's output; padding (token 0) and packed neighbours are never attended to."""
        tokens, segments = batch.encoder_input_tokens, batch.encoder_segment_ids
        positions = jnp.arange(tokens.shape[1])
        mask = _attend(tokens > 0, tokens > 0, segments, segments)
        bias = self.encoder.relpos_bias(positions, positions) + mask_to_bias(mask)
        keys = None if dropout_keys is None else fold_keys(dropout_keys, 1)
        x = self.encoder.embed_dropout(self._embed(tokens), keys)
        x, _ = self.encoder.scan(lambda layer, x, k, _: (layer(x, bias, k), None), x, keys)
        return self.encoder.finish(x, keys)

    def hidden(
        self,
        batch: Batch,
        dropout_keys: Key[Array, " batch"] | None = None,
        decoder_offset: Float[Array, "batch targets embed"] | None = None,
    ) -> Float[Array, "batch targets embed"]:
        """The hidden state from which each target token is predicted, given the true tokens before it."""
        encoded = self.encode(batch, dropout_keys)
        tokens = batch.decoder_input_tokens
        positions = jnp.arange(tokens.shape[1])
        everywhere = jnp.ones(tokens.shape, bool)  # Padding lies to the right: causality keeps it out.
        causal = positions[None, :] <= positions[:, None]
        mask = (
            _attend(everywhere, everywhere, batch.decoder_segment_ids, batch.decoder_segment_ids)
            & causal[None, None]
        )
        self_bias = self.decoder.relpos_bias(positions, positions) + mask_to_bias(mask)
        cross_mask = _attend(
            everywhere, batch.encoder_input_tokens > 0, batch.decoder_segment_ids, batch.encoder_segment_ids
        )
        cross_bias = mask_to_bias(cross_mask)
        keys = None if dropout_keys is None else fold_keys(dropout_keys, 2)

        def body(layer, x, layer_keys, _):
            cross = layer.encoder_decoder_attention.keys_values(encoded)
            return layer(x, self_bias, cross, cross_bias, layer_keys)

        x = self._embed(tokens)
        if decoder_offset is not None:
            x = x + decoder_offset.astype(x.dtype)
        x, _ = self.decoder.scan(body, self.decoder.embed_dropout(x, keys), keys)
        return self.decoder.finish(x, keys)


class T5(T5Trunk):
    """T5 1.1 as `types.Model` asks for it: the trunk, an output embedding of its own, and decoding from a cache."""

    def __init__(self, config: T5Config, *, key: Key[Array, ""]):
        super().__init__(config, key=key)
        last = jax.random.split(key, 4)[3]  # The trunk takes the first three.
        self.logits_dense = Dense((config.emb_dim, config.vocab_size), ("embed", "vocab"), key=last)

    def unembedding(self) -> Unembedding:
        return Unembedding(self.logits_dense.kernel[...])

    def start_decoding(
        self, batch: Batch, max_length: int, num_samples: int = 1
    ) -> tuple["T5Cache", Int[Array, " rows"]]:
        """Encodes each prompt once for all of its samples; the first token to feed is pad."""
        encoded = self.encode(batch)
        rows = encoded.shape[0] * num_samples
        shape = (rows, self.config.num_heads, max_length, self.config.head_dim)
        empty = constrain(jnp.zeros(shape, encoded.dtype), "batch", "heads", None, None)
        layers = self.decoder.unstacked()
        cross = tuple(
            self.decoder.merged(layer).encoder_decoder_attention.keys_values(encoded) for layer in layers
        )
        cross_bias = mask_to_bias((batch.encoder_input_tokens > 0)[:, None, None, :])
        own = ((empty, empty),) * len(layers)
        cache = T5Cache(layers, own, cross, cross_bias, jnp.zeros((), jnp.int32))
        return cache, jnp.zeros((rows,), jnp.int32)

    def decode(
        self, cache: "T5Cache", tokens: Int[Array, " rows"]
    ) -> tuple["T5Cache", Float[Array, "rows embed"]]:
        """One step of the decoder, over the keys and values of the steps before."""
        positions = jnp.arange(cache.own[0][0].shape[2])
        seen = (positions <= cache.index)[None, None, None, :]
        self_bias = self.decoder.relpos_bias(cache.index[None], positions) + mask_to_bias(seen)
        x, own = self._embed(tokens[:, None]), []
        for layer, mine, cross in zip(cache.layers, cache.own, cache.cross, strict=True):
            x, mine = self.decoder.merged(layer)(
                x, self_bias, cross, cache.cross_bias, None, mine, cache.index
            )
            x = constrain(x, "batch", None, None)
            own.append(mine)
        cache = dataclasses.replace(cache, own=tuple(own), index=cache.index + 1)
        return cache, self.decoder.finish(x, None)[:, 0]

    def reorder(self, cache: "T5Cache", parents: Int[Array, "prompts samples"]) -> "T5Cache":
        """The decoder's own keys and values move; those of the prompts, which their rows share, stay."""

        def move(x: Float[Array, "rows *rest"]) -> Float[Array, "rows *rest"]:
            by_prompt = jnp.reshape(x, (*parents.shape, *x.shape[1:]))
            moved = jax.vmap(lambda y, rows: jnp.take(y, rows, axis=0))(by_prompt, parents)
            return jnp.reshape(moved, x.shape)

        return dataclasses.replace(cache, own=jax.tree.map(move, cache.own))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class T5Cache:
    """Of every decoder layer the parameters, and keys and values: its own, filled up to `index`, and those of the prompts."""

    layers: tuple[nnx.State, ...]
    own: tuple[KeysValues, ...]
    cross: tuple[EncodedKeysValues, ...]
    cross_bias: Float[Array, "prompts 1 1 inputs"]
    index: Int[Array, ""]


def _attend(
    queries: Bool[Array, "batch queries"],
    keys: Bool[Array, "batch keys"],
    query_segments: Int[Array, "batch queries"] | None,
    key_segments: Int[Array, "batch keys"] | None,
) -> Bool[Array, "batch 1 queries keys"]:
    """Which key each query may attend to: real ones, of its own segment where rows are packed."""
    mask = queries[:, :, None] & keys[:, None, :]
    if query_segments is not None:
        mask &= query_segments[:, :, None] == key_segments[:, None, :]
    return mask[:, None]
