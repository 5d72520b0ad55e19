"""One layer for every family: attention and feed-forward, composed by sizes and options."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from lmirl_jax.models.attention import Attention, AttentionConfig
from lmirl_jax.models.attention_context import AttentionContext, LayerCache
from lmirl_jax.models.dot_products import KeysValues
from lmirl_jax.models.layers import RMSNorm, dropout, fold_keys
from lmirl_jax.models.masks import MASKED, NO_WINDOW, RowMask, window_mask
from lmirl_jax.models.mlp import MLP
from lmirl_jax.models.relative_positions import RelativeBias

EncodedKeysValues = tuple[
    Float[Array, "prompts heads inputs head_dim"], Float[Array, "prompts heads inputs head_dim"]
]


@dataclasses.dataclass(frozen=True)
class RelativeBiasConfig:
    """The settings of a bias of relative positions, as in `T5Config`."""

    buckets: int
    max_distance: int


@dataclasses.dataclass(frozen=True)
class LayerConfig:
    """The sizes and options of a layer.

    Args:
        emb_dim: the width of the activations.
        attention: the sizes and options of self-attention and of attention to the encoder.
        mlp_dim: the inner width of the feed-forward block.
        mlp_activations: its activations, of which two make it gated.
        causal: whether a token sees only those before it.
        encoder_dim: the width of the encoder's output that the layer attends to; None for a layer that has no encoder.
        dropout_rate: the share of units that are dropped.
        norm_epsilon, norm_offset: see `RMSNorm`.
        post_norms: whether each block has a norm after it, before the residual connection, as well as the one before it.
        relative_bias: the layer's own bias of relative positions; None for none.
        sliding_window: the window of those layers of a stack that have one; None for a stack without.
    """

    emb_dim: int
    attention: AttentionConfig
    mlp_dim: int
    mlp_activations: tuple[str, ...]
    causal: bool
    encoder_dim: int | None
    dropout_rate: float
    norm_epsilon: float = 1e-6
    norm_offset: float = 0.0
    post_norms: bool = False
    relative_bias: RelativeBiasConfig | None = None
    sliding_window: int | None = None

    def norm(self, key: Key[Array, ""]) -> RMSNorm:
        return RMSNorm(self.emb_dim, epsilon=self.norm_epsilon, offset=self.norm_offset, key=key)

    def relative_positions(self, config: RelativeBiasConfig, key: Key[Array, ""]) -> RelativeBias:
        return RelativeBias(
            self.attention.num_heads,
            bidirectional=not self.causal,
            buckets=config.buckets,
            max_distance=config.max_distance,
            key=key,
        )


class Layer(nnx.Module):
    """Self-attention, attention to the encoder if there is one, and feed-forward, each with norms and a residual connection.

    Its parts have T5X's names, which for self-attention differ between encoders and decoders.
    """

    def __init__(self, config: LayerConfig, *, key: Key[Array, ""]):
        has_encoder = config.encoder_dim is not None
        keys = jax.random.split(key, 6 if has_encoder else 4)
        self.config = config
        self.self_name = "self_attention" if config.causal else "attention"
        self._add_norms(self.self_name, keys[0])
        attention = Attention(config.attention, config.emb_dim, config.emb_dim, key=keys[1])
        setattr(self, self.self_name, attention)
        if config.encoder_dim is not None:
            self._add_norms("cross_attention", keys[2])
            self.encoder_decoder_attention = Attention(
                config.attention, config.emb_dim, config.encoder_dim, key=keys[3]
            )
        self._add_norms("mlp", keys[-2])
        self.mlp = MLP(
            config.emb_dim, config.mlp_dim, config.mlp_activations, config.dropout_rate, key=keys[-1]
        )
        if config.relative_bias is not None:
            bias_key = jax.random.fold_in(key, 0)
            self.relpos_bias = config.relative_positions(config.relative_bias, bias_key)

    def _add_norms(self, block: str, key: Key[Array, ""]) -> None:
        setattr(self, f"pre_{block}_layer_norm", self.config.norm(key))
        if self.config.post_norms:
            setattr(self, f"post_{block}_layer_norm", self.config.norm(key))

    def __call__(
        self,
        x: Float[Array, "batch length embed"],
        context: AttentionContext,
        window: int | Int[Array, ""] | None = None,
        encoded: tuple[EncodedKeysValues, RowMask | Float[Array, "prompts 1 #length inputs"]] | None = None,
        keys: Key[Array, " batch"] | None = None,
        cache: LayerCache | None = None,
    ) -> tuple[Float[Array, "batch length embed"], KeysValues]:
        """Runs the layer.

        Args:
            x: activations.
            context: the positions, masks and biases of self-attention.
            window: the window of self-attention in this layer; None where no layer has one.
            encoded: the keys and values of the prompts, and what masks them; None without an encoder.
            keys: one dropout key for each row; None for no dropout.
            cache: what has been read before `x`, which then is one token.

        Returns:
            The activations, and the keys and values of self-attention.
        """
        reached: list[KeysValues] = []

        def attend(y: Array) -> Array:
            attention, rotation = getattr(self, self.self_name), context.rotation_in(window)
            keys_values = attention.keys_values(y, rotation)
            if cache is not None:
                keys_values = cache.write(keys_values)
            reached.append(keys_values)
            if context.bias is None:
                return self._attend_in_rows(y, keys_values, context, window, keys)
            earlier = None if cache is None else cache.prompts
            bias = self._self_bias(context, context.bias, window)
            return attention(y, keys_values, bias, keys, rotation, earlier)

        x = self._block(self.self_name, attend, x, keys, place=2)
        if encoded is not None:
            x = self._block("cross_attention", lambda y: self._attend_to(encoded, y, keys), x, keys, place=3)
        x = self._block("mlp", lambda y: self.mlp(y, keys), x, keys, place=3 if encoded is None else 4)
        return x, reached[0]

    def _block(
        self,
        name: str,
        function: Callable[[Array], Array],
        x: Array,
        keys: Key[Array, " batch"] | None,
        place: int,
    ) -> Array:
        y = function(getattr(self, f"pre_{name}_layer_norm")(x))
        if self.config.post_norms:
            y = getattr(self, f"post_{name}_layer_norm")(y)
        return x + dropout(y, self.config.dropout_rate, keys, place=place)

    def _self_bias(
        self,
        context: AttentionContext,
        bias: Float[Array, "#batch #heads queries keys"],
        window: int | Int[Array, ""] | None,
    ) -> Float[Array, "#batch #heads queries keys"]:
        if self.config.relative_bias is not None:
            bias = self.relpos_bias(context.queries[0], context.keys[0]) + bias
        if window is not None:
            inside = window_mask(context.queries, context.keys, window, causal=self.config.causal)
            bias = jnp.where(inside, bias, MASKED)
        return bias

    def _attend_in_rows(
        self,
        x: Float[Array, "batch length embed"],
        keys_values: KeysValues,
        context: AttentionContext,
        window: int | Int[Array, ""] | None,
        keys: Key[Array, " batch"] | None,
    ) -> Float[Array, "batch length embed"]:
        """Self-attention of long rows; only the layers with a window, which are known when they run, read less."""
        attention, sliding = getattr(self, self.self_name), self.config.sliding_window
        bias = context.shared
        if self.config.relative_bias is not None:
            bias = self.relpos_bias.by_distance(x.shape[1], x.shape[1])

        def run(reach: int | None) -> Callable[[Array], Array]:
            rotation = context.rotation_in(window)
            return lambda y: attention.in_rows(y, keys_values, context.mask, reach, bias, keys, rotation)

        if window is None or sliding is None:
            return run(None)(x)
        return jax.lax.cond(jnp.asarray(window) < NO_WINDOW, run(sliding), run(None), x)

    def _attend_to(
        self,
        encoded: tuple[EncodedKeysValues, RowMask | Float[Array, "prompts 1 #length inputs"]],
        x: Float[Array, "batch length embed"],
        keys: Key[Array, " batch"] | None,
    ) -> Float[Array, "batch length embed"]:
        # The keys differ from those of self-attention, which has a dropout at the same place.
        cross_keys = None if keys is None else fold_keys(keys, 9)
        keys_values, bias = encoded
        if isinstance(bias, RowMask):
            return self.encoder_decoder_attention.in_rows(x, keys_values, bias, dropout_keys=cross_keys)
        # In decoding, all samples of a prompt attend to the same keys and values, which are stored once.
        y = jnp.reshape(x, (keys_values[0].shape[0], -1, x.shape[-1]))
        y = self.encoder_decoder_attention(y, keys_values, bias, cross_keys)
        return jnp.reshape(y, x.shape)
