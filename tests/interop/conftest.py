"""Tiny checkpoints of every family."""

import pathlib

import pytest

from tests.pretrained import FAMILIES, GOLDEN


@pytest.fixture(params=FAMILIES)
def family(request) -> str:
    return request.param


@pytest.fixture
def golden(family) -> pathlib.Path:
    """The committed checkpoint of each family; `transformers_models.py make` wrote it."""
    return GOLDEN / family
