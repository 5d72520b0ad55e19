"""The parameters that a run takes from the checkpoint that it starts from: all, but for those that are to begin at random."""

import dataclasses
import difflib
import logging
import re
from collections.abc import Sequence
from typing import Any

import jax

from lmirl_jax.checkpoints import check_params, find_checkpoint, has_checkpoints, load_params
from lmirl_jax.models.trainable import frozen
from lmirl_jax.types import UserError

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Initial:
    """The checkpoint that a run starts from.

    Args:
        path: the checkpoint.
        new: regular expressions; the parameters whose path one of them matches as a whole are not taken from it.
    """

    path: str
    new: tuple[str, ...]

    def check(self, shapes: Any) -> None:
        """Compares the checkpoint with the shapes of a run's parameters, nested dicts; reads no array.

        Raises:
            UserError: the checkpoint has other parameters, or an expression matches none.
        """
        check_params(find_checkpoint(self.path), _given_part(shapes, self.new), self.new)

    def load(self, shapes: Any, shardings: Any) -> Any:
        """Loads the parameters that a run takes from the checkpoint, and warns of those that it does not take.

        Args:
            shapes: the shapes of the run's parameters, nested dicts.
            shardings: the sharding of each.

        Returns:
            Nested dicts: without the new ones, and with adapters those of the base alone.
        """
        names = sorted(name for name in _paths(shapes) if _is_new(name, self.new))
        if names and jax.process_index() == 0:
            _log.warning("begin at random, not from %s: %s", self.path, ", ".join(names))
        wanted, places = (_given_part(tree, self.new) for tree in (shapes, shardings))
        return load_params(find_checkpoint(self.path), wanted, places, self.new)


def initial_of(path: str | None, new: Sequence[str], model_dir: str, shapes: Any) -> Initial | None:
    """The checkpoint that a run starts from, compared with its parameters unless the run has a checkpoint of its own.

    Args:
        path, new: see `Initial`; without a path the run starts from random parameters.
        model_dir: the folder of the run.
        shapes: the shapes of its parameters, nested dicts.

    Raises:
        UserError: the checkpoint has other parameters, or an expression matches none, or there is no checkpoint for it.
    """
    if path is not None:
        initial = Initial(path, tuple(new))
        if not has_checkpoints(model_dir):
            initial.check(shapes)
        return initial
    if new:
        raise UserError(
            f"NEW_PARAMETERS={list(new)} goes with INITIAL_CHECKPOINT_PATH: without it all parameters begin at random"
        )
    return None


def _given_part(params: Any, new: Sequence[str]) -> Any:
    if not new:
        return frozen(params) or params
    if frozen(params):
        raise UserError(
            "NEW_PARAMETERS goes with training the whole model: adapters learn on a base that is whole"
        )
    names = list(_paths(params))
    for pattern in new:
        if not any(re.fullmatch(pattern, name) for name in names):
            near = difflib.get_close_matches(pattern, names, n=1, cutoff=0.0)
            raise UserError(f"NEW_PARAMETERS: {pattern!r} matches no parameter; the nearest is {near[0]!r}")
    return _without(params, new, "")


def _paths(params: Any) -> list[str]:
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return ["/".join(str(key.key) for key in path) for path, _ in leaves]


def _is_new(name: str, new: Sequence[str]) -> bool:
    return any(re.fullmatch(pattern, name) for pattern in new)


def _without(params: Any, new: Sequence[str], path: str) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, part in params.items():
        if isinstance(part, dict):
            inner = _without(part, new, f"{path}{name}/")
            kept |= {name: inner} if inner else {}
        elif not _is_new(path + name, new):
            kept[name] = part
    return kept
