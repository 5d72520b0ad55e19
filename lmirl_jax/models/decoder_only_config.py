"""Decoder-only families: Llama 3, SmolLM2, Qwen 2.5 and 3, Gemma 2 and 3 (text)."""

import dataclasses
from typing import Literal

from jaxtyping import Array, Key

from lmirl_jax.arguments import Count, NonNegative, Positive, ShareBelowOne, Whole, check_arguments
from lmirl_jax.models.attention import AttentionConfig
from lmirl_jax.models.attention_kernels import Kernel
from lmirl_jax.models.decoder_only import DecoderOnly, DecoderOnlyParts, DecoderOnlyTrunk
from lmirl_jax.models.layer_types import LAYER_TYPES, LayerTypes, check_stack, windows_of
from lmirl_jax.models.mlp import Activation
from lmirl_jax.models.rotary import LinearRopeScaling, Llama3RopeScaling
from lmirl_jax.models.scanned import Remat
from lmirl_jax.models.stacks import StackConfig
from lmirl_jax.models.transformer_layers import LayerConfig
from lmirl_jax.types import UserError


@check_arguments
@dataclasses.dataclass(frozen=True)
class DecoderOnlyConfig:
    """The sizes, options and types of a decoder-only model; the defaults are the options of Llama.

    Args:
        vocab_size: the number of rows of the embeddings.
        emb_dim, num_heads, head_dim, mlp_dim: widths.
        num_layers: depth.
        num_kv_heads: the number of heads of keys and values, which groups of query heads share.
        activation: that of the gate of the feed-forward block.
        logits_via_embedding: whether the embeddings are the output layer too.
        rope_theta: the base of the wavelengths of rotary positions.
        rope_scaling: changes these wavelengths; None for no change. With `local_rope_theta`, in layers without a window alone.
        local_rope_theta: the base in layers with a window; None where it is the same.
        sliding_window: how far attention reaches in layers of type 'sliding_attention': the last `sliding_window` tokens, the
            current one included; None for no window.
        layer_types: 'sliding_attention' or 'full_attention' for each layer; None: all have the window, if there is one.
        query_scale: the factor on the scores of attention; None for 1/sqrt(head_dim).
        qkv_biases: whether queries, keys and values have biases, as in Qwen 2.5.
        query_key_norms: whether the queries and keys of each head are normalised, as in Qwen 3 and Gemma 3.
        attention_soft_cap, final_soft_cap: the bounds of scores and logits, in nats; None for no bound.
        norm_epsilon: keeps the norm of zeros finite.
        norm_offset: what is added to a norm's parameter to make its scale; 1 in Gemma.
        post_norms: whether each block has a norm after it as well, as in Gemma.
        scaled_embeddings: whether embeddings are multiplied by sqrt(emb_dim), as in Gemma.
        bidirectional_prompts: whether the tokens of a prompt see each other whatever their order (a prefix language model).
        dropout_rate: the share of units dropped in training; attention weights are never dropped.
        dtype, remat, scan_unroll: see `T5Config`.
        decoder_start_id: the token that stands for an empty prompt.
        attention: how attention in whole rows is computed: 'auto', 'dense', 'blocked' or, on TPUs, 'splash'; see
            `attention_kernels.choose`.

    Raises:
        UserError: a value out of range, or sizes that do not fit each other.
    """

    vocab_size: Count
    emb_dim: Count
    num_layers: Count
    num_heads: Count
    num_kv_heads: Count
    head_dim: Count
    mlp_dim: Count
    activation: Activation = "silu"
    logits_via_embedding: bool = True
    rope_theta: Positive = 10000.0
    rope_scaling: Llama3RopeScaling | LinearRopeScaling | None = None
    local_rope_theta: Positive | None = None
    sliding_window: Count | None = None
    layer_types: LayerTypes | None = None
    query_scale: Positive | None = None
    qkv_biases: bool = False
    query_key_norms: bool = False
    attention_soft_cap: Positive | None = None
    final_soft_cap: Positive | None = None
    norm_epsilon: Positive = 1e-6
    norm_offset: NonNegative = 0.0
    post_norms: bool = False
    scaled_embeddings: bool = False
    bidirectional_prompts: bool = False
    dropout_rate: ShareBelowOne = 0.0
    dtype: Literal["float32", "bfloat16"] = "float32"
    remat: Remat = "none"
    scan_unroll: Count = 1
    decoder_start_id: Whole = 0
    attention: Kernel = "auto"

    def __post_init__(self):
        name = "models.DecoderOnlyConfig"
        if self.layer_types is not None:
            # Gin files may give a list.
            object.__setattr__(self, "layer_types", tuple(self.layer_types))
        sizes = ("layer_types", "num_layers", "num_heads", "num_kv_heads", "head_dim")
        check_stack(name, **{size: getattr(self, size) for size in sizes})
        if self.sliding_window is None and "sliding_attention" in (self.layer_types or ()):
            raise UserError(
                f"{name}.sliding_window=None: layer_types has 'sliding_attention'; set the window"
            )
        if self.attention == "splash" and self.bidirectional_prompts:
            raise UserError(
                f"{name}.attention='splash': the splash kernel knows no bidirectional_prompts; set 'auto' or 'blocked'"
            )
        if self.decoder_start_id >= self.vocab_size:
            raise UserError(
                f"{name}.decoder_start_id={self.decoder_start_id} is no token: it must be below vocab_size={self.vocab_size}"
            )

    @property
    def windows(self) -> tuple[int | None, ...] | None:
        """The window of each layer; None where no layer has one."""
        if self.sliding_window is None:
            return None
        return windows_of(self.layer_types or LAYER_TYPES[:1] * self.num_layers, self.sliding_window)

    @property
    def _attention(self) -> AttentionConfig:
        return AttentionConfig(
            num_heads=self.num_heads,
            num_kv_heads=self.num_kv_heads,
            head_dim=self.head_dim,
            dropout_rate=0.0,
            query_scale=self.head_dim**-0.5 if self.query_scale is None else self.query_scale,
            soft_cap=self.attention_soft_cap,
            qkv_biases=self.qkv_biases,
            query_key_norms=self.query_key_norms,
            norm_epsilon=self.norm_epsilon,
            norm_offset=self.norm_offset,
            kernel=self.attention,
        )

    @property
    def network(self) -> DecoderOnlyParts:
        """The parts of the network."""
        layer = LayerConfig(
            emb_dim=self.emb_dim,
            attention=self._attention,
            mlp_dim=self.mlp_dim,
            mlp_activations=(self.activation, "linear"),
            causal=True,
            encoder_dim=None,
            dropout_rate=self.dropout_rate,
            norm_epsilon=self.norm_epsilon,
            norm_offset=self.norm_offset,
            post_norms=self.post_norms,
            sliding_window=self.sliding_window,
        )
        stack = StackConfig(
            layer,
            self.num_layers,
            self.remat,
            self.scan_unroll,
            rope_theta=self.rope_theta,
            rope_scaling=self.rope_scaling,
            local_rope_theta=self.local_rope_theta,
            windows=self.windows,
        )
        return DecoderOnlyParts(
            vocab_size=self.vocab_size,
            dtype=self.dtype,
            decoder_start_id=self.decoder_start_id,
            decoder=stack,
            bidirectional_prompts=self.bidirectional_prompts,
            scaled_embeddings=self.scaled_embeddings,
            logits_via_embedding=self.logits_via_embedding,
            logits_soft_cap=self.final_soft_cap,
        )

    def build(self, key: Key[Array, ""]) -> DecoderOnly:
        return DecoderOnly(self.network, key=key)

    def build_trunk(self, key: Key[Array, ""]) -> DecoderOnlyTrunk:
        return DecoderOnlyTrunk(self.network, key=key)
