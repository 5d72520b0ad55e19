"""launch/processes.py with a stand-in for lmirl: one failure ends all, and so does a signal."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.e2e

STAND_IN = """
import os, pathlib, signal, sys, time
flags = dict(word[2:].split("=") for word in sys.argv[2:])
index = int(flags["process_index"])
print("process", index, "of", flags["process_count"], sys.argv[1], flush=True)
pathlib.Path(f"started_{index}").write_text(flags["coordinator_address"])
if sys.argv[1] == "fail" and index == 1:
    while not pathlib.Path("started_0").exists(): time.sleep(0.01)
    sys.exit("lmirl: no such thing")
if sys.argv[1] == "save":
    def save(number, frame):
        time.sleep(index)
        sys.exit(75)
    signal.signal(signal.SIGTERM, save)
if sys.argv[1] in ("fail", "wait", "save"):
    time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path) -> pathlib.Path:
    package = tmp_path / "path" / "lmirl_jax"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(STAND_IN)
    return tmp_path


def start(repository, folder: pathlib.Path, command: str) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(folder / "path"), "TMPDIR": str(folder)}
    return subprocess.Popen(
        [sys.executable, repository / "launch/processes.py", "2", command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_all_processes_run_and_the_first_has_the_terminal(repository, folder):
    process = start(repository, folder, "train")
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "process 0 of 2 train\n", "")
    addresses = {(folder / f"started_{index}").read_text() for index in (0, 1)}
    assert len(addresses) == 1
    assert addresses.pop().startswith("localhost:")
    assert not list(folder.glob("lmirl_processes_*"))


def test_one_failure_ends_all_processes_and_is_printed(repository, folder):
    process = start(repository, folder, "fail")
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "process 1: lmirl: no such thing\n" in err
    assert "process 1 of 2 failed and ended the others" in err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_all(repository, folder, number, code):
    process = start(repository, folder, "wait")
    wait_for_start(folder)
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == code
    assert not list(folder.glob("lmirl_processes_*"))


def wait_for_start(folder):
    deadline = time.monotonic() + 30
    while not all((folder / f"started_{index}").exists() for index in (0, 1)):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_run_that_saves_after_a_signal_is_waited_for(repository, folder):
    process = start(repository, folder, "save")
    wait_for_start(folder)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 75
