"""Shards: the tokenised examples of a part of a split, each in one file that appears whole or not at all.

A shard is a `.npz` of these arrays:

    tokens          of all examples, inputs before targets
    lengths         [examples, 2] the numbers of their inputs and targets, EOS included
    last_lengths    [examples, 2] the same where the last assistant turn of a conversation is the target
    rejected_lengths  [examples, 2] the same where the rejected answer is the target; 0 for an example without one
    features        their other features, JSON after JSON
    feature_sizes   [examples] the bytes of each
    facts           `Facts` as JSON
"""

import dataclasses
import json
import os
import pathlib
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from lmirl_jax.data.columns import REJECTED
from lmirl_jax.data.given_rewards import check_rewards, has_rewards
from lmirl_jax.data.jsonl import WEIGHT, check_weight
from lmirl_jax.data.preferences import has_rejected, rejected_example
from lmirl_jax.data.task_parts import FEATURES, TURNS, TURNS_LEFT_OUT, Example, last_turn
from lmirl_jax.data.texts import stored_text
from lmirl_jax.data.unread_keys import UnreadKeys
from lmirl_jax.data.vocabularies import Vocabulary
from lmirl_jax.data.vocabulary_losses import Losses

# The arrays with the numbers of tokens.
SIZES = ("lengths", "last_lengths", "rejected_lengths")
# A part ends after this number of rows, or of characters. They bound the memory, and are part of the format.
ROWS = 2048
CHARACTERS = 2**23


@runtime_checkable
class RowReader(Protocol):
    """Reads the rows of a task's splits and makes examples of them: a `FileTask`, or a `SeqioReader`."""

    def fingerprint(self, split: str, format_version: int) -> str:
        """The hash that names a split's tokens on disk."""
        ...

    def rows(self, split: str, unread: UnreadKeys) -> Iterator[tuple[str, Any]]:
        """The rows of a split, in order, each after its name in errors; `unread` counts the keys of rows that are not read."""
        ...

    def encode(self, where: str, row: Any) -> Example:
        """The example of a row, which errors name `where`."""
        ...


@dataclasses.dataclass(frozen=True)
class Part:
    """Rows that follow each other, for one shard.

    Args:
        number: the number of the shard.
        first: the number of the first row in the split.
        rows: the rows, each after its name in errors.
    """

    number: int
    first: int
    rows: list[tuple[str, Any]]


# What `Facts` counts of examples, and the file of a split's facts has too.
COUNTED = ("examples", "without_eos", "rewarded", "conversations", "preferences", "turns_left_out")


@dataclasses.dataclass
class Facts:
    """What is counted of the examples of a shard, or of a split.

    Args:
        examples: their number.
        without_eos: the number of targets that do not end in EOS.
        rewarded: the number with rewards.
        conversations: the number with several assistant turns.
        preferences: the number with a rejected answer.
        turns_left_out: the number of conversations whose earlier assistant turns cannot be learnt.
        heaviest: the greatest weight; None if none has one.
        lowest: the smallest token, at most 0.
        highest: the greatest token, at least 0.
        losses: by feature, the texts that the vocabulary cannot hold.
    """

    examples: int = 0
    without_eos: int = 0
    rewarded: int = 0
    conversations: int = 0
    preferences: int = 0
    turns_left_out: int = 0
    heaviest: float | None = None
    lowest: int = 0
    highest: int = 0
    losses: dict[str, Losses] = dataclasses.field(
        default_factory=lambda: {feature: Losses() for feature in FEATURES}
    )

    def add(self, example: Example, vocabularies: Mapping[str, Vocabulary]) -> None:
        """Counts an example."""
        features, targets = example.features, example.targets
        self.examples += 1
        self.without_eos += not len(targets) or int(targets[-1]) not in vocabularies["targets"].eos_ids
        self.rewarded += has_rewards(features)
        self.conversations += TURNS in features
        self.preferences += has_rejected(features)
        self.turns_left_out += TURNS_LEFT_OUT in features
        if WEIGHT in features:
            self.heaviest = max(features[WEIGHT], self.heaviest or 0)
        for feature, lost in self.losses.items():
            lost.add(vocabularies[feature], getattr(example, feature), stored_text(features, feature))
        rejected = rejected_example(example)
        if rejected is not None:
            text = stored_text(features, REJECTED)
            self.losses["targets"].add(vocabularies["targets"], rejected.targets, text)

    def merge(self, other: "Facts") -> None:
        """Adds the facts of examples that come after these."""
        for name in COUNTED:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.heaviest = max((x for x in (self.heaviest, other.heaviest) if x is not None), default=None)
        self.lowest, self.highest = min(self.lowest, other.lowest), max(self.highest, other.highest)
        for feature, lost in self.losses.items():
            lost.merge(other.losses[feature])


