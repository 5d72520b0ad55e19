"""Reads again where a file system fails for a while."""

import errno
import itertools
import logging
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from lmirl_jax.types import UserError

_log = logging.getLogger(__name__)

Value = TypeVar("Value")
# Seconds between attempts, 5 minutes in all.
WAITS = (1.0, 2.0, 4.0, 8.0, 15.0, *itertools.repeat(30.0, 9))


def read_with_retries(read: Callable[[], Value], where: str, waits: Sequence[float] = WAITS) -> Value:
    """The result of a read, which is tried again where it raises an OSError, after each of some seconds.

    Raises:
        UserError: the last attempt failed too.
    """
    for number, wait in enumerate(waits, start=1):
        try:
            return read()
        except OSError as error:
            _log.warning(
                "%s cannot be read (%s): attempt %d of %d, the next in %g s",
                where,
                _reason(error),
                number,
                len(waits) + 1,
                wait,
            )
            time.sleep(wait)
    try:
        return read()
    except OSError as error:
        raise UserError(
            f"{where} cannot be read ({_reason(error)}), and could not be for {sum(waits):.0f} s: see to its file system, then "
            "run the same command again, which goes on from the last checkpoint"
        ) from error


def _reason(error: OSError) -> str:
    return error.strerror or errno.errorcode.get(error.errno or 0, type(error).__name__)
