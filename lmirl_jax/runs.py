"""Loads the policy of a checkpoint as the config.gin of its run describes it; the current configuration has no influence."""

import dataclasses
import importlib
import logging
import os
from collections.abc import Mapping
from typing import Any

from etils import epath
from flax import nnx
from jax.sharding import Mesh

from lmirl_jax import checkpoints, configuration, configuration_pretrained, interop, run_files, sharding
from lmirl_jax.arguments import Path, check_arguments
from lmirl_jax.models.abstract import build, parameter_shapes
from lmirl_jax.types import ModelConfig, Task, UserError

_log = logging.getLogger(__name__)

# The maximum numbers of tokens for a checkpoint that states none.
LENGTHS: Mapping[str, int] = {"inputs": 512, "targets": 256}


@dataclasses.dataclass(frozen=True)
class Policy:
    """The policy of a checkpoint on a mesh, with the task, the lengths and the discount of its training.

    Args:
        checkpoint: the folder of the checkpoint.
        model: the recipe of the network.
        graph: the network without its arrays.
        params: the parameters, on the mesh.
        mesh: the devices.
        task: the `data.Task` of the training, for its vocabulary, splits and metrics.
        lengths: the maximum numbers of tokens of `inputs` and `targets`.
        discount: gamma.
    """

    checkpoint: epath.Path
    model: ModelConfig
    graph: nnx.GraphDef
    params: Any
    mesh: Mesh
    task: Any
    lengths: Mapping[str, int]
    discount: float

    def __str__(self) -> str:
        return str(self.checkpoint)


@check_arguments
def load(
    path: Path | os.PathLike[str],
    mesh: Mesh | None = None,
    task: Task | None = None,
    vocabulary_path: Path | None = None,
    chat: bool | None = None,
) -> Policy:
    """Loads the policy of a checkpoint with the model, the vocabulary and the lengths that come with it.

    Args:
        path: a run's MODEL_DIR, which stands for its newest checkpoint; or one of its checkpoints/STEP; or checkpoints/best; or
            a checkpoint of Hugging Face or T5X, as `checkpoints.find_checkpoint` finds it.
        mesh: the devices; None for all of them, with a copy of the parameters on each.
        task: a task whose vocabularies must equal those of the run; None for no such check.
        vocabulary_path: the vocabulary of a checkpoint that comes without one, such as those of T5X; see `data.vocabulary`.
        chat: whether prompts are written with the chat template of a checkpoint of another library; None where it has one, True
            where it must have one. For a run its config.gin decides.

    Returns:
        The policy, with the task, the lengths and the discount of its run. Those of a checkpoint of another library are its
        vocabulary's, without splits; its own lengths, or 512 and 256 tokens; and 1.

    Raises:
        UserError: there is no checkpoint or no config.gin beside it, config.gin does not fit the checkpoint, or the vocabularies
            differ.
    """
    checkpoint = checkpoints.find_checkpoint(os.fspath(path))
    mesh = sharding.make_mesh() if mesh is None else mesh
    if checkpoints.kind_of(checkpoint) != "lmirl":
        return _load_pretrained(checkpoint, mesh, task, vocabulary_path, chat)
    _check_no_vocabulary(checkpoint, vocabulary_path, chat)
    # lmirl_jax.data prepares the import of SeqIO and TensorFlow, so it comes before config.gin, which may import them.
    importlib.import_module("lmirl_jax.data")
    with configuration.restore_afterwards():
        configuration.load([run_files.config_of(checkpoint)])
        trained_task, model = configuration.macro("TASK"), configuration.macro("NETWORK")
        lengths = dict(configuration.macro("TASK_FEATURE_LENGTHS"))
        discount = float(configuration.macro("DISCOUNT"))
    recorded = checkpoints.recorded_vocabularies(checkpoint)
    # Old checkpoints do not record their vocabulary: then config.gin alone names it.
    if recorded is not None:
        _check_equal(
            checkpoint,
            "",
            recorded,
            trained_task,
            "give its config.gin the VOCABULARY_PATH that it was trained with",
        )
    if task is not None:
        trained = trained_task.vocabulary_fingerprints
        _check_equal(
            checkpoint,
            f"on task {trained_task.name} ",
            trained,
            task,
            "name a run with the same VOCABULARY_PATH",
        )
    return load_policy(checkpoint, model, mesh, trained_task, lengths, discount)


def _check_no_vocabulary(checkpoint: epath.Path, vocabulary_path: str | None, chat: bool | None) -> None:
    """Raises a UserError for settings of a vocabulary that a run has already."""
    if chat is not None:
        raise UserError(
            f"chat={chat}: {checkpoint} is of a run, whose config.gin says whether it is a chat model: leave it out"
        )
    if vocabulary_path is not None:
        raise UserError(
            f"vocabulary_path: {checkpoint} is of a run, whose config.gin names its vocabulary: leave it out"
        )


