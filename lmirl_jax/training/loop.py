"""The loop of training: steps, evaluations and checkpoints, in an order that makes resuming exact."""

import contextlib
import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import jax
from etils import epath
from jax.sharding import Mesh

from lmirl_jax import sharding
from lmirl_jax.checkpoints import Checkpoints
from lmirl_jax.training.best import Best
from lmirl_jax.training.evaluations import Evaluation, evaluate
from lmirl_jax.training.guard import Guard
from lmirl_jax.training.learner import Setting, Updates
from lmirl_jax.training.metric_writers import MetricWriter
from lmirl_jax.training.pending_metrics import Dispatched, PendingMetrics
from lmirl_jax.training.profiles import Profile
from lmirl_jax.training.progress import Progress
from lmirl_jax.training.signals import StopNow, Stopped, StopRequest, stop_on_signal
from lmirl_jax.training.state import TrainState
from lmirl_jax.training.step_clock import StepClock
from lmirl_jax.training.watchdog import Watchdog
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
    guard: Guard
    eval_period: int
    log_period: int
    profile_steps: Sequence[int] = ()

    def position(self) -> dict[str, Any]:
        """The position of the run in its data."""
        prompts = self.updates.prompts
        position = {"batches": self.batches.get_state()}
        return position if prompts is None else position | {"prompts": prompts.get_state()}

    def is_over(self, step: int) -> bool:
        """Whether nothing is left to do after this step."""
        done = step >= self.train_steps or self.best.exhausted
        return done and self.guard.unevaluated is None

    def set_position(self, position: Mapping[str, Any]) -> None:
        self.batches.set_state(position["batches"])
        if self.updates.prompts is not None:
            self.updates.prompts.set_state(position["prompts"])


def run_steps(
    run: Run, state: TrainState, start: int, saved: Checkpoints, writers: MetricWriter
) -> TrainState:
    """Runs the loop. While a step runs on the devices, the metrics of the step before are read and written.

    Raises:
        UserError: a value is not finite.
        LossSpike: the run is to go back to its last checkpoint.
        Stopped: a signal ended the run, which is saved.
    """
    progress = Progress("train", start, run.train_steps, quiet=jax.process_index() != 0)
    _say_start(run, start, progress)
    if run.is_over(start):
        _say_best(run, saved, progress)
        return state
    step = start
    with (
        contextlib.closing(progress),
        contextlib.closing(Watchdog(run.guard.config.watchdog_seconds)) as watchdog,
        contextlib.closing(Profile(run.model_dir, run.profile_steps)) as profile,
        stop_on_signal() as stop,
    ):
        clock = StepClock(run.model_dir / "metrics.jsonl", _peak_flops(run.setting.mesh))
        pending = PendingMetrics(
            writers, progress, run.train_steps, run.log_period, run.guard, watchdog, clock, run.updates.alarm
        )
        shapes, position = _Shapes(run, progress), run.position()
        loop = _Loop(run, saved, progress, pending, watchdog, stop, shapes, position)
        loop.evaluate_again(state, start)
        while not run.is_over(step):
            step += 1
            profile.begin(step)
            state = loop.update(state, step)
            profile.end(step, state)
            loop.finish(state, step)
        saved.wait()
        if step < run.train_steps:
            progress.say(f"stopped early at step {step} of {run.train_steps}: {run.best.describe_patience()}")
        _say_best(run, saved, progress)
    return state


class _Shapes:
    """The shapes of batches that an update is compiled for; says once how each is computed."""

    def __init__(self, run: Run, progress: Progress):
        self._updates, self._progress = run.updates, progress
        self._model_flops: dict[tuple[tuple[int, ...], ...], float | None] = {}
        self._said: set[str] = set()

    def is_new(self, batch: Batch) -> bool:
        shape = _shape(batch)
        if shape in self._model_flops:
            return False
        self._model_flops[shape] = self._updates.model_flops(batch)
        text = self._updates.describe(batch.weights.shape)
        if text not in self._said:
            self._said.add(text)
            self._progress.say(text)
        return True

    def model_flops(self, batch: Batch) -> float | None:
        """The operations that an update with a batch needs, whose shape is not new."""
        return self._model_flops[_shape(batch)]


def _shape(batch: Batch) -> tuple[tuple[int, ...], ...]:
    return tuple(array.shape for array in jax.tree.leaves(batch))


def _peak_flops(mesh: Mesh) -> float | None:
    """What all devices of a mesh can do in a second; None where that is not known."""
    one = sharding.peak_flops(mesh.devices.flat[0].device_kind)
    return None if one is None else one * mesh.size


