"""T5Gemma: an encoder and a decoder of Gemma 2's layers, which may have different sizes.

Source: https://arxiv.org/abs/2504.06225; Gemma 2, https://arxiv.org/abs/2408.00118.
"""

import dataclasses
import math
from typing import Literal

from jaxtyping import Array, Key

from lmirl_jax.arguments import Count, Positive, ShareBelowOne, Whole, check_arguments
from lmirl_jax.models.attention import AttentionConfig
from lmirl_jax.models.attention_kernels import Kernel
from lmirl_jax.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig, EncoderDecoderTrunk
from lmirl_jax.models.layer_types import LAYER_TYPES, LayerTypes, check_stack, windows_of
from lmirl_jax.models.mlp import Activation
from lmirl_jax.models.scanned import Remat
from lmirl_jax.models.stacks import StackConfig
from lmirl_jax.models.transformer_layers import LayerConfig
from lmirl_jax.types import UserError


@check_arguments
@dataclasses.dataclass(frozen=True)
class T5GemmaStackConfig:
    """The sizes and options of T5Gemma's encoder or decoder.

    Args:
        emb_dim, num_heads, head_dim, mlp_dim: widths.
        num_kv_heads: the number of heads of keys and values, which groups of query heads share.
        num_layers: depth.
        sliding_window: how far self-attention reaches in layers of type 'sliding_attention', in tokens: the decoder to the
            last `sliding_window` tokens up to the current one, the encoder to as many on each side.
        layer_types: 'sliding_attention' or 'full_attention' for each layer; None alternates, sliding first.
        query_scale: the factor on the scores of attention; None for 1/sqrt(head_dim).
        attention_soft_cap: the bound of the scores, in nats; None for no bound.
        rope_theta: the base of the wavelengths of rotary positions.
        activation: that of the gate of the feed-forward block.
        norm_epsilon: keeps the norm of zeros finite.

    Raises:
        UserError: a value out of range, or sizes that do not fit each other.
    """

    emb_dim: Count
    num_heads: Count
    num_kv_heads: Count
    head_dim: Count
    mlp_dim: Count
    num_layers: Count
    sliding_window: Count = 4096
    layer_types: LayerTypes | None = None
    query_scale: Positive | None = None
    attention_soft_cap: Positive | None = 50.0
    rope_theta: Positive = 10000.0
    activation: Activation = "gelu"
    norm_epsilon: Positive = 1e-6

    def __post_init__(self):
        name = "models.T5GemmaStackConfig"
        if self.layer_types is not None:
            # Gin files may give a list.
            object.__setattr__(self, "layer_types", tuple(self.layer_types))
        sizes = ("layer_types", "num_layers", "num_heads", "num_kv_heads", "head_dim")
        check_stack(name, **{size: getattr(self, size) for size in sizes})

    @property
    def windows(self) -> tuple[int | None, ...]:
        """The window of each layer; None in a layer of full attention."""
        alternating = tuple(LAYER_TYPES[number % 2] for number in range(self.num_layers))
        return windows_of(self.layer_types or alternating, self.sliding_window)


@check_arguments
@dataclasses.dataclass(frozen=True)
class T5GemmaConfig:
    """The sizes and types of a T5Gemma.

    Args:
        vocab_size: the number of rows of the embeddings, of which encoder and decoder have one table each.
        encoder, decoder: the stacks.
        final_soft_cap: the bound of the logits, in nats; None for no bound.
        logits_via_embedding: whether the decoder's embeddings are the output layer too.
        dropout_rate: the share of units dropped in training; attention weights are never dropped.
        dtype, remat, scan_unroll: see `T5Config`.
        decoder_start_id: the first input token of the decoder, which is the BOS token in Gemma's vocabulary.
        attention: how attention in whole rows is computed: 'auto', 'dense', 'blocked' or, on TPUs, 'splash' (but to the encoder
            in blocks); see `attention_kernels.choose`.

    Raises:
        UserError: a value out of range.
    """

    vocab_size: Count
    encoder: T5GemmaStackConfig
    decoder: T5GemmaStackConfig
    final_soft_cap: Positive | None = 30.0
    logits_via_embedding: bool = True
    dropout_rate: ShareBelowOne = 0.0
    dtype: Literal["float32", "bfloat16"] = "float32"
    remat: Remat = "none"
    scan_unroll: Count = 1
    decoder_start_id: Whole = 2
    attention: Kernel = "auto"

    def __post_init__(self):
        if self.decoder_start_id >= self.vocab_size:
            raise UserError(
                f"models.T5GemmaConfig.decoder_start_id={self.decoder_start_id} is no token: it must be below "
                f"vocab_size={self.vocab_size}"
            )

    @property
    def emb_dim(self) -> int:
        """The width of the hidden states."""
        return self.decoder.emb_dim

    def _stack(self, sizes: T5GemmaStackConfig, encoder_dim: int | None) -> StackConfig:
        scale = 1.0 / math.sqrt(sizes.head_dim) if sizes.query_scale is None else sizes.query_scale
        attention = AttentionConfig(
            num_heads=sizes.num_heads,
            num_kv_heads=sizes.num_kv_heads,
            head_dim=sizes.head_dim,
            dropout_rate=0.0,
            query_scale=scale,
            soft_cap=sizes.attention_soft_cap,
            kernel=self.attention,
        )
        layer = LayerConfig(
            emb_dim=sizes.emb_dim,
            attention=attention,
            mlp_dim=sizes.mlp_dim,
            mlp_activations=(sizes.activation, "linear"),
            causal=encoder_dim is not None,
            encoder_dim=encoder_dim,
            dropout_rate=self.dropout_rate,
            norm_epsilon=sizes.norm_epsilon,
            norm_offset=1.0,
            post_norms=True,
            sliding_window=sizes.sliding_window,
        )
        return StackConfig(
            layer,
            sizes.num_layers,
            self.remat,
            self.scan_unroll,
            rope_theta=sizes.rope_theta,
            windows=sizes.windows,
        )

    @property
    def network(self) -> EncoderDecoderConfig:
        """The parts of the network."""
        return EncoderDecoderConfig(
            vocab_size=self.vocab_size,
            dtype=self.dtype,
            decoder_start_id=self.decoder_start_id,
            encoder=self._stack(self.encoder, None),
            decoder=self._stack(self.decoder, self.encoder.emb_dim),
            shared_embeddings=False,
            scaled_embeddings=True,
            logits_via_embedding=self.logits_via_embedding,
            logits_soft_cap=self.final_soft_cap,
        )

    def build(self, key: Key[Array, ""]) -> EncoderDecoder:
        return EncoderDecoder(self.network, key=key)

    def build_trunk(self, key: Key[Array, ""]) -> EncoderDecoderTrunk:
        return EncoderDecoderTrunk(self.network, key=key)
