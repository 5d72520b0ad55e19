"""T5 1.1: an encoder-decoder with relative positions, gated GELU, RMS norms, no biases and a separate output embedding.

Module names are those of T5X; the layers of each stack are stacked and scanned.
Source: T5, https://arxiv.org/abs/1910.10683; gated GELU, https://arxiv.org/abs/2002.05202.
"""

import dataclasses
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from lmirl_jax.arguments import Count, ShareBelowOne, Whole, check_arguments
from lmirl_jax.models.attention import Attention, KeysValues, RelativeBias, attention_mask, mask_to_bias
from lmirl_jax.models.layers import Dense, GatedMLP, RMSNorm, constrain, dropout, fold_keys, parameter
from lmirl_jax.models.scanned import merge_layer, scan_layers, stack_layers, unstack_layers
from lmirl_jax.rows import length_mask
from lmirl_jax.types import Batch, PromptBatch, Unembedding, UserError

EncodedKeysValues = tuple[
    Float[Array, "prompts heads inputs head_dim"], Float[Array, "prompts heads inputs head_dim"]
]


@check_arguments
@dataclasses.dataclass(frozen=True)
class T5Config:
    """The sizes and types of a T5 1.1, with the names of T5X.

    Args:
        vocab_size: the number of rows of the embeddings, at least the vocabulary's size (a multiple of 128 suits every mesh).
        emb_dim, num_heads, head_dim, mlp_dim: widths.
        num_encoder_layers, num_decoder_layers: depths.
        dropout_rate: the share of units dropped in training.
        dtype: the type of the activations, 'float32' or 'bfloat16'; parameters, softmax and logits are float32.
        remat: the activations that the backward pass computes again, as in T5X's scalable T5: 'none', 'minimal' (all
            but the products with parameters: little time, much memory), 'full' (each layer: least memory).
        scan_unroll: the number of layers in an iteration of the scan; more run faster on a CPU, but compile slower.
        relpos_buckets, relpos_max_distance: the settings of the bias of relative positions.
        decoder_start_id: the first input token of the decoder, which is the padding token in T5's vocabularies.

    Raises:
        UserError: a value out of range.
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
    decoder_start_id: Whole = 0

    def __post_init__(self):
        if self.decoder_start_id >= self.vocab_size:
            raise UserError(
                f"models.T5Config.decoder_start_id={self.decoder_start_id} is no token: it must be below "
                f"vocab_size={self.vocab_size}"
            )

    def attention(self, key: Key[Array, ""]) -> Attention:
        return Attention(self.emb_dim, self.num_heads, self.head_dim, self.dropout_rate, key=key)

    def mlp(self, key: Key[Array, ""]) -> GatedMLP:
        return GatedMLP(self.emb_dim, self.mlp_dim, self.dropout_rate, key=key)

    def build(self, key: Key[Array, ""]) -> "T5":
        return T5(self, key=key)

    def build_trunk(self, key: Key[Array, ""]) -> "T5Trunk":
        return T5Trunk(self, key=key)


class EncoderLayer(nnx.Module):
    """Self-attention and feed-forward, each with a norm before it and a residual connection."""

    def __init__(self, config: T5Config, *, key: Key[Array, ""]):
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

    def __init__(self, config: T5Config, *, key: Key[Array, ""]):
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
        config: T5Config,
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


class T5Trunk(nnx.Module):
    """Encoder and decoder without an output layer, a `types.Trunk`."""

    def __init__(self, config: T5Config, *, key: Key[Array, ""]):
        keys = jax.random.split(key, 4)
        self.config = config
        self.token_embedder = parameter(
            keys[0], nnx.initializers.normal(1.0), (config.vocab_size, config.emb_dim), ("vocab", "embed")
        )
        self.encoder = Stack(config, EncoderLayer, config.num_encoder_layers, causal=False, key=keys[1])
        self.decoder = Stack(config, DecoderLayer, config.num_decoder_layers, causal=True, key=keys[2])

    def _embed(self, tokens: Int[Array, "batch length"]) -> Float[Array, "batch length embed"]:
        return jnp.take(self.token_embedder[...], tokens, axis=0).astype(self.config.dtype)

    def encode(
        self,
        tokens: Int[Array, "batch inputs"],
        segment_ids: Int[Array, "batch inputs"],
        dropout_keys: Key[Array, " batch"] | None = None,
    ) -> Float[Array, "batch inputs embed"]:
        """The encoder's output; no token attends to padding (segment 0) or to other packed examples."""
        bias = self.encoder.self_bias(segment_ids)
        keys = None if dropout_keys is None else fold_keys(dropout_keys, 1)
        return self.encoder(lambda layer, x, k: layer(x, bias, k), self._embed(tokens), keys)

    def hidden(
        self,
        batch: Batch,
        dropout_keys: Key[Array, " batch"] | None = None,
        token_offsets: Float[Array, "batch length embed"] | None = None,
    ) -> Float[Array, "batch length embed"]:
        """The hidden state from which each token of an answer is predicted, given the true tokens before it."""
        encoded = self.encode(batch.prompt_tokens, batch.prompt_segment_ids, dropout_keys)
        self_bias = self.decoder.self_bias(batch.segment_ids)
        cross_bias = mask_to_bias(attention_mask(batch.segment_ids, batch.prompt_segment_ids))
        keys = None if dropout_keys is None else fold_keys(dropout_keys, 2)
        is_first = batch.positions == 0
        x = self._embed(jnp.where(is_first, self.config.decoder_start_id, jnp.roll(batch.tokens, 1, axis=1)))
        if token_offsets is not None:
            offsets = jnp.where(is_first[..., None], 0.0, jnp.roll(token_offsets, 1, axis=1))
            x = x + offsets.astype(x.dtype)

        def body(layer: DecoderLayer, x: Array, layer_keys: Key[Array, " batch"] | None) -> Array:
            cross = layer.encoder_decoder_attention.keys_values(encoded)
            return layer(x, self_bias, cross, cross_bias, layer_keys)[0]

        return self.decoder(body, x, keys)


