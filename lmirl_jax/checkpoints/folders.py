"""Describes the folders of checkpoints: their kind, step and run, and whether they are finished."""

import json
import logging
import re
from typing import Any, Literal

import jax
import orbax.checkpoint as ocp
from etils import epath

from lmirl_jax import files, interop
from lmirl_jax.types import UserError

_log = logging.getLogger(__name__)

Kind = Literal["lmirl", "hf", "t5x"]


def kind_of(path: epath.Path) -> Kind | None:
    """The kind of checkpoint at a path: one of a run of ours, Hugging Face's or T5X's; None where there is none to load."""
    return "lmirl" if is_finished(path) else interop.kind_of(path)


def step_of(checkpoint: epath.Path) -> int:
    """The number of updates after which a checkpoint was saved; T5X counts those of pretraining too, Hugging Face says none."""
    number = re.search(r"(?:^|checkpoint_)(\d+)$", checkpoint.name)
    return int(number[1]) if number else 0


def run_folder(checkpoint: epath.Path) -> epath.Path | None:
    """The MODEL_DIR of the run that saved a checkpoint; None for a checkpoint of another library."""
    return checkpoint.parent.parent if is_finished(checkpoint) else None


def output_folder(checkpoint: epath.Path, name: str, setting: str) -> epath.Path:
    """The folder in a run's MODEL_DIR for what a command writes about its checkpoint.

    Args:
        checkpoint: the folder of the checkpoint.
        name: the name of the folder, such as 'eval'.
        setting: the setting that names another place.

    Raises:
        UserError: the checkpoint belongs to no run.
    """
    run = run_folder(checkpoint)
    if run is None:
        raise UserError(
            f"{checkpoint} is in no run's folder: name the place of the output (--gin.{setting}=\"'...'\")"
        )
    return run / name


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
    return committed and whole and _holds_params(checkpoint / "state" / "_METADATA")


def _holds_params(metadata: epath.Path) -> bool:
    """Whether a state is one of ours. T5X saves with Orbax too, and calls its parameters `target`."""
    return metadata.is_file() and "'params'" in metadata.read_text(encoding="utf-8")


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
