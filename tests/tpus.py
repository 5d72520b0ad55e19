"""Chips of TPU slices: those of the TPU compiler where it is installed, and stand-ins with what meshes read of them."""

import itertools
import os
import pathlib
from unittest import mock

import jax
import pytest

from lmirl_jax import compilation

ROOT = pathlib.Path(__file__).resolve().parents[1]


def compiled_for(topology: str, monkeypatch) -> list[jax.Device]:
    """The chips of a topology such as 'v5e:2x2', for which programs can be compiled; skips the test without libtpu.

    The compiler lies where LMIRL_LIBTPU says, or where launch/local.sh installs it beside the environment of the tests.
    """
    beside = sorted(map(str, ROOT.glob(".venv-libtpu/lib/python*/site-packages")))
    folder = os.environ.get("LMIRL_LIBTPU") or (beside[0] if beside else None)
    if folder is not None:
        monkeypatch.syspath_prepend(folder)
    if not compilation.has_compiler():
        pytest.skip("no libtpu: set LMIRL_LIBTPU to the folder of `pip install --target FOLDER libtpu`")
    return list(compilation.devices_of(topology))


def tpus(kind: str, sides: tuple[int, ...], slices: int = 1) -> list[mock.Mock]:
    """Chips of slices with these sides, listed out of order.

    Args:
        kind: their `device_kind`, such as 'TPU v4'.
        sides: the number of chips along each side of a slice.
        slices: the number of slices.
    """
    places = list(itertools.product(*map(range, reversed(sides))))
    chips = []
    for number, (index, place) in enumerate(itertools.product(range(slices), places)):
        chip = mock.Mock(spec=jax.Device, id=number, platform="tpu", device_kind=kind, process_index=0)
        chip.slice_index, chip.core_on_chip = index, 0
        chip.coords = (*reversed(place), 0, 0)[:3]
        chips.append(chip)
    return [*chips[1::2], *chips[::2]]
