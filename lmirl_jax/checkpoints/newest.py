"""Finds the newest whole checkpoint of a run that is about to go on, and renames those after it."""

import logging

import jax
import orbax.checkpoint as ocp
from etils import epath

from lmirl_jax import content_hashes
from lmirl_jax.checkpoints.folders import is_finished, step_of
from lmirl_jax.checkpoints.manifest import problems
from lmirl_jax.types import UserError

_log = logging.getLogger(__name__)

ASIDE = ("unfinished-", "damaged-")


def keep_newest_whole(folder: epath.Path) -> int | None:
    """Renames the damaged and unfinished checkpoints after the newest whole one, because the run may reach their steps again.

    Every process must call it.

    Args:
        folder: the checkpoints of the run.

    Returns:
        The step of the newest whole checkpoint; None where the run has saved none.

    Raises:
        UserError: there are checkpoints, and none is whole; nothing is renamed then.
    """
    children = list(folder.iterdir()) if folder.is_dir() else []
    steps = sorted((child for child in children if child.name.isdigit()), key=step_of)
    aside: list[tuple[epath.Path, str, str]] = []
    newest = None
    for step in reversed(steps):
        if not is_finished(step):
            aside.append((step, ASIDE[0], "is not finished"))
            continue
        found = problems(step)
        if not found:
            newest = step
            break
        aside.append((step, ASIDE[1], f"is damaged ({content_hashes.describe(found)})"))
    if newest is None and _has_ruins(children, aside):
        what = f"{aside[0][0]} {aside[0][2]}" if aside else "all are set aside as damaged"
        raise UserError(
            f"no checkpoint in {folder} is whole: {what}; nothing is trained over them: copy a whole one there, or set a new "
            f"MODEL_DIR, or delete {folder} to start anew"
        )
    _rename(aside, newest)
    return None if newest is None else step_of(newest)


def _has_ruins(children: list[epath.Path], aside: list[tuple[epath.Path, str, str]]) -> bool:
    """Whether there was a checkpoint. In a bucket, a first save that was interrupted leaves a folder that is not finished."""
    damaged = any(child.name.startswith(ASIDE[1]) for child in children)
    unfinished = any("://" not in str(step) for step, prefix, _ in aside if prefix == ASIDE[0])
    return damaged or unfinished or any(prefix == ASIDE[1] for _, prefix, _ in aside)


def _rename(aside: list[tuple[epath.Path, str, str]], newest: epath.Path | None) -> None:
    if jax.process_index() == 0:
        for step, prefix, why in aside:
            target = step.with_name(prefix + step.name)
            if target.exists():
                target.rmtree()
            step.rename(target)
            where = "training starts anew" if newest is None else f"training goes on from {newest.name}"
            _log.warning("the checkpoint %s %s: it is renamed to %s, and %s", step, why, target.name, where)
    ocp.multihost.sync_global_processes("keep_newest_whole")
