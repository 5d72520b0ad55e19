"""Puts several examples into one row; segment ids tell them apart."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from lmirl_jax.rows import Episodes, Turns, empty_row, mark_turns, put_example, stack_rows
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
        episodes: what an episode of a conversation is; see `rows.mark_turns`.
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
        episodes: Episodes = "turns",
    ):
        self._lengths, self._discount, self._eos_ids = lengths, discount, tuple(eos_ids)
        self._episodes: Episodes = episodes
        self._packed = packed
        self._rows = [empty_row(lengths, with_rewards) for _ in range(rows)]
        # The numbers of input and target tokens in each row, and the number of its segments.
        self._used = [(0, 0, 0)] * rows
        # The rows that are not full.
        self._open = list(range(rows))

    def add(
        self,
        inputs: Int[np.ndarray, " n"],
        targets: Int[np.ndarray, " m"],
        weight: float = 1.0,
        rewards: Float[np.ndarray, " m"] | None = None,
        turns: Turns | None = None,
    ) -> Place | None:
        """Puts an example into the batch and returns its place, or None if no row has room.

        See `put_example`, and `mark_turns` for the turns of a conversation.
        """
        room = self._lengths["inputs"], self._lengths["targets"]
        n, m = min(len(inputs), room[0]), min(len(targets), room[1])
        for index in self._open:
            i, t, segments = self._used[index]
            if i + n <= room[0] and t + m <= room[1]:
                break
        else:
            return None
        put_example(
            self._rows[index],
            inputs,
            targets,
            eos_ids=self._eos_ids,
            discount=self._discount,
            weight=weight,
            rewards=rewards,
            place=(i, t, segments + 1),
        )
        if turns is not None:
            mark_turns(
                self._rows[index],
                turns,
                eos_ids=self._eos_ids,
                discount=self._discount,
                episodes=self._episodes,
                weight=weight,
                start=t,
            )
        self._used[index] = (i + n, t + m, segments + 1)
        if not self._packed or i + n == room[0] or t + m == room[1]:
            self._open.remove(index)
        return Place(index, t, t + m)

    def batch(self) -> Batch:
        return stack_rows(self._rows)
