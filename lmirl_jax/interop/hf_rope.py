"""The rotary positions of a config.json of Hugging Face: plain ones, and those stretched linearly or as in Llama 3."""

from collections.abc import Mapping
from typing import Any

from lmirl_jax.interop.hf_config import Config
from lmirl_jax.models import LinearRopeScaling, Llama3RopeScaling
from lmirl_jax.types import UserError

Scaling = Llama3RopeScaling | LinearRopeScaling | None
# Transformers 5 has all settings in `rope_parameters`; before, the base lay beside the sizes, and `rope_scaling` had the rest.
PARTS = ("rope_scaling", "rope_parameters")


def read_rope(config: Config, theta: float, longest: int) -> tuple[float, Scaling]:
    """The base of the wavelengths, and what changes them, of a model whose layers all have the same.

    Args:
        config: the file.
        theta: the base where the file states none.
        longest: the default of `max_position_embeddings`.
    """
    theta = config.number("rope_theta", theta)
    name = next((name for name in PARTS if config.get(name)), None)
    if name is None:
        return theta, None
    part = config.part(name)
    if any(isinstance(value, Mapping) for value in part.values.values()):
        raise UserError(f"{part.where}: other rotary positions for each kind of layer are not supported here")
    original = config.count(
        "original_max_position_embeddings", config.count("max_position_embeddings", longest)
    )
    return part.number("rope_theta", theta), read_scaling(part, original)


def read_scaling(part: Config, original_length: int) -> Scaling:
    """What changes the wavelengths.

    Args:
        part: the settings of the rotary positions.
        original_length: the length that the model was first trained with, where they do not state it.
    """
    kind = part.get("rope_type", part.get("type", "default"))
    if part.get("partial_rotary_factor", 1.0) not in (None, 1.0):
        raise UserError(
            f"{part.where}: partial_rotary_factor is not supported: all dimensions of a head are rotated"
        )
    if kind == "default":
        return None
    if kind == "linear":
        return LinearRopeScaling(part.number("factor"))
    if kind == "llama3":
        return Llama3RopeScaling(
            factor=part.number("factor"),
            low_freq_factor=part.number("low_freq_factor"),
            high_freq_factor=part.number("high_freq_factor"),
            original_length=part.count("original_max_position_embeddings", original_length),
        )
    raise UserError(
        f"{part.where}: rope_type={str(kind)[:60]!r} is not supported; those that are: default, linear, llama3"
    )


def scaling_json(scaling: Scaling) -> dict[str, Any] | None:
    """What `read_scaling` reads."""
    if scaling is None:
        return None
    if isinstance(scaling, LinearRopeScaling):
        return {"rope_type": "linear", "factor": scaling.factor}
    return {
        "rope_type": "llama3",
        "factor": scaling.factor,
        "low_freq_factor": scaling.low_freq_factor,
        "high_freq_factor": scaling.high_freq_factor,
        "original_max_position_embeddings": scaling.original_length,
    }
