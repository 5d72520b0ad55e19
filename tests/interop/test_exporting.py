"""Checkpoints out, bit for bit, in other types and vocabularies, and in several files."""

import dataclasses
import json
import pathlib
import shutil

import ml_dtypes
import numpy as np
import pytest

import lmirl_jax
from lmirl_jax import exporting, interop, runs
from lmirl_jax.language_model import LanguageModel
from tests import pretrained
from tests.interop import refusals

T5X = refusals.GOLDEN.parent / "golden_t5x"


def tensors(folder: pathlib.Path) -> dict[str, tuple[str, bytes]]:
    """The type and the bytes of every tensor of a Hugging Face folder."""
    found = {}
    for file in folder.glob("*.safetensors"):
        header, data = refusals.read_safetensors(file)
        header.pop("__metadata__", None)
        for name, info in header.items():
            found[name] = info["dtype"], data[slice(*info["data_offsets"])]
    return found


def export(source: pathlib.Path, target: pathlib.Path, form: str, dtype: str | None = None) -> pathlib.Path:
    exporting.export(lmirl_jax.load(source).policy, str(target), form, dtype)
    return target


def bfloat16(folder: pathlib.Path) -> pathlib.Path:
    """Makes the weights of a folder bfloat16, with bits at random."""
    random = np.random.default_rng(0)
    halves = {}
    for name, value in refusals.read_tensors(folder / refusals.WEIGHTS).items():
        halves[name] = random.standard_normal(value.shape).astype(ml_dtypes.bfloat16)
    refusals.write_tensors(folder / refusals.WEIGHTS, halves)
    refusals.edit_json(folder / "config.json", lambda config: config.update(dtype="bfloat16"))
    return folder


def test_there_and_back_through_a_run_of_ours(golden, tmp_path):
    run = export(golden, tmp_path / "run", "orbax")
    back = export(run, tmp_path / "back", "hf")
    assert tensors(back) == tensors(golden)
    for name in ("config.json", "generation_config.json"):
        assert json.loads((back / name).read_text()) == json.loads((golden / name).read_text())


def test_bfloat16_goes_out_bit_for_bit(family, tmp_path):
    source = bfloat16(refusals.copy_of(family, tmp_path / "source"))
    out = export(source, tmp_path / "out", "hf")
    assert tensors(out) == tensors(source)
    assert {dtype for dtype, _ in tensors(out).values()} == {"BF16"}


@pytest.mark.parametrize("source", ["t5_1_1/msgpack_and_zarr", "t5_1_1/orbax", "t5_1_0/msgpack"])
def test_t5x_there_and_back_through_hugging_face(source, tmp_path):
    there = export(T5X / source, tmp_path / "hf", "hf")
    back = export(there, tmp_path / "t5x", "t5x")
    before, after = (interop.flatten(lmirl_jax.load(path).policy.params) for path in (T5X / source, back))
    assert before.keys() == after.keys()
    for name, value in before.items():
        np.testing.assert_array_equal(
            np.asarray(value).view(np.uint32), np.asarray(after[name]).view(np.uint32)
        )
    with np.load(T5X / source.partition("/")[0] / "expected.npz") as expected:
        prompts = [row[row > 0] for row in expected["inputs"]]
        for folder in (there, back):
            logits = lmirl_jax.load(folder).logits(expected["decoder_ids"], prompts)
            np.testing.assert_allclose(logits, expected["logits"], atol=3e-5, rtol=0)


def test_zeros_of_a_large_parameter_are_written_to_t5x(tmp_path, monkeypatch):
    """Tensorstore leaves out chunks of zeros, which could not be told from an interrupted copy."""
    from lmirl_jax.interop import save_t5x

    monkeypatch.setattr(save_t5x, "SMALLEST_FOLDER", 16)
    folder = refusals.copy_of("t5_1_1", tmp_path / "model")
    values = refusals.read_tensors(folder / refusals.WEIGHTS)
    values["lm_head.weight"] = np.zeros_like(values["lm_head.weight"])
    refusals.write_tensors(folder / refusals.WEIGHTS, values)
    back = export(folder, tmp_path / "t5x", "t5x")
    assert (back / "target.decoder.logits_dense.kernel").is_dir()
    assert not np.asarray(lmirl_jax.load(back).policy.params["logits_dense"]["kernel"]).any()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_another_type(golden, tmp_path, dtype):
    out = export(golden, tmp_path / "out", "hf", dtype)
    short = {"bfloat16": "BF16", "float16": "F16"}[dtype]
    assert {kind for kind, _ in tensors(out).values()} == {short}
    assert json.loads((out / "config.json").read_text())["dtype"] == dtype
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.float16
    for name, value in refusals.read_tensors(golden / refusals.WEIGHTS).items():
        assert tensors(out)[name][1] == value.astype(kind).tobytes()


