"""Tiny checkpoints of every family."""

import logging
import pathlib

import pytest

from lmirl_jax import configuration
from tests.pretrained import FAMILIES, GOLDEN


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
