"""Length bucketing: a few batch shapes, chosen from the lengths of the examples, and which examples share a batch.

A bucket is a shape, and the examples for which it is the smallest that holds them.
"""

import threading
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import grain
import numpy as np
from jaxtyping import Bool, Int

from lmirl_jax.data.task_parts import FEATURES

# The lengths of a shape are multiples of this, as the tiles of accelerators are.
MULTIPLE = 8
# The most lengths of prompts, and as many of answers, of which the shapes are made.
QUANTILES = 32
# Examples are sorted into batches in windows of about this number, and of at least so many batches.
WINDOW_EXAMPLES = 8192
WINDOW_BATCHES = 16
# The version of shapes and batches, which is part of the fingerprint of bucketed data.
VERSION = 1


def choose_shapes(
    sizes: Int[np.ndarray, "examples 2"],
    weights: Int[np.ndarray, " examples"],
    room: Mapping[str, int],
    count: int,
) -> Int[np.ndarray, "shapes 2"]:
    """Chooses at most `count` shapes, so that the examples, each in the smallest that holds it, have little padding.

    The first shape holds every example. Each of the next ones saves the most places; then shapes are exchanged for better
    ones while there are any. All numbers are whole, so that every process finds the same shapes.

    Args:
        sizes: the tokens of each example, at most `room`.
        weights: how often each example is drawn, in whole numbers.
        room: the greatest lengths, for `inputs` and `targets`.
        count: the greatest number of shapes.

    Returns:
        The shapes, from the smallest to the largest.
    """
    most = np.array([room[key] for key in FEATURES])
    rounded = np.minimum(-(-np.maximum(sizes, 1) // MULTIPLE) * MULTIPLE, most)
    cuts = [_quantiles(rounded[:, axis], weights) for axis in range(2)]
    # Every pair of lengths is a candidate. The examples are counted by the smallest candidate that holds them.
    candidates = np.stack(np.meshgrid(*cuts, indexing="ij"), axis=-1).reshape(-1, 2)
    places = [np.searchsorted(cut, rounded[:, axis]) for axis, cut in enumerate(cuts)]
    kinds, kind = np.unique(places[0] * len(cuts[1]) + places[1], return_inverse=True)
    drawn = np.zeros(len(kinds), np.int64)
    np.add.at(drawn, kind, weights)
    areas = candidates.sum(axis=1)
    # The places that a row takes for examples of a kind if this candidate is there beside the largest.
    cost = np.where(_holds(candidates, candidates[kinds]), areas, areas[-1])
    chosen = [len(candidates) - 1]
    while len(chosen) < count and _improve(chosen, len(chosen), cost, drawn):
        pass
    while any(_improve(chosen, place, cost, drawn) for place in range(1, len(chosen))):
        pass
    shapes = candidates[chosen]
    shapes = shapes[np.lexsort((shapes[:, 0], shapes.sum(axis=1)))]
    # Exchanges can leave a shape without examples.
    return shapes[np.unique(smallest(shapes, candidates[kinds]))]


def smallest(
    shapes: Int[np.ndarray, "shapes 2"], sizes: Int[np.ndarray, "examples 2"]
) -> Int[np.ndarray, " examples"]:
    """The number of the smallest shape that holds each size."""
    return _holds(shapes, sizes).argmax(axis=1)


class PlannedBatch(NamedTuple):
    """A batch whose examples are not read yet.

    Args:
        examples: the source of each example, and its number there.
        lengths: the shape of its rows, for `inputs` and `targets`.
    """

    examples: Int[np.ndarray, "batch 2"]
    lengths: dict[str, int]


class LengthBuckets:
    """Cuts an endless order of examples into batches of a few shapes.

    The order is cut into windows of some batches each. In a window the examples of a bucket are put together in their order,
    and those that do not fill a batch go to the next larger bucket; then the batches are shuffled. So a batch is a function of
    its number, and each window has the same examples as without buckets.

    Args:
        order: the endless order of the examples, each as the number of its source and its own number there.
        sizes: for each source, the tokens of its examples, at most `lengths`.
        shares: the share of each source in the order.
        lengths: the greatest lengths of a row, for `inputs` and `targets`.
        count: the greatest number of shapes.
        batch_size: the number of examples in a global batch.
        seed: the seed of the shuffle; None keeps the order, and cuts each batch to the smallest shape that holds it.
    """

    def __init__(
        self,
        order: grain.MapDataset,
        sizes: Sequence[Int[np.ndarray, "_ 2"]],
        shares: Sequence[float],
        lengths: Mapping[str, int],
        count: int,
        batch_size: int,
        seed: int | None,
    ):
        self._order, self._sizes, self._batch_size, self._seed = order, sizes, batch_size, seed
        self._row = sum(lengths.values())
        number = [max(round(2**32 * share / len(each)), 1) for share, each in zip(shares, sizes, strict=True)]
        weights = np.repeat(np.array(number, np.int64), [len(each) for each in sizes])
        self.shapes = choose_shapes(np.concatenate(sizes), weights, lengths, count)
        self._larger = _next_larger(self.shapes)
        about = max(WINDOW_EXAMPLES // batch_size, WINDOW_BATCHES)
        self.window = max(min(about, len(weights) // batch_size), 1)
        self._per_plan = self.window if seed is not None else 1
        self._plans: dict[int, list[PlannedBatch]] = {}
        self._lock = threading.Lock()

    def __getitem__(self, batch: int) -> PlannedBatch:
        number, place = divmod(batch, self._per_plan)
        # Threads that read ahead are at most a few batches apart.
        with self._lock:
            if number not in self._plans:
                kept = {key: plan for key, plan in self._plans.items() if key == number - 1}
                self._plans = kept | {number: self._plan(number)}
            return self._plans[number][place]

    def padding(self, batches: int) -> tuple[float, float]:
        """The shares of padding in the first batches, and in the same rows if all had the greatest lengths."""
        planned = [self[number] for number in range(batches)]
        real = sum(int(self._sizes_of(examples).sum()) for examples, _ in planned)
        places = sum(len(examples) * sum(lengths.values()) for examples, lengths in planned)
        return 1 - real / places, 1 - real / (batches * self._batch_size * self._row)

    def _plan(self, number: int) -> list[PlannedBatch]:
        size = self._per_plan * self._batch_size
        examples = np.array([self._order[number * size + place] for place in range(size)], np.int64)
        sizes = self._sizes_of(examples)
        groups = np.arange(size).reshape(-1, self._batch_size)
        if self._seed is not None:
            groups = _fill(smallest(self.shapes, sizes), self._larger, self._batch_size)
            groups = np.random.default_rng([self._seed, number]).permutation(groups)
        shapes = smallest(self.shapes, sizes[groups].max(axis=1))
        if number == 0:
            # A run that does not fit into memory fails at its first step, not somewhere in the epoch.
            front = np.argsort(np.arange(len(shapes)) != shapes.argmax(), kind="stable")
            groups, shapes = groups[front], shapes[front]
        return [
            PlannedBatch(examples[group], dict(zip(FEATURES, map(int, self.shapes[shape]), strict=True)))
            for group, shape in zip(groups, shapes, strict=True)
        ]

    def _sizes_of(self, examples: Int[np.ndarray, "count 2"]) -> Int[np.ndarray, "count 2"]:
        return np.array([self._sizes[source][example] for source, example in examples])


def _quantiles(
    values: Int[np.ndarray, " count"], weights: Int[np.ndarray, " count"]
) -> Int[np.ndarray, " cuts"]:
    """At most `QUANTILES` of the values, the greatest among them, with about equal weights between neighbours."""
    distinct, place = np.unique(values, return_inverse=True)
    if len(distinct) <= QUANTILES:
        return distinct
    below = np.zeros(len(distinct), np.int64)
    np.add.at(below, place, weights)
    below = below.cumsum()
    marks = np.arange(1, QUANTILES + 1) * below[-1]
    return np.unique(distinct[np.searchsorted(below * QUANTILES, marks)])


def _holds(
    shapes: Int[np.ndarray, "shapes 2"], sizes: Int[np.ndarray, "sizes 2"]
) -> Bool[np.ndarray, "sizes shapes"]:
    return np.all(sizes[:, None] <= shapes[None], axis=-1)


def _improve(
    chosen: list[int], place: int, cost: Int[np.ndarray, "kinds candidates"], drawn: Int[np.ndarray, " kinds"]
) -> bool:
    """Puts the best candidate at this place of the chosen ones, or at their end; returns whether it saves anything."""
    others = cost[:, chosen[:place] + chosen[place + 1 :]].min(axis=1)
    totals = drawn @ np.minimum(others[:, None], cost)
    best = int(totals.argmin())
    if totals[best] >= (totals[chosen[place]] if place < len(chosen) else drawn @ others):
        return False
    chosen[place:] = [best, *chosen[place + 1 :]]
    return True


def _next_larger(shapes: Int[np.ndarray, "shapes 2"]) -> list[int]:
    """For each shape but the last, the number of the smallest other one that holds it."""
    return [
        number + 1 + int(smallest(shapes[number + 1 :], shapes[number][None])[0])
        for number in range(len(shapes) - 1)
    ]


def _fill(
    bucket: Int[np.ndarray, " count"], larger: Sequence[int], batch_size: int
) -> Int[np.ndarray, "batches batch"]:
    """The examples of each batch; those that are left of a bucket go to the next larger one."""
    members = [np.flatnonzero(bucket == number) for number in range(len(larger) + 1)]
    batches = []
    for number, each in enumerate(members):
        rest = len(each) % batch_size
        batches.append(each[: len(each) - rest].reshape(-1, batch_size))
        if rest:
            members[larger[number]] = np.concatenate([each[-rest:], members[larger[number]]])
    return np.concatenate(batches)
