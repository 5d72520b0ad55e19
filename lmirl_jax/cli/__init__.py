"""The program `lmirl`: finds the module of a command, reads its flags and turns errors into one line and an exit code.

Exit codes: 0 for success, 1 for an error that the user can mend, 2 for a command line that cannot be read, 130 for an
interruption, and 75 for a training run that a SIGTERM ended and that is saved: the same command goes on. A bug of this library
keeps its traceback. The module of a command is imported when the command is called, so that help answers at once.
"""

# launch/tpu_vm.sh reads the table of commands with the Python of the user's machine, which may be 3.9.
from __future__ import annotations

import difflib
import importlib
import os
import sys
import traceback
from collections.abc import Sequence

import lmirl_jax
from lmirl_jax.cli import commands
from lmirl_jax.cli import flags as flag_parsing

__all__ = ["main", "run"]

# The exit code of a run that a SIGTERM ended and that is saved (training.signals): its processes all end so.
SAVED = 75


def run() -> int:
    """The program `lmirl`: runs the command line of the process, and if that fails, does not wait for other processes."""
    try:
        code = main()
    except Exception:
        traceback.print_exc()
        code = 1
    # The module imports JAX. A run of several processes has imported it already.
    processes = sys.modules.get("lmirl_jax.cli.processes")
    if processes is not None and code not in (0, SAVED):
        processes.leave(code)
    return code


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line, by default that of the process; returns its exit code."""
    try:
        code = _dispatch(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
        return code
    except flag_parsing.UsageError as error:
        return _fail(str(error), 2)
    except BrokenPipeError:
        # The reader of the output has gone: print nothing more, not even when Python flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt as interrupt:
        return _fail(str(interrupt) or "interrupted", getattr(interrupt, "exit_code", 130))
    except Exception as error:
        if "No space left on device" in str(error):  # Python, Orbax and TensorFlow raise it in other classes.
            return _fail(
                "no space left on a disk that is written to: free some, then run the same command again", 1
            )
        lost = _lost_process(error)
        if lost is not None:
            return _fail(lost, 1)
        if not _is_user_error(error):
            raise
        # Gin adds lines about the call in which the error was raised. The first line is ours.
        return _fail(str(error).splitlines()[0], 1)


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        print(commands.overview())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"lmirl_jax {lmirl_jax.__version__}")
        return 0
    name, *rest = arguments
    if name not in commands.COMMANDS:
        raise flag_parsing.UsageError(_unknown_command(name))
    if "--help" in rest or "-h" in rest:
        print(commands.explanation(name))
        return 0
    command = commands.COMMANDS[name]
    flags = flag_parsing.parse(rest, command.flags, len(command.words))
    return importlib.import_module(command.module).main(flags)


def _unknown_command(name: str) -> str:
    names = list(commands.COMMANDS)
    if name.startswith("-"):
        return f"{name!r} before a command: write lmirl <command> {name}; commands are {', '.join(names)}"
    nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]!r}?" if nearest else f"there are {', '.join(names)}"
    return f"no command {name!r}; {hint}"


def _lost_process(error: Exception) -> str | None:
    """A line about an error of a collective operation, whose other processes no longer answer; None for other errors."""
    processes = sys.modules.get("lmirl_jax.cli.processes")
    return None if processes is None else processes.lost_process(error)


def _is_user_error(error: Exception) -> bool:
    # lmirl_jax.types imports JAX. Code that raised its UserError has imported it already.
    types = sys.modules.get("lmirl_jax.types")
    return types is not None and isinstance(error, types.UserError)


def _fail(line: str, code: int) -> int:
    print(f"lmirl: {line}", file=sys.stderr, flush=True)
    return code
