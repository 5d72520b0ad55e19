"""`lmirl quickstart` from command to report, with fewer steps."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.e2e


@pytest.mark.slow
def test_from_command_to_report(tmp_path):
    command = [sys.executable, "-P", "-m", "lmirl_jax", "quickstart", "--gin.TRAIN_STEPS=3"]
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
    for run in ("mle", "iqlearn"):
        assert (folder / run / "config.gin").exists() and (folder / run / "checkpoints" / "3").is_dir()
