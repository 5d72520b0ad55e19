"""Joins the processes of a run, where its flags say that it has several, and lets them agree."""

import os
import sys
import threading
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from lmirl_jax.cli.flags import Flags, UsageError
from lmirl_jax.types import UserError

# A process that gives no sign of life for so long has died or hangs, and the others end. JAX's own limit is 100 seconds.
HEARTBEAT_SECONDS = 30
# How long a process that has failed waits for others to fail as well: they may wait for it in a collective operation for ever.
# The first one, where JAX looks for signs of life, waits until a process that died before it has been missed.
FAILED_SECONDS = {"first": HEARTBEAT_SECONDS + 10, "other": HEARTBEAT_SECONDS / 2}
# By the flags: to ask JAX would start its devices, which waits for the others. Where JAX finds the index, it may be the first.
_PROCESS = {"is": "first"}
# How long one that is done waits for the others, of which the first alone may still write a report.
DONE_SECONDS = 24 * 3600
# Words of the errors that collective operations raise where another process is gone: of Gloo, NCCL and the coordinator.
LOST = ("Gloo", "NCCL", "UNAVAILABLE", "heartbeat", "coordination service", "Connection reset")


def initialize_distributed(flags: Flags) -> None:
    """Starts `jax.distributed` from the flags; does nothing where they name no coordinator.

    Raises:
        UsageError: where a flag of the three is missing, or the index is not below the count.
        UserError: where the processes do not find one another.
    """
    if not _has_processes_to_join(flags):
        return
    # Only the CPU needs to be told; it has no effect on other devices.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    _PROCESS["is"] = "other" if flags.process_index else "first"
    arguments: dict[str, Any] = {
        "heartbeat_timeout_seconds": HEARTBEAT_SECONDS,
        "shutdown_timeout_seconds": DONE_SECONDS,
    }
    if flags.coordinator_address != "auto":
        arguments["coordinator_address"] = flags.coordinator_address
    if flags.process_count is not None:
        arguments |= {"num_processes": flags.process_count, "process_id": flags.process_index}
    if flags.initialization_timeout is not None:
        arguments["initialization_timeout"] = flags.initialization_timeout
    try:
        jax.distributed.initialize(**arguments)
    except (RuntimeError, ValueError) as error:
        line = " ".join(str(error).split())
        where = f"--coordinator_address={flags.coordinator_address}"
        raise UserError(f"{where}: the processes did not find one another: {line}") from None


def lost_process(error: Exception) -> str | None:
    """A line about an error of a collective operation, whose other processes no longer answer; None for other errors.

    JAX names the process as this one ends, by the number of its task: a process that gave no sign of life for
    `HEARTBEAT_SECONDS`.
    """
    if not isinstance(error, jax.errors.JaxRuntimeError) or jax.process_count() == 1:
        return None
    line = str(error).splitlines()[0]
    if not any(words in line for words in LOST):
        return None
    return (
        f"another process of this run has ended or hangs ({line[:200]}), so this one (process {jax.process_index()} of "
        f"{jax.process_count()}) ends too; JAX names it as a task, and the same command goes on from the last checkpoint"
    )


def leave(code: int) -> None:
    """Ends a process that has failed, at once if the others have ended too, and else after `FAILED_SECONDS`.

    JAX would wait for the others for `DONE_SECONDS`, and they for this process, in a collective operation. Where it is gone, its
    heartbeat is missing, and they end.
    """
    if not jax.distributed.is_initialized():
        return
    # Its errors are those of the other processes, which have said them already.
    farewell = threading.Thread(target=jax.distributed.shutdown, daemon=True)
    farewell.start()
    farewell.join(FAILED_SECONDS[_PROCESS["is"]])
    if farewell.is_alive():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _has_processes_to_join(flags: Flags) -> bool:
    """Whether the flags name several processes; raises a UsageError where they do not fit one another."""
    given = {
        "coordinator_address": flags.coordinator_address,
        "process_count": flags.process_count,
        "process_index": flags.process_index,
    }
    missing = [f"--{name}" for name, value in given.items() if value is None]
    if len(missing) == len(given):
        return False
    if missing and not (flags.coordinator_address == "auto" and len(missing) == 2):
        raise UsageError(f"a run of several processes also needs {' and '.join(missing)}")
    index, count = flags.process_index, flags.process_count
    if index is not None and count is not None and index >= count:
        raise UsageError(f"--process_index={index} must be below --process_count={count}: count from 0")
    address = str(flags.coordinator_address)
    if address != "auto" and not address.rpartition(":")[2].isdecimal():
        raise UsageError(f"--coordinator_address={address} has no port: write HOST:PORT")
    return True


def from_first_process(value: Any) -> np.ndarray:
    """The value of the first process, which alone reads and writes files; a number or an array on every process."""
    if jax.process_count() == 1:
        return np.asarray(value)
    return np.asarray(multihost_utils.broadcast_one_to_all(np.asarray(value)))


def wait_for_all() -> None:
    """Returns when every process has come so far: then what the first one wrote is there."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("lmirl wait_for_all")


def show(result: object) -> None:
    """Prints the result of a command, on the standard output of the first process alone."""
    if jax.process_index() == 0:
        print(result)


def say(command: str, text: str) -> None:
    """Prints a line about the progress of a command, on the standard error of the first process alone."""
    if jax.process_index() == 0:
        print(f"{command}: {text}", file=sys.stderr, flush=True)
