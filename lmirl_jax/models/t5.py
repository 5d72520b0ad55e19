"""The T5 family: 1.0, 1.1 and its descendants (LM-adapted, Flan, mT5, ByT5), and UMT5, with relative positions.

Source: T5, https://arxiv.org/abs/1910.10683; UMT5, https://arxiv.org/abs/2304.09151.
"""

import dataclasses
import math
from typing import Literal

from jaxtyping import Array, Key

from lmirl_jax.arguments import Count, Positive, ShareBelowOne, Whole, check_arguments
from lmirl_jax.models.attention import AttentionConfig
from lmirl_jax.models.attention_kernels import Kernel
from lmirl_jax.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig, EncoderDecoderTrunk
from lmirl_jax.models.mlp import Activations
from lmirl_jax.models.scanned import Remat
from lmirl_jax.models.stacks import StackConfig
from lmirl_jax.models.transformer_layers import LayerConfig, RelativeBiasConfig
from lmirl_jax.types import UserError


@check_arguments
@dataclasses.dataclass(frozen=True)
class T5Config:
    """The sizes and types of a T5, with the names of T5X; the defaults are those of T5 1.1.

    Args:
        vocab_size: the number of rows of the embeddings, at least the vocabulary's size (a multiple of 128 suits every mesh).
        emb_dim, num_heads, head_dim, mlp_dim: widths.
        num_encoder_layers, num_decoder_layers: depths.
        dropout_rate: the share of units dropped in training.
        dtype: the type of the activations, 'float32' or 'bfloat16'; parameters, softmax and logits are float32.
        remat: the activations that the backward pass computes again, as in T5X's scalable T5: 'none', 'minimal' (all
            but the products with parameters: little time, much memory), 'full' (each layer: least memory),
            'minimal_offloaded' (as 'minimal', with the products kept in the host's memory until the backward pass).
        scan_unroll: the number of layers in an iteration of the scan; more run faster on a CPU, but compile slower.
        relpos_buckets, relpos_max_distance: the settings of the bias of relative positions.
        decoder_start_id: the first input token of the decoder, which is the padding token in T5's vocabularies.
        mlp_activations: one activation makes the feed-forward block a plain one, ('relu',) in T5 1.0; two make it gated.
        logits_via_embedding: whether the embeddings are the output layer too, as in T5 1.0.
        scale_logits: whether logits are multiplied by 1/sqrt(emb_dim); None: where the embeddings are the output layer.
        relpos_per_layer: whether each layer has a bias of its own, as in UMT5.
        norm_epsilon: keeps the norm of zeros finite.
        attention: how attention in whole rows is computed: 'dense' with all scores at once, 'blocked' with a block of them, or
            'auto' by the rows' length; see `attention_kernels.choose`.

    Raises:
        UserError: a value out of range, or a kernel that has no relative positions.
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
    remat: Remat = "none"
    scan_unroll: Count = 1
    relpos_buckets: Count = 32
    relpos_max_distance: Count = 128
    decoder_start_id: Whole = 0
    mlp_activations: Activations = ("gelu", "linear")
    logits_via_embedding: bool = False
    scale_logits: bool | None = None
    relpos_per_layer: bool = False
    norm_epsilon: Positive = 1e-6
    attention: Kernel = "auto"

    def __post_init__(self):
        # Gin files may give a list.
        object.__setattr__(self, "mlp_activations", tuple(self.mlp_activations))
        if self.decoder_start_id >= self.vocab_size:
            raise UserError(
                f"models.T5Config.decoder_start_id={self.decoder_start_id} is no token: it must be below "
                f"vocab_size={self.vocab_size}"
            )
        if self.attention == "splash":
            raise UserError(
                "models.T5Config.attention='splash': the splash kernel has no relative positions; set 'auto' or 'blocked'"
            )

    def _stack(self, count: int, causal: bool) -> StackConfig:
        relative_bias = RelativeBiasConfig(self.relpos_buckets, self.relpos_max_distance)
        layer = LayerConfig(
            emb_dim=self.emb_dim,
            attention=AttentionConfig(
                self.num_heads, self.num_heads, self.head_dim, self.dropout_rate, kernel=self.attention
            ),
            mlp_dim=self.mlp_dim,
            mlp_activations=self.mlp_activations,
            causal=causal,
            encoder_dim=self.emb_dim if causal else None,
            dropout_rate=self.dropout_rate,
            norm_epsilon=self.norm_epsilon,
            relative_bias=relative_bias if self.relpos_per_layer else None,
        )
        shared_bias = None if self.relpos_per_layer else relative_bias
        return StackConfig(layer, count, self.remat, self.scan_unroll, relative_bias=shared_bias)

    @property
    def network(self) -> EncoderDecoderConfig:
        """The parts of the network."""
        scaled = self.logits_via_embedding if self.scale_logits is None else self.scale_logits
        return EncoderDecoderConfig(
            vocab_size=self.vocab_size,
            dtype=self.dtype,
            decoder_start_id=self.decoder_start_id,
            encoder=self._stack(self.num_encoder_layers, causal=False),
            decoder=self._stack(self.num_decoder_layers, causal=True),
            logits_via_embedding=self.logits_via_embedding,
            logits_scale=1.0 / math.sqrt(self.emb_dim) if scaled else 1.0,
        )

    def build(self, key: Key[Array, ""]) -> EncoderDecoder:
        return EncoderDecoder(self.network, key=key)

    def build_trunk(self, key: Key[Array, ""]) -> EncoderDecoderTrunk:
        return EncoderDecoderTrunk(self.network, key=key)
