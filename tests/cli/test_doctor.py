"""The doctor's report, and its verdict where something is missing."""

import importlib.metadata
import json
import math
import os
import pathlib
import re
import shutil

import pytest

from lmirl_jax import configuration
from lmirl_jax.cli import doctor, flags
from lmirl_jax.interop.safetensors_files import tensors_of
from tests.fakes import make_run

pytestmark = pytest.mark.eight_devices


@pytest.fixture
def sums(tmp_path) -> str:
    """The binding of a small file of demonstrations."""
    path = tmp_path / "sums.jsonl"
    path.write_text('{"inputs": "1+1", "targets": "2"}\n' * 128)
    return f"DATA = '{path}'"


def test_a_whole_machine_can_train(capsys, monkeypatch):
    monkeypatch.setattr(configuration, "bundled_files", lambda: ["gin/runs/finetune.gin"])
    assert doctor.main(flags.Flags()) == 0
    out = capsys.readouterr().out
    rows = dict(line.split(None, 1) for line in out.split("\n\n")[0].splitlines())
    assert rows["jax"] == importlib.metadata.version("jax")
    assert rows["devices"] == "8 x cpu"
    assert rows["mesh"] == "data=8"
    assert rows["soft"] == "Q-values        dense up to 16,777,216 logits a device, blocked above"
    assert rows["gin"].split()[1:3] == ["1", "bundled,"]
    assert out.endswith("all that training needs is here\n")


@pytest.mark.parametrize(
    ("bindings", "form"),
    [
        ([], "blocked, 2,048 x 2,048 at a time (4,096 tokens x 32,128 words a device)"),
        (["SOFT_Q_BLOCK_SIZE = 0"], "dense (4,096 tokens x 32,128 words a device)"),
        (["NUM_MICROBATCHES = 16"], "dense (256 tokens x 32,128 words a device)"),
        (
            ["SOFT_Q_BLOCK_SIZE = 128", "sharding.make_mesh.tensor = 2"],
            "128 x 16,064 at a time (8,192 tokens",
        ),
    ],
)
def test_the_form_of_soft_q_values_in_a_run(sums, capsys, bindings, form):
    run = [sums, "VOCAB_SIZE = 32128", "BATCH_SIZE = 128"]
    given = flags.Flags(gin_file=["gin/runs/finetune.gin"], gin_bindings=[*run, *bindings])
    assert doctor.main(given) == 0
    assert form in capsys.readouterr().out


MESH = [f"sharding.make_mesh.{axis} = {size}" for axis, size in {"data": 1, "fsdp": 4, "sequence": 2}.items()]


@pytest.mark.parametrize(
    ("files", "rows"),
    [
        (
            ["gin/models/t5_1_1/tiny.gin"],
            {
                # 384 x 128 values of four bytes, a quarter of them on each device.
                "token_embedder": ("384 x 128", "vocab x embed", "- x fsdp", f"{384 * 128:,}"),
                # 32 rows over fsdp, 512 tokens over sequence, 128 values of four bytes.
                "hidden states": (
                    "32 x 512 x 128",
                    "batch x length x -",
                    "fsdp x sequence x -",
                    f"{8 * 256 * 512:,}",
                ),
            },
        ),
        (
            ["gin/models/qwen3/qwen3_0_6b.gin"],
            {
                "token_embedder": ("384 x 1024", "vocab x embed", "- x fsdp", f"{384 * 1024:,}"),
                # A prompt of 512 and an answer of 256 tokens in one row.
                "hidden states": (
                    "32 x 768 x 1024",
                    "batch x length x -",
                    "fsdp x sequence x -",
                    f"{8 * 384 * 4096:,}",
                ),
            },
        ),
    ],
    ids=["encoder-decoder", "decoder-only"],
)
def test_the_sharding_of_parameters_and_activations(sums, capsys, files, rows):
    bindings = [sums, "BATCH_SIZE = 32", "DTYPE = 'float32'", *MESH]
    assert doctor.main(flags.Flags(gin_file=["gin/runs/finetune.gin", *files], gin_bindings=bindings)) == 0
    out = capsys.readouterr().out
    assert "mesh fsdp=4 x sequence=2, 8 device(s)" in out
    for name, cells in rows.items():
        (line, *_) = [line for line in out.splitlines() if line.startswith(f"{name}  ")]
        assert re.split(" {2,}", line) == [name, *cells]