@dataclasses.dataclass
class _Loop:
    """The parts of the loop, and the position in the data after the newest update."""

    run: Run
    saved: Checkpoints
    progress: Progress
    pending: PendingMetrics
    watchdog: Watchdog
    stop: StopRequest
    shapes: _Shapes
    position: dict[str, Any]

    def update(self, state: TrainState, step: int) -> TrainState:
        """Takes a batch and dispatches an update."""
        run, pending = self.run, self.pending
        try:
            # The devices are at the step before, whose metrics are not read yet: reading ahead and copying cost them no time.
            with self.stop.interruptible():
                rows = pending.next_batch(run.batches)
        except StopNow:
            # The batch, if there is one, is not a part of what is saved.
            self.save_and_stop(state, step - 1)
        batch = sharding.to_global(run.setting.mesh, rows, run.setting.batch_size)
        compiles = self.shapes.is_new(batch)
        state, timing = self._draw_if_due(state, step)
        if compiles:
            pending.clock.leave_out_step()
        with self.watchdog.at("compilation" if compiles else self.watchdog.devices):
            state, metrics = run.updates.step(state, batch)
        self.position = run.position()
        flops = self.shapes.model_flops(batch)
        pending.push(Dispatched(step, metrics, batch, self.position, timing, flops))
        return state

    def finish(self, state: TrainState, step: int) -> None:
        """Evaluates and saves if that is due, and stops if a signal has asked for it."""
        run = self.run
        # The evaluation comes before saving, because a checkpoint records which evaluation is the best.
        is_due = step == run.train_steps or step % run.eval_period == 0
        is_best = self._evaluate(state, step) if is_due else False
        if self.saved.is_due(step) or is_best or run.is_over(step):
            self.save(state, step)
        if self.stop.is_set(self.saved, step) and not run.is_over(step):
            self.save_and_stop(state, step)

    def evaluate_again(self, state: TrainState, step: int) -> None:
        """Makes up for the evaluation of the step that is resumed from, if a signal ended it before the step was saved."""
        if self.run.guard.unevaluated is not None:
            self.pending.set_metrics(step, self.run.guard.unevaluated)
            self._evaluate(state, step)
            self.run.guard.unevaluated = None

    def save(self, state: TrainState, step: int) -> None:
        # A value that is not finite, or a spike, ends this here, before the parameters are saved.
        self.pending.flush()
        position = self.position | {"guard": self.run.guard.state()}
        with self.watchdog.at("checkpoint"):
            self.saved.save(step, state, position, self.run.best.state())

    def save_and_stop(self, state: TrainState, step: int) -> NoReturn:
        self.save(state, step)
        with self.watchdog.at("checkpoint"):
            self.saved.wait()
        raise Stopped(
            f"stopped at step {step}, which is saved: the same command goes on from there",
            self.stop.exit_code,
        )

    def _draw_if_due(self, state: TrainState, step: int) -> tuple[TrainState, dict[str, float]]:
        """Draws the learner's rollouts if they are due. Waits for the devices before and after, to measure the time."""
        if not self.run.updates.draws_before(step):
            return state, {}
        self.pending.read()
        began = time.monotonic()
        with self.watchdog.at("sampling"):
            state = jax.block_until_ready(self.run.updates.draw(state))
        return state, {"timing/sampling_seconds": time.monotonic() - began}

    def _evaluate(self, state: TrainState, step: int) -> bool:
        """Evaluates; returns whether this is the best evaluation so far."""
        run = self.run
        self.pending.read()
        policy = run.setting.graph, state.params, run.setting.mesh
        # The last checkpoint records which one is the best, so that it waits for the last evaluation.
        last = step == run.train_steps
        try:
            with (
                self.watchdog.at("evaluation"),
                contextlib.nullcontext() if last else self.stop.interruptible(),
            ):
                metrics, text = evaluate(run.evaluations, *policy, run.model_dir, step)
        except StopNow:
            # It is made up for when the run goes on, and then written in one line with the metrics of the step.
            run.guard.unevaluated = self.pending.take_metrics()
            self.save_and_stop(state, step)
        if metrics:
            self.progress.say(f"evaluated at step {step}: {text}")
        self.pending.flush(metrics)
        self.pending.clock.begin_step()
        return run.best.update(step, metrics)


def _say_start(run: Run, start: int, progress: Progress) -> None:
    if not run.is_over(start):
        if start:
            progress.say(f"resuming {run.model_dir} from its checkpoint at step {start}")
    elif start >= run.train_steps:
        progress.say(f"{run.model_dir} is at step {start} of {run.train_steps} already: nothing to do")
    else:
        progress.say(
            f"{run.model_dir} stopped early at step {start}: nothing to do; a higher EARLY_STOPPING_PATIENCE goes on"
        )


def _say_best(run: Run, saved: Checkpoints, progress: Progress) -> None:
    if run.best.config.metric is not None:
        where = "" if run.best.step is None else f": {saved.path(run.best.step)}"
        progress.say(f"{run.best.describe()}{where}")
