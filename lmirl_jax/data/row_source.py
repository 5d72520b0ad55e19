"""The examples of each row of a training set, by the number of the row."""

import logging
from collections.abc import Mapping

import numpy as np
from jaxtyping import Int

from lmirl_jax.data import row_plan
from lmirl_jax.data.example_source import ExampleSource
from lmirl_jax.data.task_parts import Example
from lmirl_jax.types import UserError

_log = logging.getLogger(__name__)


class RowSource:
    """The rows of some examples of a source, one in each row or packed by a plan.

    Args:
        source: all examples.
        examples: the numbers of those that are used.
        plan: the rows of the used examples; None for one in each row.
    """

    def __init__(
        self,
        source: ExampleSource,
        examples: Int[np.ndarray, " used"],
        plan: row_plan.RowPlan | None = None,
    ):
        self._source, self._examples, self._plan = source, examples, plan

    def __len__(self) -> int:
        return len(self._examples) if self._plan is None else len(self._plan)

    def __getitem__(self, index: int) -> list[Example]:
        used = [index] if self._plan is None else self._plan[index]
        return [self._source[int(self._examples[each])] for each in used]

    @property
    def num_examples(self) -> int:
        return len(self._examples)


def drawn_examples(
    name: str, split: str, available: int, count: int | None, seed: int
) -> Int[np.ndarray, " used"]:
    """The numbers of `count` examples in their order, drawn without replacement; of all of them without a count."""
    if count is None:
        return np.arange(available)
    if count > available:
        raise UserError(
            f"TRAIN_NUM_EXAMPLES={count}: {name} has {available} examples in split {split!r}; set at most that, or None for all"
        )
    _log.info("%s, %s: %d of %d examples, drawn with seed %d", name, split, count, available, seed)
    return np.sort(np.random.default_rng(seed).permutation(available)[:count])


def packed_rows(
    name: str, sizes: Int[np.ndarray, "examples 2"], lengths: Mapping[str, int], seed: int | None
) -> row_plan.RowPlan:
    """Plans the rows of examples, and logs how many share one."""
    plan = row_plan.plan_rows(sizes, lengths, seed)
    shares = [row_plan.padding(sizes, lengths, rows) for rows in (len(plan), len(sizes))]
    _log.info(
        "%s: %d examples in %d rows, of which %.0f%% is padding; with one in each row it were %.0f%%",
        name,
        len(sizes),
        len(plan),
        *(100 * share for share in shares),
    )
    return plan
