"""launch/tpu_vm.sh: the commands that --dry_run prints, word by word, and what it does with a gcloud that fails."""

import ast
import os
import pathlib
import shlex
import subprocess

import pytest

from lmirl_jax.cli import commands, flags

NAMED = ["--name=my-tpu", "--zone=us-central2-b"]
COMMAND = [
    "train",
    "--gin_file=gin/runs/finetune.gin",
    "--gin.MODEL_DIR='gs://b/a run'",
    "--gin.L={'inputs': 64, 'x': 8}",
]


def dry_run(repository, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [repository / "launch/tpu_vm.sh", "--dry_run", *arguments], capture_output=True, text=True
    )


def lines(repository, *arguments: str) -> list[list[str]]:
    """Each printed command as the shell would read it."""
    done = dry_run(repository, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return [shlex.split(line) for line in done.stdout.splitlines()]


@pytest.mark.e2e
def test_this_checkout_is_copied_and_the_command_started_on_every_worker(repository):
    python, pack, copy, unpack, start = lines(repository, *NAMED, *COMMAND)
    assert pack[:2] == ["tar", "--create"]
    assert {"setup.py", "constraints.txt", "gin", "lmirl_jax", "tasks", "launch"} <= set(pack)
    assert copy[:6] == ["gcloud", "compute", "tpus", "tpu-vm", "scp", "/tmp/lmirl_jax.tar.gz"]
    for command in (python, unpack, start):
        assert command[:6] == ["gcloud", "compute", "tpus", "tpu-vm", "ssh", "my-tpu"]
        assert command[6:9] == ["--zone=us-central2-b", "--worker=all", "--command"]
        assert len(command) == 10
    on_worker = shlex.split(start[9])
    assert on_worker[:6] == ["cd", "lmirl_jax", "&&", "LMIRL_EXTRAS=tpu", "bash", "launch/local.sh"]
    assert on_worker[6:] == [*COMMAND, "--coordinator_address=auto"]


OVER_PROCESSES = {"train", "eval", "sweep", "infer", "score", "report", "convert"}


@pytest.mark.e2e
@pytest.mark.parametrize("name", commands.COMMANDS)
def test_the_workers_of_a_command_over_several_processes_find_one_another(repository, name):
    on_worker = shlex.split(lines(repository, *NAMED, name, "--gin.A=1")[-1][9])
    given = on_worker[on_worker.index("launch/local.sh") + 1 :]
    added = ["--coordinator_address=auto"] if name in OVER_PROCESSES else []
    assert given == [name, "--gin.A=1", *added]
    flags.parse(given[1:], commands.COMMANDS[name].flags)


def test_the_table_of_commands_is_written_for_an_older_python_too(repository):
    """The launcher reads it with the python3 of the user's machine."""
    for name in ("__init__.py", "cli/__init__.py", "cli/commands.py", "cli/flags.py"):
        source = (repository / "lmirl_jax" / name).read_text()
        tree = ast.parse(source, feature_version=(3, 9))
        hinted = any(
            isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr) for node in ast.walk(tree)
        )
        assert not hinted or name.endswith("commands.py") or "from __future__ import annotations" in source


@pytest.mark.e2e
def test_a_repository_is_cloned_at_a_ref(repository):
    commands = lines(
        repository, *NAMED, "--repo=https://example.com/a b.git", "--ref=v1", "--folder=work", "doctor"
    )
    assert len(commands) == 3
    fetch = commands[1][9]
    assert "git clone --quiet 'https://example.com/a b.git' work" in fetch
    assert "git fetch --quiet --tags origin v1" in fetch
    assert commands[2][9] == "cd work && LMIRL_EXTRAS=tpu bash launch/local.sh doctor"


@pytest.mark.e2e
def test_the_project_and_flags_in_two_words(repository):
    commands = lines(repository, "--name", "t", "--zone", "z", "--project", "p", "doctor")
    assert all("--project=p" in command for command in commands if command[0] == "gcloud")


@pytest.mark.e2e
def test_what_the_workers_run_is_valid_shell(repository):
    for command in lines(repository, *NAMED, *COMMAND):
        if "--command" in command:
            assert subprocess.run(["bash", "-n", "-c", command[-1]]).returncode == 0


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--zone=z", "train"], "--name is missing"),
        (["--name=n", "train"], "--zone is missing"),
        ([*NAMED], "a command of lmirl is missing"),
        ([*NAMED, "--ref=v1", "train"], "--ref=v1 goes with --repo=URL"),
        ([*NAMED, "--nam=x", "train"], "unknown flag '--nam=x'"),
        ([*NAMED, "--folder=a b", "train"], "--folder=a b: use letters"),
        (["--name"], "--name needs a value"),
        ([*NAMED, "--restarts=often", "train"], "--restarts=often is no number"),
        ([*NAMED, "--spot", "train"], "--version, --spot and --queued go with --accelerator_type"),
        ([*NAMED, "--accelerator_type=v9-8", "train"], "--accelerator_type=v9-8 has no usual software here"),
        ([*NAMED, "--collect=/tmp/x", "train"], "--collect=/tmp/x needs --gin.MODEL_DIR"),
    ],
)
def test_what_is_missing_is_one_line(repository, arguments, line):
    done = dry_run(repository, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"tpu_vm.sh: {line}")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.e2e
