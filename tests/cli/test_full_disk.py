"""A disk that is full while answers or checkpoints are written: one line, nothing lost, and the same command goes on."""

import json
import shutil
import subprocess

import pytest

from lmirl_jax import configuration
from lmirl_jax.checkpoints import Checkpoints
from lmirl_jax.cli import main

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
LINE = "lmirl: no space left on a disk that is written to: free some, then run the same command again"


@pytest.fixture
def small_disk(tmp_path):
    """A file system in memory of 16 MB."""
    place = tmp_path / "small"
    place.mkdir()
    if shutil.which("mount") is None:
        pytest.skip("there is no mount")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", place], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"no file system can be mounted: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def settings(folder, run):
    """A training of 7 updates."""
    rows = [{"inputs": str(n), "targets": str(n * n)} for n in range(64)]
    (folder / "squares.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    values = {
        "MODEL_DIR": str(run),
        "DATA": str(folder / "squares.jsonl"),
        "TRAIN_STEPS": 7,
        "BATCH_SIZE": 8,
        "TASK_FEATURE_LENGTHS": {"inputs": 8, "targets": 8},
        "EVALUATIONS": [],
        "CHECKPOINT_PERIOD": 1,
        "KEEP_CHECKPOINTS": None,
        "models.T5Config.emb_dim": 16,
        "models.T5Config.mlp_dim": 32,
    }
    files = ["--gin_file=gin/runs/finetune.gin", "--gin_file=gin/models/t5_1_1/tiny.gin"]
    return ["train", *files, *(f"--gin.{name}={value!r}" for name, value in values.items())]


def test_a_full_disk_while_answers_are_written(small_disk, tmp_path, capfd):
    run, whole, answers = tmp_path / "run", tmp_path / "whole.jsonl", small_disk / "answers.jsonl"
    with configuration.restore_afterwards():
        assert main([*settings(tmp_path, run), "--gin.CHECKPOINT_PERIOD=7"]) == 0

    def infer(path):
        given = [f"--gin.CHECKPOINT_PATH={str(run)!r}", f"--gin.OUTPUT_PATH={str(path)!r}"]
        with configuration.restore_afterwards():
            return main(["infer", "--gin_file=gin/runs/infer.gin", *given, "--gin.INFER_SPLIT='train'"])

    assert infer(whole) == 0
    capfd.readouterr()
    # A page for the settings, one for hashes, and room for a part of the answers.
    (small_disk / "other").write_bytes(bytes(shutil.disk_usage(small_disk).free - 4 * 4096))
    assert infer(answers) == 1 and not answers.exists()
    assert capfd.readouterr().err.splitlines()[-1] == LINE
    (small_disk / "other").unlink()
    assert infer(answers) == 0
    assert answers.read_bytes() == whole.read_bytes()
    assert {path.name for path in small_disk.iterdir()} == {"answers.jsonl"}


def test_a_full_disk_while_a_checkpoint_is_saved(small_disk, tmp_path, capfd, monkeypatch):
    """Another program may fill the disk after the run has looked, which tests/training/test_loop.py tests."""

    def train(run):
        with configuration.restore_afterwards():
            return main(settings(tmp_path, run))

    whole, run = tmp_path / "whole", small_disk / "run"
    assert train(whole) == 0
    size = sum(path.stat().st_size for path in (whole / "checkpoints/7").rglob("*"))
    (small_disk / "other").write_bytes(bytes(shutil.disk_usage(small_disk).free - 4 * size))
    capfd.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "_check_space", lambda *_: None)
        assert train(run) == 1
    written = capfd.readouterr().err
    assert "Traceback" not in written
    left = sorted(int(path.name) for path in (run / "checkpoints").iterdir() if path.name.isdigit())
    assert left == list(range(1, len(left) + 1)) and 1 <= len(left) <= 4
    assert written.splitlines()[-1] == LINE
    (small_disk / "other").unlink()
    assert train(run) == 0
    assert losses(run) == losses(whole)


def losses(run):
    return [json.loads(line)["train/loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]
