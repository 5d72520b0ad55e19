"""Imports the modules that register tasks: those of gin files, and those of `--import`."""

import importlib
import os
import sys

from lmirl_jax import configuration
from lmirl_jax.cli.configure import set_data_folders
from lmirl_jax.cli.flags import Flags
from lmirl_jax.types import UserError

RUN_FILE = "gin/runs/finetune.gin"


def load(flags: Flags, run_file: tuple[str, ...] = (), bindings: tuple[str, ...] = ()) -> None:
    """Imports the modules, reads the gin files and points the data room at its folders.

    Args:
        flags: the flags of the command line.
        run_file: gin files that those of the flags override.
        bindings: bindings that those of the flags override.

    Raises:
        UserError: there is no such module, or the gin files have a mistake.
    """
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    for name in flags.modules:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if not name.startswith(error.name or " "):
                raise
            raise UserError(
                f"--import={name}: there is no module {error.name}; it must lie in the current folder or on PYTHONPATH"
            ) from error
    files = [*run_file, *flags.gin_file]
    if files:
        configuration.load(
            files,
            [*bindings, *flags.gin_bindings],
            flags.gin_search_paths,
            complete=False,
            known_only=bool(run_file),
        )
    set_data_folders(flags)
