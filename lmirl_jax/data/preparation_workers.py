"""Processes that make shards beside the one that reads the rows."""

import concurrent.futures
import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import types
from collections.abc import Iterator

from lmirl_jax.data.shards import Part, ShardWriter

# What this process makes shards with, if it is one of a pool.
_writer: ShardWriter | None = None


def pool(writer: ShardWriter, count: int) -> concurrent.futures.ProcessPoolExecutor:
    """Processes that have the writer once each. They are spawned: threads of JAX do not survive a fork."""
    return concurrent.futures.ProcessPoolExecutor(
        count, multiprocessing.get_context("spawn"), _start, (writer,)
    )


def submit(executor: concurrent.futures.ProcessPoolExecutor, part: Part) -> concurrent.futures.Future[int]:
    """Has a process of the pool write the shard of a part."""
    with _apart():
        return executor.submit(_write, part)


def _start(writer: ShardWriter) -> None:
    global _writer
    _writer = writer
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


def _write(part: Part) -> int:
    assert _writer is not None
    return _writer.write(part)


@contextlib.contextmanager
def _apart() -> Iterator[None]:
    """Has processes that start within know nothing of the program, and not end at Ctrl-C, which a terminal sends to all.

    They would run the program again, and a script may not guard itself. The process that started them ends them.
    """
    main = sys.modules["__main__"]
    # A process inherits which signals wait.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
