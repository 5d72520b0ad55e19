"""A run's checkpoint, ready to be read: what its own config.gin says of it, whatever is configured at the moment."""

import dataclasses
import importlib
import logging
import os
from collections.abc import Mapping
from typing import Any

from etils import epath
from flax import nnx
from jax.sharding import Mesh

from lmirl_jax import configuration, sharding
from lmirl_jax.arguments import Path, checked
from lmirl_jax.training import checkpoint_folders, checkpoints
from lmirl_jax.types import Task, UserError

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Run:
    """A policy, and what it was trained on.

    Args:
        checkpoint: its folder.
        graph: the network without its arrays.
        params: its parameters, on the mesh.
        mesh: the devices.
        task: a `data.Task`, for its vocabulary, splits and metrics.
        lengths: tokens of `inputs` and `targets` at most.
        discount: gamma.
    """

    checkpoint: epath.Path
    graph: nnx.GraphDef
    params: Any
    mesh: Mesh
    task: Any
    lengths: Mapping[str, int]
    discount: float

    def __str__(self) -> str:
        return str(self.checkpoint)


@checked
def load(path: Path | os.PathLike[str], mesh: Mesh | None = None, task: Task | None = None) -> Run:
    """Loads a run's checkpoint with the model, the vocabulary and the lengths of its own config.gin.

    Args:
        path: the run's MODEL_DIR (then its newest checkpoint), one of its checkpoints/STEP, or checkpoints/best.
        mesh: the devices; None: all, a copy of the parameters on each.
        task: where given, one whose vocabularies the run's own must equal.

    Returns:
        The run.

    Raises:
        UserError: no checkpoint, no config.gin beside it, one that does not fit the checkpoint, or other vocabularies.
    """
    checkpoint = checkpoints.find_checkpoint(os.fspath(path))
    # Before the configuration imports modules of the user's: these load SeqIO and TensorFlow as the data room says.
    importlib.import_module("lmirl_jax.data")
    with configuration.put_aside():
        configuration.load([str(config_file(checkpoint))])
        own, model = configuration.macro("TASK"), configuration.macro("MODEL")
        lengths = dict(configuration.macro("TASK_FEATURE_LENGTHS"))
        discount = float(configuration.macro("DISCOUNT"))
    recorded = checkpoint_folders.recorded_vocabularies(checkpoint)
    if recorded is not None:  # Else its own configuration is all that is known.
        _check_equal(
            checkpoint, "", recorded, own, "give its config.gin the VOCABULARY_PATH that it was trained with"
        )
    if task is not None:
        trained = own.vocabulary_fingerprints
        _check_equal(
            checkpoint, f"on task {own.name} ", trained, task, "name a run with the same VOCABULARY_PATH"
        )
    mesh = sharding.make_mesh() if mesh is None else mesh
    graph, params = checkpoints.load_policy(checkpoint, model, mesh)
    return Run(checkpoint, graph, params, mesh, own, lengths, discount)


@checked
def load_if_any(
    path: Path | os.PathLike[str] | None, mesh: Mesh | None = None, task: Task | None = None
) -> Run | None:
    """As `load`; None without a path."""
    return None if path is None else load(path, mesh, task)


def config_file(checkpoint: epath.Path) -> epath.Path:
    """The configuration that a run leaves beside its checkpoints/."""
    config = checkpoint.parent.parent / "config.gin"
    if not config.is_file():
        raise UserError(
            f"no {config}: a run writes it beside its checkpoints/; give the run's settings with --gin_file and "
            f"copy them there"
        )
    return config


def check_vocabularies(checkpoint: epath.Path, task: Any, remedy: str) -> None:
    """Compares the vocabularies of a task with those that a checkpoint was trained with.

    They are recorded in the checkpoint; where they are not, its run's config.gin tells them. Where that cannot be had
    either, a warning says so.

    Args:
        checkpoint: its folder.
        task: a `data.Task`.
        remedy: what the error tells the user to do.

    Raises:
        UserError: the vocabularies differ.
    """
    trained = checkpoint_folders.recorded_vocabularies(checkpoint)
    if trained is None:
        try:
            trained = _configured_task(checkpoint).vocabulary_fingerprints
        except UserError as error:
            _log.warning(
                "%s does not record its vocabulary, and its run's configuration cannot be read (%s): make sure that it was "
                "trained with the vocabulary of %s",
                checkpoint,
                error,
                task.name,
            )
            return
    _check_equal(checkpoint, "", trained, task, remedy)


def _configured_task(checkpoint: epath.Path) -> Any:
    with configuration.put_aside():
        configuration.load([str(config_file(checkpoint))])
        return configuration.macro("TASK")


def _check_equal(
    checkpoint: Any, trained_on: str, trained: Mapping[str, str], task: Any, remedy: str
) -> None:
    for feature, own in task.vocabulary_fingerprints.items():
        if trained[feature] != own:
            raise UserError(
                f"{checkpoint} was trained {trained_on}with another vocabulary than {task.name} has for its {feature}: {remedy}"
            )