def _load_pretrained(
    checkpoint: epath.Path, mesh: Mesh, task: Any, vocabulary_path: str | None, chat: bool | None
) -> Policy:
    """Loads a checkpoint of another library, with its own vocabulary, or else that of a task or at a path."""
    from lmirl_jax.data import MissingVocabulary, vocabulary, vocabulary_task

    pretrained = interop.open_pretrained(checkpoint)
    path = vocabulary_path or run_files.own_vocabulary(checkpoint)
    if path is not None or pretrained.model.vocab_size == configuration_pretrained.BYTE_ROWS:
        own = vocabulary_task(vocabulary(path, chat))
    elif task is not None:
        own = task
    elif chat:
        raise UserError(
            f"chat=True: {checkpoint} has no tokenizer: set vocabulary_path to a folder with the chat model's"
        )
    else:
        own = vocabulary_task(MissingVocabulary(str(checkpoint), pretrained.model.vocab_size))
    _check_size(checkpoint, own.output_vocabulary, pretrained.model)
    if task is not None:
        _check_equal(
            checkpoint, "", own.vocabulary_fingerprints, task, "name a checkpoint with the same vocabulary"
        )
    lengths = pretrained.lengths or LENGTHS
    return load_policy(checkpoint, pretrained.model, mesh, own, lengths, 1.0)


def _check_size(checkpoint: epath.Path, vocabulary: Any, model: ModelConfig) -> None:
    """Raises a UserError where some token of a vocabulary has no embedding."""
    if vocabulary.vocab_size > model.vocab_size:
        raise UserError(
            f"the vocabulary of {checkpoint} has {vocabulary.vocab_size} words and its embedding {model.vocab_size} rows: the "
            "tokenizer is another model's; name the right one, or copy the checkpoint again"
        )


@check_arguments
def load_if_any(
    path: Path | os.PathLike[str] | None, mesh: Mesh | None = None, task: Task | None = None
) -> Policy | None:
    """Does what `load` does; returns None where there is no path."""
    return None if path is None else load(path, mesh, task)


def load_policy(
    checkpoint: epath.Path,
    model: ModelConfig,
    mesh: Mesh,
    task: Task,
    lengths: Mapping[str, int],
    discount: float,
) -> Policy:
    """Loads the policy of a checkpoint with a given model and task, without reading a config.gin.

    Args:
        checkpoint: the folder of the checkpoint, as `checkpoints.find_checkpoint` returns it.
        model: the recipe of the network.
        mesh: the devices; they may be others than in training.
        task: the task of the training.
        lengths: the maximum numbers of tokens of `inputs` and `targets`.
        discount: gamma.

    Returns:
        The policy.
    """
    graph, params = load_network(checkpoint, model, mesh)
    return Policy(checkpoint, model, graph, params, mesh, task, lengths, float(discount))


def load_network(checkpoint: epath.Path, model: ModelConfig, mesh: Mesh) -> tuple[nnx.GraphDef, Any]:
    """Loads the network of a checkpoint as the two arguments of `nnx.merge`: its graph, and its parameters on the mesh."""
    graph, variables = build(model)
    return graph, checkpoints.load_params(
        checkpoint, parameter_shapes(model), sharding.parameter_shardings(mesh, variables)
    )


def check_vocabularies(checkpoint: epath.Path, task: Any, remedy: str) -> None:
    """Compares the vocabularies of a task with those that a checkpoint was trained with.

    Where the checkpoint does not record its vocabularies, they come from the config.gin of its run. Where that cannot be read
    either, a warning says so.

    Args:
        checkpoint: the folder of the checkpoint.
        task: the `data.Task` to compare.
        remedy: what the error tells the user to do.

    Raises:
        UserError: the vocabularies differ.
    """
    if checkpoints.kind_of(checkpoint) != "lmirl":
        # It comes with a tokenizer at most, and the user may well set another form of it.
        return
    trained = checkpoints.recorded_vocabularies(checkpoint)
    if trained is None:
        try:
            trained = _read_task(checkpoint).vocabulary_fingerprints
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


def _read_task(checkpoint: epath.Path) -> Any:
    """The task that the config.gin of a checkpoint's run sets."""
    with configuration.restore_afterwards():
        configuration.load([run_files.config_of(checkpoint)])
        return configuration.macro("TASK")


def _check_equal(
    checkpoint: Any, trained_on: str, trained: Mapping[str, str], task: Any, remedy: str
) -> None:
    for feature, fingerprint in task.vocabulary_fingerprints.items():
        if trained[feature] != fingerprint:
            raise UserError(
                f"{checkpoint} was trained {trained_on}with another vocabulary than {task.name} has for its {feature}: {remedy}"
            )
