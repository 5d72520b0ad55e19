"""An encoder-decoder as a `types.Model`: embeddings, two stacks, an output layer, and decoding with a cache.

Module names are those of T5X; the layers of each stack are stacked and scanned.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from lmirl_jax.models.attention_context import LayerCache
from lmirl_jax.models.dot_products import KeysValues
from lmirl_jax.models.embeddings import embed, reorder_samples
from lmirl_jax.models.layers import Dense, constrain, fold_keys, parameter
from lmirl_jax.models.masks import RowMask, mask_to_bias
from lmirl_jax.models.scanned import merge_layer, unstack_layers
from lmirl_jax.models.stacks import Stack, StackConfig
from lmirl_jax.models.transformer_layers import EncodedKeysValues, Layer
from lmirl_jax.rows import length_mask
from lmirl_jax.types import Batch, PromptBatch, Unembedding


@dataclasses.dataclass(frozen=True)
class EncoderDecoderConfig:
    """The parts of an encoder-decoder; each family's configuration makes one.

    Args:
        vocab_size, dtype, decoder_start_id: see `T5Config`.
        encoder, decoder: the stacks.
        shared_embeddings: whether encoder and decoder read the same embeddings.
        scaled_embeddings: whether embeddings are multiplied by sqrt(emb_dim), for which they start smaller.
        logits_via_embedding: whether the decoder's embeddings are the output layer too.
        logits_scale, logits_soft_cap: see `types.Unembedding`.
    """

    vocab_size: int
    dtype: str
    decoder_start_id: int
    encoder: StackConfig
    decoder: StackConfig
    shared_embeddings: bool = True
    scaled_embeddings: bool = False
    logits_via_embedding: bool = False
    logits_scale: float = 1.0
    logits_soft_cap: float | None = None

    def embeddings(self, stack: StackConfig, key: Key[Array, ""]) -> nnx.Param:
        width = stack.layer.emb_dim
        init = nnx.initializers.normal(1.0 / math.sqrt(width) if self.scaled_embeddings else 1.0)
        return parameter(key, init, (self.vocab_size, width), ("vocab", "embed"))


class EncoderDecoderTrunk(nnx.Module):
    """Encoder and decoder without an output layer, a `types.Trunk`."""

    def __init__(self, config: EncoderDecoderConfig, *, key: Key[Array, ""]):
        keys = jax.random.split(key, 4)
        self.config = config
        self.token_embedder = config.embeddings(config.decoder, keys[0])
        if not config.shared_embeddings:
            self.encoder_token_embedder = config.embeddings(config.encoder, jax.random.fold_in(keys[0], 0))
        self.encoder = Stack(config.encoder, key=keys[1])
        self.decoder = Stack(config.decoder, key=keys[2])

    def _embed(
        self, table: nnx.Param, tokens: Int[Array, "batch length"]
    ) -> Float[Array, "batch length embed"]:
        return embed(table, tokens, self.config.dtype, scaled=self.config.scaled_embeddings)

    def encode(
        self,
        tokens: Int[Array, "batch inputs"],
        segment_ids: Int[Array, "batch inputs"],
        dropout_keys: Key[Array, " batch"] | None = None,
    ) -> Float[Array, "batch inputs embed"]:
        """The encoder's output; no token attends to padding (segment 0) or to other packed examples."""
        keys = None if dropout_keys is None else fold_keys(dropout_keys, 1)
        table = self.token_embedder if self.config.shared_embeddings else self.encoder_token_embedder
        return self.encoder(self._embed(table, tokens), self.encoder.context(segment_ids), keys=keys)

    def decoder_hidden(
        self,
        decoder_ids: Int[Array, "batch length"],
        encoded: Float[Array, "batch inputs encoder"],
        prompt_segment_ids: Int[Array, "batch inputs"],
        segment_ids: Int[Array, "batch length"] | None = None,
        dropout_keys: Key[Array, " batch"] | None = None,
        token_offsets: Float[Array, "batch length embed"] | None = None,
    ) -> Float[Array, "batch length embed"]:
        """Runs the decoder on given tokens: the hidden state at t is the one after `decoder_ids[:, : t + 1]` have been read.

        Args:
            decoder_ids: the tokens that the decoder is fed, of which the first is its start token.
            encoded: the output of `encode`.
            prompt_segment_ids: the segment ids of the prompts; 0 on padding.
            segment_ids: those of `decoder_ids`; None where each row holds one example, of segment 1 (padding at its end
                then changes nothing before it).
            dropout_keys: one key for each row; None for no dropout.
            token_offsets: added to the embeddings of `decoder_ids`, as the first layer reads them.
        """
        if segment_ids is None:
            segment_ids = jnp.ones_like(decoder_ids)
        cross = self.decoder.cross_mask(RowMask(prompt_segment_ids, queries=segment_ids, causal=False))
        keys = None if dropout_keys is None else fold_keys(dropout_keys, 2)
        x = self._embed(self.token_embedder, decoder_ids)
        if token_offsets is not None:
            x = x + token_offsets.astype(x.dtype)
        return self.decoder(x, self.decoder.context(segment_ids), (encoded, cross), keys)

    def hidden(
        self,
        batch: Batch,
        dropout_keys: Key[Array, " batch"] | None = None,
        token_offsets: Float[Array, "batch length embed"] | None = None,
    ) -> Float[Array, "batch length embed"]:
        """The hidden state from which each token of an answer is predicted, given the true tokens before it."""
        encoded = self.encode(batch.prompt_tokens, batch.prompt_segment_ids, dropout_keys)
        is_first = batch.positions == 0
        fed = jnp.where(is_first, self.config.decoder_start_id, jnp.roll(batch.tokens, 1, axis=1))
        if token_offsets is not None:
            token_offsets = jnp.where(is_first[..., None], 0.0, jnp.roll(token_offsets, 1, axis=1))
        return self.decoder_hidden(
            fed, encoded, batch.prompt_segment_ids, batch.segment_ids, dropout_keys, token_offsets
        )


