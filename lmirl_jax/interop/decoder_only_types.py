"""Which of transformers' decoder-only families has the options of a network."""

import math
from typing import Any

from lmirl_jax.interop.hf_decoder_only import ACTIVATIONS, SLIDING, layer_types
from lmirl_jax.models import DecoderOnlyConfig
from lmirl_jax.types import UserError

# The options that a family has not, or always has.
COMMON: dict[str, Any] = {"bidirectional_prompts": False}
PLAIN = COMMON | {
    "norm_offset": 0.0,
    "post_norms": False,
    "scaled_embeddings": False,
    "attention_soft_cap": None,
    "final_soft_cap": None,
    "local_rope_theta": None,
}
GEMMA = COMMON | {"norm_offset": 1.0, "post_norms": True, "scaled_embeddings": True, "qkv_biases": False}
OPTIONS = {
    "llama": PLAIN | {"qkv_biases": False, "query_key_norms": False, "sliding_window": None},
    "qwen2": PLAIN | {"qkv_biases": True, "query_key_norms": False},
    "qwen3": PLAIN | {"qkv_biases": False, "query_key_norms": True},
    "gemma2": GEMMA | {"query_key_norms": False, "local_rope_theta": None},
    "gemma3_text": GEMMA | {"query_key_norms": True, "attention_soft_cap": None},
}


def decoder_only_type(model: DecoderOnlyConfig) -> str:
    """Hugging Face's name of the family that has the options of a network.

    Raises:
        UserError: none has.
    """
    told = {name: unfit(model, name) for name in OPTIONS}
    nearest = min(told, key=lambda name: len(told[name]))
    check_type(model, nearest)
    return nearest


def check_type(model: DecoderOnlyConfig, model_type: str) -> None:
    """Raises a UserError where a family has not the options of a network."""
    told = unfit(model, model_type)
    if told:
        raise UserError(
            f"FORMAT='hf': transformers' {model_type!r} has no {', '.join(told)}, so that it would compute other numbers: write "
            "this network with FORMAT='orbax'"
        )


def unfit(model: DecoderOnlyConfig, model_type: str) -> list[str]:
    """The options of a network that a family has not, as 'name=value'."""
    options, told = OPTIONS[model_type], []
    for name, only in options.items():
        value = getattr(model, name)
        if name == "sliding_window" and SLIDING not in layer_types(model):
            value = None
        if value != only:
            told.append(f"{name}={value!r}")
    scale = model.head_dim**-0.5 if model.query_scale is None else model.query_scale
    of_head = scale * math.sqrt(model.head_dim)
    # Gemma's is 1 / sqrt(a whole number).
    whole = scale**-2 / max(1, round(scale**-2))
    if abs((whole if "gemma" in model_type else of_head) - 1) > 1e-6:
        told.append(f"query_scale={model.query_scale!r}")
    if model.activation not in ACTIVATIONS.values():
        told.append(f"activation={model.activation!r}")
    if model_type == "gemma3_text" and model.local_rope_theta is None and model.rope_scaling is not None:
        told.append("rope_scaling in layers with a window")
    return told