def test_a_tpu_vm_that_does_not_exist_is_created(repository):
    new = ["--accelerator_type=v5litepod-256", "--spot", "--project=p"]
    words = lines(repository, *NAMED, *new, *COMMAND)[0]
    assert words == shlex.split(
        "gcloud compute tpus tpu-vm describe my-tpu --zone=us-central2-b --project=p || "
        "gcloud compute tpus tpu-vm create my-tpu --version=v2-alpha-tpuv5-lite --accelerator-type=v5litepod-256 "
        "--zone=us-central2-b --project=p --spot"
    )
    words = lines(repository, *NAMED, *new, "--queued", "--version=mine", *COMMAND)[0]
    assert words[words.index("||") + 1 :] == shlex.split(
        "gcloud compute tpus queued-resources create my-tpu --node-id=my-tpu --runtime-version=mine "
        "--accelerator-type=v5litepod-256 --zone=us-central2-b --project=p --spot"
    )


@pytest.mark.e2e
def test_results_are_collected_without_checkpoints(repository):
    last = lines(repository, *NAMED, "--collect=here", *COMMAND)[-1]
    assert last == [
        "gcloud",
        "storage",
        "rsync",
        "--recursive",
        "--exclude=^checkpoints/",
        "gs://b/a run",
        "here",
    ]


# It does what the lines of the file `answers` say, one line for each start of the command: the exit code, and the state after it.
GCLOUD = """#!/usr/bin/env bash
cd "$(dirname "$0")"
printf '%s\\n' "$*" >> calls
case "$*" in
*queued-resources' describe '*) sed s/READY/state=ACTIVE/ state ;;
*' describe '*) cat state ;;
*' create '*) echo READY > state ;;
*' delete '*) rm state ;;
*launch/local.sh*)
    read -r code state < answers
    sed -i 1d answers
    echo "$state" > state
    exit "$code"
    ;;
esac
"""


def start(repository, folder: pathlib.Path, answers: str, *flags: str) -> tuple[int, list[str], str]:
    """Runs the launcher with this gcloud; returns the exit code, the kinds of its calls, and the messages."""
    (folder / "gcloud").write_text(GCLOUD)
    (folder / "gcloud").chmod(0o755)
    (folder / "answers").write_text(answers)
    done = subprocess.run(
        [repository / "launch/tpu_vm.sh", *NAMED, "--repo=r", *flags, "train", "--gin.A=1"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "LMIRL_POLL_SECONDS": "0"},
    )
    kinds = {"create": " create ", "delete": " delete ", "start": "launch/local.sh", "describe": " describe "}
    calls = (folder / "calls").read_text().splitlines()
    found = [name for call in calls for name, part in kinds.items() if part in call]
    return done.returncode, [name for name in found if name != "describe"], done.stderr


TYPE = "--accelerator_type=v4-8"


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("answers", "flags", "code", "calls", "line"),
    [
        ("0 READY", [TYPE], 0, "create start", ""),
        # A preemption: the machine is made anew.
        (
            "255 PREEMPTED\n0 READY",
            [TYPE, "--restarts=1"],
            0,
            "create start delete create start",
            "start 1 of 1",
        ),
        (
            "255 PREEMPTED\n0 READY",
            [TYPE, "--restarts=1", "--queued"],
            0,
            "create start delete create start",
            "",
        ),
        # A run that is saved, on a machine that is still there.
        ("75 READY\n0 READY", ["--restarts=3"], 0, "start start", "start 1 of 3"),
        # An error of the user's would come again.
        ("1 READY", [TYPE, "--restarts=3"], 1, "create start", ""),
        ("255 PREEMPTED", [TYPE], 255, "create start", "the TPU VM is PREEMPTED; --restarts=N"),
        (
            "255 PREEMPTED",
            ["--restarts=1"],
            255,
            "start",
            "PREEMPTED: --accelerator_type=TYPE creates it again",
        ),
    ],
)
def test_what_ends_and_what_starts_again(repository, tmp_path, answers, flags, code, calls, line):
    found = start(repository, tmp_path, answers + "\n", *flags)
    assert found[:2] == (code, calls.split())
    assert line in found[2]
