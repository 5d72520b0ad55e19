"""Locks folders and files, so that no two runs write to one place; also on file systems that have no locks."""

import contextlib
import dataclasses
import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from typing import IO, Any

import jax
from etils import epath

from lmirl_jax.types import UserError

# Where the file system has no locks, the owner touches its file so often, and has died if it has not for so long.
BEAT_SECONDS, STALE_SECONDS = 10.0, 120.0


@dataclasses.dataclass(frozen=True)
class Owner:
    """The process that holds a lock.

    Args:
        host: its machine.
        pid: its number there.
        started: when it started, in ticks since the machine did; a number may be given to another process later.
        since: when it took the lock, in words.
    """

    host: str
    pid: int
    started: str
    since: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"

    @property
    def is_gone(self) -> bool:
        """Whether it is known to have ended: only a process of this machine can be."""
        return self.host == socket.gethostname() and _start_of(self.pid) != self.started


@contextlib.contextmanager
def lock_directory(folder: epath.Path, name: str) -> Iterator[None]:
    """Keeps other runs out of a folder. The lock ends with the process, even by a kill.

    Where the file system has no locks, a file names the owner, who touches it every 10 seconds. It is stale where its owner was
    on this machine and is gone, or where it has not been touched for 120 seconds.

    In a run of several processes only the first one takes the lock. A bucket has no locks.

    Raises:
        UserError: another run is at work in the folder; says which process, and since when.
    """
    if "://" in str(folder) or jax.process_index() != 0:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ".lock"
    busy = f"another run is at work in {name} {folder}{{}}: wait for it to end, or choose another folder"
    with open(path, "a+", encoding="utf-8") as file:
        if lock_file(file, busy.format(_described(path))):
            file.truncate(0)
            file.write(json.dumps(dataclasses.asdict(_this_process())))
            file.flush()
            yield
            return
    with _owned(folder / ".lock.owner", busy):
        yield


def lock_file(file: IO[Any], busy: str) -> bool:
    """Locks an open file until it is closed; returns whether the file system has locks.

    Raises:
        UserError: another process holds it; with the line `busy`.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(busy) from None
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _owned(path: epath.Path, busy: str) -> Iterator[None]:
    """Holds a file that only one process can make."""
    content = json.dumps(dataclasses.asdict(_this_process()))
    while not _create(path, content):
        found = _content(path)
        if found is not None and not _is_stale(path, found):
            raise UserError(busy.format(_described(path)))
        if found is not None:
            _remove(path, found)
    end = threading.Event()

    def beat():
        while not end.wait(BEAT_SECONDS):
            with contextlib.suppress(OSError):
                os.utime(path)

    thread = threading.Thread(target=beat, name="lmirl lock", daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()
        if _content(path) == content:
            path.unlink()


def _create(path: epath.Path, content: str) -> bool:
    """Makes the file, whole, unless it is there."""
    temporary = path.parent / f"{path.name}.{uuid.uuid4().hex}"
    temporary.write_text(content)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink()
    return True


def _remove(path: epath.Path, content: str) -> None:
    """Removes a stale file, unless another process has replaced it by then."""
    aside = path.parent / f"{path.name}.{uuid.uuid4().hex}"
    with contextlib.suppress(FileNotFoundError):
        os.rename(path, aside)
        if aside.read_text() != content:
            with contextlib.suppress(FileExistsError):
                os.link(aside, path)
        aside.unlink()


def _is_stale(path: epath.Path, content: str) -> bool:
    owner = _owner(content)
    if owner is not None and owner.is_gone:
        return True
    # Both times are those of the file server, whose clock may differ from this machine's.
    probe = path.parent / f"{path.name}.{uuid.uuid4().hex}"
    probe.touch()
    try:
        return os.stat(probe).st_mtime - os.stat(path).st_mtime > STALE_SECONDS
    except FileNotFoundError:
        return True
    finally:
        probe.unlink()


def _described(path: epath.Path) -> str:
    owner = _owner(_content(path))
    return "" if owner is None else f" ({owner})"


def _owner(content: str | None) -> Owner | None:
    try:
        return Owner(**json.loads(content or ""))
    except (ValueError, TypeError):
        return None


def _content(path: epath.Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None


def _this_process() -> Owner:
    since = time.strftime("%Y-%m-%d %H:%M:%S %Z")
    return Owner(socket.gethostname(), os.getpid(), _start_of(os.getpid()), since)


def _start_of(pid: int) -> str:
    """When a process of this machine started, by /proc; '' where it is gone, and 'unknown' where there is no /proc."""
    if not os.path.isdir("/proc/self"):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return ""
        except PermissionError:
            pass
        return "unknown"
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            # The name of the program, in brackets, may hold spaces.
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return ""
    # A zombie has ended, and only its parent has not noticed.
    return "" if fields[0] == "Z" else fields[19]
