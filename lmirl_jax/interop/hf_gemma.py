"""The config.json of Gemma 2, and of the texts' part of Gemma 3."""

from collections.abc import Mapping
from typing import Any

from lmirl_jax.interop import hf_decoder_only as shared
from lmirl_jax.interop.hf_config import Config
from lmirl_jax.interop.hf_rope import Scaling, read_rope, read_scaling
from lmirl_jax.interop.name_table import Entry, TensorInfo
from lmirl_jax.models import DecoderOnlyConfig
from lmirl_jax.types import UserError

EMBEDDING, HEAD = shared.EMBEDDING, shared.HEAD
CLASSES, UNUSED_ENDS = shared.CLASSES, shared.UNUSED_ENDS
# See `hf_llama`.
TIED, LONGEST = True, 8192
NAMES = {"gemma2": "Gemma2ForCausalLM", "gemma3_text": "Gemma3ForCausalLM"}
# The bases of Gemma 3's rotary positions in layers without and with a window.
THETA, LOCAL_THETA = 1_000_000.0, 10_000.0


def read_config(config: Config, tensors: Mapping[str, TensorInfo], tied: bool) -> DecoderOnlyConfig:
    """The sizes and options of a config.json; the arguments are those of `hf_t5.read_config`."""
    shared.refuse(config, "attention_bias", "use_bidirectional_attention")
    is_third = config.model_type == "gemma3_text"
    sizes = shared.read_sizes(config, tensors, 256)
    types = config.words("layer_types")
    if types is None:
        pattern = config.count("sliding_window_pattern", 6) if is_third else 2
        kinds = {True: shared.SLIDING, False: shared.FULL}
        types = tuple(kinds[number % pattern > 0] for number in range(1, sizes["num_layers"] + 1))
    return DecoderOnlyConfig(
        **sizes,
        **(_third(config) if is_third else _second(config)),
        activation=config.one_of("hidden_activation", shared.ACTIVATIONS, "gelu_pytorch_tanh"),
        logits_via_embedding=tied,
        sliding_window=config.count("sliding_window", 4096),
        layer_types=types,
        query_scale=config.number("query_pre_attn_scalar", 256) ** -0.5,
        norm_offset=1.0,
        post_norms=True,
        scaled_embeddings=True,
        decoder_start_id=shared.read_start(config, 2, 1),
    )


def _second(config: Config) -> dict[str, Any]:
    """The options of Gemma 2: soft caps."""
    theta, scaling = read_rope(config, LOCAL_THETA, LONGEST)
    return {
        "rope_theta": theta,
        "rope_scaling": scaling,
        "attention_soft_cap": config.optional_number("attn_logit_softcapping", 50.0),
        "final_soft_cap": config.optional_number("final_logit_softcapping", 30.0),
    }


def _third(config: Config) -> dict[str, Any]:
    """The options of Gemma 3: norms of queries and keys, and other rotary positions in layers with a window."""
    if config.get("attn_logit_softcapping") is not None:
        raise UserError(
            f"{config.where}: attn_logit_softcapping is not supported for model_type 'gemma3_text': transformers ignores it"
        )
    theta, scaling, local = _ropes(config)
    return {
        "rope_theta": theta,
        "rope_scaling": scaling,
        "local_rope_theta": local,
        "query_key_norms": True,
        "final_soft_cap": config.optional_number("final_logit_softcapping", None),
    }


def _ropes(config: Config) -> tuple[float, Scaling, float]:
    """Gemma 3's base and scaling in layers without a window, and its base in layers with one."""
    longest = config.count("max_position_embeddings", LONGEST)
    nested = config.part("rope_parameters") if config.get("rope_parameters") else Config(config.where, {})
    if nested.values and not nested.values.keys() & {shared.FULL, shared.SLIDING}:
        raise UserError(f"{nested.where} has neither {shared.FULL} nor {shared.SLIDING}: copy the file again")
    parts = [
        nested.part(name) if nested.get(name) else Config(config.where, {})
        for name in (shared.FULL, shared.SLIDING)
    ]
    scaling, of_windows = (read_scaling(part, longest) for part in parts)
    if config.get("rope_scaling"):
        scaling = read_scaling(config.part("rope_scaling"), longest)
    if of_windows is not None:
        raise UserError(f"{parts[1].where}: other wavelengths in layers with a window are not supported")
    theta = parts[0].number("rope_theta", config.number("rope_theta", THETA))
    local = parts[1].number("rope_theta", config.number("rope_local_base_freq", LOCAL_THETA))
    return theta, scaling, local


def config_json(config: DecoderOnlyConfig, model_type: str) -> dict[str, Any]:
    """The config.json of a Gemma that comes from no Hugging Face checkpoint."""
    scale = config.head_dim**-0.5 if config.query_scale is None else config.query_scale
    own: dict[str, Any] = {"attn_logit_softcapping": config.attention_soft_cap}
    if model_type == "gemma3_text":
        local = config.rope_theta if config.local_rope_theta is None else config.local_rope_theta
        own = {"rope_local_base_freq": local}
    return {
        **shared.base_json(config, model_type, NAMES[model_type]),
        **own,
        "hidden_activation": shared.activation_json(config),
        "attention_bias": False,
        # Transformers takes whole numbers alone.
        "query_pre_attn_scalar": round(scale**-2),
        "final_logit_softcapping": config.final_soft_cap,
        "sliding_window": config.sliding_window or shared.LENGTH,
        "layer_types": shared.layer_types(config),
    }


def table(config: DecoderOnlyConfig) -> list[Entry]:
    """Our parameters and those of transformers."""
    return shared.table(config)
