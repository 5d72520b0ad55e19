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

from lmirl_jax.data.facts import Facts, parse_facts
from lmirl_jax.data.given_rewards import check_rewards
from lmirl_jax.data.jsonl import WEIGHT, check_weight
from lmirl_jax.data.preferences import rejected_example
from lmirl_jax.data.task_parts import Example, last_turn
from lmirl_jax.data.unread_keys import UnreadKeys
from lmirl_jax.data.vocabularies import Vocabulary

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
