"""The trainer, which connects model, learner, optimizer and data through their protocols."""

import contextlib
import dataclasses
import functools
import logging
from collections.abc import Callable, Sequence
from typing import Annotated

import jax
import optax
from etils import epath
from jax.sharding import Mesh

from lmirl_jax import files, locks, sharding
from lmirl_jax.argument_rules import GivenByCaller
from lmirl_jax.arguments import Count, Path, Patterns, Seed, Steps, Text, check_arguments
from lmirl_jax.checkpoints import (
    CheckpointConfig,
    Checkpoints,
)
from lmirl_jax.training.adapted_base import with_base
from lmirl_jax.training.best import Best, BestConfig
from lmirl_jax.training.evaluations import Evaluation, check_evaluations
from lmirl_jax.training.fault_config import FaultConfig
from lmirl_jax.training.guard import Guard, LossSpike
from lmirl_jax.training.initial_parameters import Initial, initial_of
from lmirl_jax.training.learner import Learner, Setting
from lmirl_jax.training.loop import Run, run_steps
from lmirl_jax.training.metric_writers import check_wandb, open_writers
from lmirl_jax.training.model_info import write_model_info
from lmirl_jax.training.rollbacks import leave_out_recorded, record_rollback
from lmirl_jax.training.state import TrainState, init_state
from lmirl_jax.types import ModelConfig, TrainData, UserError

_log = logging.getLogger(__name__)


@check_arguments
def train(
    *,
    model_dir: Path,
    train_steps: Count,
    model: ModelConfig,
    learner: Learner,
    optimizer: optax.GradientTransformation,
    data: TrainData,
    mesh: Mesh,
    evaluations: Sequence[Evaluation] = (),
    eval_period: Count = 1000,
    best: BestConfig = BestConfig(),
    checkpoint: CheckpointConfig = CheckpointConfig(),
    initial_checkpoint_path: Path | None = None,
    new_parameters: Patterns = (),
    microbatches: Count = 1,
    offload_optimizer: bool = False,
    seed: Seed = 0,
    log_period: Count = 1,
    profile_steps: Steps = (),
    tensorboard: bool = True,
    wandb_project: Text | None = None,
    faults: FaultConfig = FaultConfig(),
    on_start: Annotated[Callable[[epath.Path], None], GivenByCaller()] = lambda model_dir: None,
) -> TrainState:
    """Trains until `train_steps` updates have been made in all, or until the patience of `best` is exhausted.

    Args:
        model_dir: the folder for metrics.jsonl, TensorBoard events and checkpoints/. Training resumes from the newest checkpoint.
        train_steps: the total number of updates, including those before a resumption.
        model, data, mesh: the recipe of the network, the training set, and the devices.
        learner, optimizer, offload_optimizer: the update (`Offline`, or one of `lmirl_jax.online`); the policy's optimizer,
            of optax; and whether its state lies in the memory of the hosts between updates.
        evaluations, eval_period: the evaluations, and the number of updates between them; the last update is evaluated too.
        best, checkpoint: the metric of the best checkpoint, and the patience without a better one; when to save and what to keep.
        initial_checkpoint_path, new_parameters: a checkpoint, the start if `model_dir` has none, or the base of a
            `models.LoRAConfig`; and regular expressions of the paths of parameters that begin at random instead.
        microbatches, seed: the number of parts of the batch whose gradients are summed in turn; the seed of all random numbers.
        log_period, profile_steps: the updates between lines of metrics.jsonl; the first and the last step of a profile, if any.
        tensorboard, wandb_project: whether to write TensorBoard events too, and a project of Weights & Biases to write to.
        faults, on_start: what the run does where something goes wrong; what is called once with `model_dir` before it trains.

    Returns:
        The last state.

    Raises:
        UserError: settings do not fit each other, the devices or the files in `model_dir`; or a loss is not finite.
    """
    check_wandb(wandb_project)
    model, adapter = with_base(model, model_dir, initial_checkpoint_path)
    check_evaluations(evaluations, mesh, best)
    setting = make_setting(model, optimizer, data, mesh, microbatches, seed, faults, offload_optimizer)
    updates = learner.start(setting)
    batches = data.iterator(sharding.local_rows(mesh, data.batch_size))
    initial = initial_of(initial_checkpoint_path, new_parameters, model_dir, updates.shapes.params)
    directory = files.prepare_directory(model_dir)  # Last, so that an error leaves no folder behind.
    others = Best(best), Guard(faults, directory, data), eval_period, log_period, tuple(profile_steps)
    run = Run(directory, setting, updates, batches, train_steps, evaluations, *others)
    saved = functools.partial(Checkpoints, directory, checkpoint, adapter)
    return _run(run, saved, initial, tensorboard, wandb_project, on_start)


