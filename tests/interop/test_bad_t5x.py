"""Bad checkpoints of T5X: each is refused in one line, and what lies in a folder is never taken for read unless it is."""

import pathlib
import shutil

import ml_dtypes
import numpy as np
import pytest
from flax import serialization

import lmirl_jax
from tests.interop import refusals

GOLDEN = pathlib.Path(__file__).resolve().parent / "golden_t5x"
ZARR = GOLDEN / "t5_1_1/msgpack_and_zarr/checkpoint_0"


@pytest.fixture
def copy(tmp_path):
    """Copies a checkpoint, to damage it."""

    def make(path: pathlib.Path) -> pathlib.Path:
        return pathlib.Path(shutil.copytree(path, tmp_path / path.name))

    return make


def edit(folder: pathlib.Path, change) -> None:
    """Changes the tree of a msgpack file in place."""
    file = folder / "checkpoint"
    content = serialization.msgpack_restore(file.read_bytes())
    changed = change(content)
    file.write_bytes(serialization.msgpack_serialize(content if changed is None else changed))


def spec(content):
    """The description of a parameter in the tree of a msgpack file."""
    return content["optimizer"]["target"]["encoder"]["layers_0"]["mlp"]["wi_0"]["kernel"]


def put(content, path: str, value) -> None:
    """Puts a leaf into the target, or removes one for None."""
    *parents, last = path.split("/")
    inner = content["optimizer"]["target"]
    for parent in parents:
        inner = inner.setdefault(parent, {})
    inner[last] = value


def drop(content, path: str) -> None:
    *parents, last = path.split("/")
    inner = content["optimizer"]["target"]
    for parent in parents:
        inner = inner[parent]
    del inner[last]


def set_path(path):
    def change(content):
        spec(content)["kvstore"]["path"] = path

    return change


def decoder_only(content):
    target = content["optimizer"]["target"]
    target["decoder"]["token_embedder"] = target.pop("token_embedder")
    target.pop("encoder")


TREES = {
    "a list": (lambda content: [1, 2], "no checkpoint of T5X"),
    "another tree": (lambda content: {"params": {"a": np.zeros(3)}}, "no checkpoint of T5X"),
    "no target": (lambda content: content["optimizer"].pop("target") and None, "no checkpoint of T5X"),
    "a target that is none": (lambda content: content["optimizer"].update(target=3), "has the type int"),
    "an empty target": (lambda content: content["optimizer"].update(target={}), "no encoder-decoder of T5X"),
    "version 2": (lambda content: content.update(version=2), "T5X's old format 2"),
    "no version": (lambda content: content.pop("version") and None, "T5X's old format 0"),
    "a version of words": (lambda content: content.update(version="new"), "no checkpoint of T5X"),
    "a version of null": (lambda content: content.update(version=None), "no checkpoint of T5X"),
    "a parent folder": (set_path("../.."), "names the folder '../..'"),
    "this folder": (set_path("."), "names the folder '.'"),
    "no folder": (set_path(""), "names the folder ''"),
    "a folder of no name": (lambda content: spec(content).pop("kvstore") and None, "names the folder ''"),
    "a store of words": (lambda content: spec(content).update(kvstore="file"), "names the folder ''"),
    "a folder twice": (set_path("target.encoder.layers_0.mlp.wi_1.kernel"), "two parameters in one folder"),
    "another driver": (lambda content: spec(content).update(driver="json"), "of the kind 'json'"),
    "a driver that is none": (lambda content: spec(content).update(driver=[1]), "of the kind [1]"),
    "an outside folder": (set_path("/etc/"), "cannot be read"),
    "decoder-only": (decoder_only, "no encoder-decoder of T5X"),
    "words": (lambda content: put(content, "encoder/encoder_norm/scale", "words"), "has the type"),
    "a ragged list": (
        lambda content: put(content, "encoder/encoder_norm/scale", [[1.0], 2.0]),
        "has the type list and is no array",
    ),
    "whole numbers": (
        lambda content: put(content, "encoder/encoder_norm/scale", np.ones(8, np.int8)),
        "type int8",
    ),
    "float64": (lambda content: put(content, "encoder/encoder_norm/scale", np.ones(8)), "type float64"),
    "None": (
        lambda content: put(content, "encoder/encoder_norm/scale", None),
        "missing: encoder/encoder_norm/scale",
    ),
    "more": (
        lambda content: put(content, "encoder/lora/kernel", np.ones(8, np.float32)),
        "left over: encoder/lora/kernel",
    ),
    "a layer too few": (lambda content: drop(content, "encoder/layers_0"), "no encoder-decoder of T5X"),
    "a huge layer": (
        lambda content: put(content, "encoder/layers_1000000000/a", np.ones(8, np.float32)),
        "num_encoder_layers would be 1000000001",
    ),
    "a layer that is none": (
        lambda content: put(content, "encoder/layers_x/a", np.ones(1, np.float32)),
        "T5X",
    ),
    "no heads": (
        lambda content: put(content, "encoder/relpos_bias/rel_embedding", np.ones((0, 32), np.float32)),
        "no encoder-decoder of T5X",
    ),
    "few buckets": (
        lambda content: put(content, "encoder/relpos_bias/rel_embedding", np.ones((2, 1), np.float32)),
        "of another shape",
    ),
    "a number as bias": (
        lambda content: put(content, "encoder/relpos_bias/rel_embedding", np.ones((), np.float32)),
        "no encoder-decoder of T5X",
    ),
    "another shape": (
        lambda content: put(content, "encoder/encoder_norm/scale", np.ones((2, 4), np.float32)),
        "encoder/encoder_norm/scale (2x4 instead of 8)",
    ),
}


