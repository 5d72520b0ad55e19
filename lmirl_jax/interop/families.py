"""Which formats a network has: its name tables, and Hugging Face's name of its family."""

import json
import pathlib

from lmirl_jax.interop import hf_t5, t5x_names
from lmirl_jax.interop.decoder_only_types import check_type, decoder_only_type
from lmirl_jax.interop.name_table import Entry
from lmirl_jax.interop.pretrained import FAMILIES
from lmirl_jax.models import DecoderOnlyConfig, T5Config, T5GemmaConfig
from lmirl_jax.types import ModelConfig, UserError

# T5X's gated feed-forward block.
GATED = ("gelu", "linear")


def model_type_of(model: ModelConfig, template: pathlib.Path | None = None) -> str:
    """Hugging Face's name of a network's family.

    Args:
        model: the recipe of the network.
        template: the folder of the Hugging Face checkpoint that it came from, whose config.json then says it.

    Raises:
        UserError: transformers has no such network.
    """
    if template is not None:
        model_type = str(json.loads((template / "config.json").read_text(encoding="utf-8"))["model_type"])
        if isinstance(model, DecoderOnlyConfig):
            check_type(model, model_type)
        return model_type
    if isinstance(model, DecoderOnlyConfig):
        return decoder_only_type(model)
    if isinstance(model, T5GemmaConfig):
        return "t5gemma"
    if not isinstance(model, T5Config):
        raise UserError(f"a {type(model).__name__} has no form in transformers that this library writes")
    if model.mlp_activations not in hf_t5.ACTIVATIONS.values():
        raise UserError(f"transformers has no T5 with mlp_activations={model.mlp_activations}")
    return "umt5" if model.relpos_per_layer else "t5"


def hf_table(model: ModelConfig, model_type: str) -> list[Entry]:
    """The name table of a family in transformers."""
    return FAMILIES[model_type].table(model)


def t5x_table(model: ModelConfig) -> list[Entry]:
    """T5X's name table, with unscanned layers.

    Raises:
        UserError: T5X has no such network.
    """
    if not isinstance(model, T5Config) or model.relpos_per_layer:
        raise UserError(
            "FORMAT='t5x': T5X's own T5 is T5 1.0, T5 1.1, mT5 or ByT5; write this family with FORMAT='hf'"
        )
    scaled = model.network.logits_scale != 1.0
    fixed = {
        "scale_logits": (scaled, model.logits_via_embedding),
        "relpos_buckets": (model.relpos_buckets, 32),
        "relpos_max_distance": (model.relpos_max_distance, 128),
        "norm_epsilon": (model.norm_epsilon, 1e-6),
        "mlp_activations": (model.mlp_activations, ("relu",) if model.mlp_activations[1:] == () else GATED),
    }
    for name, (ours, theirs) in fixed.items():
        if ours != theirs:
            raise UserError(
                f"FORMAT='t5x': T5X's network has {name}={theirs} and this one {ours}, so T5X would compute other numbers: write "
                "it with FORMAT='hf'"
            )
    return t5x_names.table(model, scanned=False)
