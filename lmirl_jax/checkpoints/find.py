"""Finds the checkpoint that a path stands for."""

import logging

from etils import epath

from lmirl_jax import files
from lmirl_jax.checkpoints.folders import finished_steps, kind_of, run_folder
from lmirl_jax.checkpoints.metadata import best_step
from lmirl_jax.types import UserError

_log = logging.getLogger(__name__)


def find_checkpoint(path: str) -> epath.Path:
    """Returns the folder of one checkpoint.

    Args:
        path: that folder, or a run's MODEL_DIR, which stands for its newest checkpoint, or MODEL_DIR/checkpoints/best.

    Raises:
        UserError: no finished checkpoint is there.
    """
    given = files.absolute_path(path)
    if kind_of(given) is not None:
        return given
    if given.parent.name == "checkpoints" and given.name.isdigit() and given.is_dir():
        raise UserError(
            f"the checkpoint {given} is not finished: name another, or {run_folder(given)} for the newest that is"
        )
    if given.name == "best" and given.parent.name == "checkpoints":
        return _best_checkpoint(given)
    steps = given / "checkpoints" if (given / "checkpoints").is_dir() else given
    finished, unfinished = finished_steps(steps)
    if unfinished:
        names = ", ".join(step.name for step in unfinished)
        others = f"{finished[-1].name} is the newest that is" if finished else "there is no other"
        _log.warning("unfinished checkpoints in %s: %s; %s", steps, names, others)
    if not finished:
        raise UserError(
            f"no checkpoint at {given}: name a run's MODEL_DIR, or one of its checkpoints/STEP folders"
            + ("" if given.exists() else " (the folder does not exist)")
        )
    return finished[-1]


def _best_checkpoint(given: epath.Path) -> epath.Path:
    """The best checkpoint of a run, whose step the newest checkpoint records."""
    newest = find_checkpoint(str(given.parent))
    step = best_step(newest)
    if step is None:
        raise UserError(f"no best checkpoint at {given}: the run kept none (BEST_METRIC); name {newest}")
    return given.parent / str(step)
