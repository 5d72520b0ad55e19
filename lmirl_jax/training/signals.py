"""Being asked to end: the step in progress is finished and saved first."""

import contextlib
import signal
import threading
from collections.abc import Iterator

import jax


@contextlib.contextmanager
def stop_on_signal() -> Iterator[threading.Event]:
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
