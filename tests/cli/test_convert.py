"""`lmirl convert` over several processes, each of which holds a part of every parameter."""

import filecmp
import os
import subprocess
import sys

import pytest

from lmirl_jax.cli import main
from tests.pretrained import GOLDEN


@pytest.mark.slow
@pytest.mark.e2e
def test_two_processes_write_one_checkpoint(repository, tmp_path, capfd):
    source, run, out = GOLDEN / "t5gemma", tmp_path / "run", tmp_path / "hf"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "2"}
    flags = ["--gin_file=gin/meshes/fsdp.gin", f"--gin.CHECKPOINT_PATH='{source}'"]
    flags += [f"--gin.OUTPUT_PATH='{run}'", "--gin.FORMAT='orbax'"]
    launcher = [sys.executable, "-P", str(repository / "launch" / "processes.py"), "2", "convert"]
    done = subprocess.run(
        [*launcher, *flags], env=environment, cwd=repository, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr[-2000:]
    back = [f"--gin.CHECKPOINT_PATH='{run}'", f"--gin.OUTPUT_PATH='{out}'", "--gin.FORMAT='hf'"]
    assert main(["convert", *back]) == 0
    assert filecmp.cmp(source / "model.safetensors", out / "model.safetensors", shallow=False)
