"""A text file that grows line by line, and beside it a file with the hash of each line, which shows what is as it was written."""

import io
import logging
import os
from typing import IO, Protocol, runtime_checkable

import xxhash

# The digits of a hash: 64 bits.
HASH = 16

_log = logging.getLogger(__name__)


@runtime_checkable
class Growing(Protocol):
    """A text file to whose end one writes."""

    def write(self, text: str, /) -> int: ...

    def flush(self) -> None: ...


class HashedLines:
    """A file of lines and the file of their hashes, both open for reading and appending. A line is written before its hash."""

    def __init__(self, lines: IO[bytes], hashes: IO[bytes]):
        self._lines, self._hashes, self._rest = lines, hashes, b""

    def keep_whole(self, name: str) -> int:
        """Removes the lines from the first that is not as it was written, and returns the number of those before it.

        Args:
            name: the file, for a warning. A run that is killed leaves an incomplete line, or one without its hash: both are
                removed without a word.
        """
        self._lines.seek(0)
        self._hashes.seek(0)
        count, end, problem = 0, 0, None
        for line in self._lines:
            known = self._hashes.readline().rstrip(b"\n")
            if not line.endswith(b"\n") or _hash(line) != known:
                # The last line may be torn, or wait for its hash.
                if len(known) == HASH or self._lines.readline().endswith(b"\n"):
                    problem = f"line {count + 1} of {name} is not as it was written"
                break
            count, end = count + 1, end + len(line)
        else:
            if len(self._hashes.readline().rstrip(b"\n")) == HASH:
                problem = f"{name} has lost its lines after line {count}"
        if problem is not None:
            _log.warning(
                "%s: it goes on after line %d, and the lines after it are made again", problem, count
            )
        self._lines.truncate(end)
        self._hashes.truncate(count * (HASH + 1))
        for file in (self._lines, self._hashes):
            file.seek(0, io.SEEK_END)
        return count

    def write(self, text: str, /) -> int:
        written = text.encode("utf-8")
        self._lines.write(written)
        *whole, self._rest = (self._rest + written).split(b"\n")
        self._hashes.write(b"".join(_hash(line + b"\n") + b"\n" for line in whole))
        return len(text)

    def flush(self) -> None:
        self._lines.flush()
        self._hashes.flush()

    def sync(self) -> None:
        """Waits until all lines are on the disk."""
        self.flush()
        os.fsync(self._lines.fileno())


def _hash(line: bytes) -> bytes:
    return xxhash.xxh3_64_hexdigest(line).encode()
