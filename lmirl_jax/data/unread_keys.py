"""Keys of rows that nothing reads: told, as one of them may be a slip for one that is read."""

import collections
import difflib
from collections.abc import Collection, Mapping
from typing import Any

from lmirl_jax.types import UserError

MOST = 6  # Keys in one message.


class UnreadKeys:
    """Counts the keys of a file's rows that are none of those that are read.

    Args:
        read: the keys that are.
    """

    def __init__(self, read: Collection[str]):
        self._read = frozenset(read)
        self._plain = {_plain(key): key for key in read}
        self.counts: collections.Counter[str] = collections.Counter()

    def add(self, row: Mapping[str, Any], where: str) -> None:
        """Counts those of a row.

        Raises:
            UserError: one differs from a key that is read, and that the row lacks, in case, spaces or underscores alone.
        """
        for key in row.keys() - self._read:
            meant = self._plain.get(_plain(key))
            if meant is not None and meant not in row:
                raise UserError(f"{where}: the key {key!r} is not read: write {meant!r}, or leave it out")
            self.counts[key] += 1


def describe_unread(name: str, total: int, counts: Mapping[str, int], read: Collection[str]) -> str | None:
    """One line that names the keys that are not read, with the nearest one that is; None where there are none.

    Args:
        name: of the data, at the beginning of the line.
        total: how many rows there are.
        counts: in how many of them each key is.
        read: the keys that are read.
    """
    if not counts:
        return None
    parts = []
    for key, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MOST]:
        near = difflib.get_close_matches(key.lower(), [own for own in read if own != key], n=1, cutoff=0.75)
        hint = f", did you mean {near[0]!r}?" if near else ""
        parts.append(f"{key!r} ({count} of {total}{hint})")
    more = f" and {len(counts) - MOST} more" if len(counts) > MOST else ""
    return f"{name}: keys that are not read, and have no effect: {', '.join(parts)}{more}"


def _plain(key: str) -> str:
    return "".join(letter for letter in key.casefold() if letter not in " _-\t")
