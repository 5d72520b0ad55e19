"""The config.json of Llama, SmolLM2 and what else calls itself 'llama'."""

from collections.abc import Mapping
from typing import Any

from lmirl_jax.interop import hf_decoder_only as shared
from lmirl_jax.interop.hf_config import Config
from lmirl_jax.interop.hf_rope import read_rope
from lmirl_jax.interop.name_table import Entry, TensorInfo
from lmirl_jax.models import DecoderOnlyConfig

EMBEDDING, HEAD = shared.EMBEDDING, shared.HEAD
CLASSES, UNUSED_ENDS = shared.CLASSES, shared.UNUSED_ENDS
# Whether the output layer is the embedding where config.json does not say, and how many positions there are.
TIED, LONGEST = False, 2048


def read_config(config: Config, tensors: Mapping[str, TensorInfo], tied: bool) -> DecoderOnlyConfig:
    """The sizes and options of a config.json; the arguments are those of `hf_t5.read_config`."""
    shared.refuse(config, "attention_bias", "mlp_bias")
    theta, scaling = read_rope(config, 10000.0, LONGEST)
    return DecoderOnlyConfig(
        **shared.read_sizes(config, tensors),
        activation=config.one_of("hidden_act", shared.ACTIVATIONS, "silu"),
        logits_via_embedding=tied,
        rope_theta=theta,
        rope_scaling=scaling,
        decoder_start_id=shared.read_start(config, 1, 2),
    )


def config_json(config: DecoderOnlyConfig, model_type: str) -> dict[str, Any]:
    """The config.json of a Llama that comes from no Hugging Face checkpoint."""
    return {
        **shared.base_json(config, model_type, "LlamaForCausalLM"),
        "hidden_act": shared.activation_json(config),
        "attention_bias": False,
        "mlp_bias": False,
    }


def table(config: DecoderOnlyConfig) -> list[Entry]:
    """Our parameters and those of transformers."""
    return shared.table(config)
