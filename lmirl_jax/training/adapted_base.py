"""The base of a run that trains adapters: where it lies, and its type."""

import dataclasses

from lmirl_jax.checkpoints import (
    AdapterRecord,
    has_checkpoints,
    read_record,
    record_of_base,
    resumable_checkpoint,
)
from lmirl_jax.models import LoRAConfig
from lmirl_jax.types import ModelConfig, UserError


def with_base(
    model: ModelConfig, model_dir: str, initial_checkpoint_path: str | None
) -> tuple[ModelConfig, AdapterRecord | None]:
    """The model with the type of its base, and what its checkpoints record of the base; None without adapters.

    Args:
        model: the recipe of the network.
        model_dir: the folder of the run; where it has a checkpoint, the base is the one that this records.
        initial_checkpoint_path: the base of a new run.

    Raises:
        UserError: there are adapters and no base, or `model_dir` is of a run that trains the whole model.
    """
    if not isinstance(model, LoRAConfig):
        return model, None
    if has_checkpoints(model_dir):
        newest = resumable_checkpoint(model_dir)
        before = read_record(newest)
        if before is None:
            raise UserError(
                f"{newest} is of a run that trains the whole model, not adapters: leave gin/adapters/lora.gin out, or set a new "
                "MODEL_DIR, with this one as INITIAL_CHECKPOINT_PATH"
            )
        dtype = model.base_dtype or before.base_dtype
        record = dataclasses.replace(before, base_dtype=dtype, rank=model.rank, alpha=model.alpha)
    elif initial_checkpoint_path is None:
        raise UserError(
            "adapters on a model of random parameters learn nothing of use: set INITIAL_CHECKPOINT_PATH, the base model, or "
            "leave gin/adapters/lora.gin out"
        )
    else:
        record = record_of_base(initial_checkpoint_path, model)
    return dataclasses.replace(model, base_dtype=record.base_dtype), record