def test_a_mesh_that_does_not_divide_the_run_is_named(sums, capsys):
    run = [sums, "BATCH_SIZE = 32", "TASK_FEATURE_LENGTHS = {'inputs': 511, 'targets': 256}"]
    assert doctor.main(flags.Flags(gin_file=["gin/runs/finetune.gin"], gin_bindings=[*run, *MESH])) == 1
    assert "511 tokens of inputs cannot be split over sequence=2" in capsys.readouterr().out


def test_gin_files_that_make_no_run_are_named(capsys):
    assert doctor.main(flags.Flags(gin_file=["gin/models/t5_1_1/tiny.gin"])) == 1
    assert "missing: a run of these gin files: " in capsys.readouterr().out


def test_a_run_without_its_data_is_one_line(capsys):
    given = flags.Flags(gin_file=["gin/runs/finetune.gin"], gin_bindings=["DATA = 'none.jsonl'"])
    assert doctor.main(given) == 1
    *_, missing, end = capsys.readouterr().out.splitlines()
    assert missing.startswith("missing: a run of these gin files: no file at ")
    assert end == "training cannot run here"


def test_a_missing_library_is_named_with_its_remedy(capsys, monkeypatch):
    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "seqio" else real(name))
    assert doctor.main(flags.Flags()) == 1
    out = capsys.readouterr().out
    assert "missing: seqio: pip install seqio" in out
    assert out.endswith("training cannot run here\n")


@pytest.mark.parametrize(
    "error", [RuntimeError("Unable to initialize backend 'cuda'\nmore"), AssertionError()]
)
def test_no_device_is_a_line_and_no_traceback(capsys, monkeypatch, error):
    def fail():
        raise error

    monkeypatch.setattr("jax.devices", fail)
    assert doctor.main(flags.Flags()) == 1
    assert "missing: devices: JAX starts none (" in capsys.readouterr().out


def test_hints_name_the_extra_of_a_device_that_jax_cannot_see(monkeypatch):
    monkeypatch.setattr(doctor.glob, "glob", lambda pattern: ["/dev/x"])
    monkeypatch.setattr(doctor, "_version", lambda name: None)
    text = " ".join(doctor._hints())
    assert all(f"lmirl_jax[{extra}]" in text for extra in ("cuda", "tpu", "wandb"))


def test_the_report_counts_what_the_vocabulary_cannot_hold(capsys, tmp_path, words_model):
    (tmp_path / "lossy.jsonl").write_text(
        '{"inputs": "a", "targets": "if a < x"}\n{"inputs": "a", "targets": "x"}\n'
    )
    bindings = [f"DATA = '{tmp_path / 'lossy.jsonl'}'", f"VOCABULARY_PATH = '{words_model}'"]
    given = flags.Flags(gin_file=["gin/runs/finetune.gin"], gin_bindings=bindings)
    assert doctor.main(given) == 0
    out = capsys.readouterr().out
    assert (
        "lossy, train: 1 of 2 targets hold characters that the vocabulary lacks ('if a < x' is read as "
        in out
    )


INTEROP = pathlib.Path(__file__).resolve().parents[1] / "interop"


@pytest.mark.parametrize(
    ("path", "rows"),
    [
        (
            "golden/mt5",
            {"kind": "Hugging Face", "family": "mT5", "network": "T5Config", "weights": "float32"},
        ),
        ("golden/t5gemma", {"kind": "Hugging Face", "family": "T5Gemma", "network": "T5GemmaConfig"}),
        (
            "golden_t5x/scanned/orbax",
            {"kind": "T5X", "family": "UMT5", "vocabulary": "none beside it: set VOCABULARY_PATH"},
        ),
        ("golden_t5x/t5_1_0/msgpack", {"kind": "T5X", "family": "T5 1.0", "lengths": "none stated"}),
    ],
)
def test_what_a_checkpoint_is(capsys, path, rows):
    assert doctor.main(flags.Flags(checkpoint=str(INTEROP / path))) == 0
    table, verdict = capsys.readouterr().out.split("\n\n")
    assert verdict == "it can be loaded\n"
    told = {name: value.strip() for name, _, value in (line.partition(" ") for line in table.splitlines())}
    assert told | rows == told
    assert {"checkpoint", "sizes", "parameters", "vocabulary"} <= told.keys()


