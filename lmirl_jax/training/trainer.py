"""The trainer: it wires model, objective, optimizer and data together, and knows only their protocols."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import optax
from etils import epath
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Key

from lmirl_jax import files, sharding, tiles
from lmirl_jax.training.best import Best, BestConfig
from lmirl_jax.training.checkpoints import (
    CheckpointConfig,
    Checkpoints,
    find_checkpoint,
    load_params,
    prepare_directory,
)
from lmirl_jax.training.evaluations import Evaluation, check_evaluations
from lmirl_jax.training.loop import Run, run_steps
from lmirl_jax.training.metric_writers import open_writers
from lmirl_jax.training.model_info import write_model_info
from lmirl_jax.training.state import TrainState, build, init_state, state_shardings
from lmirl_jax.training.step import SoftQConfig, train_step
from lmirl_jax.types import ModelConfig, Objective, Schedule, TrainData, UserError


def train(
    *,
    model_dir: str,
    train_steps: int,
    model: ModelConfig,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    data: TrainData,
    mesh: Mesh,
    td_weight: float | Schedule = 0.0,
    soft_q_config: SoftQConfig = SoftQConfig(),
    evaluations: Sequence[Evaluation] = (),
    eval_period: int = 1000,
    best: BestConfig = BestConfig(),
    checkpoint: CheckpointConfig = CheckpointConfig(),
    initial_checkpoint_path: str | None = None,
    microbatches: int = 1,
    seed: int = 0,
    log_period: int = 1,
    tensorboard: bool = True,
    wandb_project: str | None = None,
    on_start: Callable[[epath.Path], None] = lambda model_dir: None,
) -> TrainState:
    """Trains until `train_steps` updates have been made in all, from the newest checkpoint in `model_dir` where there is one.

    With a patience it ends sooner, after the evaluation that exhausts it.

    Args:
        model_dir: holds metrics.jsonl, TensorBoard events and checkpoints/.
        train_steps: the total number of updates, those before a resumption included.
        model: the recipe of the network.
        objective: the per-token loss.
        optimizer: an optax transformation.
        data: the training set.
        mesh: the devices.
        td_weight: lambda, a number or a schedule of the updates made.
        soft_q_config: how soft Q-values are read off the hidden states.
        evaluations: what to measure every `eval_period` updates and after the last.
        eval_period: updates between evaluations.
        best: by which metric of theirs the best checkpoint is kept, and when to stop for want of a better one.
        checkpoint: when to save and what to keep.
        initial_checkpoint_path: a checkpoint whose parameters to start from, where `model_dir` has none.
        microbatches: parts of the batch whose gradients are summed one after the other.
        seed: of initial parameters and dropout.
        log_period: updates between lines of metrics.jsonl; the first and the last always have one.
        tensorboard: write TensorBoard events too.
        wandb_project: where given, write to Weights & Biases too.
        on_start: called once with `model_dir`, before the first step.

    Returns:
        The last state.

    Raises:
        UserError: settings that do not fit each other, the devices or what lies in `model_dir`; a loss that is not finite.
    """
    counts = {"TRAIN_STEPS": train_steps, "EVAL_PERIOD": eval_period, "LOG_PERIOD": log_period}
    _check(counts | {"NUM_MICROBATCHES": microbatches}, td_weight, model, data)
    sharding.check_batch_size(mesh, data.batch_size, microbatches)
    check_evaluations(evaluations, mesh, best)
    key = jax.random.key(seed)
    graph, _ = build(model, key)
    shapes, shardings = state_shardings(mesh, model, optimizer, key)
    update = functools.partial(
        train_step,
        graph=graph,
        objective=objective,
        optimizer=optimizer,
        td_weight=td_weight,
        soft_q_config=soft_q_config,
        key=jax.random.fold_in(key, 1),
        microbatches=microbatches,
    )
    update = jax.jit(
        update,
        in_shardings=(shardings, sharding.batch_sharding(mesh)),
        out_shardings=(shardings, sharding.replicated(mesh)),
        donate_argnums=0,
    )
    kernel = jax.eval_shape(lambda params: nnx.merge(graph, params).unembedding().kernel, shapes.params)

    def soft_q_form(shape: tuple[int, int]) -> str:
        part = (shape[0] // microbatches, *shape[1:])
        return tiles.description(part, kernel.shape, soft_q_config.block_size)

    batches = data.iterator(sharding.local_rows(mesh, data.batch_size))
    directory = prepare_directory(model_dir)  # Last of what can go wrong: an error leaves no folder behind.
    run = Run(
        directory,
        mesh,
        graph,
        update,
        soft_q_form,
        batches,
        data.batch_size,
        train_steps,
        evaluations,
        Best(best),
        eval_period,
        log_period,
    )
    alone = files.held_alone(directory, "MODEL_DIR") if jax.process_index() == 0 else contextlib.nullcontext()
    with (
        alone,
        contextlib.closing(Checkpoints(directory, checkpoint)) as saved,
        sharding.use(mesh),
    ):
        state, start = _first_state(
            run, saved, shapes, shardings, model, optimizer, key, initial_checkpoint_path
        )
        if jax.process_index() == 0:
            on_start(directory)
            write_model_info(directory / "model-info.txt", shapes.params, shardings.params)
        with contextlib.closing(open_writers(directory, start, tensorboard, wandb_project)) as writers:
            return run_steps(run, state, start, saved, writers)


def _first_state(
    run: Run,
    saved: Checkpoints,
    shapes: TrainState,
    shardings: TrainState,
    model: ModelConfig,
    optimizer: optax.GradientTransformation,
    key: Key[Array, ""],
    initial_checkpoint_path: str | None,
) -> tuple[TrainState, int]:
    """The state of the run's newest checkpoint and its step; else a fresh one, with given parameters if any, and 0."""
    newest = saved.latest_step()
    if newest is not None:
        state, position, best = saved.restore(newest, shapes, shardings)
        run.batches.set_state(position)
        run.best.set_state(best)
        return state, newest
    # A wrong path is found before anything is computed.
    initial = None if initial_checkpoint_path is None else find_checkpoint(initial_checkpoint_path)
    state = init_state(shardings, model, optimizer, key)
    if initial is not None:
        params = load_params(initial, shapes.params, shardings.params)
        state = dataclasses.replace(state, params=params)
    return state, 0


def _check(whole_numbers: Mapping[str, Any], td_weight: Any, model: ModelConfig, data: TrainData) -> None:
    """Raises a UserError for what is wrong before anything is made."""
    for name, value in whole_numbers.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UserError(f"{name}={value!r} must be a positive whole number")
    if not callable(td_weight) and not (isinstance(td_weight, (int, float)) and td_weight >= 0):
        raise UserError(
            f"TD_WEIGHT={td_weight!r} must be a number of 0 or more, or a schedule such as @training.constant()"
        )
    if data.vocab_size > model.vocab_size:
        raise UserError(
            f"VOCAB_SIZE={model.vocab_size} of the model is less than the {data.vocab_size} words of the data's "
            "vocabulary: raise VOCAB_SIZE, or set the VOCABULARY_PATH that the model was made for"
        )
