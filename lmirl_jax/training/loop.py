"""The loop of training: steps, evaluations and checkpoints, in an order that makes resuming exact."""

import contextlib
import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from etils import epath

from lmirl_jax import sharding
from lmirl_jax.checkpoints import Checkpoints
from lmirl_jax.training.best import Best
from lmirl_jax.training.evaluations import Evaluation, evaluate
from lmirl_jax.training.learner import Setting, Updates
from lmirl_jax.training.metric_writers import MetricWriter
from lmirl_jax.training.pending_metrics import PendingMetrics
from lmirl_jax.training.progress import Progress
from lmirl_jax.training.signals import stop_on_signal
from lmirl_jax.training.state import TrainState
from lmirl_jax.types import Batch, BatchIterator


@dataclasses.dataclass(frozen=True)
class Run:
    """The parts of a run that stay the same from its first step to its last."""

    model_dir: epath.Path
    setting: Setting
    updates: Updates
    batches: BatchIterator
    train_steps: int
    evaluations: Sequence[Evaluation]
    best: Best
    eval_period: int
    log_period: int

    def position(self) -> dict[str, Any]:
        """The position of the run in its data, for a checkpoint."""
        prompts = self.updates.prompts
        position = {"batches": self.batches.get_state()}
        return position if prompts is None else position | {"prompts": prompts.get_state()}

    def set_position(self, position: Mapping[str, Any]) -> None:
        self.batches.set_state(position["batches"])
        if self.updates.prompts is not None:
            self.updates.prompts.set_state(position["prompts"])


def run_steps(
    run: Run, state: TrainState, start: int, saved: Checkpoints, writers: MetricWriter
) -> TrainState:
    """Runs the loop. While a step runs on the devices, the metrics of the step before are read and written."""
    progress = Progress("train", start, run.train_steps, quiet=jax.process_index() != 0)
    _say_start(run, start, progress)
    if start >= run.train_steps or run.best.exhausted:
        _say_best(run, saved, progress)
        return state
    pending = PendingMetrics(writers, progress, run.train_steps, run.log_period, run.updates.alarm)
    shapes = _Shapes(run, progress)
    with contextlib.closing(progress), stop_on_signal() as stop:
        for step in range(start + 1, run.train_steps + 1):
            # The devices are at the step before, whose metrics are not read yet: reading ahead and copying cost them no time.
            rows = pending.next_batch(run.batches)
            batch = sharding.to_global(run.setting.mesh, rows, run.setting.batch_size)
            compiles = shapes.is_new(batch)
            state, timing = _draw_if_due(run, state, step, pending)
            if compiles:
                pending.restart_clock()
            state, metrics = run.updates.step(state, batch)
            pending.push(step, metrics, timing)
            stopping = stop.is_set() if jax.process_count() == 1 else saved.preempted(step)
            # The evaluation comes before saving, because a checkpoint records which evaluation is the best.
            is_best = _evaluate_if_due(run, state, step, pending, progress)
            last = step == run.train_steps or run.best.exhausted
            if saved.is_due(step) or is_best or last or stopping:
                # A loss that is not finite stops the run here, before its parameters are saved.
                pending.flush()
                saved.save(step, state, run.position(), run.best.state())
            if last:
                break
            if stopping:
                saved.wait()
                raise KeyboardInterrupt(
                    f"stopped at step {step}, which is saved: the same command goes on from there"
                )
        saved.wait()
        if step < run.train_steps:
            progress.say(f"stopped early at step {step} of {run.train_steps}: {run.best.describe_patience()}")
        _say_best(run, saved, progress)
    return state


class _Shapes:
    """The shapes of batches that an update is compiled for; says once how each is computed."""

    def __init__(self, run: Run, progress: Progress):
        self._describe, self._progress = run.updates.describe, progress
        self._seen: set[tuple[tuple[int, ...], ...]] = set()
        self._said: set[str] = set()

    def is_new(self, batch: Batch) -> bool:
        shape = tuple(array.shape for array in jax.tree.leaves(batch))
        if shape in self._seen:
            return False
        self._seen.add(shape)
        text = self._describe(batch.weights.shape)
        if text not in self._said:
            self._said.add(text)
            self._progress.say(text)
        return True


def _draw_if_due(
    run: Run, state: TrainState, step: int, pending: PendingMetrics
) -> tuple[TrainState, dict[str, float]]:
    """Draws the learner's rollouts if they are due. Waits for the devices before and after, to measure the time."""
    if not run.updates.draws_before(step):
        return state, {}
    pending.read()
    began = time.monotonic()
    state = jax.block_until_ready(run.updates.draw(state))
    return state, {"timing/sampling_seconds": time.monotonic() - began}


def _evaluate_if_due(
    run: Run, state: TrainState, step: int, pending: PendingMetrics, progress: Progress
) -> bool:
    """Evaluates every `eval_period` steps and after the last; returns whether this is the best evaluation so far."""
    if step != run.train_steps and step % run.eval_period != 0:
        return False
    pending.read()
    setting = run.setting
    policy = setting.graph, state.params, setting.mesh
    metrics, text = evaluate(run.evaluations, *policy, run.model_dir, step)
    if metrics:
        progress.say(f"evaluated at step {step}: {text}")
    pending.flush(metrics)
    pending.restart_clock()
    return run.best.update(step, metrics)


def _say_start(run: Run, start: int, progress: Progress) -> None:
    if start >= run.train_steps:
        progress.say(f"{run.model_dir} is at step {start} of {run.train_steps} already: nothing to do")
    elif run.best.exhausted:
        progress.say(
            f"{run.model_dir} stopped early at step {start}: nothing to do; a higher EARLY_STOPPING_PATIENCE goes on"
        )
    elif start:
        progress.say(f"resuming {run.model_dir} from its checkpoint at step {start}")


def _say_best(run: Run, saved: Checkpoints, progress: Progress) -> None:
    if run.best.config.metric is not None:
        where = "" if run.best.step is None else f": {saved.path(run.best.step)}"
        progress.say(f"{run.best.describe()}{where}")
