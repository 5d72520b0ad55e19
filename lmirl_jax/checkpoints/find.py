"""Finds the checkpoint that a path stands for."""

import logging
import os

from etils import epath

from lmirl_jax import files
from lmirl_jax.checkpoints.folders import finished_steps, is_finished, kind_of, step_of
from lmirl_jax.checkpoints.manifest import check_notes, damaged, note_problems
from lmirl_jax.checkpoints.metadata import best_step
from lmirl_jax.interop import hub
from lmirl_jax.types import UserError

_log = logging.getLogger(__name__)


def find_checkpoint(path: str) -> epath.Path:
    """Returns the folder of one checkpoint, of which one may read what it says of itself.

    Of a checkpoint of a run, the small files that say what it is are compared with their content hashes; `load_params` compares
    all others before it reads them.

    Args:
        path: that folder, or a run's MODEL_DIR, which stands for its newest checkpoint, or MODEL_DIR/checkpoints/best; or a
            Hugging Face folder; or a name on the hub, such as 'google/flan-t5-base' or 'google/flan-t5-base@REVISION', where
            no such folder is here; or a checkpoint of T5X, or T5X's MODEL_DIR, which stands for its newest.

    Raises:
        UserError: no finished checkpoint is there, or it is damaged.
    """
    checkpoint = locate(path)
    if kind_of(checkpoint) == "lmirl":
        check_notes(checkpoint)
    return checkpoint


def resumable_checkpoint(model_dir: str) -> epath.Path:
    """The newest checkpoint of a run that says what it is; the run goes on from this one, or from one before it.

    Raises:
        UserError: all are damaged.
    """
    finished = finished_steps(files.absolute_path(model_dir) / "checkpoints")[0]
    for step in reversed(finished):
        if not note_problems(step):
            return step
    raise damaged(finished[-1], note_problems(finished[-1]))


def locate(path: str) -> epath.Path:
    """Does what `find_checkpoint` does, whether the checkpoint is damaged or not."""
    given = files.absolute_path(path)
    if hub.is_name(path):
        return epath.Path(hub.snapshot(path).folder)
    if kind_of(given) is not None:
        return given
    if given.parent.name == "checkpoints" and given.name.isdigit() and given.is_dir():
        raise UserError(
            f"the checkpoint {given} is not finished: name another, or {given.parent.parent} for the newest that is"
        )
    if given.name == "best" and given.parent.name == "checkpoints":
        return _best_checkpoint(given)
    problem = _problem(given)
    if problem is not None:
        raise _nothing_at(given, f" ({problem})")
    steps = given / "checkpoints" if (given / "checkpoints").is_dir() else given
    finished, unfinished = finished_steps(steps)
    if unfinished:
        names = ", ".join(step.name for step in unfinished)
        others = f"{finished[-1].name} is the newest that is" if finished else "there is no other"
        _log.warning("unfinished checkpoints in %s: %s; %s", steps, names, others)
    if finished:
        return finished[-1]
    of_t5x = _t5x_checkpoints(given)
    if of_t5x:
        return of_t5x[-1]
    raise _nothing_at(given)


def pinned(path: str) -> str:
    """The path that finds the same checkpoint from any folder and at any time: absolute, or on the hub with its revision."""
    return hub.snapshot(path).name if hub.is_name(path) else str(files.absolute_path(path))


def _t5x_checkpoints(model_dir: epath.Path) -> list[epath.Path]:
    """The checkpoints in a MODEL_DIR of T5X, from the oldest to the newest."""
    children = model_dir.glob("checkpoint_*") if model_dir.is_dir() else []
    # While it saves, T5X adds .tmp-NUMBER to the name.
    whole = (child for child in children if child.name.removeprefix("checkpoint_").isdecimal())
    return sorted((child for child in whole if kind_of(child) == "t5x"), key=step_of)


def _problem(given: epath.Path) -> str | None:
    """What keeps a file or folder from being read; None for nothing."""
    missing = "the folder does not exist"
    if "://" in str(given):
        return None if given.exists() else missing
    try:
        if given.is_dir():
            os.scandir(given).close()
        else:
            os.stat(given)
    except FileNotFoundError:
        return missing
    except OSError as error:
        return error.strerror
    return None


def _nothing_at(given: epath.Path, problem: str = "") -> UserError:
    return UserError(
        f"no checkpoint at {given}: name a run's MODEL_DIR, one of its checkpoints/STEP folders, a Hugging Face folder (with "
        f"config.json), or a checkpoint of T5X{problem}"
    )


def _best_checkpoint(given: epath.Path) -> epath.Path:
    """The best checkpoint of a run, whose step the newest checkpoint records."""
    newest = find_checkpoint(str(given.parent))
    best = best_step(newest)
    if best is None:
        raise UserError(f"no best checkpoint at {given}: the run kept none (BEST_METRIC); name {newest}")
    checkpoint = given.parent / str(best)
    if not is_finished(checkpoint):
        raise UserError(
            f"the best checkpoint, {checkpoint}, is gone or not finished: name {newest}, the newest"
        )
    return checkpoint
