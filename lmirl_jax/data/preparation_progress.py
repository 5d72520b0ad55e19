"""The progress of a preparation: a bar on a terminal, else a line every few seconds, with the rate and the time left."""

import logging
import sys
import time
from types import TracebackType

from tqdm import tqdm

_log = logging.getLogger(__name__)

EVERY_SECONDS = 5.0


class PreparationProgress:
    """Counts examples that are prepared; says nothing of a preparation that ends before the first line is due.

    Args:
        name: the name of the data.
        total: the number of examples; None if it is not known.
    """

    def __init__(self, name: str, total: int | None):
        self._name, self._total = name, total
        self._done = self._kept = 0
        self._began = self._said = time.monotonic()
        terminal = sys.stderr.isatty()
        self._bar = (
            tqdm(total=total, desc=name, unit="example", delay=1.0, dynamic_ncols=True) if terminal else None
        )

    def __enter__(self) -> "PreparationProgress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        elif kind is None and self._said > self._began:
            _log.info("%s", self.line())

    def add(self, examples: int, kept: bool = False) -> None:
        """Counts examples; `kept` are those that an earlier preparation has left, which take no time."""
        self._done += examples
        self._kept += examples * kept
        if self._bar is not None:
            self._bar.update(examples)
            return
        now = time.monotonic()
        if now - self._said >= EVERY_SECONDS:
            self._said = now
            _log.info("%s", self.line())

    def line(self) -> str:
        """What is done, the examples a second, and the seconds left where the total is known."""
        rate = (self._done - self._kept) / max(time.monotonic() - self._began, 1e-9)
        of, left = "", ""
        if self._total is not None:
            of = f" of {self._total:,}"
            left = f", {max(self._total - self._done, 0) / rate:.0f} s left" if rate > 0 else ""
        return f"{self._name}: {self._done:,}{of} examples prepared, {rate:,.0f} a second{left}"
