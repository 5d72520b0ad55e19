"""Checkpoints: finding, saving and loading them. No other room knows what the folder of one looks like.

A run keeps its checkpoints in MODEL_DIR/checkpoints/STEP. Each holds the items `state` (step, parameters, state of the
optimizer, and what the learner keeps beside them), `data` (JSON: the position in the data) and, where the run keeps its best
checkpoint, `best` (JSON: which one that was when this one was saved). Where a run trains adapters, `state` holds their
parameters alone, and `adapter` (JSON) says which checkpoint is their base. `content_hashes.json` beside them has the sizes and
the hashes of all files.
"""

from lmirl_jax.checkpoints.adapters import AdapterRecord, base_of, read_record, record_of_base
from lmirl_jax.checkpoints.find import find_checkpoint, locate, pinned, resumable_checkpoint
from lmirl_jax.checkpoints.folders import (
    finished_steps,
    has_checkpoints,
    kind_of,
    output_folder,
    run_folder,
    step_of,
)
from lmirl_jax.checkpoints.load import check_params, load_adapters, load_params
from lmirl_jax.checkpoints.manifest import problems, remedy
from lmirl_jax.checkpoints.metadata import identity, recorded_vocabularies
from lmirl_jax.checkpoints.save import CheckpointConfig, Checkpoints

__all__ = [
    "AdapterRecord",
    "CheckpointConfig",
    "Checkpoints",
    "base_of",
    "check_params",
    "find_checkpoint",
    "finished_steps",
    "has_checkpoints",
    "identity",
    "kind_of",
    "load_adapters",
    "load_params",
    "locate",
    "output_folder",
    "pinned",
    "problems",
    "read_record",
    "record_of_base",
    "recorded_vocabularies",
    "remedy",
    "resumable_checkpoint",
    "run_folder",
    "step_of",
]
