"""A stack of layers of one kind, an encoder or a decoder, with what its layers share: positions, masks, the final norm."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key

from lmirl_jax.models.attention_context import AttentionContext
from lmirl_jax.models.attention_kernels import choose
from lmirl_jax.models.dot_products import KeysValues
from lmirl_jax.models.layers import constrain, dropout
from lmirl_jax.models.masks import NO_WINDOW, RowMask, mask_to_bias
from lmirl_jax.models.rotary import RopeScaling, Rotation, rotation
from lmirl_jax.models.scanned import Remat, scan_layers, stack_layers
from lmirl_jax.models.transformer_layers import Layer, LayerConfig, RelativeBiasConfig


@dataclasses.dataclass(frozen=True)
class StackConfig:
    """A stack of layers, and how they are computed.

    Args:
        layer: the layer.
        count: the number of layers.
        remat, scan_unroll: see `T5Config`.
        relative_bias: the bias of relative positions that all layers share; None for none.
        rope_theta: the base of the wavelengths of rotary positions; None for none.
        rope_scaling: changes these wavelengths; None for no change.
        local_rope_theta: the base in layers with a window, whose wavelengths stay as they are; None where it is the same.
        windows: the window of self-attention in each layer, in tokens, or None in a layer without one; None where no layer
            has one.
    """

    layer: LayerConfig
    count: int
    remat: Remat
    scan_unroll: int
    relative_bias: RelativeBiasConfig | None = None
    rope_theta: float | None = None
    rope_scaling: RopeScaling | None = None
    local_rope_theta: float | None = None
    windows: tuple[int | None, ...] | None = None

    def window(self, number: int) -> int | None:
        """The window of a layer, a size that hides nothing where only other layers have one."""
        if self.windows is None:
            return None
        window = self.windows[number]
        return NO_WINDOW if window is None else window


class Stack(nnx.Module):
    """Scanned layers, and a norm after the last one."""

    def __init__(self, config: StackConfig, *, key: Key[Array, ""]):
        keys = jax.random.split(key, 3)
        self.config = config
        if config.relative_bias is not None:
            self.relpos_bias = config.layer.relative_positions(config.relative_bias, keys[0])
        self.layers = stack_layers(lambda k: Layer(config.layer, key=k), config.count, keys[1])
        self.norm = config.layer.norm(keys[2])

    def context(self, segment_ids: Int[Array, "batch length"]) -> AttentionContext:
        """The context of whole rows, in which tokens attend only to those of their segment."""
        places = jnp.arange(segment_ids.shape[1])[None]
        # Places within the row serve for packed examples as well: only distances within an example matter.
        return self.row_context(RowMask(segment_ids, causal=self.config.layer.causal), places)

    def row_context(self, mask: RowMask, positions: Int[Array, "#batch length"]) -> AttentionContext:
        """The context of whole rows with this mask; that of long rows leaves scores and their biases to blocks."""
        config, shared = self.config, None
        biased = config.relative_bias is not None or config.layer.relative_bias is not None
        if choose(config.layer.attention, mask, biased=biased) == "dense":
            return self._context(positions, positions, mask.whole())
        if config.relative_bias is not None:
            shared = self.relpos_bias.by_distance(*mask.shape)
        return AttentionContext(positions, positions, None, *self._rotations(positions), mask, shared)

    def cross_mask(self, mask: RowMask) -> RowMask | Float[Array, "batch 1 length inputs"]:
        """What masks attention to the encoder: a bias of the scores, or for long rows the mask itself."""
        is_dense = choose(self.config.layer.attention, mask, biased=False) == "dense"
        return mask_to_bias(mask.whole()) if is_dense else mask

    def next_context(self, index: Int[Array, ""], length: int) -> AttentionContext:
        """The context of one token at the place `index` of a cache of the given length, in every row."""
        places = jnp.arange(length)[None]
        return self._context(index[None, None], places, (places <= index)[:, None, None, :])

    def answer_context(
        self,
        before: Int[Array, " rows"],
        prompts: Int[Array, "rows prompt_keys"],
        index: Int[Array, ""],
        length: int,
    ) -> AttentionContext:
        """The context of token `index` of each row, read after all but the last token of a prompt.

        The keys from the last token of the prompt on lie in a ring: a token takes the place of the one `length` before it.

        Args:
            before: the number of tokens before the last one of each row's prompt.
            prompts: the position of each key of a prompt that is stored; others than 0 to `before` - 1 mark no key.
            index: the number of the token; 0 for the last one of the prompt.
            length: the number of places of the ring.
        """
        answers = (index - (index - jnp.arange(length)) % length)[None]
        shape = (len(before), length)
        is_key = [(prompts >= 0) & (prompts < before[:, None]), jnp.broadcast_to(answers >= 0, shape)]
        keys = jnp.concatenate([prompts, before[:, None] + answers], axis=1)
        return self._context(before[:, None] + index, keys, jnp.concatenate(is_key, axis=1)[:, None, None, :])

    def _context(
        self,
        queries: Int[Array, "#batch queries"],
        keys: Int[Array, "#batch keys"],
        mask: Bool[Array, "#batch 1 queries keys"],
    ) -> AttentionContext:
        bias = mask_to_bias(mask)
        if self.config.relative_bias is not None:
            bias = self.relpos_bias(queries[0], keys[0]) + bias
        return AttentionContext(queries, keys, bias, *self._rotations(queries))

    def _rotations(self, positions: Int[Array, "#batch queries"]) -> tuple[Rotation | None, Rotation | None]:
        """The rotations in layers without and with a window; None where there is none, or no other one."""
        config, head_dim = self.config, self.config.layer.attention.head_dim
        everywhere = local = None
        if config.rope_theta is not None:
            everywhere = rotation(positions, head_dim, config.rope_theta, config.rope_scaling)
        if config.local_rope_theta is not None:
            local = rotation(positions, head_dim, config.local_rope_theta)
        return everywhere, local

    def __call__(
        self,
        x: Float[Array, "batch length embed"],
        context: AttentionContext,
        encoded: tuple[Float[Array, "batch inputs encoder"], RowMask | Float[Array, "batch 1 length inputs"]]
        | None = None,
        keys: Key[Array, " batch"] | None = None,
    ) -> Float[Array, "batch length embed"]:
        """Converts embedded tokens to hidden states.

        Args:
            x: embedded tokens.
            context: what the layers share.
            encoded: the encoder's output, and what masks it, from `cross_mask`; None without an encoder.
            keys: one dropout key for each row; None for no dropout.
        """

        def body(
            layer: Layer, x: Array, layer_keys: Key[Array, " batch"] | None, window: Int[Array, ""] | None
        ) -> tuple[Array, None]:
            cross = None
            if encoded is not None:
                cross = (layer.encoder_decoder_attention.keys_values(encoded[0]), encoded[1])
            return layer(x, context, window, cross, layer_keys)[0], None

        x = dropout(x, self.config.layer.dropout_rate, keys, place=1)
        return self.finish(self._scan(body, x, keys)[0], keys)

    def keys_values(
        self, x: Float[Array, "batch length embed"], context: AttentionContext
    ) -> tuple[KeysValues, ...]:
        """The keys and values of self-attention of whole rows in each layer."""

        def body(layer: Layer, x: Array, _: None, window: Int[Array, ""] | None) -> tuple[Array, KeysValues]:
            return layer(x, context, window)

        stacked = self._scan(body, x, None)[1]
        return tuple(
            jax.tree.map(lambda x, number=number: x[number], stacked) for number in range(self.config.count)
        )

    def _scan(self, body: Any, x: Array, keys: Key[Array, " batch"] | None) -> tuple[Array, Any]:
        config, windows = self.config, None
        if config.windows is not None:
            windows = jnp.array([config.window(number) for number in range(config.count)], jnp.int32)
        return scan_layers(
            self.layers,
            body,
            constrain(x, "batch", "length", None),
            keys,
            count=config.count,
            remat=config.remat,
            unroll=config.scan_unroll,
            per_layer=windows,
        )

    def finish(
        self, x: Float[Array, "batch length embed"], keys: Key[Array, " batch"] | None
    ) -> Float[Array, "batch length embed"]:
        return dropout(self.norm(x), self.config.layer.dropout_rate, keys, place=2)
