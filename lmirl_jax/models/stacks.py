"""A stack of layers of one kind, an encoder or a decoder, with what its layers share: positions, masks, the final norm."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key

from lmirl_jax.models.attention import NO_WINDOW, attention_mask, mask_to_bias
from lmirl_jax.models.layers import constrain, dropout
from lmirl_jax.models.rotary import rotation
from lmirl_jax.models.scanned import scan_layers, stack_layers
from lmirl_jax.models.transformer_layers import AttentionContext, Layer, LayerConfig, RelativeBiasConfig


@dataclasses.dataclass(frozen=True)
class StackConfig:
    """A stack of layers, and how they are computed.

    Args:
        layer: the layer.
        count: the number of layers.
        remat, scan_unroll: see `T5Config`.
        relative_bias: the bias of relative positions that all layers share; None for none.
        rope_theta: the base of the wavelengths of rotary positions; None for none.
        windows: the window of self-attention in each layer, in tokens, or None in a layer without one; None where no layer
            has one.
    """

    layer: LayerConfig
    count: int
    remat: str
    scan_unroll: int
    relative_bias: RelativeBiasConfig | None = None
    rope_theta: float | None = None
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
        places = jnp.arange(segment_ids.shape[1])
        return self._context(
            places, places, attention_mask(segment_ids, segment_ids, causal=self.config.layer.causal)
        )

    def next_context(self, index: Int[Array, ""], length: int) -> AttentionContext:
        """The context of one token at the place `index` of a cache of the given length, in every row."""
        places = jnp.arange(length)
        return self._context(index[None], places, (places <= index)[None, None, None, :])

    def _context(
        self,
        queries: Int[Array, " queries"],
        keys: Int[Array, " keys"],
        mask: Bool[Array, "#batch 1 queries keys"],
    ) -> AttentionContext:
        config, bias = self.config, mask_to_bias(mask)
        if config.relative_bias is not None:
            bias = self.relpos_bias(queries, keys) + bias
        rotated = None
        if config.rope_theta is not None:
            # Places within the row serve for packed examples as well: only distances within an example matter.
            rotated = rotation(queries[None], config.layer.attention.head_dim, config.rope_theta)
        return AttentionContext(queries, keys, bias, rotated)

    def __call__(
        self,
        x: Float[Array, "batch length embed"],
        segment_ids: Int[Array, "batch length"],
        encoded: tuple[Float[Array, "batch inputs encoder"], Float[Array, "batch 1 length inputs"]]
        | None = None,
        keys: Key[Array, " batch"] | None = None,
    ) -> Float[Array, "batch length embed"]:
        """Converts embedded tokens to hidden states.

        Args:
            x: embedded tokens.
            segment_ids: the segment of each token; 0 on padding.
            encoded: the encoder's output, and the bias that masks it; None without an encoder.
            keys: one dropout key for each row; None for no dropout.
        """
        config, context = self.config, self.context(segment_ids)

        def body(
            layer: Layer, x: Array, layer_keys: Key[Array, " batch"] | None, window: Int[Array, ""] | None
        ) -> Array:
            cross = None
            if encoded is not None:
                cross = (layer.encoder_decoder_attention.keys_values(encoded[0]), encoded[1])
            return layer(x, context, window, cross, layer_keys)[0]

        windows = None
        if config.windows is not None:
            windows = jnp.array([config.window(number) for number in range(config.count)], jnp.int32)
        x = dropout(x, config.layer.dropout_rate, keys, place=1)
        x = scan_layers(
            self.layers,
            body,
            constrain(x, "batch", "length", None),
            keys,
            count=config.count,
            remat=config.remat,
            unroll=config.scan_unroll,
            per_layer=windows,
        )
        return self.finish(x, keys)

    def finish(
        self, x: Float[Array, "batch length embed"], keys: Key[Array, " batch"] | None
    ) -> Float[Array, "batch length embed"]:
        return dropout(self.norm(x), self.config.layer.dropout_rate, keys, place=2)
