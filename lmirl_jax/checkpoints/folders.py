"""Describes the folders of checkpoints: their kind, step and run, and whether they are finished."""

import re
from typing import Any, Literal

from etils import epath

from lmirl_jax import content_hashes, files, interop
from lmirl_jax.types import UserError

# The mark that Orbax leaves in what it has saved to the end.
COMMITTED = "commit_success.txt"

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
    """Whether a run has saved a checkpoint; it may be damaged since."""
    return isinstance(model_dir, str) and bool(
        finished_steps(files.absolute_path(model_dir) / "checkpoints")[0]
    )


def is_finished(checkpoint: epath.Path) -> bool:
    """Whether the folder holds a checkpoint of ours that was saved to its end; `manifest` tells whether it still is as it was.

    Its content hashes are written last. One that has lost them has Orbax's own mark, and the parameters.
    """
    if (checkpoint / content_hashes.NAME).is_file():
        return True
    return (checkpoint / COMMITTED).is_file() and _holds_params(checkpoint / "state" / "_METADATA")


def _holds_params(metadata: epath.Path) -> bool:
    """Whether a state is one of ours. T5X saves with Orbax too, and calls its parameters `target`."""
    return metadata.is_file() and b"'params'" in metadata.read_bytes()


def finished_steps(folder: epath.Path) -> tuple[list[epath.Path], list[epath.Path]]:
    """Lists the finished checkpoints of a folder, and the unfinished ones, each from the oldest to the newest."""
    steps = [child for child in folder.iterdir() if child.name.isdigit()] if folder.is_dir() else []
    steps.sort(key=step_of)
    finished = [step for step in steps if is_finished(step)]
    return finished, [step for step in steps if step not in finished]
