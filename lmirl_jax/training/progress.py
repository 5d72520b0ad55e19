"""The progress of a run: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Mapping

METRICS = ("train/loss", "train/loss_mle", "train/loss_td", "train/accuracy")


class Progress:
    """Shows steps, loss and the time left on stderr: a bar on a terminal, else a line every few seconds."""

    def __init__(
        self,
        label: str,
        start: int,
        total: int,
        every_seconds: float = 10.0,
        quiet: bool = False,
        unit: str = "step",
    ):
        self._label, self._total, self._quiet, self._unit = label, total, quiet, unit
        self._start = start
        # The first step compiles, so the clock starts at its end.
        self._clock_start: tuple[int, float] | None = None
        self._every, self._last = every_seconds, 0.0
        self._bar = None
        if not quiet and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, initial=start, desc=label, unit=unit, dynamic_ncols=True)

    def update(self, step: int, metrics: Mapping[str, float]) -> None:
        if self._quiet:
            return
        now = time.monotonic()
        self._clock_start = self._clock_start or (step, now)
        values = {name.removeprefix("train/"): f"{metrics[name]:.4g}" for name in METRICS if name in metrics}
        if self._bar is not None:
            self._bar.set_postfix(values, refresh=False)
            self._bar.update(step - self._bar.n)
            return
        if now - self._last < self._every and step not in (self._start + 1, self._total):
            return
        self._last = now
        since, began = self._clock_start
        left = (
            f", {(self._total - step) * (now - began) / (step - since):.0f} s left"
            if since < step < self._total
            else ""
        )
        numbers = " ".join(f"{name}={value}" for name, value in values.items())
        self.say(f"{self._unit} {step}/{self._total} {numbers}".rstrip() + left)

    def say(self, line: str) -> None:
        """Prints a line without breaking the bar."""
        if self._quiet:
            return
        if self._bar is not None:
            self._bar.write(f"{self._label}: {line}", file=sys.stderr)
        else:
            print(f"{self._label}: {line}", file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
