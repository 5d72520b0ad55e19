"""`lmirl quickstart` from command to report, with fewer steps and seeds."""

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.e2e


# Two seeds, and a sweep of fewer answers.
SMALLER = """
import sys
from lmirl_jax.cli import main, quickstart
quickstart.SEEDS, quickstart.SWEEP_FILE = 2, "small_sweep.gin"
sys.exit(main())
"""
SMALL_SWEEP = """
from __gin__ import dynamic_registration
include 'gin/runs/quickstart_sweep.gin'
TEMPERATURES = [0.5, 1.0]
NUM_SAMPLES = 2
"""


@pytest.mark.slow
def test_from_command_to_report(tmp_path):
    (tmp_path / "small_sweep.gin").write_text(SMALL_SWEEP)
    few = ("--gin.TRAIN_STEPS=3", "--gin.EVALUATOR_NUM_EXAMPLES=12")
    command = [sys.executable, "-P", "-c", SMALLER, "quickstart", *few]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "lmirl_quickstart"
    assert f"report: {folder / 'report.html'}" in done.stdout
    assert (
        "MLE" in done.stdout and "IQLearn" in done.stdout and "self_bleu" not in done.stdout
    )  # one table alone
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Rewards of MLE" in page and "Rewards of IQLearn" in page and "<script" not in page
    assert "Held-out loss" in page
    # A wrong setting is told in one line, before any run has a folder.
    wrong = [*command, "--gin.MODEL_DIR='other'", "--gin.BATCH_SIZE=0"]
    done = subprocess.run(wrong, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode != 0 and not (tmp_path / "other" / "mle_0").exists()
    assert "BATCH_SIZE" in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr
    demonstrations = set()
    for objective in ("mle", "iqlearn"):
        for seed in range(2):
            run = folder / f"{objective}_{seed}"
            assert (run / "checkpoints" / "3").is_dir()
            config = (run / "config.gin").read_text(encoding="utf-8")
            assert f"RANDOM_SEED = {seed}\n" in config and "TRAIN_NUM_EXAMPLES = 300\n" in config
            assert "MIXTURE_OR_TASK_NAME = 'number_paths_large'\n" in config
            (position,) = (run / "checkpoints" / "3" / "data").glob("metadata")
            demonstrations.add(json.loads(position.read_text())["batches"]["dataset"])
    assert (
        len(demonstrations) == 2
    )  # A seed's demonstrations are the same for both objectives, and others than another's.
    compared = json.loads((folder / "sweep" / "sweep.json").read_text(encoding="utf-8"))
    assert compared["settings"]["split"] == "test" and compared["settings"]["num_examples"] == 150
