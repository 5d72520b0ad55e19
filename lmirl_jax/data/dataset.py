"""The training set: an endless, globally shuffled order of rows, cut into batches, that resumes anywhere at once.

A row has one example, or several if they are packed. Row k of the order is computed from k: no process reads the rows of
another, and a position is one number, the rows that all processes have consumed together.
"""

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import grain
import numpy as np
from jaxtyping import Int

from lmirl_jax.arguments import Count, Lengths, Path, Seed, Share, Text, check_arguments
from lmirl_jax.data import length_buckets, row_plan
from lmirl_jax.data.mixture_or_task import Task
from lmirl_jax.data.records import Records, tokenized_records
from lmirl_jax.data.row_source import (
    ENDLESS,
    ORDER_VERSION,
    RowSource,
    bucketed_batches,
    drawn_examples,
    endless_order,
    packed_rows,
)
from lmirl_jax.data.split_checks import check_preferences, check_records
from lmirl_jax.data.task_parts import FEATURES, TaskPart
from lmirl_jax.data.texts import mark_unknown, unknown_surface
from lmirl_jax.data.train_iterator import TrainIterator
from lmirl_jax.data.train_rows import RowMaker
from lmirl_jax.rows import Episodes, stack_rows
from lmirl_jax.types import Batch, UserError