def test_a_run_of_ours_is_described_too(capsys, tmp_path):
    make_run(tmp_path / "run")
    assert doctor.main(flags.Flags(checkpoint=str(tmp_path / "run"))) == 0
    out = capsys.readouterr().out
    assert "a run of lmirl" in out and "number_paths" in out and out.endswith("it can be loaded\n")


def test_a_run_of_ours_is_compared_with_its_hashes(capsys, tmp_path):
    make_run(tmp_path / "run")
    folder = tmp_path / "run/checkpoints/3"
    assert doctor.main(flags.Flags(checkpoint=str(folder))) == 0
    count = sum(path.is_file() for path in folder.rglob("*")) - 1
    assert f"files       all {count} match their content hashes\n" in capsys.readouterr().out
    (folder / "data/metadata").write_text("{} ")
    (folder / "state/manifest.ocdbt").unlink()
    (folder / "notes.txt").touch()
    assert doctor.main(flags.Flags(checkpoint=str(folder))) == 1
    assert capsys.readouterr().out.split("\n\n")[1].splitlines() == [
        "data/metadata has 3 bytes, not 2",
        "state/manifest.ocdbt is missing",
        "notes.txt does not belong there",
        "no whole one lies before it: copy it again from where it is whole",
        "it cannot be loaded",
    ]


def shard(folder):
    """Gives a folder an index, as if its weights were in several files."""
    os.rename(folder / "model.safetensors", folder / "model-00001-of-00001.safetensors")
    tensors = tensors_of(folder / "model-00001-of-00001.safetensors")
    size = sum(4 * math.prod(tensor.shape) for tensor in tensors.values())
    names = dict.fromkeys(tensors, "model-00001-of-00001.safetensors")
    return {"metadata": {"total_size": size}, "weight_map": names}


def test_sizes_of_hugging_face_files_are_compared_with_the_index(capsys, tmp_path):
    folder = shutil.copytree(INTEROP / "golden/mt5", tmp_path / "mt5")
    index = shard(folder)
    told = folder / "model.safetensors.index.json"
    told.write_text(json.dumps(index))
    assert doctor.main(flags.Flags(checkpoint=str(folder))) == 0
    assert "their sizes match headers and index; no content hashes in this format" in capsys.readouterr().out
    size = index["metadata"]["total_size"]
    told.write_text(json.dumps(index | {"metadata": {"total_size": size + 4}}))
    assert doctor.main(flags.Flags(checkpoint=str(folder))) == 1
    assert (
        f"{told.name} says {size + 4:,} bytes of tensors, and its files hold {size:,}: copy the checkpoint again\n"
        in capsys.readouterr().out
    )
    told.write_text(json.dumps(index))
    os.truncate(folder / "model-00001-of-00001.safetensors", 1000)
    assert doctor.main(flags.Flags(checkpoint=str(folder))) == 1
    assert "model-00001-of-00001.safetensors is no whole safetensors file" in capsys.readouterr().out


def test_every_part_of_a_t5x_checkpoint_is_decoded(capsys, tmp_path):
    folder = shutil.copytree(INTEROP / "golden_t5x/t5_1_1/msgpack_and_zarr", tmp_path / "t5x")
    assert doctor.main(flags.Flags(checkpoint=str(folder))) == 0
    assert "every part of the parameters is there and can be decoded; no content" in capsys.readouterr().out
    parts = [path for path in folder.glob("checkpoint_0/target.*/*") if path.name[0] != "."]
    os.truncate(parts[0], parts[0].stat().st_size // 2)
    assert doctor.main(flags.Flags(checkpoint=str(folder))) == 1
    assert "cannot be read" in capsys.readouterr().out


def test_a_checkpoint_that_is_not_there(capsys, tmp_path):
    assert doctor.main(flags.Flags(checkpoint=str(tmp_path / "none"))) == 1
    line, verdict = capsys.readouterr().out.strip().splitlines()
    assert line.startswith("no checkpoint at ") and verdict == "it cannot be loaded"
