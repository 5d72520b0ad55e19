"""Prompts as tokens, and beginnings of answers to them, for a `Generator`."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from lmirl_jax.rows import example_row, stack_rows
from lmirl_jax.types import Batch

# Lengths are rounded up to a multiple of this number, so that similar ones share a compilation.
MULTIPLE = 32


class TokenPrompts:
    """Prompts as a `Generator` takes them.

    Args:
        tokens: the tokens of each prompt.
        max_new_tokens: the maximum number of tokens of an answer.
        task: the task whose vocabulary the answers have.
        beginnings: the tokens that each answer begins with, for a `Generator` that continues; None for none.
    """

    def __init__(
        self,
        tokens: Sequence[np.ndarray],
        max_new_tokens: int,
        task: Any,
        beginnings: Sequence[np.ndarray] | None = None,
    ):
        self._tokens, self.eos_ids, self.decode = tokens, task.eos_ids, task.decode
        self._beginnings = [np.zeros(0, np.int32)] * len(tokens) if beginnings is None else beginnings
        longest = max(len(row) for row in tokens)
        self.lengths: Mapping[str, int] = {
            "inputs": -(-longest // MULTIPLE) * MULTIPLE,
            "targets": max_new_tokens,
        }

    def batches(self, batch_size: int) -> Iterator[tuple[Batch, Sequence[Mapping[str, Any]]]]:
        pairs = list(zip(self._tokens, self._beginnings, strict=True))
        for start in range(0, len(pairs), batch_size):
            rows = [
                example_row(prompt, beginning, lengths=self.lengths, discount=1.0, eos_ids=self.eos_ids)
                for prompt, beginning in pairs[start : start + batch_size]
            ]
            yield stack_rows(rows, batch_size), [{} for _ in rows]