def parts(rows: Iterable[tuple[str, Any]]) -> Iterator[Part]:
    """Cuts rows into parts. Rows before an error come before it, so that an earlier error of theirs is the one that is told."""
    number = first = size = 0
    held: list[tuple[str, Any]] = []
    try:
        for where, row in rows:
            held.append((where, row))
            size += _size(row)
            if len(held) == ROWS or size >= CHARACTERS:
                yield Part(number, first, held)
                number, first, size, held = number + 1, first + len(held), 0, []
    except Exception:
        if held:
            yield Part(number, first, held)
        raise
    if held:
        yield Part(number, first, held)


@dataclasses.dataclass(frozen=True)
class ShardWriter:
    """Makes the shards of a split; picklable if the reader is.

    Args:
        name: the name of the split in errors.
        task: the name of the task.
        reader: makes examples of rows.
        vocabularies: the vocabularies of inputs and targets.
        folder: where the shards lie.
    """

    name: str
    task: str
    reader: RowReader
    vocabularies: Mapping[str, Vocabulary]
    folder: pathlib.Path

    def file(self, number: int) -> pathlib.Path:
        return self.folder / f"{number:08}.npz"

    def write(self, part: Part) -> int:
        """Writes the shard of a part and returns the number of its examples.

        Raises:
            UserError: a row that cannot be used; names it.
        """
        facts, tokens, features = Facts(), [], []
        sizes: dict[str, list[tuple[int, int]]] = {name: [] for name in SIZES}
        for number, (where, row) in enumerate(part.rows, start=part.first):
            example = self.reader.encode(where, row)
            _check(example, f"{self.name}, example {number}")
            facts.add(example, self.vocabularies)
            tokens += [example.inputs, example.targets]
            last = last_turn(example)
            for name, one in zip(SIZES, (example, last, rejected_example(last)), strict=True):
                sizes[name].append((0, 0) if one is None else (len(one.inputs), len(one.targets)))
            features.append(json.dumps(example.features, ensure_ascii=False).encode("utf-8", "surrogatepass"))
        joined = np.concatenate(tokens).astype(np.int32)
        facts.lowest, facts.highest = (int(f(joined, initial=0)) for f in (np.min, np.max))
        arrays: dict[str, Any] = {
            "tokens": joined,
            **{name: np.array(each, np.int64) for name, each in sizes.items()},
            "features": np.frombuffer(b"".join(features), np.uint8),
            "feature_sizes": np.array([len(feature) for feature in features], np.int64),
            "facts": np.frombuffer(json.dumps(dataclasses.asdict(facts)).encode(), np.uint8),
        }
        temporary = self.folder / f".{part.number:08}-{uuid.uuid4().hex}.npz"
        try:
            np.savez(temporary, **arrays)
            os.replace(temporary, self.file(part.number))
        finally:
            temporary.unlink(missing_ok=True)
        return facts.examples


def read_shard(file: pathlib.Path, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of a shard, all or those of some names; it has a checksum of each.

    Raises:
        Exception: the file is cut off or damaged; zipfile and NumPy each raise their own.
    """
    # NumPy would leave a file open that is no shard.
    with open(file, "rb") as opened, np.load(opened) as arrays:
        return {name: arrays[name] for name in names or arrays.files}


def read_facts(file: pathlib.Path) -> Facts:
    """The facts of a shard."""
    return parse_facts(read_shard(file, ["facts"])["facts"])


def parse_facts(described: UInt8[np.ndarray, " bytes"]) -> Facts:
    """The facts that are an array of a shard."""
    facts = json.loads(described.tobytes())
    losses = {feature: Losses(**lost) for feature, lost in facts.pop("losses").items()}
    return Facts(**facts, losses=losses)


def _check(example: Example, where: str) -> None:
    if WEIGHT in example.features:
        check_weight(example.features[WEIGHT], where)
    check_rewards(example.features, len(example.targets), where)


def _size(value: Any) -> int:
    """The number of characters of texts and of other values in a row, about."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, np.ndarray):
        return value.size
    if isinstance(value, dict):
        return sum(_size(item) for item in value.values())
    return sum(_size(item) for item in value) if isinstance(value, (list, tuple)) else 1
