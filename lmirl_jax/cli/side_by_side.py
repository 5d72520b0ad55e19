"""Runs commands of lmirl side by side on the CPU, each as a process with cores of its own.

A small model gains little from a second core: two runs, each on a core, take less time than one after the other on both.
"""

import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from lmirl_jax.types import UserError

PROGRAM = ("-P", "-m", "lmirl_jax")
# The most processes at a time: each of them holds 1.5 GB, most of it code.
MOST = 3


def run_side_by_side(commands: Mapping[str, Sequence[str]], environment: Mapping[str, str]) -> None:
    """Runs all commands, as many at a time as there are cores and memory for, and prints their lines to standard error.

    Args:
        commands: the words after `lmirl` of each command, by the name that goes before its lines.
        environment: variables that are set for all commands, in addition to those of this process.

    Raises:
        UserError: a command failed; the message is its last line. Those that have not begun are not started.
    """
    cores = sorted(os.sched_getaffinity(0))
    workers = min(len(cores), len(commands), MOST)
    shares: queue.Queue[list[int]] = queue.Queue()
    for worker in range(workers):
        shares.put(cores[worker::workers])
    failed = threading.Event()
    # A process inherits the cores of the thread that starts it.
    pool = ThreadPoolExecutor(workers, initializer=lambda: os.sched_setaffinity(0, shares.get()))
    try:
        running = [pool.submit(_run, name, words, environment, failed) for name, words in commands.items()]
        for command in running:
            command.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _run(name: str, words: Sequence[str], environment: Mapping[str, str], failed: threading.Event) -> None:
    if failed.is_set():
        return
    began, last = time.monotonic(), ""
    with subprocess.Popen(
        [sys.executable, *PROGRAM, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env={**os.environ, "JAX_PLATFORMS": "cpu", **environment},
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            last = line.strip() or last
            print(f"{name}: {line}", end="", file=sys.stderr, flush=True)
    if process.returncode:
        failed.set()
        raise UserError(f"{name}: {last.removeprefix('lmirl: ')}")
    print(f"{name}: finished in {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
