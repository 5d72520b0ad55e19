"""The examples of each row of a training set, by the number of the row, and the order of the rows."""

import functools
import logging
from collections.abc import Mapping, Sequence

import grain
import numpy as np
from jaxtyping import Int

from lmirl_jax.data import row_plan
from lmirl_jax.data.example_source import ExampleSource
from lmirl_jax.data.length_buckets import LengthBuckets
from lmirl_jax.data.task_parts import Example
from lmirl_jax.types import UserError

# The number of rows in an endless order. With Grain's own number it cannot count batches of one row.
ENDLESS = 2**53
# The version of the order, which is part of the fingerprint of shuffled data.
ORDER_VERSION = 2
# Up to so many rows the order of an epoch is held in memory. Grain's index shuffle needs none, but is slow for few rows: 5 ms
# for each of 8, and 10 us for each of 5,000.
ROWS_IN_MEMORY = 2**16
# Prefetching threads read several epochs of a few rows at once.
EPOCHS_IN_MEMORY = 64

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


class _Numbers:
    """The rows of a source, each as the number of the source and that of the row."""

    def __init__(self, source: int, count: int):
        self._source, self._count = source, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> tuple[int, int]:
        return self._source, index


class _ShuffledEpochs:
    """All epochs of a source with few rows, each in an order of its own; rows as `_Numbers` gives them."""

    def __init__(self, source: int, count: int, seed: int):
        self._source, self._count, self._seed = source, count, seed

    def __len__(self) -> int:
        return ENDLESS // self._count * self._count

    def __getitem__(self, index: int) -> tuple[int, int]:
        epoch, place = divmod(index, self._count)
        return self._source, int(_permutation(self._count, self._seed, self._source, epoch)[place])


@functools.lru_cache(EPOCHS_IN_MEMORY)
def _permutation(count: int, *seeds: int) -> Int[np.ndarray, " count"]:
    return np.random.default_rng(seeds).permutation(count).astype(np.int32)


def endless_order(sources: list[RowSource], rates: list[float], seed: int | None) -> grain.MapDataset:
    """The rows of all sources, each as the number of its source and its own number there.

    Every source comes over and over, shuffled anew each time unless the seed is None; a mixture takes turns by the rates.
    """
    parts = [_all_epochs(number, len(source), seed) for number, source in enumerate(sources)]
    if len(parts) == 1:
        return parts[0]
    # Rates are of examples: a task whose rows hold more of them has fewer rows.
    of_rows = [
        rate * (len(source) / source.num_examples) for rate, source in zip(rates, sources, strict=True)
    ]
    return grain.MapDataset.mix(parts, of_rows)


def _all_epochs(source: int, count: int, seed: int | None) -> grain.MapDataset:
    """The rows of one source over and over; see `endless_order`."""
    if seed is not None and count <= ROWS_IN_MEMORY:
        return grain.MapDataset.source(_ShuffledEpochs(source, count, seed))
    epoch = grain.MapDataset.source(_Numbers(source, count))
    if seed is not None:
        epoch = epoch.seed(seed).shuffle()
    return epoch.repeat(ENDLESS // count)


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


def bucketed_batches(
    name: str,
    order: grain.MapDataset,
    sizes: Sequence[Int[np.ndarray, "examples 2"]],
    rates: Sequence[float],
    lengths: Mapping[str, int],
    count: int,
    batch_size: int,
    seed: int | None,
) -> LengthBuckets:
    """Plans batches of a few shapes; see `LengthBuckets`. Logs the shapes, and how much of the first batches is padding."""
    room = [lengths["inputs"], lengths["targets"]]
    trimmed = [np.minimum(each, room) for each in sizes]
    shares = [rate / sum(rates) for rate in rates]
    batches = LengthBuckets(order, trimmed, shares, lengths, count, batch_size, seed)
    shapes = ", ".join(f"{inputs}+{targets}" for inputs, targets in batches.shapes)
    ours, whole = (100 * share for share in batches.padding(batches.window))
    _log.info(
        "%s: batches of %d shapes: %s tokens; in the first %d, %.0f%% is padding, in rows of %d+%d it were %.0f%%",
        *(name, len(batches.shapes), shapes, batches.window, ours, *room, whole),
    )
    return batches
