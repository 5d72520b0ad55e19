"""Stops a run on a signal, after the step in progress is finished and saved."""

import contextlib
import signal
import threading
from collections.abc import Iterator

import jax


@contextlib.contextmanager
def stop_on_signal() -> Iterator[threading.Event]:
    """Sets an event at the first SIGINT or SIGTERM, which ends the run after its step; a second one ends the process at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread() or jax.process_count() > 1:
        # Python catches signals in the main thread only. In a run of several processes, Orbax makes them agree on the signal.
        yield stop
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
