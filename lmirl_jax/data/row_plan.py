"""Plans which examples share a row, from their lengths alone, before any of them is read."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int

# Examples are packed in parts of this number, each by itself: the time is linear in the number of examples.
PART = 8192
# The version of the plan, which is part of the fingerprint of packed data.
VERSION = 1


@dataclasses.dataclass(frozen=True)
class RowPlan:
    """The examples of each row.

    Args:
        examples: the numbers of all examples, row after row.
        starts: the place in `examples` at which each row begins; at the end, the number of examples.
    """

    examples: Int[np.ndarray, " examples"]
    starts: Int[np.ndarray, " rows_and_1"]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, row: int) -> Int[np.ndarray, " in_row"]:
        if not 0 <= row < len(self):
            raise IndexError(row)
        return self.examples[self.starts[row] : self.starts[row + 1]]


def places_needed(
    sizes: Int[np.ndarray, "*examples 2"], lengths: Mapping[str, int]
) -> Int[np.ndarray, "*examples 2"]:
    """The places that examples take in the prompts and in the answers of a row, trimmed to its lengths.

    An empty prompt takes one place, because a decoder-only model writes its start token there.

    Args:
        sizes: the numbers of tokens of `inputs` and `targets`.
        lengths: the size of a row in tokens, for `inputs` and `targets`.
    """
    return np.clip(sizes, [1, 0], [lengths["inputs"], lengths["targets"]])


def plan_rows(sizes: Int[np.ndarray, "examples 2"], lengths: Mapping[str, int], seed: int | None) -> RowPlan:
    """Puts every example into one row, so that prompts and answers of a row fit.

    Examples are shuffled and cut into parts. In each part the longest comes first, and each goes to the row where it leaves
    the least room, or to a new one where none has room.

    Args:
        sizes: the numbers of tokens of `inputs` and `targets`; longer ones are trimmed.
        lengths: the size of a row in tokens, for `inputs` and `targets`.
        seed: the seed of the shuffle; None keeps the order of the examples, each of which goes to the last row or to a new one.
    """
    room = np.array([lengths["inputs"], lengths["targets"]])
    needed = places_needed(sizes, lengths)
    if seed is None:
        examples, rows = np.arange(len(needed)), _in_order(needed, room)
    else:
        examples, rows = np.random.default_rng(seed).permutation(len(needed)), np.zeros(len(needed), np.int64)
        begin = 0
        for start in range(0, len(needed), PART):
            part = slice(start, start + PART)
            numbers = _best_fit(needed[examples[part]], room)
            rows[part] = begin + numbers
            begin += int(numbers.max()) + 1
    by_row = np.argsort(rows, kind="stable")
    counts = np.bincount(rows)
    return RowPlan(examples[by_row], np.concatenate([[0], np.cumsum(counts)]))


def padding(sizes: Int[np.ndarray, "examples 2"], lengths: Mapping[str, int], rows: int) -> float:
    """The share of padding in this number of rows that hold these examples."""
    room = np.array([lengths["inputs"], lengths["targets"]])
    return 1 - float(np.minimum(sizes, room).sum()) / (rows * int(room.sum()))


def _best_fit(
    needed: Int[np.ndarray, "examples 2"], room: Int[np.ndarray, " 2"]
) -> Int[np.ndarray, " examples"]:
    """The row of each example by best fit, the longest first."""
    size = 1 / room
    longest_first = np.argsort(-(needed * size).max(axis=1), kind="stable")
    inputs, targets = np.zeros((2, len(needed)), np.int64)
    # The room that is left in each row, in rows, counted in prompts and in answers.
    left: Float[np.ndarray, " rows"] = np.zeros(len(needed))
    numbers = np.zeros(len(needed), np.int64)
    count = 0
    for example in longest_first:
        n, m = needed[example]
        fits = np.flatnonzero((inputs[:count] >= n) & (targets[:count] >= m))
        if len(fits):
            row = fits[left[fits].argmin()]
        else:
            row, count = count, count + 1
            inputs[row], targets[row] = room
        inputs[row] -= n
        targets[row] -= m
        left[row] = inputs[row] * size[0] + targets[row] * size[1]
        numbers[example] = row
    return numbers


def _in_order(
    needed: Int[np.ndarray, "examples 2"], room: Int[np.ndarray, " 2"]
) -> Int[np.ndarray, " examples"]:
    """The row of each example, if none may come before an earlier one."""
    numbers = np.zeros(len(needed), np.int64)
    row, used = 0, np.zeros(2, np.int64)
    for example, places in enumerate(needed):
        used = used + places
        if (used > room).any():
            row, used = row + 1, places
        numbers[example] = row
    return numbers
