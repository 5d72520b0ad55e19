"""The head of every result: the command, the commit and the machine."""

import argparse
import os
import platform
import subprocess
from pathlib import Path

import jax


def provenance(options: argparse.Namespace, device: jax.Device | None = None) -> dict[str, str]:
    """The command, the commit and the machine of a result.

    Args:
        options: the options of the script; paths are left out, because no number depends on them.
        device: that it ran on; None for scripts that leave devices to their processes.
    """
    given = {
        name: value
        for name, value in vars(options).items()
        if value is not None and value is not False and not isinstance(value, Path)
    }
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    machine = [f"{os.cpu_count()} CPU cores", platform.machine()]
    machine += [] if device is None else [device.device_kind]
    return {
        "command": " ".join(
            f"--{name}" if value is True else f"--{name}={value}" for name, value in given.items()
        ),
        "commit": commit.stdout.strip(),
        "machine": ", ".join([*machine, f"JAX {jax.__version__}"]),
    }
