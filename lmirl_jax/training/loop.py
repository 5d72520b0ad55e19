"""The trainer: it wires model, objective, optimizer and data together, and knows only their protocols."""

import contextlib
import dataclasses
import functools
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
import optax
from etils import epath
from flax import nnx
from jax.sharding import Mesh

from lmirl_jax import files, sharding
from lmirl_jax.training import checkpoints, metric_writers
from lmirl_jax.training.progress import Progress
from lmirl_jax.training.state import TrainState, build, init_state, state_shardings
from lmirl_jax.training.step import train_step
from lmirl_jax.types import ModelConfig, Objective, Schedule, TrainData, UserError


@runtime_checkable
class Evaluation(Protocol):
    """Something to measure of the parameters now and then."""

    def __call__(
        self, graph: nnx.GraphDef, params: Any, mesh: Mesh, model_dir: epath.PathLike, step: int
    ) -> Mapping[str, float]: ...


@dataclasses.dataclass(frozen=True)
class Run:
    """What stays the same from the first step to the last."""

    model_dir: epath.Path
    mesh: Mesh
    graph: nnx.GraphDef
    step_fn: Callable[[TrainState, Any], tuple[TrainState, dict[str, jax.Array]]]
    batch_size: int
    train_steps: int
    evaluations: Sequence[Evaluation]
    eval_period: int
    log_period: int


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
    evaluations: Sequence[Evaluation] = (),
    eval_period: int = 1000,
    checkpoint: checkpoints.CheckpointConfig = checkpoints.CheckpointConfig(),
    initial_checkpoint_path: str | None = None,
    microbatches: int = 1,
    seed: int = 0,
    log_period: int = 1,
    tensorboard: bool = True,
    wandb_project: str | None = None,
    on_start: Callable[[epath.Path], None] = lambda model_dir: None,
) -> TrainState:
    """Trains until `train_steps` updates have been made in all, from the newest checkpoint in `model_dir` where there is one.

    Args:
        model_dir: holds metrics.jsonl, TensorBoard events and checkpoints/.
        train_steps: the total number of updates, those before a resumption included.
        model: the recipe of the network.
        objective: the per-token loss.
        optimizer: an optax transformation.
        data: the training set.
        mesh: the devices.
        td_weight: lambda, a number or a schedule of the updates made.
        evaluations: what to measure every `eval_period` updates and after the last.
        eval_period: updates between evaluations.
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
    for name, value in {
        "TRAIN_STEPS": train_steps,
        "EVAL_PERIOD": eval_period,
        "LOG_PERIOD": log_period,
    }.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UserError(f"{name}={value!r} must be a positive whole number")
    sharding.check_batch_size(mesh, data.batch_size, microbatches)
    directory = checkpoints.prepare_directory(model_dir)
    key = jax.random.key(seed)
    graph, _ = build(model, key)
    shapes, shardings = state_shardings(mesh, model, optimizer, key)
    step_fn = functools.partial(
        train_step,
        graph=graph,
        objective=objective,
        optimizer=optimizer,
        td_weight=td_weight,
        key=jax.random.fold_in(key, 1),
        microbatches=microbatches,
    )
    jitted = jax.jit(
        step_fn,
        in_shardings=(shardings, sharding.batch_sharding(mesh)),
        out_shardings=(shardings, sharding.replicated(mesh)),
        donate_argnums=0,
    )
    run = Run(
        directory, mesh, graph, jitted, data.batch_size, train_steps, evaluations, eval_period, log_period
    )
    batches = data.iterator(sharding.local_rows(mesh, data.batch_size))
    with contextlib.closing(checkpoints.Checkpoints(directory, checkpoint)) as saved, sharding.use(mesh):
        latest = saved.latest_step()
        if latest is not None:
            state, position = saved.restore(latest, shapes, shardings)
            batches.set_state(position)
        else:
            state = init_state(shardings, model, optimizer, key)
            if initial_checkpoint_path is not None:
                found = checkpoints.find_checkpoint(initial_checkpoint_path)
                params = checkpoints.load_params(found, shapes.params, shardings.params)
                state = dataclasses.replace(state, params=params)
        if checkpoints.is_writer():
            on_start(directory)
            _write_model_info(directory / "model-info.txt", shapes.params, shardings.params)
        writers = _open_writers(directory, latest or 0, tensorboard, wandb_project)
        with contextlib.closing(writers):
            return _run_steps(run, state, latest or 0, batches, saved, writers)


def _run_steps(run: Run, state: TrainState, start: int, batches, saved, writers) -> TrainState:
    """The loop: while a step runs on the devices, the metrics of the one before are read and written."""
    progress = Progress("train", start, run.train_steps, quiet=not checkpoints.is_writer())
    if start >= run.train_steps:
        progress.say(f"{run.model_dir} is at step {start} of {run.train_steps} already: nothing to do")
        return state
    if start:
        progress.say(f"resuming {run.model_dir} from its checkpoint at step {start}")
    pending = PendingMetrics(run, writers, progress)
    with contextlib.closing(progress), _stop_on_signal() as stop:
        for step in range(start + 1, run.train_steps + 1):
            batch = sharding.to_global(run.mesh, next(batches), run.batch_size)
            state, metrics = run.step_fn(state, batch)
            pending.push(step, metrics)
            last = step == run.train_steps
            stopping = stop.is_set() if jax.process_count() == 1 else saved.preempted(step)
            if saved.is_due(step) or last or stopping:
                pending.read()  # A loss that is not finite stops here, before its parameters are kept.
                saved.save(step, state, batches.get_state())
            if last or step % run.eval_period == 0:
                pending.read()
                pending.flush(_evaluate(run, state, step, progress))
                pending.restart_clock()
            if stopping and not last:
                pending.flush()
                saved.wait()
                raise KeyboardInterrupt(
                    f"stopped at step {step}, which is saved: the same command goes on from there"
                )
        saved.wait()
    return state


class PendingMetrics:
    """The metrics of the last step: on their way from the devices, then read and checked, then written as one line."""

    def __init__(self, run: Run, writers: metric_writers.MetricWriter, progress: Progress):
        self._run, self._writers, self._progress = run, writers, progress
        self._waiting: tuple[int, dict[str, jax.Array]] | None = None
        self._read: tuple[int, dict[str, float]] | None = None
        self._first: int | None = None
        self._clock: float | None = None

    def push(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """Takes the metrics of a step that was just dispatched; those of the step before are written."""
        self.flush()
        self._waiting = (step, metrics)

    def restart_clock(self) -> None:
        """Forgets the time that something other than training took."""
        self._clock = None

    def read(self) -> None:
        """Waits for the step to end, and raises a UserError where its loss is not finite."""
        if self._waiting is None:
            return
        step, on_device = self._waiting
        self._waiting = None
        metrics = {name: float(value) for name, value in jax.device_get(on_device).items()}
        if not np.isfinite(metrics["loss"]):
            raise UserError(
                f"the loss at step {step} is {metrics['loss']}: nothing of it was saved; lower LEARNING_RATE or TD_WEIGHT, "
                "or clip gradients (training.adamw.clip_norm), and run again from the last checkpoint"
            )
        tokens = metrics.pop("target_tokens")
        self._read = step, {f"train/{name}": value for name, value in metrics.items()} | self._timing(tokens)

    def flush(self, more: Mapping[str, float] | None = None) -> None:
        """Writes what is waiting, with more metrics of the same step."""
        self.read()
        if self._read is None:
            return
        (step, metrics), self._read = self._read, None
        self._first = step if self._first is None else self._first
        if more or step in (self._first, self._run.train_steps) or step % self._run.log_period == 0:
            self._writers.write(step, {**metrics, **(more or {})})
        self._progress.update(step, metrics)

    def _timing(self, tokens: float) -> dict[str, float]:
        """Seconds and tokens per second since the step before; undefined for the first, which compiles."""
        now = time.monotonic()
        before, self._clock = self._clock, now
        if before is None:
            return {}
        seconds = max(now - before, 1e-9)
        return {"timing/seconds_per_step": seconds, "timing/target_tokens_per_second": tokens / seconds}


def _evaluate(run: Run, state: TrainState, step: int, progress: Progress) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for evaluation in run.evaluations:
        metrics.update(evaluation(run.graph, state.params, run.mesh, run.model_dir, step))
    if metrics:
        numbers = " ".join(f"{name}={value:.4g}" for name, value in metrics.items())
        progress.say(f"evaluated at step {step}: {numbers}")
    return metrics


@contextlib.contextmanager
def _stop_on_signal() -> Iterator[threading.Event]:
    """Turns the first SIGINT or SIGTERM into a wish to stop after this step; a second one ends the process at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread() or jax.process_count() > 1:
        yield stop  # Signals cannot be caught here, or are agreed upon between the processes by Orbax.
        return
    before = {}

    def handle(number, frame):
        stop.set()
        signal.signal(number, before[number])

    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, handle)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _open_writers(directory: epath.Path, step: int, tensorboard: bool, wandb_project: str | None):
    if not checkpoints.is_writer():
        return metric_writers.Writers([])
    writers: list[metric_writers.MetricWriter] = [
        metric_writers.JsonlWriter(directory / "metrics.jsonl", step)
    ]
    if tensorboard:
        writers.append(metric_writers.TensorBoardWriter(directory))
    if wandb_project is not None:
        writers.append(metric_writers.WandbWriter(wandb_project, directory.name))
    return metric_writers.Writers(writers)


def _write_model_info(path: epath.Path, params: Any, shardings: Any) -> None:
    """One line a parameter: its name, size, shape and how it is sharded, as T5X writes it."""
    lines, total = [], 0
    leaves = jax.tree_util.tree_leaves_with_path(params)
    for (key, leaf), place in zip(leaves, jax.tree.leaves(shardings), strict=True):
        name = jax.tree_util.keystr(key, simple=True, separator="/")
        lines.append(f"Variable {name:<60} size {leaf.size:<12} shape {leaf.shape!s:<24} {place.spec}")
        total += leaf.size
    with files.writing(path) as file:
        file.write("\n".join([*lines, f"Total number of parameters: {total}"]) + "\n")
