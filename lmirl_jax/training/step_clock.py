"""What steps take: seconds, tokens a second, waiting for data, and the useful share of a run's time over all of its starts."""

import math
import time

import jax
from etils import epath

from lmirl_jax.training.metric_writers import read_metrics


class StepClock:
    """The clock of a run from one start to the next.

        goodput = seconds of the updates that are kept, without waiting for data / seconds since the run first started

    Compilation, evaluation, saving, the time between two starts, and updates that are made again after a kill are the rest.

        MFU = operations that the model needs (models/model_flops.py) / seconds / peak of all devices in bfloat16

    Args:
        metrics: metrics.jsonl of the run, without the steps that are made again; it has the times of earlier starts.
        peak_flops: the operations a second of all devices; None where they are not known, and then there is no MFU.
    """

    def __init__(self, metrics: epath.Path, peak_flops: float | None = None):
        self._peak_flops = peak_flops
        self._mark: float | None = None
        self._waited = 0.0
        self._began, self._useful = time.time(), 0.0
        # Only the first process writes metrics; another may read a line that a kill cut off, before the first one drops it.
        lines = read_metrics(metrics) if jax.process_index() == 0 and metrics.exists() else []
        for line in lines[-1:]:
            if "timing/wall_seconds" in line:
                self._began = line["timing/unix_time"] - line["timing/wall_seconds"]
                self._useful = line["timing/goodput"] * line["timing/wall_seconds"]

    def wait(self, seconds: float) -> None:
        """Counts the time for which a batch was waited."""
        self._waited += seconds

    def begin_step(self) -> None:
        """Begins the next step now: the time since the last one, such as that of an evaluation, belongs to none."""
        self._mark = time.monotonic()

    def leave_out_step(self) -> None:
        """Leaves the next step out, for example because it is compiled first."""
        self._mark = None

    def end_step(self, tokens: float, model_flops: float | None = None) -> dict[str, float]:
        """The timing of a step that ends now.

        Args:
            tokens: the number of its target tokens, over all devices.
            model_flops: the operations that it needs, over all devices; None where that is not known.

        Returns:
            Numbers by name. Seconds and tokens per second since the step before are undefined for the first step, and where
            another shape was compiled. The share of these seconds in which the trainer waited for a batch is 0 where data are
            read ahead in time.
        """
        now = time.monotonic()
        before, self._mark = self._mark, now
        waited, self._waited = self._waited, 0.0
        found: dict[str, float] = {}
        if before is not None:
            seconds = max(now - before, 1e-9)
            self._useful += max(seconds - waited, 0.0)
            found = {
                "timing/seconds_per_step": seconds,
                "timing/steps_per_second": 1 / seconds,
                "timing/target_tokens_per_second": tokens / seconds,
                "timing/target_tokens_per_second_per_device": tokens / seconds / jax.device_count(),
                "timing/data_wait_share": waited / seconds,
            }
            if model_flops is not None and self._peak_flops is not None:
                found["timing/mfu"] = model_flops / seconds / self._peak_flops
        unix = time.time()
        # The clock of a machine may be set back.
        wall = max(unix - self._began, self._useful, math.ulp(1.0))
        return found | {
            "timing/unix_time": unix,
            "timing/wall_seconds": wall,
            "timing/goodput": self._useful / wall,
        }
