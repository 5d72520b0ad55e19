"""launch/slurm.sbatch: what each node would run, and what it does with the exit code of a run that a signal saved."""

import os
import shlex
import subprocess

import pytest

pytestmark = pytest.mark.e2e

COMMAND = ["train", "--gin_file=gin/runs/finetune.gin", "--gin.MODEL_DIR='/shared/a run'"]


def launch(repository, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    return subprocess.run(
        ["bash", repository / "launch/slurm.sbatch", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=repository,
        env={**kept, **environment},
    )


def test_each_process_runs_the_command_after_one_has_installed(repository):
    done = launch(repository, "--dry_run", *COMMAND)
    assert (done.returncode, done.stderr) == (0, "")
    install, start = (shlex.split(line) for line in done.stdout.splitlines())
    script = str(repository / "launch/local.sh")
    assert install == ["env", "LMIRL_EXTRAS=cuda", "bash", script, "--version"]
    assert start[:2] == ["srun", "--kill-on-bad-exit=0"]
    assert start[2:] == ["env", "LMIRL_EXTRAS=cuda", "bash", script, *COMMAND, "--coordinator_address=auto"]


def test_a_command_of_one_process_runs_once(repository):
    done = launch(repository, "--dry_run", "doctor", "--gin_file=gin/runs/finetune.gin")
    _, start = (shlex.split(line) for line in done.stdout.splitlines())
    assert start[:3] == ["srun", "--kill-on-bad-exit=0", "--ntasks=1"]
    assert start[-2:] == ["doctor", "--gin_file=gin/runs/finetune.gin"]


def test_the_job_is_told_before_its_time_is_over_and_is_queued_again(repository):
    text = (repository / "launch/slurm.sbatch").read_text()
    flags = [line.split(maxsplit=1)[1] for line in text.splitlines() if line.startswith("#SBATCH ")]
    assert {"--requeue", "--signal=TERM@600", "--open-mode=append"} <= set(flags)
    assert "--ntasks-per-node=8" in flags and "--gpus-per-node=8" in flags


@pytest.mark.parametrize(("code", "calls"), [(0, []), (1, []), (75, ["requeue 7"])])
def test_a_run_that_is_saved_is_queued_again(repository, tmp_path, code, calls):
    (tmp_path / "launch").mkdir()
    (tmp_path / "launch/local.sh").write_text("exit 0\n")
    (tmp_path / "launch/over_processes.py").write_text("print('yes')\n")
    (tmp_path / "srun").write_text(f"#!/usr/bin/env bash\nexit {code}\n")
    (tmp_path / "scontrol").write_text(f'#!/usr/bin/env bash\necho "$*" >> {tmp_path}/calls\n')
    for name in ("srun", "scontrol"):
        (tmp_path / name).chmod(0o755)
    slurm = {
        "SLURM_JOB_ID": "7",
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
    }
    assert launch(repository, *COMMAND, **slurm).returncode == code
    made = (tmp_path / "calls").read_text().splitlines() if (tmp_path / "calls").exists() else []
    assert made == calls


@pytest.mark.parametrize(
    ("arguments", "environment", "line"),
    [
        ([], {}, "slurm.sbatch: a command of lmirl is missing"),
        (["train"], {"SLURM_SUBMIT_DIR": "/nowhere"}, "slurm.sbatch: no checkout at /nowhere"),
    ],
)
def test_what_is_missing_is_one_line(repository, arguments, environment, line):
    done = launch(repository, *arguments, **environment)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(line) and len(done.stderr.splitlines()) == 1
