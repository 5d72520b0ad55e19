"""The operations that a model needs, whatever the compiler makes of them: 6 N D and attention.

Convention: 2 operations for each parameter of a matrix product and each token that it is applied to in the forward pass and 4
in the backward pass, and 12 x queries x keys x width of all heads for each attention, whose window bounds the keys and whose
causal mask takes nothing off; embeddings that are only looked up, norms, biases and recomputation do not count.
"""

import math
from collections.abc import Mapping
from typing import Any

from lmirl_jax.models.stacks import StackConfig


def training_flops(
    network: Any,
    axes: Mapping[str, tuple[str, ...]],
    sizes: Mapping[str, tuple[int, ...]],
    rows: int,
    lengths: Mapping[str, int],
) -> float:
    """The operations of one update.

    Args:
        network: the parts of the network, `EncoderDecoderConfig` or `DecoderOnlyParts`.
        axes, sizes: the logical axes and the shape of each parameter, by its path.
        rows: the rows that the loss is taken of.
        lengths: the places of a row for `inputs` and `targets`.
    """
    inputs, targets = rows * lengths["inputs"], rows * lengths["targets"]
    has_encoder = hasattr(network, "encoder")
    decoded = targets if has_encoder else inputs + targets
    total = 6.0 * network.decoder.layer.emb_dim * network.vocab_size * targets
    for path, names in axes.items():
        if is_product(path, names):
            total += 6.0 * math.prod(sizes[path]) * (inputs if _reads_encoder(path) else decoded)
    if not has_encoder:
        length = lengths["inputs"] + lengths["targets"]
        return total + rows * _attention(network.decoder, length, length)
    total += rows * _attention(network.encoder, lengths["inputs"], lengths["inputs"])
    total += rows * _attention(network.decoder, lengths["targets"], lengths["targets"])
    heads = network.decoder.layer.attention
    cross = 12.0 * heads.num_heads * heads.head_dim * lengths["inputs"] * lengths["targets"]
    return total + rows * network.decoder.count * cross


def is_product(path: str, names: tuple[str, ...]) -> bool:
    """Whether a parameter is a matrix of a layer; the output layer counts by itself."""
    inner = [name for name in names if name != "layers"]
    return path.startswith(("encoder/", "decoder/")) and len(inner) > 1 and "relpos_buckets" not in inner


def _reads_encoder(path: str) -> bool:
    """Whether a parameter is applied to the tokens of the encoder: its own, and keys and values of attention to it."""
    cross = "encoder_decoder_attention/key" in path or "encoder_decoder_attention/value" in path
    return path.startswith("encoder/") or cross


def _attention(stack: StackConfig, queries: int, keys: int) -> float:
    """The operations of self-attention of one row in all layers: scores and means, forward and twice backward."""
    heads = stack.layer.attention
    windows = [None] * stack.count if stack.windows is None else stack.windows
    reached = sum(keys if window is None else min(window, keys) for window in windows)
    return 12.0 * heads.num_heads * heads.head_dim * queries * reached
