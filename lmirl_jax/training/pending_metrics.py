"""Reads the metrics of a step while the next step runs, so that the devices never wait."""

import time
from collections.abc import Callable, Mapping
from types import MappingProxyType

import jax
import numpy as np

from lmirl_jax.training.metric_writers import MetricWriter
from lmirl_jax.training.progress import Progress
from lmirl_jax.types import Batch, BatchIterator, UserError


class PendingMetrics:
    """The metrics of the newest step, which are read from the devices, checked, and written as one line."""

    def __init__(
        self,
        writers: MetricWriter,
        progress: Progress,
        last_step: int,
        period: int,
        alarm: Callable[[Mapping[str, float]], str | None] = lambda metrics: None,
    ):
        self._alarm = alarm
        self._writers, self._progress = writers, progress
        self._last_step, self._period = last_step, period
        self._waiting: tuple[int, dict[str, jax.Array], Mapping[str, float]] | None = None
        self._read: tuple[int, dict[str, float]] | None = None
        self._first: int | None = None
        self._clock: float | None = None
        self._waited = 0.0

    def push(
        self, step: int, metrics: dict[str, jax.Array], timing: Mapping[str, float] = MappingProxyType({})
    ) -> None:
        """Takes the metrics of a step that was just dispatched, and writes those of the step before."""
        self.flush()
        self._waiting = (step, metrics, timing)

    def next_batch(self, batches: BatchIterator) -> Batch:
        """Takes the next batch, and counts the time for which it is waited."""
        began = time.monotonic()
        batch = next(batches)
        self._waited += time.monotonic() - began
        return batch

    def restart_clock(self) -> None:
        """Leaves the time since the last step out of the next timing, for example after an evaluation or a compilation."""
        self._clock = None

    def read(self) -> None:
        """Waits for the step to end, and raises a UserError where its loss is not finite."""
        if self._waiting is None:
            return
        step, on_device, timing = self._waiting
        self._waiting = None
        metrics = {name: float(value) for name, value in jax.device_get(on_device).items()}
        if not np.isfinite(metrics["loss"]):
            raise UserError(
                f"the loss at step {step} is {metrics['loss']}: nothing of it was saved; lower LEARNING_RATE or TD_WEIGHT, "
                "or clip gradients (training.adamw.clip_norm), and run again from the last checkpoint"
            )
        warning = self._alarm(metrics)
        if warning is not None:
            self._progress.say(f"warning: at step {step} {warning}")
        tokens = metrics.pop("target_tokens")
        named = {f"train/{name}": value for name, value in metrics.items()}
        self._read = step, named | self._timing(tokens) | dict(timing)

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

    def _timing(self, tokens: float) -> dict[str, float]:
        """Seconds and tokens per second since the step before; undefined for the first, and where another shape is compiled.

        The share of these seconds in which the trainer waited for a batch is 0 where data are read ahead in time.
        """
        now = time.monotonic()
        before, self._clock = self._clock, now
        waited, self._waited = self._waited, 0.0
        if before is None:
            return {}
        seconds = max(now - before, 1e-9)
        return {
            "timing/seconds_per_step": seconds,
            "timing/target_tokens_per_second": tokens / seconds,
            "timing/data_wait_share": waited / seconds,
        }
