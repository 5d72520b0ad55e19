"""Reports the keys of rows that nothing reads, because one of them may be a misspelt key that is read."""

import collections
import difflib
from collections.abc import Collection, Mapping
from typing import Any

from lmirl_jax.types import UserError

# The maximum number of keys that one message names.
MOST = 6


class UnreadKeys:
    """Counts the keys of a file's rows that are not read.

    Args:
        read: the keys that are read.
    """

    def __init__(self, read: Collection[str]):
        self._read = frozenset(read)
        self._plain = {_plain(key): key for key in read}
        self.counts: collections.Counter[str] = collections.Counter()

    def check(self, row: Mapping[str, Any], where: str) -> None:
        """Raises a UserError for a key that differs only in case, spaces or underscores from one that the row lacks."""
        for key in row.keys() - self._read:
            meant = self._plain.get(_plain(key))
            if meant is not None and meant not in row:
                raise UserError(f"{where}: the key {key!r} is not read: write {meant!r}, or leave it out")

    def add(self, row: Mapping[str, Any], hidden: Collection[str] = ()) -> None:
        """Counts the keys of a row that are not read.

        Args:
            row: the values that are read, and others, by key.
            hidden: further keys of the row that are not read, although other rows have read keys of their names.
        """
        self.counts.update(row.keys() - self._read)
        self.counts.update(hidden)


def describe_unread(name: str, total: int, counts: Mapping[str, int], read: Collection[str]) -> str | None:
    """Names in one line the keys that are not read, each with the nearest key that is read; None if there are none.

    Args:
        name: the name of the data, with which the line begins.
        total: the number of rows.
        counts: for each key, the number of rows that have it.
        read: the keys that are read.
    """
    if not counts:
        return None
    parts = []
    for key, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MOST]:
        near = difflib.get_close_matches(
            key.lower(), [other for other in read if other != key], n=1, cutoff=0.75
        )
        hint = f", did you mean {near[0]!r}?" if near else ""
        parts.append(f"{key!r} ({count} of {total}{hint})")
    more = f" and {len(counts) - MOST} more" if len(counts) > MOST else ""
    return f"{name}: keys that are not read, and have no effect: {', '.join(parts)}{more}"


def _plain(key: str) -> str:
    return "".join(letter for letter in key.casefold() if letter not in " _-\t")