class T5(T5Trunk):
    """T5 1.1 as a `types.Model`: the trunk, an output embedding, and decoding with a cache."""

    def __init__(self, config: T5Config, *, key: Key[Array, ""]):
        super().__init__(config, key=key)
        # The trunk uses the first three keys.
        last = jax.random.split(key, 4)[3]
        self.logits_dense = Dense((config.emb_dim, config.vocab_size), ("embed", "vocab"), key=last)

    def unembedding(self) -> Unembedding:
        return Unembedding(self.logits_dense.kernel[...])

    def start_decoding(
        self, prompts: PromptBatch, max_length: int, num_samples: int = 1
    ) -> tuple["T5Cache", Int[Array, " rows"]]:
        """Encodes each prompt once for all of its samples."""
        real = jnp.asarray(length_mask(prompts.lengths, prompts.tokens.shape[1]))
        encoded = self.encode(prompts.tokens, real.astype(jnp.int32))
        rows = encoded.shape[0] * num_samples
        shape = (rows, self.config.num_heads, max_length, self.config.head_dim)
        empty = constrain(jnp.zeros(shape, encoded.dtype), "batch", "heads", "length", "kv")
        layers = unstack_layers(self.decoder.layers, self.decoder.count)
        cross = tuple(
            self._decoder_layer(layer).encoder_decoder_attention.keys_values(encoded) for layer in layers
        )
        self_attention = ((empty, empty),) * len(layers)
        cross_bias = mask_to_bias(real[:, None, None, :])
        cache = T5Cache(layers, self_attention, cross, cross_bias, jnp.zeros((), jnp.int32))
        return cache, jnp.full((rows,), self.config.decoder_start_id, jnp.int32)

    def decode(
        self, cache: "T5Cache", tokens: Int[Array, " rows"]
    ) -> tuple["T5Cache", Float[Array, "rows embed"]]:
        """Runs one step of the decoder, with the cached keys and values of the earlier steps."""
        positions = jnp.arange(cache.self_attention[0][0].shape[2])
        seen = (positions <= cache.index)[None, None, None, :]
        self_bias = self.decoder.relpos_bias(cache.index[None], positions) + mask_to_bias(seen)
        x, self_attention = self._embed(tokens[:, None]), []
        for parameters, keys_values, cross in zip(
            cache.layers, cache.self_attention, cache.cross, strict=True
        ):
            layer = self._decoder_layer(parameters)
            x, keys_values = layer(x, self_bias, cross, cache.cross_bias, None, (keys_values, cache.index))
            x = constrain(x, "batch", "length", None)
            self_attention.append(keys_values)
        cache = dataclasses.replace(cache, self_attention=tuple(self_attention), index=cache.index + 1)
        return cache, self.decoder.finish(x, None)[:, 0]

    def _decoder_layer(self, parameters: nnx.State) -> DecoderLayer:
        return merge_layer(self.decoder.layers, parameters)

    def reorder(self, cache: "T5Cache", parents: Int[Array, "prompts samples"]) -> "T5Cache":
        """Moves the keys and values of self-attention. Those of the prompts stay, because all rows of a prompt share them."""

        def move(x: Float[Array, "rows *rest"]) -> Float[Array, "rows *rest"]:
            by_prompt = jnp.reshape(x, (*parents.shape, *x.shape[1:]))
            moved = jax.vmap(lambda y, rows: jnp.take(y, rows, axis=0))(by_prompt, parents)
            return jnp.reshape(moved, x.shape)

        return dataclasses.replace(cache, self_attention=jax.tree.map(move, cache.self_attention))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class T5Cache:
    """The state of decoding.

    Args:
        layers: the parameters of each decoder layer.
        self_attention: keys and values of self-attention in each layer, filled up to `index`.
        cross: keys and values of the prompts in each layer.
        cross_bias: the bias that masks the padding of the prompts.
        index: the number of tokens that have been read.
    """

    layers: tuple[nnx.State, ...]
    self_attention: tuple[KeysValues, ...]
    cross: tuple[EncodedKeysValues, ...]
    cross_bias: Float[Array, "prompts 1 1 inputs"]
    index: Int[Array, ""]
