"""Reads the metrics of a step while the next step runs, so that the devices never wait."""

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax

from lmirl_jax.training.guard import Guard
from lmirl_jax.training.metric_writers import MetricWriter
from lmirl_jax.training.progress import Progress
from lmirl_jax.training.step_clock import StepClock
from lmirl_jax.training.watchdog import Watchdog
from lmirl_jax.types import Batch, BatchIterator


@dataclasses.dataclass(frozen=True)
class Dispatched:
    """An update that the devices may still compute.

    Args:
        step: its number.
        metrics: its metrics on the devices.
        batch: its global batch.
        position: the position in the data after its batch.
        timing: measured seconds by name.
        model_flops: the operations that it needs; None where that is not known.
    """

    step: int
    metrics: Mapping[str, jax.Array]
    batch: Batch
    position: dict[str, Any]
    timing: Mapping[str, float]
    model_flops: float | None = None


class PendingMetrics:
    """The metrics of the newest step, which are read from the devices, checked, and written as one line."""

    def __init__(
        self,
        writers: MetricWriter,
        progress: Progress,
        last_step: int,
        period: int,
        guard: Guard,
        watchdog: Watchdog,
        clock: StepClock,
        alarm: Callable[[Mapping[str, float]], str | None] = lambda metrics: None,
    ):
        self._guard, self._watchdog, self._alarm, self.clock = guard, watchdog, alarm, clock
        self._writers, self._progress = writers, progress
        self._last_step, self._period = last_step, period
        self._waiting: Dispatched | None = None
        self._read: tuple[int, dict[str, float]] | None = None
        self._first: int | None = None

    def push(self, update: Dispatched) -> None:
        """Takes an update that was just dispatched, and writes the metrics of the one before."""
        self.flush()
        self._waiting = update

    def next_batch(self, batches: BatchIterator) -> Batch:
        """Takes the next batch, and counts the time for which it is waited."""
        began = time.monotonic()
        with self._watchdog.at("data"):
            batch = next(batches)
        self.clock.wait(time.monotonic() - began)
        return batch

    def read(self) -> None:
        """Waits for the step to end, and lets the guard check its metrics, which may raise a UserError or a LossSpike."""
        if self._waiting is None:
            return
        update, self._waiting = self._waiting, None
        with self._watchdog.at(self._watchdog.devices):
            metrics = {name: float(value) for name, value in jax.device_get(update.metrics).items()}
        self._guard.check(update.step, metrics, update.batch, update.position, self._progress.say)
        warning = self._alarm(metrics)
        if warning is not None:
            self._progress.say(f"warning: at step {update.step} {warning}")
        tokens = metrics.pop("target_tokens")
        named = {f"train/{name}": value for name, value in metrics.items()}
        self._read = (
            update.step,
            named | self.clock.end_step(tokens, update.model_flops) | dict(update.timing),
        )

    def take_metrics(self) -> dict[str, float]:
        """Takes away the metrics that are read and not yet written, for a checkpoint; JSON, so without undefined values."""
        assert self._read is not None
        (_, metrics), self._read = self._read, None
        return {name: value for name, value in metrics.items() if math.isfinite(value)}

    def set_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Gives back what `take_metrics` took."""
        self._read = step, dict(metrics)

    def flush(self, more: Mapping[str, float] | None = None) -> None:
        """Writes the metrics that are not yet written, with more metrics of the same step."""
        self.read()
        if self._read is None:
            return
        (step, metrics), self._read = self._read, None
        self._first = step if self._first is None else self._first
        if more or step in (self._first, self._last_step) or step % self._period == 0:
            self._writers.write(step, {**metrics, **(more or {})})
        self._progress.update(step, metrics)
