"""Files on a disk or in a bucket (gs://), which appear whole or not at all."""

import contextlib
from collections.abc import Iterator
from typing import IO

from etils import epath


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
