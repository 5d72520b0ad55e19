"""Bad weights and folders of Hugging Face: each is refused in one line that says what, where and what to do instead."""

import json
import shlex
import shutil
import struct
import subprocess

import numpy as np
import pytest

import lmirl_jax
from tests.interop import refusals
from tests.interop.refusals import WEIGHTS, edit_header, edit_json

COPY = "copy it again"
NAME = "encoder.final_layer_norm.weight"


def offsets(path, name, start, stop):
    edit_header(path, lambda header: header[name].update(data_offsets=[start, stop]))


def shape(path, name, value):
    edit_header(path, lambda header: header[name].update(shape=value))


def truncate(path, length):
    path.write_bytes(path.read_bytes()[:length])


def overlap(path):
    header, _ = refusals.read_safetensors(path)
    second = sorted(
        (name for name in header if name != "__metadata__"), key=lambda name: header[name]["data_offsets"]
    )[1]
    start, stop = header[second]["data_offsets"]
    offsets(path, second, start - 4, stop - 4)


def add_gap(path):
    header, data = refusals.read_safetensors(path)
    for name, info in header.items():
        if name != "__metadata__":
            info["data_offsets"] = [place + 4 for place in info["data_offsets"]]
    refusals.write_safetensors(path, header, b"gap!" + data)


def twice(path):
    """The same name twice in the JSON object."""
    header, data = refusals.read_safetensors(path)
    text = json.dumps(header)
    refusals.write_safetensors(
        path, (text[:-1] + f', "{NAME}": ' + json.dumps(header[NAME]) + "}").encode(), data
    )