def test_layers_of_several_types_go_out_in_the_widest(tmp_path):
    folder = refusals.copy_of("t5_1_1", tmp_path / "model")
    values = refusals.read_tensors(folder / refusals.WEIGHTS)
    name = "encoder.block.{}.layer.1.DenseReluDense.wo.weight"
    values[name.format(0)] = values[name.format(0)].astype(ml_dtypes.bfloat16)
    refusals.write_tensors(folder / refusals.WEIGHTS, values)
    written = tensors(export(folder, tmp_path / "out", "hf"))
    for layer in range(3):
        assert written[name.format(layer)] == ("F32", values[name.format(layer)].astype(np.float32).tobytes())


def write_in_parts(golden, out: pathlib.Path, largest: int) -> None:
    """Exports a checkpoint in files of a few bytes."""
    policy = lmirl_jax.load(golden).policy
    exporting.export(policy, str(out), "hf")
    (out / refusals.WEIGHTS).unlink()
    entries = interop.open_pretrained(policy.checkpoint).entries
    params = interop.flatten(policy.params)
    interop.write_weights(out, entries, params, lambda path: "float32", largest_file=largest)


@pytest.mark.parametrize("largest", [1, 20_000, 10**9])
@pytest.mark.parametrize("family", ["t5_1_0", "t5gemma", "qwen2"])
def test_several_files(golden, tmp_path, largest):
    write_in_parts(golden, tmp_path / "out", largest)
    files = sorted(file.name for file in (tmp_path / "out").glob("*.safetensors"))
    assert tensors(tmp_path / "out") == tensors(golden)
    if largest == 10**9:
        assert files == [refusals.WEIGHTS] and not (tmp_path / "out" / refusals.INDEX).exists()
        return
    index = json.loads((tmp_path / "out" / refusals.INDEX).read_text())
    assert files == [f"model-{number + 1:05}-of-{len(files):05}.safetensors" for number in range(len(files))]
    assert set(index["weight_map"].values()) == set(files)
    assert index["metadata"]["total_size"] == sum(len(data) for _, data in tensors(golden).values())
    with np.load(golden / "expected.npz") as expected:
        found = pretrained.logits(lmirl_jax.load(tmp_path / "out"), expected)
        np.testing.assert_allclose(found, expected["logits"], atol=3e-5, rtol=0)


def export_resized(family: str, out: pathlib.Path, size: int) -> runs.Policy:
    """Exports a checkpoint whose model has another vocabulary than it."""
    policy = lmirl_jax.load(refusals.GOLDEN / family).policy
    model = dataclasses.replace(policy.model, vocab_size=size)
    other = runs.load_policy(policy.checkpoint, model, policy.mesh, policy.task, policy.lengths, 1.0)
    exporting.export(other, str(out), "hf")
    return other


@pytest.mark.parametrize("size", [90, 128])
@pytest.mark.parametrize("family", ["t5_1_0", "byt5", "t5gemma", "llama", "gemma2"])
def test_another_vocabulary(family, tmp_path, size):
    policy = export_resized(family, tmp_path / "out", size)
    before = interop.flatten(policy.params)
    after = interop.flatten(load_without_vocabulary(tmp_path / "out"))
    for name, value in before.items():
        np.testing.assert_array_equal(np.asarray(value), np.asarray(after[name]), err_msg=name)


def load_without_vocabulary(folder: pathlib.Path):
    for file in folder.glob("*token*"):
        file.unlink()
    return lmirl_jax.load(folder).policy.params


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.parametrize("family", ["t5_1_1", "t5gemma", "llama", "gemma3"])
def test_transformers_loads_another_vocabulary(tmp_path, load_in_transformers, family):
    policy = export_resized(family, tmp_path / "out", 128)
    found, computed = load_in_transformers(tmp_path / "out")
    assert not (found["missing_keys"] or found["unexpected_keys"] or found["mismatched_keys"])
    found = pretrained.logits(LanguageModel(policy), computed)
    np.testing.assert_allclose(computed["logits"], found, atol=3e-5, rtol=0)


@pytest.mark.e2e
@pytest.mark.slow
def test_transformers_loads_several_files(tmp_path, load_in_transformers):
    write_in_parts(refusals.GOLDEN / "t5_1_1", tmp_path / "out", 20_000)
    found, computed = load_in_transformers(tmp_path / "out")
    assert not (found["missing_keys"] or found["unexpected_keys"] or found["mismatched_keys"])
    # On this machine: another processor rounds otherwise.
    shutil.copytree(refusals.GOLDEN / "t5_1_1", tmp_path / "whole")
    _, expected = load_in_transformers(tmp_path / "whole")
    np.testing.assert_array_equal(computed["logits"], expected["logits"])
