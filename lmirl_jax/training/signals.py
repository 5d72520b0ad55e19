"""Stops a run on a signal, after the step in progress is finished and saved."""

import contextlib
import signal
import threading
from collections.abc import Iterator

import jax

from lmirl_jax.checkpoints import Checkpoints


class Stopped(KeyboardInterrupt):
    """A run was ended by a signal, and all of it is saved.

    Args:
        line: says at which step.
        exit_code: 130 after Ctrl-C as in any program; 75 (EX_TEMPFAIL, "try again later") after a SIGTERM.
    """

    def __init__(self, line: str, exit_code: int):
        super().__init__(line)
        self.exit_code = exit_code


EXIT_CODES: dict[int, int] = {signal.SIGINT: 130, signal.SIGTERM: 75}


class StopNow(BaseException):
    """Raised by the handler of a signal where the main thread waits and nothing would be half done."""


class StopRequest:
    """Whether a signal has asked this run to stop. The first one is noted, and a second one ends the process at once.

    In a run of several processes, Orbax makes all agree on the step after a SIGTERM to any of them.
    """

    def __init__(self):
        self._number: int | None = None
        self._may_raise = False

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[signal.SIGTERM if self._number is None else self._number]

    def is_set(self, saved: Checkpoints, step: int) -> bool:
        """Whether the run stops after this step; the same on all processes."""
        return self._number is not None if jax.process_count() == 1 else saved.preempted(step)

    def note(self, number: int) -> None:
        self._number = number
        if self._may_raise:
            self._may_raise = False
            raise StopNow

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Marks a block that a signal ends with `StopNow`, as it may take longer than the time until the process is killed."""
        if self._number is not None and jax.process_count() == 1:
            raise StopNow
        self._may_raise = True
        try:
            yield
        finally:
            self._may_raise = False


@contextlib.contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Notes the first SIGINT or SIGTERM; a second one ends the process at once."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread() or jax.process_count() > 1:
        # Python catches signals in the main thread only. In a run of several processes, JAX catches SIGTERM.
        yield request
        return
    before = {}

    def handle(number, frame):
        signal.signal(number, before[number])
        request.note(number)

    for number in EXIT_CODES:
        before[number] = signal.signal(number, handle)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