DAMAGES = {
    "empty": lambda path: path.write_bytes(b""),
    "short header": lambda path: truncate(path, 5),
    "header cut": lambda path: truncate(path, 300),
    "data cut": lambda path: truncate(path, -1000),
    "header length absurd": lambda path: path.write_bytes(struct.pack("<Q", 2**60) + path.read_bytes()[8:]),
    "header length largest": lambda path: path.write_bytes(
        struct.pack("<Q", 2**64 - 1) + path.read_bytes()[8:]
    ),
    "header length 0": lambda path: path.write_bytes(struct.pack("<Q", 0) + path.read_bytes()[8:]),
    "header no JSON": lambda path: refusals.write_safetensors(path, b"{" * 400, b"1234"),
    "header deep": lambda path: refusals.write_safetensors(path, b"[" * 10**6, b""),
    "header a list": lambda path: refusals.write_safetensors(path, [1, 2], b""),
    "header not UTF-8": lambda path: refusals.write_safetensors(path, b'{"\xff": 1}', b""),
    "no tensors": lambda path: refusals.write_safetensors(path, {}, b""),
    "overlapping offsets": overlap,
    "offsets beyond the file": lambda path: offsets(path, NAME, 0, 10**9),
    "offsets turned round": lambda path: offsets(path, NAME, 64, 0),
    "offsets negative": lambda path: offsets(path, NAME, -64, 0),
    "absurd shape": lambda path: shape(path, NAME, [2**62, 2**62]),
    "negative shape": lambda path: shape(path, NAME, [-16]),
    "shape of words": lambda path: shape(path, NAME, ["a"]),
    "another shape of the same size": lambda path: shape(path, NAME, [4, 4]),
    "a gap": add_gap,
    "trailing bytes": lambda path: path.write_bytes(path.read_bytes() + b"more"),
    "an unknown type": lambda path: edit_header(path, lambda header: header[NAME].update(dtype="F33")),
    "a pickle": lambda path: path.write_bytes(b"\x80\x04}q\x00." * 100),
    "a Git LFS pointer": lambda path: path.write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_safetensors_file(tmp_path, capsys, damage):
    folder = refusals.copy_of("t5_1_0", tmp_path / "model")
    DAMAGES[damage](folder / WEIGHTS)
    line = refusals.refusal(folder, capsys)
    assert str(folder) in line and COPY in line


@pytest.mark.parametrize(
    ("dtype", "told"), [("int8", "I8"), ("float64", "F64"), ("F8_E4M3", "F8_E4M3"), ("BOOL", "BOOL")]
)
def test_quantised_and_whole_numbers(tmp_path, capsys, dtype, told):
    folder = refusals.copy_of("t5_1_0", tmp_path / "model")
    tensors = refusals.read_tensors(folder / WEIGHTS)
    kind = dtype if dtype in ("int8", "float64") else "int8"
    refusals.write_tensors(folder / WEIGHTS, tensors | {NAME: tensors[NAME].astype(kind)}, {NAME: told})
    line = refusals.refusal(folder, capsys)
    assert f"{NAME} has the type {told}" in line and "float32, float16, bfloat16" in line


def test_missing_and_left_over_tensors_are_listed(tmp_path, capsys):
    folder = refusals.copy_of("t5_1_1", tmp_path / "model")
    tensors = refusals.read_tensors(folder / WEIGHTS)
    tensors["a.new.weight"] = tensors.pop(NAME)
    refusals.write_tensors(folder / WEIGHTS, tensors)
    line = refusals.refusal(folder, capsys)
    assert f"missing: {NAME}; left over: a.new.weight" in line


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model.bin.index.json"])
def test_pickled_weights_are_refused_with_a_command(tmp_path, capsys, name):
    folder = refusals.copy_of("t5_1_0", tmp_path / "a folder's name")
    (folder / WEIGHTS).rename(folder / name)
    line = refusals.refusal(folder, capsys)
    assert f"as {name}, which this library does not read (a pickle can run code): convert it" in line
    assert "from_pretrained(sys.argv[1]).save_pretrained(sys.argv[1])" in line


@pytest.mark.parametrize(
    ("name", "library"), [("tf_model.h5", "from_tf"), ("flax_model.msgpack", "from_flax")]
)
def test_weights_of_old_libraries_are_refused_with_a_command(tmp_path, capsys, name, library):
    folder = refusals.copy_of("t5_1_0", tmp_path / "model")
    (folder / WEIGHTS).rename(folder / name)
    line = refusals.refusal(folder, capsys)
    assert f"{library}=True" in line and "transformers<5" in line and "pickle" not in line


@pytest.mark.e2e
@pytest.mark.slow
def test_the_command_converts_pickled_weights(tmp_path, capsys, parity_python):
    folder = refusals.copy_of("t5_1_1", tmp_path / "a folder's name")
    expected = lmirl_jax.load(folder).logits([[0, 5, 9]], [[7, 8]])
    pickle = (
        "import sys, pathlib, torch; from safetensors.torch import load_file as load; folder = pathlib.Path(sys.argv[1]); "
        "torch.save(load(folder / 'model.safetensors'), folder / 'pytorch_model.bin')"
    )
    subprocess.run([parity_python, "-c", pickle, str(folder)], check=True, timeout=300)
    (folder / WEIGHTS).unlink()
    command = refusals.refusal(folder, capsys).partition(" with ")[2]
    assert command.startswith("python -c ")
    subprocess.run(
        ["sh", "-c", command.replace("python", shlex.quote(parity_python), 1)], check=True, timeout=300
    )
    np.testing.assert_array_equal(lmirl_jax.load(folder).logits([[0, 5, 9]], [[7, 8]]), expected)


def test_a_tokenizer_with_more_words_than_the_embedding(tmp_path, capsys):
    folder = refusals.copy_of("t5_1_0", tmp_path / "model")
    tensors = refusals.read_tensors(folder / WEIGHTS)
    tensors["shared.weight"] = tensors["shared.weight"][:50]
    refusals.write_tensors(folder / WEIGHTS, tensors)
    edit_json(folder / "config.json", lambda config: config.update(vocab_size=50))
    line = refusals.refusal(folder, capsys, opens=True)
    assert "words and its embedding 50 rows" in line


@pytest.mark.parametrize("text", ["", "{", "[]", '{"model": {"type": "Unigram", "vocab": 3}}', "\x00"])
def test_a_damaged_tokenizer(tmp_path, capsys, text):
    folder = refusals.copy_of("t5_1_0", tmp_path / "model")
    (folder / "tokenizer.json").write_text(text)
    assert "tokenizer" in refusals.refusal(folder, capsys, opens=True)


def test_places_without_a_checkpoint(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.safetensors").write_bytes(b"1")
    (tmp_path / "only_config").mkdir()
    shutil.copy(refusals.GOLDEN / "t5_1_0/config.json", tmp_path / "only_config")
    for name, told in {
        "empty": "no checkpoint at",
        "file.safetensors": "no checkpoint at",
        "not_there": "the folder does not exist",
        "only_config": "no weights in",
        "x" * 300: "no checkpoint at",
    }.items():
        assert told in refusals.refusal(tmp_path / name, capsys), name


def test_an_embedding_that_is_no_copy_of_the_shared_one_is_refused(tmp_path, capsys):
    folder = refusals.copy_of("t5_1_0", tmp_path / "model")
    tensors = refusals.read_tensors(folder / WEIGHTS)
    name = "encoder.embed_tokens.weight"
    refusals.write_tensors(folder / WEIGHTS, tensors | {name: tensors["shared.weight"].copy()})
    assert lmirl_jax.load(folder).logits([[0, 5]], [[7, 8]]).shape == (1, 2, 96)
    other = tensors["shared.weight"].copy()
    other[-1, -1] += 1
    refusals.write_tensors(folder / WEIGHTS, tensors | {name: other})
    assert f"{name} differs from shared.weight" in refusals.refusal(folder, capsys)


@pytest.mark.parametrize(("said", "tied"), [(True, True), (False, False)])
def test_an_output_embedding_that_equals_the_input_is_tied_unless_config_json_separates_them(
    tmp_path, said, tied
):
    folder = refusals.copy_of("t5_1_1", tmp_path / "model")
    tensors = refusals.read_tensors(folder / WEIGHTS)
    refusals.write_tensors(folder / WEIGHTS, tensors | {"lm_head.weight": tensors["shared.weight"].copy()})
    edit_json(folder / "config.json", lambda config: config.update(tie_word_embeddings=said))
    assert lmirl_jax.load(folder).policy.model.logits_via_embedding is tied
