"""T5 1.1: an encoder-decoder with relative positions, gated GELU, RMS norms, no biases and a separate output embedding.

Module names are those of T5X; the layers of each stack are stacked and scanned.
Source: T5, https://arxiv.org/abs/1910.10683.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from lmirl_jax.arguments import Count, ShareBelowOne, Whole, check_arguments
from lmirl_jax.models.attention import KeysValues, attention_mask, mask_to_bias
from lmirl_jax.models.layers import Dense, constrain, fold_keys, parameter
from lmirl_jax.models.scanned import merge_layer, unstack_layers
from lmirl_jax.models.t5_layers import DecoderLayer, EncodedKeysValues, EncoderLayer, Stack, StackConfig
from lmirl_jax.rows import length_mask
from lmirl_jax.types import Batch, PromptBatch, Unembedding, UserError


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

    @property
    def stack(self) -> StackConfig:
        """What encoder and decoder have in common."""
        names = [field.name for field in dataclasses.fields(StackConfig)]
        return StackConfig(**{name: getattr(self, name) for name in names})

    def build(self, key: Key[Array, ""]) -> "T5":
        return T5(self, key=key)

    def build_trunk(self, key: Key[Array, ""]) -> "T5Trunk":
        return T5Trunk(self, key=key)


class T5Trunk(nnx.Module):
    """Encoder and decoder without an output layer, a `types.Trunk`."""

    def __init__(self, config: T5Config, *, key: Key[Array, ""]):
        keys = jax.random.split(key, 4)
        self.config = config
        self.token_embedder = parameter(
            keys[0], nnx.initializers.normal(1.0), (config.vocab_size, config.emb_dim), ("vocab", "embed")
        )
        self.encoder = Stack(config.stack, EncoderLayer, config.num_encoder_layers, causal=False, key=keys[1])
        self.decoder = Stack(config.stack, DecoderLayer, config.num_decoder_layers, causal=True, key=keys[2])

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
