"""Describes the folders of checkpoints: their kind, step and run, and whether they are finished."""

import json
import logging
from typing import Any, Literal

import jax
import orbax.checkpoint as ocp
from etils import epath

from lmirl_jax import files

_log = logging.getLogger(__name__)

Kind = Literal["lmirl"]


def kind_of(folder: epath.Path) -> Kind | None:
    """Returns the kind of checkpoint that a folder holds; None where it holds no checkpoint that can be loaded.

    Every path from a user passes here, so that checkpoints of other libraries (Hugging Face, T5X) would be recognised here.
    """
    return "lmirl" if is_finished(folder) else None


def step_of(checkpoint: epath.Path) -> int:
    """The number of updates after which a checkpoint was saved."""
    return int(checkpoint.name)


def run_folder(checkpoint: epath.Path) -> epath.Path:
    """The MODEL_DIR of the run that saved a checkpoint."""
    return checkpoint.parent.parent


def has_checkpoints(model_dir: Any) -> bool:
    """Whether a run has saved a finished checkpoint, from which it continues."""
    return isinstance(model_dir, str) and bool(
        finished_steps(files.absolute_path(model_dir) / "checkpoints")[0]
    )


def is_finished(checkpoint: epath.Path) -> bool:
    """Whether the folder holds a committed checkpoint with all its items. An interrupted copy may hold fewer."""
    try:
        note = json.loads((checkpoint / "_CHECKPOINT_METADATA").read_text(encoding="utf-8"))
        items, committed = list(note["item_handlers"]), note["commit_timestamp_nsecs"] is not None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False
    whole = all((checkpoint / item).is_dir() for item in items)
    return committed and whole and (checkpoint / "state" / "_METADATA").is_file()


def finished_steps(folder: epath.Path) -> tuple[list[epath.Path], list[epath.Path]]:
    """Lists the finished checkpoints of a folder, and the unfinished ones, each from the oldest to the newest."""
    steps = [child for child in folder.iterdir() if child.name.isdigit()] if folder.is_dir() else []
    steps.sort(key=step_of)
    finished = [step for step in steps if is_finished(step)]
    return finished, [step for step in steps if step not in finished]


def put_unfinished_aside(folder: epath.Path) -> None:
    """Renames the unfinished checkpoints of a run that is about to save: it may reach their steps again."""
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
