"""Online runs as a user types them: on eight devices, in two processes, killed while they sample, from another run."""

import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

from lmirl_jax.cli import main
from tests.fakes import make_run

pytestmark = [pytest.mark.e2e, pytest.mark.eight_devices]

SMALL = [
    "--gin.MIXTURE_OR_TASK_NAME=None",  # A file: to import TensorFlow takes as long as the rest.
    "--gin.TASK_FEATURE_LENGTHS={'inputs': 8, 'targets': 8}",
    "--gin.EVALUATIONS=[]",
    "--gin.CHECKPOINT_PERIOD=1",
    "--gin.BATCH_SIZE=8",
    "--gin.models.T5Config.emb_dim=16",
    "--gin.models.T5Config.mlp_dim=32",
    "--gin_file=gin/meshes/fsdp.gin",
]
REWARDS = '''
import os, pathlib, signal

calls = 0

def length(prompt, answer):
    """Kills its own process at the first answer of the third draw, unless it has done so before."""
    global calls
    calls += 1
    marker = pathlib.Path(os.environ["KILLED"])
    if calls == 17 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return len(answer) / 10
'''


def lmirl(*arguments: str, processes: int = 1, **more: str) -> subprocess.CompletedProcess:
    """On eight devices in all."""
    launcher = pathlib.Path(__file__).parents[2] / "launch/processes.py"
    start = [str(launcher), str(processes)] if processes > 1 else ["-m", "lmirl_jax"]
    environment = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(8 // processes)}
    environment |= more
    return subprocess.run(
        [sys.executable, "-P", *start, *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=500,
    )


@pytest.fixture(scope="module", autouse=True)
def sums(tmp_path_factory):
    """What they train on, in the current folder."""
    folder = tmp_path_factory.mktemp("sums")
    lines = [json.dumps({"inputs": f"{n}+{n % 5}", "targets": str(n + n % 5)}) for n in range(40)]
    (folder / "sums.jsonl").write_text("\n".join(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield


def command(run: pathlib.Path, name: str, steps: int, *more: str) -> list[str]:
    settings = [f"--gin.MODEL_DIR='{run}'", f"--gin.TRAIN_STEPS={steps}", "--gin.DATA='sums.jsonl'"]
    return ["train", f"--gin_file=gin/runs/{name}.gin", *SMALL, *settings, *more]


def lines(run: pathlib.Path) -> list[dict[str, float]]:
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.startswith("timing/")} for line in found]


@pytest.mark.slow
def test_two_processes_give_what_one_does_and_resume(tmp_path, capfd):
    """2 processes of 4 devices, started twice, against this process of 8: each answer is drawn by one process."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main(command(whole, "online_iqlearn", 3)) == 0
    assert "WARNING: no INITIAL_CHECKPOINT_PATH, so from scratch" in capfd.readouterr().err
    assert "timing/sampling_seconds" in (whole / "metrics.jsonl").read_text()
    for steps in (2, 3):
        done = lmirl(*command(parts, "online_iqlearn", steps), processes=2)
        assert done.returncode == 0, done.stderr
    assert "from its checkpoint at step 2" in done.stderr
    for ours, theirs in zip(lines(parts), lines(whole), strict=True):
        assert ours.keys() == theirs.keys()
        for key in (
            "loss",
            "loss_mle",
            "reward",
            "entropy",
            "samples/entropy",
            "samples/length",
            "samples/truncated",
        ):
            key = f"train/{key}"
            np.testing.assert_allclose(ours[key], theirs[key], rtol=1e-4, err_msg=key)


@pytest.mark.slow
def test_a_frozen_reward_is_loaded_again_by_each_process_and_after_each_start(tmp_path, capfd):
    """2 processes of 4 devices, and one that goes on, against one of 8; the policy is far from what rewards it."""
    path = make_run(tmp_path / "reward", seed=5)
    reward = [f"--gin.REWARD_CHECKPOINT_PATH='{path}'", "--gin.SAMPLE_BATCH_SIZE=32"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main(command(whole, "rl_from_reward", 3, *reward)) == 0
    done = lmirl(*command(parts, "rl_from_reward", 2, *reward), processes=2)
    assert done.returncode == 0, done.stderr
    assert main(command(parts, "rl_from_reward", 3, *reward)) == 0
    for ours, theirs in zip(lines(parts), lines(whole), strict=True):
        for key in ("loss", "samples/return", "samples/return_std", "samples/entropy", "samples/length"):
            key = f"train/{key}"
            np.testing.assert_allclose(ours[key], theirs[key], rtol=1e-4, atol=1e-5, err_msg=key)
    capfd.readouterr()
    reward[0] = f"--gin.REWARD_CHECKPOINT_PATH='{tmp_path / 'none'}'"
    assert main(command(tmp_path / "no", "rl_from_reward", 3, *reward)) == 1
    (said,) = capfd.readouterr().err.splitlines()
    assert said.startswith(f"lmirl: no checkpoint at {tmp_path / 'none'}")
    assert not (tmp_path / "no").exists()


@pytest.mark.slow
def test_killed_while_it_samples_and_resumed_equals_uninterrupted(tmp_path):
    """The reward function of the user's own, in a module of theirs, ends the process between a draw and its update."""
    (tmp_path / "my_rewards.py").write_text(REWARDS)
    (tmp_path / "mine.gin").write_text(
        "from __gin__ import dynamic_registration\nimport my_rewards\nREWARD_FUNCTION = @my_rewards.length\n"
    )
    environment = {"PYTHONPATH": str(tmp_path), "KILLED": str(tmp_path / "killed")}
    more = [
        f"--gin_file={tmp_path / 'mine.gin'}",
        "--gin.SAMPLES_PER_PROMPT=1",
        "--gin.ADVANTAGES=@objectives.gae",
    ]
    first = lmirl(*command(tmp_path / "killed run", "grpo", 4, *more), **environment)
    assert first.returncode == -9 and (tmp_path / "killed").exists()
    again = lmirl(*command(tmp_path / "killed run", "grpo", 4, *more), **environment)
    assert again.returncode == 0, again.stderr
    assert re.search(
        "from its checkpoint at step [12]", again.stderr
    )  # The second may have been on its way to the disk.
    whole = lmirl(*command(tmp_path / "whole", "grpo", 4, *more), **environment)
    assert whole.returncode == 0, whole.stderr
    assert lines(tmp_path / "killed run") == lines(tmp_path / "whole")
    assert lines(tmp_path / "whole")[0]["train/samples/return"] > 0
