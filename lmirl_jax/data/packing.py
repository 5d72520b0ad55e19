"""Several examples in one row, told apart by segment ids."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from lmirl_jax.data.batches import empty_row, put, stack_rows
from lmirl_jax.types import Batch


class Place(NamedTuple):
    """Where the target of an example lies in a batch: its row, and the positions from `start` to before `stop`."""

    row: int
    start: int
    stop: int


class Packer:
    """Puts examples into the rows of one batch, each into the first with room for both its parts.

    Segment ids are 1, 2, .. in each row, in order of arrival. The discount of 0 at the end of each answer severs it from
    its neighbour; the decoder's input starts anew, from 0, at each segment.

    Args:
        rows: of the batch.
        lengths: the size of a row in tokens, for `inputs` and `targets`; what is longer is trimmed.
        discount: gamma, between the tokens of an answer.
        eos_id: the token that ends an answer.
        packed: False gives each example a row of its own, without segment ids.
    """

    def __init__(
        self, rows: int, *, lengths: Mapping[str, int], discount: float, eos_id: int, packed: bool = True
    ):
        self._lengths, self._discount, self._eos_id = lengths, discount, eos_id
        self._packed = packed
        self._rows = [empty_row(lengths, packed) for _ in range(rows)]
        self._used = [
            (0, 0, 0)
        ] * rows  # Tokens taken in each row: inputs, targets, and the number of segments.
        self._open = list(range(rows))  # Those that are not full.

    def add(self, inputs: Int[np.ndarray, " n"], targets: Int[np.ndarray, " m"]) -> Place | None:
        """Puts an example, as `encoder_decoder_row` takes it, into the batch; None where it has no room left."""
        room = self._lengths["inputs"], self._lengths["targets"]
        n, m = min(len(inputs), room[0]), min(len(targets), room[1])
        for index in self._open:
            i, t, segments = self._used[index]
            if i + n <= room[0] and t + m <= room[1]:
                break
        else:
            return None
        row = self._rows[index]
        put(row, inputs, targets, i, t, lengths=self._lengths, discount=self._discount, eos_id=self._eos_id)
        if self._packed:
            row.encoder_segment_ids[i : i + n] = segments + 1
            row.decoder_segment_ids[t : t + m] = segments + 1
        self._used[index] = (i + n, t + m, segments + 1)
        if not self._packed or i + n == room[0] or t + m == room[1]:
            self._open.remove(index)
        return Place(index, t, t + m)

    def batch(self) -> Batch:
        return stack_rows(self._rows)