def make_setting(
    model: ModelConfig,
    optimizer: optax.GradientTransformation,
    data: TrainData,
    mesh: Mesh,
    microbatches: int = 1,
    seed: int = 0,
    faults: FaultConfig = FaultConfig(),
    offload_optimizer: bool = False,
) -> Setting:
    """The settings of the run that its learner needs; the arguments are those of `train`.

    Raises:
        UserError: the model has no embedding for some token of the data, or the batch cannot be split.
    """
    _check_data(data, model, mesh, microbatches)
    return Setting(
        model,
        optimizer,
        mesh,
        jax.random.key(seed),
        data.batch_size,
        microbatches,
        rows_together=data.rows_together,
        has_rewards=data.has_rewards,
        has_labels=data.has_labels,
        has_preferences=data.has_preferences,
        packed=data.packed,
        skip_nonfinite=faults.on_nonfinite == "skip",
        offload_optimizer=offload_optimizer,
    )


def _run(
    run: Run,
    open_checkpoints: Callable[[], Checkpoints],
    initial: Initial | None,
    tensorboard: bool,
    wandb_project: str | None,
    on_start: Callable[[epath.Path], None],
) -> TrainState:
    """Makes the updates of a run, with its folder locked; the other arguments are those of `train`."""
    directory, updates = run.model_dir, run.updates
    with (
        locks.lock_directory(directory, "MODEL_DIR"),
        contextlib.closing(open_checkpoints()) as saved,
        sharding.use(run.setting.mesh),
    ):
        state, start = _first_state(run, saved, initial)
        if jax.process_index() == 0:
            on_start(directory)
            write_model_info(directory / "model-info.txt", updates.shapes.params, updates.shardings.params)
        while True:
            # A step whose evaluation is made up for is written anew.
            written = start if run.guard.unevaluated is None else start - 1
            with contextlib.closing(open_writers(directory, written, tensorboard, wandb_project)) as writers:
                try:
                    return run_steps(run, state, start, saved, writers)
                except LossSpike as error:
                    # Its traceback would keep the state in memory beside the one that is loaded next.
                    spike = error.with_traceback(None)
            del state
            record_rollback(run, saved, spike)
            run = dataclasses.replace(run, best=Best(run.best.config))
            state, start = _first_state(run, saved, initial)


def _first_state(run: Run, saved: Checkpoints, initial: Initial | None) -> tuple[TrainState, int]:
    """The state and the step of the run's newest checkpoint; without one, a new state, with given parameters if any, and 0."""
    updates, setting = run.updates, run.setting
    newest = saved.latest_step()
    if newest is not None:
        state, position, best = saved.restore(newest, updates.shapes, updates.shardings)
        run.set_position(position)
        run.best.set_state(best)
        run.guard.set_state(position["guard"])
        leave_out_recorded(run, newest)
        return state, newest
    run.guard.set_state({})
    leave_out_recorded(run, 0)
    params = None
    if initial is not None:
        params = initial.load(updates.shapes.params, updates.shardings.params)
    elif updates.from_scratch is not None and jax.process_index() == 0:
        _log.warning("no INITIAL_CHECKPOINT_PATH, so from scratch: %s", updates.from_scratch)
    state = init_state(
        updates.shardings, setting.model, setting.optimizer, setting.key, params, updates.extra
    )
    return state, 0


def _check_data(data: TrainData, model: ModelConfig, mesh: Mesh, microbatches: int) -> None:
    """Raises a UserError if the model has no embedding for some token of the data, or the batch cannot be split."""
    if data.vocab_size > model.vocab_size:
        raise UserError(
            f"VOCAB_SIZE={model.vocab_size} of the model is less than the {data.vocab_size} words of the data's "
            "vocabulary: raise VOCAB_SIZE, or set the VOCABULARY_PATH that the model was made for"
        )
    sharding.check_batch_size(mesh, data.batch_size, microbatches, together=data.rows_together)
    sharding.check_lengths(mesh, data.lengths)
