"""The config.json of Qwen 2 and 2.5, which have biases on queries, keys and values, and of Qwen 3, which norms them instead."""

from collections.abc import Mapping
from typing import Any

from lmirl_jax.interop import hf_decoder_only as shared
from lmirl_jax.interop.hf_config import Config
from lmirl_jax.interop.hf_rope import read_rope
from lmirl_jax.interop.name_table import Entry, TensorInfo
from lmirl_jax.models import DecoderOnlyConfig

EMBEDDING, HEAD = shared.EMBEDDING, shared.HEAD
CLASSES, UNUSED_ENDS = shared.CLASSES, shared.UNUSED_ENDS
# See `hf_llama`.
TIED, LONGEST = False, 32768
NAMES = {"qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}


def read_config(config: Config, tensors: Mapping[str, TensorInfo], tied: bool) -> DecoderOnlyConfig:
    """The sizes and options of a config.json; the arguments are those of `hf_t5.read_config`."""
    is_third = config.model_type == "qwen3"
    if is_third:
        shared.refuse(config, "attention_bias")
    sizes = shared.read_sizes(config, tensors, 128 if is_third else None)
    theta, scaling = read_rope(config, 10000.0, LONGEST)
    window = _window(config)
    return DecoderOnlyConfig(
        **sizes,
        activation=config.one_of("hidden_act", shared.ACTIVATIONS, "silu"),
        logits_via_embedding=tied,
        rope_theta=theta,
        rope_scaling=scaling,
        sliding_window=window,
        layer_types=_layer_types(config, sizes["num_layers"], window),
        qkv_biases=not is_third,
        query_key_norms=is_third,
        decoder_start_id=shared.read_start(config, None, None),
    )


def _window(config: Config) -> int | None:
    """The window, which counts only where `use_sliding_window` says so."""
    stated = config.get("sliding_window", 4096) is not None
    return (
        config.count("sliding_window", 4096) if config.flag("use_sliding_window", False) and stated else None
    )


def _layer_types(config: Config, layers: int, window: int | None) -> tuple[str, ...] | None:
    """The kind of each layer: the first `max_window_layers` have no window where the file does not list them."""
    stated = config.words("layer_types")
    if stated is not None or window is None:
        return stated
    first = config.count("max_window_layers", 28, least=0)
    return tuple(shared.SLIDING if number >= first else shared.FULL for number in range(layers))


def config_json(config: DecoderOnlyConfig, model_type: str) -> dict[str, Any]:
    """The config.json of a Qwen that comes from no Hugging Face checkpoint."""
    types = shared.layer_types(config)
    return {
        **shared.base_json(config, model_type, NAMES[model_type]),
        "hidden_act": shared.activation_json(config),
        "use_sliding_window": config.sliding_window is not None,
        "sliding_window": config.sliding_window,
        # Older versions read this number, and newer ones the list.
        "max_window_layers": types.index(shared.SLIDING) if shared.SLIDING in types else config.num_layers,
        "layer_types": types,
    }


def table(config: DecoderOnlyConfig) -> list[Entry]:
    """Our parameters and those of transformers."""
    return shared.table(config)
