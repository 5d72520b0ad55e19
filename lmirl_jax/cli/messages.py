"""What a command prints on standard error of its own and of other libraries' doings: a line for each thing that went wrong.

Where a disk is full, Orbax and tensorstore fail in many threads and callbacks at once, each with a traceback; the command reports
it in one line.
"""

import logging
import sys
import threading

FULL = "No space left on device"
# A callback of a write of tensorstore, whose error comes after Orbax has given up the save.
LATE = "Event loop is closed"


def log_to_stderr() -> None:
    """Prints the warnings of this library, one line for each, and only errors of other libraries."""
    handler: logging.Handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    # Orbax logs its steps, and a failed write once for each thread.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    logging.getLogger("asyncio").addFilter(_is_of_other_reason)
    threading.excepthook = _of_threads
    sys.unraisablehook = _of_callbacks
    logger = logging.getLogger("lmirl_jax")
    logger.handlers = [handler]
    logger.propagate = False
    logger.setLevel(logging.INFO)


def _is_of_other_reason(record: logging.LogRecord) -> bool:
    return FULL not in record.getMessage()


def _of_threads(failure: threading.ExceptHookArgs) -> None:
    if FULL not in str(failure.exc_value):
        threading.__excepthook__(failure)


def _of_callbacks(failure: "sys.UnraisableHookArgs") -> None:
    if str(failure.exc_value) != LATE and FULL not in str(failure.exc_value):
        sys.__unraisablehook__(failure)
