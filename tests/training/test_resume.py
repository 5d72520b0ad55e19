"""A run that is stopped at any step and resumed is the run that never stopped, bit by bit, for every kind of training.

A run is stopped by taking away what it saved after a step: so does a process that is killed before its next save.
"""

import functools
import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest

from tests.training.kinds import STEPS, Training, assert_bitwise, metrics, stopped_after

# The number of devices on which each kind of training is stopped and resumed.
DEVICES = {
    "accumulated": 8,
    "adapters": 1,
    "packed": 8,
    "bucketed": 1,
    "online iqlearn": 8,
    "gail": 1,
    "gad": 1,
    "grpo": 8,
    "online adapters": 1,
}
# Resumed on the other number too.
MOVED = ("accumulated", "adapters", "online iqlearn")
ONLINE = ("online iqlearn", "gail", "gad", "grpo", "online adapters")


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    """A kind of training, and the folder, the last state and the batches of a whole run of it, which is made once."""

    @functools.cache
    def chosen(kind):
        return Training(kind, tmp_path_factory.mktemp("files"))

    @functools.cache
    def start(kind, devices):
        folder = tmp_path_factory.mktemp("whole") / "run"
        return chosen(kind), folder, *chosen(kind).run(folder, devices)

    return start


def cases(kinds):
    """Each kind of training with its number of devices."""
    marks = {kind: [pytest.mark.slow] * (kind in ONLINE) for kind in kinds}
    return [pytest.param(kind, DEVICES[kind], marks=marks[kind]) for kind in kinds]


@pytest.mark.parametrize(("kind", "devices"), cases(DEVICES))
def test_resumed_is_bitwise_the_run_that_never_stopped(started, tmp_path, kind, devices):
    """State, metrics, batches, prompts and checkpoints; stopped after the first step and before the last one."""
    training, whole, state, batches, prompts = started(kind, devices)
    assert [line["step"] for line in metrics(whole)] == [1, 2, 3, 4, 5] and len(batches) == STEPS
    for step in (1, STEPS - 1):
        folder = stopped_after(step, whole, tmp_path / str(step))
        again, more, more_prompts = training.run(folder, devices)
        assert_bitwise(again, state)
        assert metrics(folder) == metrics(whole)
        assert more == batches[step:] and more_prompts == prompts[len(prompts) - len(more_prompts) :]
        names = [sorted(path.name for path in (run / "checkpoints").iterdir()) for run in (folder, whole)]
        assert names[0] == names[1]


@pytest.mark.parametrize(("kind", "devices"), cases(MOVED))
def test_on_another_mesh_the_same_examples_give_the_same_losses(started, tmp_path, kind, devices):
    training, whole, _, batches, prompts = started(kind, devices)
    folder = stopped_after(2, whole, tmp_path / "run")
    _, more, more_prompts = training.run(folder, 9 - devices)
    assert more == batches[2:] and more_prompts == prompts[len(prompts) - len(more_prompts) :]
    for ours, theirs in zip(metrics(folder), metrics(whole), strict=True):
        assert ours.keys() == theirs.keys()
        np.testing.assert_allclose(ours["train/loss"], theirs["train/loss"], rtol=1e-4, atol=1e-5)


@pytest.mark.e2e
@pytest.mark.slow
def test_in_two_processes_and_then_in_one(repository, tmp_path):
    """The two processes compare bit by bit; one process then goes on from their second step with the same examples."""
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        address = f"localhost:{listener.getsockname()[1]}"
    kinds = ["accumulated", "online iqlearn"]
    command = [sys.executable, "-m", "tests.training.resume_in_processes", address]
    logs = [tmp_path / f"log{index}" for index in range(2)]
    started = []
    for index, log in enumerate(logs):
        with log.open("wb") as file:
            called = [*command, str(index), str(tmp_path), *kinds]
            started.append(subprocess.Popen(called, cwd=repository, stdout=file, stderr=file, env=os.environ))
    codes = [process.wait(500) for process in started]
    assert codes == [0, 0], "\n".join(log.read_text()[-3000:] for log in logs)
    for kind in kinds:
        whole = tmp_path / kind / "whole"
        folder = stopped_after(2, whole, tmp_path / kind / "one process")
        _, more, _ = Training(kind, tmp_path / kind / "files").run(folder, 8)
        halves = [json.loads((tmp_path / kind / f"batches{index}.json").read_text()) for index in range(2)]
        assert len(more) == STEPS - 2 and halves[0] != halves[1]
        for ours, theirs in zip(metrics(folder), metrics(whole), strict=True):
            np.testing.assert_allclose(ours["train/loss"], theirs["train/loss"], rtol=1e-4, atol=1e-5)
