"""A run's checkpoint, ready to be read: what its own config.gin says of it, whatever is configured at the moment."""

import dataclasses
import importlib
import os
from collections.abc import Mapping
from typing import Any

from etils import epath
from flax import nnx
from jax.sharding import Mesh

from lmirl_jax import configuration, sharding
from lmirl_jax.arguments import Path, checked
from lmirl_jax.training import checkpoints
from lmirl_jax.types import Task, UserError


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
    # Before the configuration imports tasks, as theirs would greet.
    importlib.import_module("lmirl_jax.data.seqio_library")
    with configuration.put_aside():
        configuration.load([str(config_file(checkpoint))])
        own, model = configuration.macro("TASK"), configuration.macro("MODEL")
        lengths = dict(configuration.macro("TASK_FEATURE_LENGTHS"))
        discount = float(configuration.macro("DISCOUNT"))
    if task is not None:
        _check_vocabularies(checkpoint, own, task)
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


def _check_vocabularies(checkpoint: epath.Path, own: Any, other: Any) -> None:
    from lmirl_jax.data import vocabulary_fingerprint

    for name in ("input_vocabulary", "output_vocabulary"):
        ours, theirs = getattr(own, name), getattr(other, name)
        if vocabulary_fingerprint(ours) != vocabulary_fingerprint(theirs):
            raise UserError(
                f"{checkpoint} was trained on task {own.name} with another vocabulary than {other.name} has "
                f"({ours.vocab_size} and {theirs.vocab_size} words): name a run with the same VOCABULARY_PATH"
            )