class EncoderDecoder(EncoderDecoderTrunk):
    """An encoder-decoder as a `types.Model`: the trunk, an output layer, and decoding with a cache."""

    def __init__(self, config: EncoderDecoderConfig, *, key: Key[Array, ""]):
        super().__init__(config, key=key)
        if not config.logits_via_embedding:
            # The trunk uses the first three keys.
            last = jax.random.split(key, 4)[3]
            shape = (config.decoder.layer.emb_dim, config.vocab_size)
            self.logits_dense = Dense(shape, ("embed", "vocab"), key=last)

    def unembedding(self) -> Unembedding:
        config = self.config
        tied = config.logits_via_embedding
        kernel = jnp.transpose(self.token_embedder[...]) if tied else self.logits_dense.kernel[...]
        return Unembedding(kernel, scale=config.logits_scale, soft_cap=config.logits_soft_cap)

    def start_decoding(
        self, prompts: PromptBatch, max_length: int, num_samples: int = 1
    ) -> tuple["Cache", Int[Array, " rows"]]:
        """Encodes each prompt once for all of its samples."""
        real = jnp.asarray(length_mask(prompts.lengths, prompts.tokens.shape[1]))
        encoded = self.encode(prompts.tokens, real.astype(jnp.int32))
        rows = encoded.shape[0] * num_samples
        attention = self.config.decoder.layer.attention
        shape = (rows, attention.num_kv_heads, max_length, attention.head_dim)
        empty = constrain(jnp.zeros(shape, encoded.dtype), "batch", attention.kv_axis, "key_length", "kv")
        layers = unstack_layers(self.decoder.layers, self.config.decoder.count)
        cross = tuple(
            self._decoder_layer(layer).encoder_decoder_attention.keys_values(encoded) for layer in layers
        )
        self_attention = ((empty, empty),) * len(layers)
        cross_bias = mask_to_bias(real[:, None, None, :])
        cache = Cache(layers, self_attention, cross, cross_bias, jnp.zeros((), jnp.int32))
        return cache, jnp.full((rows,), self.config.decoder_start_id, jnp.int32)

    def decode(
        self, cache: "Cache", tokens: Int[Array, " rows"]
    ) -> tuple["Cache", Float[Array, "rows embed"]]:
        """Runs one step of the decoder, with the cached keys and values of the earlier steps."""
        context = self.decoder.next_context(cache.index, cache.self_attention[0][0].shape[2])
        x, self_attention = self._embed(self.token_embedder, tokens[:, None]), []
        for number, (parameters, keys_values, cross) in enumerate(
            zip(cache.layers, cache.self_attention, cache.cross, strict=True)
        ):
            layer, window = self._decoder_layer(parameters), self.config.decoder.window(number)
            x, keys_values = layer(
                x, context, window, (cross, cache.cross_bias), None, LayerCache(keys_values, cache.index)
            )
            x = constrain(x, "batch", "length", None)
            self_attention.append(keys_values)
        cache = dataclasses.replace(cache, self_attention=tuple(self_attention), index=cache.index + 1)
        return cache, self.decoder.finish(x, None)[:, 0]

    def _decoder_layer(self, parameters: nnx.State) -> Layer:
        return merge_layer(self.decoder.layers, parameters)

    def reorder(self, cache: "Cache", parents: Int[Array, "prompts samples"]) -> "Cache":
        """Moves the keys and values of self-attention. Those of the prompts stay, because all rows of a prompt share them."""
        return dataclasses.replace(cache, self_attention=reorder_samples(cache.self_attention, parents))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cache:
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
