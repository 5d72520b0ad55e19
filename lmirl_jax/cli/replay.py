"""What `lmirl doctor --replay=FILE` says: the loss and the gradient norm of a batch that a run saved, and of each of its rows."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import nnx

from lmirl_jax import checkpoints, configuration, files, runs, sharding
from lmirl_jax.models import LoRAConfig
from lmirl_jax.models.trainable import trainable
from lmirl_jax.training import Offline, Setting, TrainState, Updates
from lmirl_jax.training.initial_parameters import Initial
from lmirl_jax.training.parameter_axes import for_model
from lmirl_jax.training.state import init_state
from lmirl_jax.training.suspect_batch import FOLDER, read_batch, step_of_batch
from lmirl_jax.types import Batch, UserError


def replay(path: str) -> tuple[list[tuple[str, str]], list[str]]:
    """Computes an update of the configured run again, and changes nothing.

    The parameters are those of its newest checkpoint from before the update; without one, those that the run starts from.

    Args:
        path: the arrays of a batch, MODEL_DIR/nonfinite/step-STEP.npz.

    Returns:
        The rows of a table, and a line about the rows of the batch whose loss or gradient is not finite, if there are any.
    """
    step, batch = step_of_batch(path), read_batch(path)
    mesh, count = configuration.macro("MESH"), len(batch.tokens)
    setting = Setting(
        configuration.macro("NETWORK"),
        configuration.macro("OPTIMIZER"),
        mesh,
        jax.random.key(configuration.macro("RANDOM_SEED", 0)),
        count,
        has_rewards=batch.rewards is not None,
        has_labels=batch.labels is not None,
        packed=bool(np.max(batch.segment_ids, initial=0) > 1),
    )
    if isinstance(setting.model, LoRAConfig):
        raise UserError(
            f"--replay={path}: updates of adapters cannot be replayed; read its JSONL file instead"
        )
    learner = configuration.macro("LEARNER")
    if not isinstance(learner, Offline):
        raise UserError(
            f"--replay={path}: updates of {type(learner).__name__} depend on more than the parameters and cannot be replayed; "
            "read its JSONL file instead"
        )
    updates = learner.start(setting)
    with sharding.use(mesh):
        state, origin = _state(setting, updates, _checkpoint_before(path, step), step)
        measure = _measure(setting, updates, state)
        rows = [("parameters", origin), ("the whole batch", _describe(*measure(batch)))]
        faulty = []
        for row in range(count):
            loss, norm = measure(_only(batch, row))
            rows.append((f"row {row}", _describe(loss, norm)))
            if not np.isfinite([loss, norm]).all():
                faulty.append(str(row))
    if not faulty:
        return rows, []
    texts = f"{path.removesuffix('.npz')}.jsonl"
    return rows, [
        f"not finite by themselves: {len(faulty)} of {count} rows, {', '.join(faulty)}; texts: {texts}"
    ]


def config_of(path: str) -> str:
    """The config.gin of the run that saved a batch."""
    folder = _folder_of_run(path)
    if not (folder / "config.gin").is_file():
        raise UserError(
            f"--replay={path}: no config.gin in {folder}, where `lmirl train` would have written it"
        )
    return str(folder / "config.gin")


def _folder_of_run(path: str) -> epath.Path:
    folder = files.absolute_path(path).parent
    if folder.name != FOLDER:
        raise UserError(f"--replay={path} does not lie in MODEL_DIR/{FOLDER}, where its run saved it")
    return folder.parent


def _describe(loss: float, norm: float) -> str:
    return f"loss {loss:.6g}, gradient norm {norm:.6g}"


def _measure(setting: Setting, updates: Updates, state: TrainState) -> Callable[[Batch], tuple[float, float]]:
    """The loss and the gradient norm of a batch; as a part of another function, the update does not reuse the state's memory."""
    # What is compiled by itself has options of its own, which a part of another function cannot have.
    step: Any = inspect.unwrap(updates.step)
    update = jax.jit(lambda state, batch: step(state, batch)[1])

    def measure(batch: Batch) -> tuple[float, float]:
        metrics = update(state, sharding.to_global(setting.mesh, batch, setting.batch_size))
        return float(metrics["loss"]), float(metrics["gradient_norm"])

    return measure


def _only(batch: Batch, row: int) -> Batch:
    """The batch with one row in its place, and padding in the others: a weight of 0 would not take a NaN away."""
    is_row = np.arange(len(batch.tokens)) == row
    return jax.tree.map(lambda x: np.where(is_row[:, None], x, np.zeros_like(x)), batch)


def _checkpoint_before(path: str, step: int) -> epath.Path | None:
    """The newest checkpoint of the batch's run from before the step; None where there is none."""
    steps = _folder_of_run(path) / "checkpoints"
    finished = checkpoints.finished_steps(steps)[0] if steps.is_dir() else []
    before = [checkpoint for checkpoint in finished if checkpoints.step_of(checkpoint) < step]
    return before[-1] if before else None


def _state(
    setting: Setting, updates: Updates, checkpoint: epath.Path | None, step: int
) -> tuple[TrainState, str]:
    """The state before the update, but for the optimizer's, which neither loss nor gradient depend on; and its origin."""
    number = jnp.asarray(step - 1, jnp.int32)
    if checkpoint is None:
        path = configuration.macro("INITIAL_CHECKPOINT_PATH", None)
        new = tuple(configuration.macro("NEW_PARAMETERS", ()))
        params = path and Initial(path, new).load(updates.shapes.params, updates.shardings.params)
        state = init_state(updates.shardings, setting.model, setting.optimizer, setting.key, params)
        return dataclasses.replace(state, step=number), path or "the initial ones of the run"
    graph, params = runs.load_network(checkpoint, setting.model, setting.mesh)
    optimizer: Any = for_model(setting.optimizer, nnx.state(nnx.merge(graph, params)))
    opt_state = jax.jit(lambda params: optimizer.init(trainable(params)))(params)
    ago = step - 1 - checkpoints.step_of(checkpoint)
    return TrainState(number, params, opt_state), f"{checkpoint}, {ago} updates before"
