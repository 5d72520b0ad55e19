"""Runs a command of lmirl that kills itself by SIGKILL in a given call of a function; kills.py starts it.

    launch/local.sh python benchmarks/killed_command.py --die=MODULE:FUNCTION,CALL,SECONDS -- train --gin_file=...

Without --die it is lmirl.
"""

import importlib
import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Any

from lmirl_jax.cli import main as lmirl


def die_within(place: str, call: int, seconds: float) -> None:
    """Makes this process kill itself `seconds` after the beginning of the given call (from 1) of a function."""
    module, _, name = place.partition(":")
    owner: Any = importlib.import_module(module)
    *classes, name = name.split(".")
    for part in classes:
        owner = getattr(owner, part)
    function, count = getattr(owner, name), 0

    def dying(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        if count == call:
            threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL)).start()
        return function(*args, **kwargs)

    setattr(owner, name, dying)


def run_command(arguments: Sequence[str]) -> int:
    """Runs lmirl in this process, which dies where the first argument says so."""
    split = list(arguments).index("--")
    for argument in arguments[:split]:
        place, call, seconds = argument.removeprefix("--die=").split(",")
        die_within(place, int(call), float(seconds))
    return lmirl(list(arguments[split + 1 :]))


if __name__ == "__main__":
    sys.exit(run_command(sys.argv[1:]))
