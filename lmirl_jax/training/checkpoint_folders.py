"""The folders of a run's checkpoints: which are finished, and what one says of itself without its arrays."""

import json
import logging
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from lmirl_jax import files

_log = logging.getLogger(__name__)


def has_checkpoints(model_dir: Any) -> bool:
    """Whether a run goes on from one of its own checkpoints, and needs no other to start from."""
    return isinstance(model_dir, str) and bool(finished_steps(files.absolute(model_dir) / "checkpoints")[0])


def is_finished(checkpoint: epath.Path) -> bool:
    """Whether the folder holds a committed checkpoint with all its items: a copy that was cut off may hold less."""
    try:
        note = json.loads((checkpoint / "_CHECKPOINT_METADATA").read_text(encoding="utf-8"))
        items, committed = list(note["item_handlers"]), note["commit_timestamp_nsecs"] is not None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False
    whole = all((checkpoint / item).is_dir() for item in items)
    return committed and whole and (checkpoint / "state" / "_METADATA").is_file()


def finished_steps(folder: epath.Path) -> tuple[list[epath.Path], list[epath.Path]]:
    """The checkpoints of a folder that are finished, and those that are not, each from the oldest to the newest."""
    steps = [child for child in folder.iterdir() if child.name.isdigit()] if folder.is_dir() else []
    steps.sort(key=lambda child: int(child.name))
    finished = [step for step in steps if is_finished(step)]
    return finished, [step for step in steps if step not in finished]


def put_unfinished_aside(folder: epath.Path) -> None:
    """Renames unfinished checkpoints of a run that is about to write its own: their steps may come again."""
    if jax.process_index() == 0:
        for step in finished_steps(folder)[1]:
            aside = folder / f"unfinished-{step.name}"
            if aside.exists():
                aside.rmtree()
            step.rename(aside)
            _log.warning(
                "the checkpoint %s is not finished: it is renamed to %s and not used", step, aside.name
            )
    ocp.multihost.sync_global_processes("put_unfinished_aside")


def recorded_vocabularies(path: epath.Path) -> dict[str, str] | None:
    """The fingerprint of each feature's vocabulary, as the data of the training gave it; None where none is recorded.

    Args:
        path: of one checkpoint, as `find_checkpoint` gives it.
    """
    if not (path / "data").is_dir():
        return None
    with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as checkpointer:
        position = checkpointer.restore(path / "data")
    return position.get("batches", {}).get("vocabularies")
