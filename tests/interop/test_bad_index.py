"""Bad folders with several safetensors files: the index and the files must tell the same, and the index stays in its folder."""

import shutil

import numpy as np
import pytest

import lmirl_jax
from tests.interop import refusals
from tests.interop.refusals import INDEX, edit_json


def truncate(path, length):
    path.write_bytes(path.read_bytes()[:length])


INDICES = {
    "no JSON": (lambda folder: (folder / INDEX).write_text("{"), "no index"),
    "a list": (lambda folder: (folder / INDEX).write_text("[1]"), "no index"),
    "without weight_map": (
        lambda folder: edit_json(folder / INDEX, lambda index: {"metadata": {}}),
        "weight_map",
    ),
    "empty": (lambda folder: edit_json(folder / INDEX, lambda index: {"weight_map": {}}), "weight_map"),
    "numbers": (
        lambda folder: edit_json(folder / INDEX, lambda index: {"weight_map": {"a": 1}}),
        "weight_map",
    ),
    "a list of pairs": (
        lambda folder: edit_json(folder / INDEX, lambda index: {"weight_map": [["a"]]}),
        "weight_map",
    ),
    "a missing shard": (
        lambda folder: (folder / "model-00002-of-00002.safetensors").unlink(),
        "names model-00002-of-00002.safetensors, which is not beside it",
    ),
    "a damaged shard": (
        lambda folder: truncate(folder / "model-00002-of-00002.safetensors", 1000),
        "model-00002-of-00002.safetensors is no whole safetensors file",
    ),
    "a shard twice": (
        lambda folder: shutil.copy(
            folder / "model-00001-of-00002.safetensors", folder / "model-00002-of-00002.safetensors"
        ),
        "mixes files of two checkpoints",
    ),
}


@pytest.mark.parametrize("damage", INDICES)
def test_a_damaged_index(tmp_path, capsys, damage):
    folder = refusals.copy_of("t5_1_0", tmp_path / "model")
    refusals.shard(folder)
    INDICES[damage][0](folder)
    line = refusals.refusal(folder, capsys)
    assert INDICES[damage][1] in line and "cop" in line


@pytest.mark.parametrize(
    "path",
    [
        "../model-00001-of-00002.safetensors",
        "/etc/passwd",
        "a\\b",
        "..",
        ".",
        "",
        "inner/x.safetensors",
        "~",
        "a\0b",
    ],
)
def test_an_index_that_leaves_its_folder(tmp_path, capsys, path):
    folder = refusals.copy_of("t5_1_0", tmp_path / "model")
    weight_map = refusals.shard(folder)
    # The file that it names is there, and whole.
    shutil.copy(folder / "model-00001-of-00002.safetensors", tmp_path)
    first = "model-00001-of-00002.safetensors"
    changed = {name: path if file == first else file for name, file in weight_map.items()}
    edit_json(folder / INDEX, lambda index: index.update(weight_map=changed))
    line = refusals.refusal(folder, capsys)
    assert repr(path) in line or f"names {path}, which is not beside it" in line


def test_a_tensor_that_the_index_leaves_out_counts(tmp_path, capsys):
    """Else an output embedding that an index forgets would be taken for one that is tied."""
    folder = refusals.copy_of("t5_1_1", tmp_path / "model")
    whole = lmirl_jax.load(folder).logits([[0, 5]], [[7, 8]])
    refusals.shard(folder)
    edit_json(folder / INDEX, lambda index: index["weight_map"].pop("lm_head.weight") and None)
    np.testing.assert_array_equal(lmirl_jax.load(folder).logits([[0, 5]], [[7, 8]]), whole)
    first, second = sorted(folder.glob("model-*"))
    tensors = refusals.read_tensors(first), refusals.read_tensors(second)
    both = {name: value for name, value in (tensors[0] | tensors[1]).items() if name == "lm_head.weight"}
    for file, held in zip((first, second), tensors):
        refusals.write_tensors(file, held | both)
    assert "which is another file's" in refusals.refusal(folder, capsys)


def test_a_link_out_of_the_folder_is_followed(tmp_path):
    """The hub's own cache is made of such links: who can make one in a folder can also copy the file."""
    folder = refusals.copy_of("t5_1_0", tmp_path / "model")
    refusals.shard(folder)
    for file in list(folder.glob("*.safetensors")):
        file.rename(tmp_path / file.name)
        file.symlink_to(tmp_path / file.name)
    assert lmirl_jax.load(folder).logits([[0]], [[3]]).shape == (1, 1, 96)
