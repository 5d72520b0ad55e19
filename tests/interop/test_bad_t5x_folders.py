"""Damaged folders of tensorstore and Orbax: a parameter that is not wholly there is never taken for zeros."""

import json
import pathlib
import shutil

import numpy as np
import pytest
import tensorstore

import lmirl_jax
from tests.interop import refusals

GOLDEN = pathlib.Path(__file__).resolve().parent / "golden_t5x"
ZARR, ORBAX = GOLDEN / "t5_1_1/msgpack_and_zarr/checkpoint_0", GOLDEN / "t5_1_1/orbax/checkpoint_0"
KERNEL = "target.encoder.layers_0.mlp.wi_0.kernel"


@pytest.fixture
def copy(tmp_path):
    """Copies a checkpoint, to damage it."""

    def make(path: pathlib.Path) -> pathlib.Path:
        return pathlib.Path(shutil.copytree(path, tmp_path / path.name))

    return make


def rewrite_zarray(folder, **values):
    refusals.edit_json(folder / ".zarray", lambda metadata: metadata.update(values))


STORES = {
    "no folder": shutil.rmtree,
    "no metadata": lambda folder: (folder / ".zarray").unlink(),
    "empty metadata": lambda folder: (folder / ".zarray").write_text(""),
    "no chunk": lambda folder: (folder / "0.0").unlink(),
    "an absurd shape": lambda folder: rewrite_zarray(folder, shape=[2**62, 12]),
    "a negative shape": lambda folder: rewrite_zarray(folder, shape=[-8, 12]),
    "another shape": lambda folder: rewrite_zarray(folder, shape=[4, 12]),
    "another rank": lambda folder: rewrite_zarray(folder, shape=[8, 12, 1], chunks=[8, 12, 1]),
    "whole numbers": lambda folder: rewrite_zarray(folder, dtype="<i4"),
    "an unknown type": lambda folder: rewrite_zarray(folder, dtype="<x4"),
    "an unknown compressor": lambda folder: rewrite_zarray(folder, compressor={"id": "none of these"}),
}


@pytest.mark.parametrize("damage", STORES)
def test_a_damaged_folder_of_a_parameter(copy, capsys, damage):
    folder = copy(ZARR)
    STORES[damage](folder / KERNEL)
    assert str(folder) in refusals.refusal(folder, capsys)


CHUNKS = {
    "truncated": lambda raw: raw[:50],
    "empty": lambda raw: b"",
    "a flipped bit": lambda raw: raw[:200] + bytes([raw[200] ^ 4]) + raw[201:],
    "more": lambda raw: raw + b"more",
    "not compressed": lambda raw: bytes(384),
}


@pytest.mark.parametrize("damage", CHUNKS)
def test_a_damaged_chunk(copy, damage):
    """Its checksum is read with its values: so `lmirl doctor`, which reads none, cannot tell."""
    folder = copy(ZARR)
    chunk = folder / KERNEL / "0.0"
    chunk.write_bytes(CHUNKS[damage](chunk.read_bytes()))
    line = refusals.one_line(folder)
    assert "the parameter encoder/layers_0/mlp/wi_0/kernel cannot be read" in line


def test_a_chunk_of_many_that_is_missing(tmp_path, capsys, copy):
    """Tensorstore would read it as zeros."""
    folder = copy(ZARR)
    shutil.rmtree(folder / KERNEL)
    store = tensorstore.open(
        {
            "driver": "zarr",
            "kvstore": {"driver": "file", "path": f"{folder / KERNEL}/"},
            "dtype": "float32",
            "metadata": {"shape": [8, 12], "chunks": [2, 12]},
        },
        create=True,
    ).result()
    store.write(np.ones((8, 12), np.float32)).result()
    lmirl_jax.load(folder)
    (folder / KERNEL / "2.0").unlink()
    assert "1 of its 4 chunks are missing" in refusals.refusal(folder, capsys)


def orbax_metadata(change):
    def damage(state):
        refusals.edit_json(state / "_METADATA", change)

    return damage


def drop_target(metadata):
    tree = metadata["tree_metadata"]
    metadata["tree_metadata"] = {key: value for key, value in tree.items() if "'target'" not in key} | {
        "('other', 'target')": next(iter(tree.values()))
    }


STATES = {
    "no manifest": lambda state: (state / "manifest.ocdbt").unlink(),
    "empty manifest": lambda state: (state / "manifest.ocdbt").write_bytes(b""),
    "no tree": lambda state: shutil.rmtree(state / "d"),
    "empty metadata": lambda state: (state / "_METADATA").write_text("'target'"),
    "strange metadata": orbax_metadata(lambda metadata: {"tree_metadata": {"'target'": 3}}),
    "no parameters": orbax_metadata(drop_target),
    "another parameter": orbax_metadata(
        lambda metadata: json.loads(json.dumps(metadata).replace("encoder_norm", "another_norm"))
    ),
}


@pytest.mark.parametrize("damage", STATES)
def test_a_damaged_state_of_orbax(copy, capsys, damage):
    folder = copy(ORBAX)
    STATES[damage](folder / "state")
    assert str(folder) in refusals.refusal(folder, capsys)


def test_missing_values_of_orbax(copy):
    """They too show only when values are read."""
    folder = copy(ORBAX)
    shutil.rmtree(folder / "state/ocdbt.process_0")
    assert "cannot be read" in refusals.one_line(folder)