@pytest.mark.parametrize("damage", TREES)
def test_a_wrong_tree(copy, capsys, damage):
    folder = copy(ZARR)
    change, told = TREES[damage]
    edit(folder, change)
    line = refusals.refusal(folder, capsys)
    assert told in line and str(folder) in line


FILES = {
    "empty": b"",
    "one byte": b"\xc1",
    "JSON": b"{}",
    "deep": b"\x91" * 10**5,
    "absurd length": b"\xdd\xff\xff\xff\xff",
    "TensorFlow's": b'model_checkpoint_path: "model.ckpt-1000000"\n',
}


@pytest.mark.parametrize("content", FILES)
def test_a_file_that_is_none(copy, capsys, content):
    folder = copy(ZARR)
    (folder / "checkpoint").write_bytes(FILES[content])
    told = "of TensorFlow" if content == "TensorFlow's" else "is no checkpoint of T5X"
    assert told in refusals.refusal(folder, capsys)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.9, 0.999])
def test_a_truncated_file(copy, capsys, share):
    for path in (copy(ZARR) / "checkpoint", copy(GOLDEN / "t5_1_0/msgpack") / "checkpoint_0"):
        raw = path.read_bytes()
        path.write_bytes(raw[: int(share * len(raw))])
        folder = path.parent if path.name == "checkpoint" else path
        assert "is no checkpoint of T5X" in refusals.refusal(folder, capsys)


def test_none_leaves_of_several_optimizers_are_no_parameters(copy):
    """T5X's MultiOptimizer keeps None for what it does not train, in its state."""
    folder = copy(ZARR)
    expected = lmirl_jax.load(folder).logits([[0, 3]], [[4, 5]])

    def several(content):
        state = content["optimizer"]["state"]
        content["optimizer"]["state"] = {"states": [None, state], "empty": {}, "none": None}

    edit(folder, several)
    np.testing.assert_array_equal(lmirl_jax.load(folder).logits([[0, 3]], [[4, 5]]), expected)


def test_bfloat16_parameters_load(copy):
    folder = copy(ZARR)
    half = np.linspace(0.5, 1.5, 8).astype(ml_dtypes.bfloat16)
    edit(folder, lambda content: put(content, "encoder/encoder_norm/scale", half))
    loaded = lmirl_jax.load(folder).policy.params["encoder"]["norm"]["scale"]
    np.testing.assert_array_equal(np.asarray(loaded), half.astype(np.float32))


def test_an_interrupted_save_is_passed_over(copy, tmp_path):
    copy(ZARR)
    (tmp_path / "checkpoint_0").rename(tmp_path / "checkpoint_7")
    shutil.copytree(ZARR, tmp_path / "checkpoint_9.tmp-123")
    assert lmirl_jax.load(tmp_path).policy.checkpoint.name == "checkpoint_7"
