"""Prints the stacks of all threads where a run seems to hang, and says what its main thread waits for."""

import contextlib
import faulthandler
import sys
import threading
import time
from collections.abc import Iterator

import jax


class Watchdog:
    """Watches the phases of the loop from a thread of its own. The loop only names the phase that it enters.

    Args:
        seconds: the longest time in one phase without a report; None for no watching. After each report about the same
            phase, it doubles.
    """

    def __init__(self, seconds: float | None):
        self._seconds = seconds
        self._phase = "start", time.monotonic()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="lmirl watchdog", daemon=True)
        if seconds is not None:
            self._thread.start()

    @property
    def devices(self) -> str:
        """The phase in which the devices compute: where there are several processes, they may wait for one another."""
        return "device" if jax.process_count() == 1 else "collective"

    @contextlib.contextmanager
    def at(self, phase: str) -> Iterator[None]:
        """Names the phase of the block: data, compilation, device or collective, sampling, evaluation or checkpoint."""
        before, _ = self._phase
        self._phase = phase, time.monotonic()
        try:
            yield
        finally:
            self._phase = before, time.monotonic()

    def close(self) -> None:
        self._end.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        assert self._seconds is not None
        reported, limit = None, self._seconds
        while True:
            phase = self._phase
            if phase is not reported:
                limit = self._seconds
            left = phase[1] + limit - time.monotonic()
            # The next phase may begin before the report about this one is due.
            if self._end.wait(min(max(left, 0.0), self._seconds / 4)):
                return
            if self._phase is phase and left <= 0:
                self._report(*phase)
                reported, limit = phase, 2 * limit

    def _report(self, name: str, since: float) -> None:
        who = f" (process {jax.process_index()} of {jax.process_count()})" if jax.process_count() > 1 else ""
        seconds = time.monotonic() - since
        print(
            f"train: warning: the run has waited {seconds:.0f} s for: {name}{who}; the stacks of all threads follow, and "
            "it goes on waiting (WATCHDOG_SECONDS)",
            file=sys.stderr,
            flush=True,
        )
        # The number of the standard error, because a replaced `sys.stderr` may be no file.
        faulthandler.dump_traceback(file=2, all_threads=True)
