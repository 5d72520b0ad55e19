"""The type of the offsets of tokens in a text."""

import itertools
from collections.abc import Sequence

import numpy as np

# For each token, the character at which it begins, and the character before which it ends.
Offsets = tuple[tuple[int, int], ...]


def in_characters(text: str, offsets: Sequence[tuple[int, int]]) -> Offsets:
    """Converts offsets in the bytes of UTF-8 to offsets in characters."""
    starts = np.cumsum([0, *(len(character.encode("utf-8", "surrogatepass")) for character in text)])
    return tuple(
        (int(np.searchsorted(starts, begin)), int(np.searchsorted(starts, end))) for begin, end in offsets
    )


def shared_length(one: str, other: str) -> int:
    """The length of the common prefix."""
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
