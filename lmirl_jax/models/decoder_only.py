"""A decoder-only network as a `types.Model`: it reads each prompt and its answer in one row, and decodes with a cache.

Module names are those of an encoder-decoder's decoder; the layers are stacked and scanned.
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
from lmirl_jax.models.layers import Dense, constrain, fold_keys, parameter, refuse_sequence
from lmirl_jax.models.masks import RowMask
from lmirl_jax.models.prompted_rows import lay_out
from lmirl_jax.models.scanned import merge_layer, unstack_layers
from lmirl_jax.models.stacks import Stack, StackConfig
from lmirl_jax.rows import length_mask
from lmirl_jax.types import Batch, PromptBatch, Unembedding


@dataclasses.dataclass(frozen=True)
class DecoderOnlyParts:
    """The parts of a decoder-only network, of which `DecoderOnlyConfig` makes one.

    Args:
        vocab_size, dtype, decoder_start_id, bidirectional_prompts: see `DecoderOnlyConfig`.
        decoder: the stack.
        scaled_embeddings: whether embeddings are multiplied by sqrt(emb_dim), for which they start smaller.
        logits_via_embedding: whether the embeddings are the output layer too.
        logits_soft_cap: see `types.Unembedding`.
    """

    vocab_size: int
    dtype: str
    decoder_start_id: int
    decoder: StackConfig
    bidirectional_prompts: bool
    scaled_embeddings: bool
    logits_via_embedding: bool
    logits_soft_cap: float | None


class DecoderOnlyTrunk(nnx.Module):
    """A decoder-only network without an output layer, a `types.Trunk`."""

    def __init__(self, config: DecoderOnlyParts, *, key: Key[Array, ""]):
        keys = jax.random.split(key, 3)
        self.config = config
        width = config.decoder.layer.emb_dim
        init = nnx.initializers.normal(1.0 / math.sqrt(width) if config.scaled_embeddings else 0.02)
        self.token_embedder = parameter(keys[0], init, (config.vocab_size, width), ("vocab", "embed"))
        self.decoder = Stack(config.decoder, key=keys[1])

    def _embed(self, tokens: Int[Array, "batch length"]) -> Float[Array, "batch length embed"]:
        config = self.config
        return embed(self.token_embedder, tokens, config.dtype, scaled=config.scaled_embeddings)

    def _mask(self, segment_ids: Array, is_prompt: Array) -> RowMask:
        return RowMask(segment_ids, is_prompt if self.config.bidirectional_prompts else None)

    def read(self, tokens: Int[Array, "batch length"]) -> Float[Array, "batch length embed"]:
        """Reads rows of tokens as they are: the hidden state at t is the one after `tokens[:, : t + 1]` have been read.

        Padding at the end of a row changes nothing before it.
        """
        ones = jnp.ones_like(tokens)
        positions = jnp.cumsum(ones, axis=1) - 1
        context = self.decoder.row_context(self._mask(ones, jnp.zeros_like(tokens, bool)), positions)
        return self.decoder(self._embed(tokens), context)

    def hidden(
        self,
        batch: Batch,
        dropout_keys: Key[Array, " batch"] | None = None,
        token_offsets: Float[Array, "batch length embed"] | None = None,
    ) -> Float[Array, "batch length embed"]:
        """The hidden state from which each token of an answer is predicted, given its prompt and the true tokens before it."""
        rows = lay_out(batch, self.config.decoder_start_id)
        x = self._embed(rows.tokens)
        if token_offsets is not None:
            add = jax.vmap(lambda row, places, offsets: row.at[places].add(offsets, mode="drop"))
            x = add(x, rows.answers, token_offsets.astype(x.dtype))
        context = self.decoder.row_context(self._mask(rows.segment_ids, rows.is_prompt), rows.positions)
        keys = None if dropout_keys is None else fold_keys(dropout_keys, 2)
        hidden = self.decoder(x, context, keys=keys)
        # Token t is predicted from what has been read before it: its prompt, or the token before it.
        before = jnp.clip(rows.answers - 1, 0, hidden.shape[1] - 1)
        return jnp.take_along_axis(hidden, before[..., None], axis=1)


class DecoderOnly(DecoderOnlyTrunk):
    """A decoder-only network as a `types.Model`: the trunk, an output layer, and decoding with a cache."""

    def __init__(self, config: DecoderOnlyParts, *, key: Key[Array, ""]):
        super().__init__(config, key=key)
        if not config.logits_via_embedding:
            # The trunk uses the first two keys.
            last = jax.random.split(key, 3)[2]
            shape = (config.decoder.layer.emb_dim, config.vocab_size)
            self.logits_dense = Dense(shape, ("embed", "vocab"), key=last)

    def unembedding(self) -> Unembedding:
        tied = self.config.logits_via_embedding
        kernel = jnp.transpose(self.token_embedder[...]) if tied else self.logits_dense.kernel[...]
        return Unembedding(kernel, soft_cap=self.config.logits_soft_cap)

    def start_decoding(
        self, prompts: PromptBatch, max_length: int, num_samples: int = 1
    ) -> tuple["PromptedCache", Int[Array, " rows"]]:
        """Reads each prompt once for all of its samples; the token to feed first is its last one."""
        # With windows its caches were seen to differ from those of one device.
        refuse_sequence("sampling from a decoder-only model")
        lengths = jnp.asarray(prompts.lengths, jnp.int32)
        # The start token stands for an empty prompt.
        first = jnp.where(lengths > 0, jnp.asarray(prompts.tokens)[:, 0], self.config.decoder_start_id)
        tokens = jnp.asarray(prompts.tokens).at[:, 0].set(first)
        lengths = jnp.maximum(lengths, 1)
        room = tokens.shape[1]
        real = jnp.asarray(length_mask(lengths, room))
        positions = jnp.broadcast_to(jnp.arange(room, dtype=jnp.int32)[None], real.shape)
        context = self.decoder.row_context(self._mask(real.astype(jnp.int32), real), positions)
        x = self._embed(tokens)
        stack = self.config.decoder
        rows = len(lengths) * num_samples
        cache = PromptedCache(
            layers=unstack_layers(self.decoder.layers, stack.count),
            prompts=tuple(
                _last_keys(keys_values, lengths, stack.window(number))
                for number, keys_values in enumerate(self.decoder.keys_values(x, context))
            ),
            prompt_lengths=lengths,
            answers=tuple(
                self._no_keys(rows, max_length, stack.window(number)) for number in range(stack.count)
            ),
            index=jnp.zeros((), jnp.int32),
            prompt_room=room,
        )
        last = jnp.take_along_axis(tokens, lengths[:, None] - 1, axis=1)[:, 0]
        return cache, jnp.repeat(last.astype(jnp.int32), num_samples)

    def _no_keys(self, rows: int, max_length: int, window: int | None) -> KeysValues:
        attention = self.config.decoder.layer.attention
        length = max_length if window is None else min(max_length, window)
        shape = (rows, attention.num_kv_heads, length, attention.head_dim)
        empty = jnp.zeros(shape, self.config.dtype)
        empty = constrain(empty, "batch", attention.kv_axis, "key_length", "kv")
        return empty, empty

    def decode(
        self, cache: "PromptedCache", tokens: Int[Array, " rows"]
    ) -> tuple["PromptedCache", Float[Array, "rows embed"]]:
        """Runs one step, with the keys and values of the prompts and of the earlier steps."""
        samples = tokens.shape[0] // cache.prompt_lengths.shape[0]
        x, answers, contexts = self._embed(tokens[:, None]), [], {}
        for number, (parameters, prompts, keys_values) in enumerate(
            zip(cache.layers, cache.prompts, cache.answers, strict=True)
        ):
            layer, window = merge_layer(self.decoder.layers, parameters), self.config.decoder.window(number)
            if window not in contexts:
                positions = _prompt_positions(cache.prompt_lengths, cache.prompt_room, window)
                contexts[window] = self.decoder.answer_context(
                    jnp.repeat(cache.prompt_lengths - 1, samples),
                    jnp.repeat(positions, samples, axis=0),
                    cache.index,
                    keys_values[0].shape[2],
                )
            earlier = LayerCache(keys_values, cache.index, prompts)
            x, keys_values = layer(x, contexts[window], window, cache=earlier)
            x = constrain(x, "batch", "length", None)
            answers.append(keys_values)
        cache = dataclasses.replace(cache, answers=tuple(answers), index=cache.index + 1)
        return cache, self.decoder.finish(x, None)[:, 0]

    def reorder(self, cache: "PromptedCache", parents: Int[Array, "prompts samples"]) -> "PromptedCache":
        """Moves the keys and values of the answers. Those of the prompts stay, because all rows of a prompt share them."""
        return dataclasses.replace(cache, answers=reorder_samples(cache.answers, parents))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PromptedCache:
    """The state of decoding.

    Args:
        layers: the parameters of each layer.
        prompts: the keys and values of the prompts in each layer, one for all samples of a prompt; in a layer with a window
            only the last ones.
        prompt_lengths: the number of tokens of each prompt, 1 or more.
        answers: the keys and values in each layer from the last token of the prompt on; in a layer with a window only the last
            ones.
        index: the number of tokens that have been read.
        prompt_room: the number of tokens for which the prompts have room.
    """

    layers: tuple[nnx.State, ...]
    prompts: tuple[KeysValues, ...]
    prompt_lengths: Int[Array, " prompts"]
    answers: tuple[KeysValues, ...]
    index: Int[Array, ""]
    prompt_room: int = dataclasses.field(metadata={"static": True})


def _prompt_positions(
    lengths: Int[Array, " prompts"], room: int, window: int | None
) -> Int[Array, "prompts keys"]:
    """The positions whose keys a layer stores: all, or the last ones of each prompt that its window reaches."""
    if window is None or window >= room:
        return jnp.broadcast_to(jnp.arange(room)[None], (len(lengths), room))
    return (lengths - window)[:, None] + jnp.arange(window)[None]


def _last_keys(keys_values: KeysValues, lengths: Int[Array, " prompts"], window: int | None) -> KeysValues:
    """The keys and values that a layer stores of the prompts."""
    room = keys_values[0].shape[2]
    if window is None or window >= room:
        return keys_values
    places = jnp.maximum(_prompt_positions(lengths, room, window), 0)[:, None, :, None]
    return jax.tree.map(lambda x: jnp.take_along_axis(x, places, axis=2), keys_values)
