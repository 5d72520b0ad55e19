"""Random damage to checkpoints: a line, or the same numbers where the damage hit nothing that is read; never a traceback."""

import os
import pathlib
import shutil

import numpy as np
import pytest
from etils import epath

from lmirl_jax import interop
from lmirl_jax.types import UserError
from tests.interop import refusals

T5X = refusals.GOLDEN.parent / "golden_t5x"
# The checkpoint, and the files in it that are damaged.
FORMATS = {
    "safetensors": (refusals.GOLDEN / "t5_1_1", "model.safetensors"),
    "config": (refusals.GOLDEN / "t5gemma", "config.json"),
    "msgpack": (T5X / "t5_1_0/msgpack", "checkpoint_0"),
    "msgpack beside zarr": (T5X / "t5_1_1/msgpack_and_zarr/checkpoint_0", "checkpoint"),
    "zarr metadata": (T5X / "scanned/msgpack_and_zarr/checkpoint_0", "target*/.zarray"),
    "zarr chunks": (T5X / "scanned/msgpack_and_zarr/checkpoint_0", "target*/0*"),
    "orbax tree": (T5X / "t5_1_1/orbax/checkpoint_0", "state/_METADATA"),
    "orbax database": (T5X / "t5_1_1/orbax/checkpoint_0", "state/**/[dm]*"),
}
# Here a flipped bit may be another valid value, which no checksum tells from the right one.
WITHOUT_CHECKSUM = ("config", "msgpack", "msgpack beside zarr")
# Tensorstore does not miss the end of a gzip stream, so that bytes which are taken out of its middle may go unnoticed.
UNTOLD = {("zarr chunks", "remove")}
ROUNDS = int(os.environ.get("LMIRL_FUZZ_ROUNDS", "20"))


def values(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Every parameter of a checkpoint."""
    opened = interop.open_pretrained(epath.Path(path))
    shapes = opened.parameter_shapes()
    read = {}
    for entry in opened.entries:
        shape = shapes[entry.ours]
        read[entry.ours] = entry.read(opened.source, shape, tuple(slice(0, size) for size in shape))
    return read


def damage(raw: bytes, random: np.random.Generator, kind: str) -> bytes:
    if kind == "cut":
        return raw[: random.integers(len(raw))]
    place = int(random.integers(len(raw)))
    if kind == "flip":
        return raw[:place] + bytes([raw[place] ^ (1 << int(random.integers(8)))]) + raw[place + 1 :]
    length = int(random.integers(1, 40))
    if kind == "fill":
        return raw[:place] + random.bytes(len(raw[place : place + length])) + raw[place + length :]
    return raw[:place] + raw[place + length :]


@pytest.mark.parametrize("kind", ["flip", "cut", "fill", "remove"])
@pytest.mark.parametrize("name", FORMATS)
def test_random_damage(tmp_path, name, kind):
    source, pattern = FORMATS[name]
    folder = pathlib.Path(shutil.copytree(source, tmp_path / source.name))
    path = folder / pattern if name == "msgpack" else folder
    whole = values(path)
    random = np.random.default_rng([len(name), len(kind)])
    files = sorted(file for file in folder.glob(pattern) if file.is_file())
    for _ in range(ROUNDS):
        file = files[random.integers(len(files))]
        raw = file.read_bytes()
        header = int.from_bytes(raw[:8], "little") + 8
        head = header if name == "safetensors" and kind in ("flip", "fill") else len(raw)
        file.write_bytes(damage(raw[:head], random, kind) + raw[head:])
        try:
            read = values(path)
        except UserError as error:
            assert "\n" not in str(error)
        else:
            if name not in WITHOUT_CHECKSUM and (name, kind) not in UNTOLD:
                for parameter, value in whole.items():
                    np.testing.assert_array_equal(read[parameter], value, err_msg=f"{file} {parameter}")
        file.write_bytes(raw)
