"""From adapters of a run to PEFT's and back, against peft itself."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

import lmirl_jax
from lmirl_jax import checkpoints, interop
from lmirl_jax.cli import main
from lmirl_jax.interop.name_table import Entry
from lmirl_jax.interop.save_peft import adapter_entries
from lmirl_jax.models import DecoderOnlyConfig
from lmirl_jax.types import UserError
from tests.pretrained import GOLDEN

SCRIPT = pathlib.Path(__file__).resolve().parent / "peft_models.py"
IDS, ENCODER_IDS = [[0, 5, 6, 7, 8]], [[9, 10, 11, 12, 1]]
TRAIN = [
    "train",
    "--gin_file=gin/runs/finetune.gin",
    "--gin_file=gin/adapters/lora.gin",
    "--gin.TRAIN_STEPS=3",
    "--gin.BATCH_SIZE=8",
    "--gin.EVALUATIONS=[]",
    "--gin.WARMUP_STEPS=0",
    "--gin.LEARNING_RATE=1e-2",
    "--gin.TASK_FEATURE_LENGTHS={'inputs': 24, 'targets': 16}",
    "--gin.LORA_RANK=4",
]


@pytest.fixture(scope="module")
def peft(transformers):
    """A process with peft, which runs scripts."""
    try:
        transformers.run("import peft")
    except AssertionError:
        pytest.skip(f"{transformers.python} has no peft: tests/interop/requirements.txt pins it")
    return transformers


def bind(**macros: object) -> list[str]:
    return [f"--gin.{name}={value!r}" for name, value in macros.items()]


def logits(path):
    model = lmirl_jax.load(path)
    is_decoder_only = isinstance(model.policy.model, DecoderOnlyConfig)
    return model.logits(IDS) if is_decoder_only else model.logits(IDS, ENCODER_IDS)


@pytest.fixture(scope="module", params=["t5_1_0", "t5gemma", "qwen2", "gemma3"])
def run(request, tmp_path_factory):
    """A run of adapters on a checkpoint of each family, by the command; and its base."""
    place = tmp_path_factory.mktemp(request.param)
    data = place / "sums.jsonl"
    data.write_text(json.dumps({"inputs": "add 3 and 4", "targets": "3+4=7"}) + "\n")
    base, folder = GOLDEN / request.param, place / "run"
    macros = {"MODEL_DIR": str(folder), "DATA": str(data), "INITIAL_CHECKPOINT_PATH": str(base)}
    assert main([*TRAIN, *bind(**macros)]) == 0
    return base, folder


def convert(run, form, out):
    macros = {"CHECKPOINT_PATH": str(run), "OUTPUT_PATH": str(out), "FORMAT": form}
    return main(["convert", *bind(**macros)])


@pytest.mark.e2e
@pytest.mark.slow
def test_peft_loads_the_adapters_of_a_run(run, peft, tmp_path):
    base, folder = run
    assert convert(folder, "peft", tmp_path / "peft") == 0
    assert {file.name for file in (tmp_path / "peft").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    peft.run(SCRIPT, "load", base, tmp_path / "peft")
    with np.load(tmp_path / "peft-computed.npz") as computed:
        ours = logits(folder)
        np.testing.assert_allclose(computed["unmerged"], ours, atol=1e-4)
        np.testing.assert_allclose(computed["merged"], ours, atol=1e-4)
        # The adapters say something, and PEFT has found each of them.
        assert np.abs(computed["base"] - ours).max() > 0.01
        stored = interop.open_pretrained(epath.Path(tmp_path / "peft"))
        assert computed["adapters"] == len(stored.source._pairs)


@pytest.mark.slow
def test_the_merged_folder_and_the_peft_folder_are_the_same_model(run, tmp_path):
    _, folder = run
    assert convert(folder, "peft", tmp_path / "peft") == 0
    assert convert(folder, "hf", tmp_path / "hf") == 0
    assert convert(folder, "orbax", tmp_path / "orbax") == 0
    expected = logits(folder)
    for made in ("peft", "hf", "orbax"):
        np.testing.assert_allclose(logits(tmp_path / made), expected, atol=1e-5)
    assert checkpoints.kind_of(epath.Path(tmp_path / "peft")) == "hf"


@pytest.mark.slow
def test_the_loss_falls_and_the_base_stays_as_it_is(run):
    base, folder = run
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["train/loss_mle"] < lines[0]["train/loss_mle"]
    state = checkpoints.find_checkpoint(str(folder))
    record = checkpoints.read_record(state)
    assert record is not None and record.base == str(base)


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.parametrize("family", ["t5_1_1", "qwen3"])
def test_adapters_that_peft_has_made_are_read(family, peft, tmp_path):
    base = GOLDEN / family
    peft.run(SCRIPT, "make", base, tmp_path / "made")
    with np.load(tmp_path / "made" / "expected.npz") as expected:
        np.testing.assert_allclose(logits(tmp_path / "made"), expected["logits"], atol=1e-4)
    assert convert(tmp_path / "made", "hf", tmp_path / "hf") == 0
    np.testing.assert_allclose(logits(tmp_path / "hf"), logits(tmp_path / "made"), atol=1e-5)


@pytest.mark.slow
def test_what_is_no_plain_lora_is_refused_in_one_line(run, tmp_path, capsys):
    base, folder = run
    assert convert(folder, "peft", tmp_path / "peft") == 0
    file = tmp_path / "peft" / "adapter_config.json"
    good = json.loads(file.read_text())
    for setting, value in {"use_dora": True, "peft_type": "IA3", "modules_to_save": ["lm_head"]}.items():
        file.write_text(json.dumps(good | {setting: value}))
        with pytest.raises(UserError, match=f"{setting}=.* is not supported: merge the adapters with PEFT"):
            lmirl_jax.load(tmp_path / "peft")
    file.write_text(json.dumps(good | {"base_model_name_or_path": str(tmp_path)}))
    with pytest.raises(UserError, match="is no Hugging Face folder: write the path of the base there"):
        lmirl_jax.load(tmp_path / "peft")
    file.write_text(json.dumps(good | {"base_model_name_or_path": str(GOLDEN / "byt5")}))
    with pytest.raises(UserError, match=r"no matrix in the base|does not fit"):
        lmirl_jax.load(tmp_path / "peft")
    assert convert(base, "peft", tmp_path / "whole") == 1
    assert "holds a whole model, no adapters: write it with FORMAT='hf'" in capsys.readouterr().err


def test_a_matrix_that_is_a_part_of_theirs_is_refused():
    shapes = {
        f"a/adapter/{name}": jax.ShapeDtypeStruct(shape, jnp.float32)
        for name, shape in {"lora_a": (4, 2), "lora_b": (2, 6)}.items()
    }
    good = Entry("a/kernel", "embed mlp", "a.weight", "mlp embed")
    names = [(entry.theirs, entry.their_axes) for entry in adapter_entries([good], shapes)]
    assert names == [
        ("base_model.model.a.lora_A.weight", "rank embed"),
        ("base_model.model.a.lora_B.weight", "mlp rank"),
    ]
    for bad in ("embed mlp", "(mlp embed)"):
        with pytest.raises(UserError, match="no matrix of its own in transformers"):
            adapter_entries([Entry("a/kernel", "embed mlp", "a.weight", bad)], shapes)
    other = Entry("b/kernel", "embed mlp", "a.weight", "mlp embed")
    with pytest.raises(UserError, match="no matrix of its own in transformers"):
        adapter_entries([good, other], shapes)
