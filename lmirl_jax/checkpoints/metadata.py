"""Reads the facts that a checkpoint records about itself, without its arrays."""

import orbax.checkpoint as ocp
from etils import epath

from lmirl_jax import files, interop
from lmirl_jax.checkpoints.folders import is_finished


def identity(checkpoint: epath.Path) -> str:
    """A digest that identifies a checkpoint in any folder, made from the time of saving that Orbax records.

    A run that is trained again in the same folder has other checkpoints under the same names. Of other libraries' checkpoints
    it is made from parts of the files.
    """
    if not is_finished(checkpoint):
        return interop.identity(checkpoint)
    note = checkpoint / "_CHECKPOINT_METADATA"
    return files.digest(note.read_text(encoding="utf-8"))


def recorded_vocabularies(checkpoint: epath.Path) -> dict[str, str] | None:
    """The fingerprint of each feature's vocabulary, as the data of the training gave it; None where none is recorded."""
    if not is_finished(checkpoint) or not (checkpoint / "data").is_dir():
        return None
    with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as checkpointer:
        position = checkpointer.restore(checkpoint / "data")
    return position.get("batches", {}).get("vocabularies")


def best_step(checkpoint: epath.Path) -> int | None:
    """The step of its run's best checkpoint when this one was saved; None where the run kept none."""
    if not (checkpoint / "best").is_dir():
        return None
    with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as checkpointer:
        return checkpointer.restore(checkpoint / "best")["step"]
