"""Tiny checkpoints of every family: committed ones, and where transformers is at hand the same made anew by it."""

import json
import logging
import pathlib
import subprocess

import numpy as np
import pytest

from lmirl_jax import configuration

HERE = pathlib.Path(__file__).resolve().parent
GOLDEN = HERE / "golden"
SCRIPT = HERE / "transformers_models.py"
FAMILIES = ("t5_1_0", "t5_1_1", "byt5", "mt5", "umt5", "t5gemma")


@pytest.fixture(scope="session")
def live(parity_python, tmp_path_factory) -> pathlib.Path:
    """A folder with a checkpoint of each family, which transformers has just made."""
    folder = tmp_path_factory.mktemp("live")
    _run(parity_python, "make", folder)
    return folder


@pytest.fixture(scope="session")
def load_in_transformers(parity_python):
    """Loads a folder with transformers; returns what does not fit, and what it computes as arrays."""

    def load(folder: pathlib.Path) -> tuple[dict, dict]:
        found = json.loads(_run(parity_python, "load", folder).splitlines()[-1])
        with np.load(folder.parent / f"{folder.name}-computed.npz") as computed:
            return found, dict(computed)

    return load


def _run(python: str, command: str, folder: pathlib.Path) -> str:
    done = subprocess.run(
        [python, str(SCRIPT), command, str(folder)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(params=FAMILIES)
def family(request) -> str:
    return request.param


@pytest.fixture
def golden(family) -> pathlib.Path:
    """The committed checkpoint of each family; `transformers_models.py make` wrote it."""
    return GOLDEN / family


@pytest.fixture
def one_process():
    """Lets a command run in this process, and undoes what it does to the configuration and the log."""
    log = logging.getLogger("lmirl_jax")
    absl = logging.getLogger("absl")
    before = log.handlers, log.propagate, log.level, absl.level
    with configuration.restore_afterwards():
        yield
    log.handlers, log.propagate = before[:2]
    log.setLevel(before[2])
    absl.setLevel(before[3])
