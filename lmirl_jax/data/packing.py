"""Puts several examples into one row; segment ids tell them apart."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from lmirl_jax.data.row_plan import places_needed
from lmirl_jax.rows import Episodes, Turns, empty_row, mark_label, mark_turns, put_example, stack_rows
from lmirl_jax.types import Batch


class Place(NamedTuple):
    """The place of an example's target in a batch: its row, and the positions from `start` to before `stop`."""

    row: int
    start: int
    stop: int


class Packer:
    """Puts examples into the rows of one batch, each into the first row that has room for its prompt and its answer.

    Segment ids are 1, 2, .. in each row, in order of arrival. The discount of 0 at the end of each answer severs it from
    its neighbour; positions start anew, from 0, in each segment.

    Args:
        rows: the number of rows of the batch.
        lengths: the size of a row in tokens, for `inputs` and `targets`; what is longer is trimmed.
        discount: gamma, between the tokens of an answer.
        eos_ids: the tokens that end an answer.
        packed: whether examples share rows; False gives each example a separate row.
        with_rewards: whether the batch has the rewards of the tokens.
        with_labels: whether the batch says which answers are right.
        episodes: what an episode of a conversation is; see `rows.mark_turns`.

    `rows` are the rows without a batch axis.
    """

    def __init__(
        self,
        rows: int,
        *,
        lengths: Mapping[str, int],
        discount: float,
        eos_ids: Sequence[int],
        packed: bool = True,
        with_rewards: bool = False,
        with_labels: bool = False,
        episodes: Episodes = "turns",
    ):
        self._lengths, self._discount, self._eos_ids = lengths, discount, tuple(eos_ids)
        self._episodes: Episodes = episodes
        self._packed = packed
        self.rows = [empty_row(lengths, with_rewards, with_labels) for _ in range(rows)]
        # The positions at which the next prompt and answer of each row begin, and the number of its segments.
        self._next = [(0, 0, 0)] * rows
        # The places that are left for prompts and answers in each row.
        self._room = np.tile([lengths["inputs"], lengths["targets"]], (rows, 1))
        # The rows that are not full.
        self._open = list(range(rows))

    def add(
        self,
        inputs: Int[np.ndarray, " n"],
        targets: Int[np.ndarray, " m"],
        weight: float = 1.0,
        rewards: Float[np.ndarray, " m"] | None = None,
        turns: Turns | None = None,
        label: bool = True,
    ) -> Place | None:
        """Puts an example into the batch and returns its place, or None if no row has room.

        See `put_example`, and `mark_turns` for the turns of a conversation.
        """
        needed = places_needed(np.array([len(inputs), len(targets)]), self._lengths)
        index = next((index for index in self._open if (needed <= self._room[index]).all()), None)
        if index is None:
            return None
        i, t, segments = self._next[index]
        n, m = min(len(inputs), int(needed[0])), int(needed[1])
        put_example(
            self.rows[index],
            inputs,
            targets,
            eos_ids=self._eos_ids,
            discount=self._discount,
            weight=weight,
            rewards=rewards,
            place=(i, t, segments + 1),
        )
        mark_label(self.rows[index], label, segments + 1)
        if turns is not None:
            mark_turns(
                self.rows[index],
                turns,
                eos_ids=self._eos_ids,
                discount=self._discount,
                episodes=self._episodes,
                weight=weight,
                start=t,
            )
        self._next[index] = (i + n, t + m, segments + 1)
        self._room[index] -= needed
        if not self._packed or not self._room[index].all():
            self._open.remove(index)
        return Place(index, t, t + m)

    def batch(self) -> Batch:
        return stack_rows(self.rows)
