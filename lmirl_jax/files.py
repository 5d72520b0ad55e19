"""Files on a disk or in a bucket (gs://), which appear whole or not at all."""

import contextlib
import fcntl
from collections.abc import Iterator
from typing import IO

from etils import epath

from lmirl_jax.types import UserError


def absolute(path: epath.PathLike) -> epath.Path:
    """The path from the root: a bucket's as it is, a local one made absolute, with `~` read as the home folder."""
    given = epath.Path(path)
    return given if "://" in str(path) else given.expanduser().resolve()


@contextlib.contextmanager
def writing(path: epath.PathLike) -> Iterator[IO[str]]:
    """A text file to write, which takes its name when the block ends well, and leaves nothing when it does not."""
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.tmp"
    try:
        with temporary.open("w", encoding="utf-8") as file:
            yield file
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    temporary.replace(path)


@contextlib.contextmanager
def held_alone(folder: epath.Path, name: str) -> Iterator[None]:
    """Keeps other runs on this machine out of a folder; released when the process ends, however it does.

    Raises:
        UserError: another run is at work in the folder.
    """
    if "://" in str(folder):  # A bucket has no locks.
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"another run is at work in {name} {folder}: wait for it to end, or choose another folder"
            ) from None
        except OSError:
            pass  # A file system without locks.
        yield