@check_arguments
class TrainDataset:
    """A task's split as `TrainData`: every example once an epoch, in an order that the seed alone determines.

    A mixture interleaves its tasks by their rates; each of them is shuffled and repeated on its own. A number `weight` among
    an example's features is that of its target tokens in the loss; `reward`, or a list `rewards`, gives their rewards
    (`given_rewards`), `label` whether its answer is right. `has_rewards` and `has_labels` say whether batches have any.

    Args:
        task: the task, from `get_task`.
        batch_size: the number of rows in a global batch, over all processes.
        lengths: the number of tokens of a row, for `inputs` and `targets`; longer texts are trimmed.
        split: the split to train on.
        discount: gamma, 0 to 1.
        seed: the seed of the shuffling.
        truncate: whether trimming is allowed; it is counted and logged.
        shuffle: False keeps the task's own order.
        cache_dir: the folder of tokenised examples; see `tokenized_records`.
        num_examples: the number of examples of each task, drawn from its split without replacement; None for all.
        examples_seed: the seed of that draw.
        turns: which assistant turns of a conversation are learnt: 'all', or the 'last', whose prompt is all before it. Rollouts
            answer the last one, so that data sets of prompts, and of demonstrations beside rollouts, have 'last'.
        episodes: what an episode of a conversation is: each of its assistant 'turns', or the whole 'conversation'; see
            `rows.mark_turns`.
        pack: whether short examples share a row, as many as its lengths hold. The same ones share a row in every epoch, and the
            rows are what is shuffled. Without shuffling, only neighbours share one.
        buckets: the greatest number of shapes of batches. Above 1, examples of similar lengths share a batch, whose rows are as
            short as they allow. Each shape is compiled separately. Without shuffling, the batches are the same as with 1.
        preferences: whether each example is two neighbouring rows: its answer, and the rejected one that the data have beside it.
            Of a conversation both are the last assistant turn.
        rejected_ends: whether rejected answers end, or are prefixes of answers that go wrong there: then they have no EOS.

    Raises:
        UserError: a setting out of range, no such split, a task with fewer than `num_examples`, settings that do not go
            together, preferences without a rejected answer, or with `truncate=False` an example that does not fit.
    """

    def __init__(
        self,
        task: Task,
        batch_size: Count,
        lengths: Lengths,
        split: Text = "train",
        discount: Share = 1.0,
        seed: Seed = 0,
        truncate: bool = True,
        shuffle: bool = True,
        cache_dir: Path | None = None,
        num_examples: Count | None = None,
        examples_seed: Seed = 0,
        turns: Literal["all", "last"] = "all",
        episodes: Episodes = "turns",
        pack: bool = False,
        buckets: Count = 1,
        preferences: bool = False,
        rejected_ends: bool = True,
    ):
        _check_layout(pack, buckets, batch_size, preferences)
        self.task = task
        self.turns = turns = "last" if preferences else turns
        self.packed, self.buckets, self.has_preferences = pack, buckets, preferences
        self.batch_size, self.rows_together = batch_size, 2 if preferences else 1
        self.lengths = {key: int(lengths[key]) for key in FEATURES}
        self.discount = float(discount)
        parts = _parts(task, split)
        records = [tokenized_records(part, split, cache_dir) for part, _ in parts]
        for (part, _), part_records in zip(parts, records, strict=True):
            check_records(part.name, split, part_records, self.lengths, truncate, last_turns=turns == "last")
            check_preferences(part.name, split, part_records, self.lengths, truncate, preferences)
        seed_of_order = seed if shuffle else None
        self.has_rewards = any(part.rewarded for part in records)
        self.has_labels = any(part.labelled for part in records)
        # Without weights, rewards and turns, the features of examples need not be read.
        with_features = preferences or self.has_rewards
        with_features |= any(part.weighted or part.conversations for part in records)
        self._sources, sizes = [], []
        for (part, _), part_records in zip(parts, records, strict=True):
            examples = drawn_examples(part.name, split, len(part_records), num_examples, examples_seed)
            tokens = part_records.last_lengths if turns == "last" else part_records.lengths
            sizes.append(tokens[examples])
            plan = packed_rows(part.name, sizes[-1], self.lengths, seed_of_order) if pack else None
            source = part_records.source if with_features else part_records.source.without_features()
            self._sources.append(RowSource(source, examples, plan))
        self.num_examples = sum(source.num_examples for source in self._sources)
        self.vocab_size = max(task.input_vocabulary.vocab_size, task.output_vocabulary.vocab_size)
        rates = [rate for _, rate in parts]
        drawn = None if num_examples is None else [num_examples, examples_seed]
        self.fingerprint = _fingerprint(records, rates, seed_of_order, drawn, self._layout(rejected_ends))
        order = endless_order(self._sources, rates, seed_of_order)
        layout = turns, episodes, self.has_rewards, self.has_labels, preferences, rejected_ends
        self._maker = RowMaker(task, self.lengths, self.discount, *layout)
        self._examples = order.map(lambda row: self._rows(row[0], row[1], self.lengths))
        self._batches = None
        if buckets > 1:
            shape = self.lengths, buckets, batch_size
            self._batches = bucketed_batches(task.name, order, sizes, rates, *shape, seed_of_order)

    def iterator(self, rows: slice | Int[np.ndarray, " rows"]) -> TrainIterator:
        """Iterates over these rows of every global batch, such as those of `sharding.local_rows`.

        Rows that stay together, such as the two of a preference, are both among them or neither is.
        """
        chosen = np.arange(self.batch_size)[rows]
        examples, counts = np.unique(chosen // self.rows_together, return_counts=True)
        if not len(chosen) or np.any(np.diff(chosen) <= 0) or np.any(counts != self.rows_together):
            raise ValueError(
                f"rows {rows} of a batch of {self.batch_size}: give one or more, in order, and all {self.rows_together} that "
                "stay together"
            )
        batches = functools.partial(self._from_position, examples)
        return TrainIterator(batches, self.batch_size, self.fingerprint, self.task.vocabulary_fingerprints)

    def _from_position(self, examples: Int[np.ndarray, " examples"], index: int) -> grain.MapDataset:
        """Some examples of each batch, from a position on."""
        first = index if self._batches is None else index // self.batch_size
        count = (ENDLESS - index) // self.batch_size
        return grain.MapDataset.range(count).map(functools.partial(self._read, examples, first))

    def _read(self, examples: Int[np.ndarray, " examples"], first: int, number: int) -> Batch:
        """Reads these examples of a batch; `first` is that of the first batch, or its first row."""
        if self._batches is None:
            start = (first + number * self.batch_size) // self.rows_together
            return _stack([self._examples[start + example] for example in examples.tolist()])
        places, lengths = self._batches[first + number]
        return _stack([self._rows(source, index, lengths) for source, index in places[examples].tolist()])

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """The tokens that end an answer."""
        return self.task.eos_ids

    def decode_inputs(self, tokens: Sequence[int] | np.ndarray) -> str:
        """The text of a prompt's tokens, without padding."""
        return self.task.decode_inputs(tokens)

    def decode(self, tokens: Sequence[int] | np.ndarray) -> str:
        """The text of target tokens, without padding, up to the first EOS."""
        return self.task.decode(tokens)

    def decode_against(self, tokens: Sequence[int] | np.ndarray, reference: str) -> str:
        """The text of an answer for comparison with a reference: an unknown token does not equal anything in the reference."""
        return mark_unknown(self.decode(tokens), reference, unknown_surface(self.task.output_vocabulary))

    def _rows(self, source: int, index: int, lengths: Mapping[str, int]) -> list[Batch]:
        """Reads a row of a source, in these lengths; with preferences it is two."""
        return self._maker.rows(self._sources[source][index], lengths)

    def _layout(self, rejected_ends: bool) -> dict[str, Any] | None:
        """What determines which examples share a row or a batch, where anything but their order does."""
        lengths = [self.lengths["inputs"], self.lengths["targets"], self.turns]
        if self.packed:
            return {"packed": [row_plan.VERSION, *lengths]}
        if self.has_preferences:
            return {"preferences": [self.rows_together, rejected_ends]}
        if self.buckets > 1:
            return {"bucketed": [length_buckets.VERSION, *lengths, self.buckets, self.batch_size]}
        return None


def _check_layout(pack: bool, buckets: int, batch_size: int, preferences: bool) -> None:
    """Raises a UserError for settings of rows that do not go together."""
    if pack and buckets > 1:
        raise UserError(
            f"PACK=True and BUCKETS={buckets}: packed rows are of one length; set PACK=False or BUCKETS=1"
        )
    if preferences and (pack or buckets > 1):
        raise UserError(
            f"PACK={pack} and BUCKETS={buckets}: a chosen and a rejected answer are two rows of one length; set PACK=False and "
            "BUCKETS=1"
        )
    if preferences and batch_size % 2:
        raise UserError(
            f"BATCH_SIZE={batch_size}: it counts rows, two for each preference; set an even number"
        )


def _stack(examples: Sequence[list[Batch]]) -> Batch:
    return stack_rows([row for rows in examples for row in rows])


def _parts(task: Task, split: str) -> list[tuple[TaskPart, float]]:
    """The parts of a task that have the split, with their rates."""
    parts = [
        (part, rate)
        for part, rate in zip(task.tasks, task.rates, strict=True)
        if split in part.splits and rate > 0
    ]
    if not parts:
        splits = sorted({split for part in task.tasks for split in part.splits})
        raise UserError(
            f"{task.name} has no split {split!r} to train on; it has {', '.join(splits) or 'none'}"
        )
    return parts


def _fingerprint(
    records: list[Records],
    rates: list[float],
    seed: int | None,
    drawn: list[int] | None,
    layout: dict[str, Any] | None,
) -> str:
    """A hash of the tokens, so that a run can continue after a new comment in the task's code or a new path of the file."""
    order = 0 if seed is None else ORDER_VERSION
    described: list[Any] = [[part.content for part in records], rates, seed, order]
    if drawn is not None:
        described.append(drawn)
    if layout is not None:
        described.append(layout)
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()[:32]
