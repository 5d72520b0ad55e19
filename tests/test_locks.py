"""Two runs never share a folder: with the locks of the file system and without, also after a kill."""

import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from lmirl_jax import files, locks
from lmirl_jax.types import UserError


@pytest.fixture(params=["flock", "no flock"])
def folder(request, tmp_path, monkeypatch):
    if request.param == "no flock":

        def refuse(*given):
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr(locks.fcntl, "flock", refuse)
    return files.absolute_path(tmp_path)


def test_a_second_run_is_told_of_the_first_and_may_come_after_it(folder):
    who = rf"another run is at work in MODEL_DIR .* \(process {os.getpid()} on .*, since 20.*\): wait"
    for _ in range(2):
        with locks.lock_directory(folder, "MODEL_DIR"):
            with pytest.raises(UserError, match=who), locks.lock_directory(folder, "MODEL_DIR"):
                pass
            with pytest.raises(UserError, match=who), locks.lock_directory(folder, "MODEL_DIR"):
                pass
    assert not [path for path in folder.iterdir() if path.name.startswith(".lock.owner")]


HOLDER = """
import sys, time
from etils import epath
from lmirl_jax import locks
if sys.argv[2] == "no flock":
    def refuse(*given):
        raise OSError
    locks.fcntl.flock = refuse
with locks.lock_directory(epath.Path(sys.argv[1]), "MODEL_DIR"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.e2e
def test_a_killed_run_leaves_no_lock(folder, request):
    arguments = [sys.executable, "-c", HOLDER, str(folder), request.node.callspec.params["folder"]]
    holder = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        busy = pytest.raises(UserError, match=rf"\(process {holder.pid} on ")
        with busy, locks.lock_directory(folder, "MODEL_DIR"):
            pass
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    with locks.lock_directory(folder, "MODEL_DIR"):
        pass


def write_owner(folder, **changes):
    owner = dataclasses.replace(locks._this_process(), **changes)
    path = folder / ".lock.owner"
    path.write_text(json.dumps(dataclasses.asdict(owner)))
    return path


@pytest.mark.parametrize("folder", ["no flock"], indirect=True)
@pytest.mark.parametrize(
    ("changes", "age", "is_stale"),
    [
        # Of another machine, only the time since it was touched is known.
        ({"host": "elsewhere"}, 60, False),
        ({"host": "elsewhere"}, 180, True),
        # The number of a process that has ended is another one's now.
        ({"started": "1"}, 0, True),
        ({}, 60, False),
    ],
)
def test_stale_files(folder, changes, age, is_stale):
    path = write_owner(folder, **changes)
    now = time.time()
    os.utime(path, (now - age, now - age))
    if is_stale:
        with locks.lock_directory(folder, "MODEL_DIR"):
            assert json.loads(path.read_text())["pid"] == os.getpid()
        return
    with pytest.raises(UserError, match="another run"), locks.lock_directory(folder, "MODEL_DIR"):
        pass
    assert path.exists()


@pytest.mark.parametrize("folder", ["no flock"], indirect=True)
def test_the_owner_touches_its_file(folder, monkeypatch):
    monkeypatch.setattr(locks, "BEAT_SECONDS", 0.01)
    with locks.lock_directory(folder, "MODEL_DIR"):
        path = folder / ".lock.owner"
        os.utime(path, (1, 1))
        deadline = time.monotonic() + 30
        while os.stat(path).st_mtime < 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
