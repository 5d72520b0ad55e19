"""Several processes of `lmirl train`, one of which is told to end, killed or stopped: what others do, and how soon."""

import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

SETTINGS = {
    "DATA": "'mine.jsonl'",
    "MODEL_DIR": "'run'",
    "EVALUATIONS": "[]",
    "BATCH_SIZE": "4",
    "CHECKPOINT_PERIOD": "1000000",
    "LOG_PERIOD": "1",
    "TRAIN_STEPS": "1000000",
    "TASK_FEATURE_LENGTHS": "{'inputs': 8, 'targets': 8}",
}
FILES = ["--gin_file=gin/runs/finetune.gin", "--gin_file=gin/models/t5_1_1/tiny.gin"]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def start(folder, count: int = 2) -> list[subprocess.Popen]:
    """Starts so many, and returns when they train: some steps more than the folder has already."""
    processes = launch(folder, count)
    metrics = folder / "run" / "metrics.jsonl"
    before = len(metrics.read_text().splitlines()) if metrics.exists() else 0
    deadline = time.monotonic() + 300
    while not metrics.exists() or len(metrics.read_text().splitlines()) < before + 3:
        assert all(process.poll() is None for process in processes), (folder / "0.log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return processes


def launch(folder, count: int, *of_the_second: str) -> list[subprocess.Popen]:
    """Starts so many, the second with flags of its own."""
    flags = [f"--gin.{name}={value}" for name, value in SETTINGS.items()]
    joined = [f"--coordinator_address=localhost:{free_port()}", f"--process_count={count}"]
    processes = []
    for index in range(count):
        more = of_the_second if index == 1 else ()
        command = [sys.executable, "-P", "-m", "lmirl_jax", "train", *FILES, *flags, *joined, *more]
        with (folder / f"{index}.log").open("w") as log:
            processes.append(
                subprocess.Popen(
                    [*command, f"--process_index={index}"],
                    cwd=folder,
                    env={**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"},
                    stdout=log,
                    stderr=log,
                )
            )
    return processes


def finish(processes):
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.wait()


def test_one_of_four_is_told_to_end_and_all_save_and_two_go_on_and_one_hangs_and_the_other_ends(tmp_path):
    (tmp_path / "mine.jsonl").write_text('{"inputs": "1+1", "targets": "2"}\n' * 8)
    processes = start(tmp_path, 4)
    try:
        processes[1].send_signal(signal.SIGTERM)
        assert [process.wait(60) for process in processes] == [75] * 4
    finally:
        finish(processes)
    (step,) = os.listdir(tmp_path / "run/checkpoints")
    for index in range(4):
        assert f"lmirl: stopped at step {step}, which is saved" in (tmp_path / f"{index}.log").read_text()

    processes = start(tmp_path)
    try:
        assert f"from its checkpoint at step {step}" in (tmp_path / "0.log").read_text()
        processes[1].send_signal(signal.SIGSTOP)
        assert processes[0].wait(60) != 0
        # JAX's message: the number of the process is on a line of its own.
        said = (tmp_path / "0.log").read_text()
        assert re.search(r"tasks are unhealthy \(stopped sending heartbeats\):\n1\n", said)
    finally:
        finish(processes)


def test_one_is_killed_and_the_other_ends_and_names_it(tmp_path):
    (tmp_path / "mine.jsonl").write_text('{"inputs": "1+1", "targets": "2"}\n' * 8)
    processes = start(tmp_path)
    try:
        processes[1].kill()
        assert processes[0].wait(60) != 0
    finally:
        finish(processes)
    said = (tmp_path / "0.log").read_text()
    assert "lmirl: another process of this run has ended or hangs (" in said and "Traceback" not in said
    assert "Task 1 heartbeat timeout" in said


def test_one_that_fails_alone_does_not_wait_for_the_other_nor_the_other_for_it(tmp_path):
    (tmp_path / "mine.jsonl").write_text('{"inputs": "1+1", "targets": "2"}\n' * 8)
    processes = launch(tmp_path, 2, "--gin.DATA='missing.jsonl'")
    try:
        assert processes[1].wait(240) == 1
        assert processes[0].wait(60) != 0
    finally:
        finish(processes)
    assert "lmirl: no file at " in (tmp_path / "1.log").read_text()


def test_processes_that_compile_for_long_find_one_another(repository):
    """A sum over a part of the mesh half a minute after the other process: its group has been connected at the start."""
    address = f"localhost:{free_port()}"
    command = [sys.executable, "-P", "-m", "tests.launch.meet_in_processes", address]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(repository)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([*command, str(index)], env=environment, **pipes) for index in (0, 1)]
    try:
        outputs = [process.communicate(timeout=240) for process in processes]
    finally:
        finish(processes)
    assert [output.splitlines()[-1:] for output, _ in outputs] == [["[6.0, 8.0]"]] * 2, outputs
