"""Writes the tokens of a split: one record for each example, and the facts about all of them."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import numpy as np
from array_record.python import array_record_module

from lmirl_jax.data.given_rewards import check_rewards, has_rewards, token_rewards
from lmirl_jax.data.jsonl import READ, WEIGHT, check_weight
from lmirl_jax.data.task_parts import (
    FEATURES,
    TURNS,
    TURNS_LEFT_OUT,
    Example,
    TaskPart,
    last_turn,
    vocabulary_of,
)
from lmirl_jax.data.texts import stored_text
from lmirl_jax.data.unread_keys import UnreadKeys
from lmirl_jax.data.vocabulary_losses import Losses
from lmirl_jax.types import UserError


@runtime_checkable
class ExampleReader(Protocol):
    """Reads the examples of a task's splits: a `FileTask`, or a `SeqioReader`."""

    def fingerprint(self, split: str, format_version: int) -> str:
        """The hash that names a split's tokens on disk."""
        ...

    def examples(self, split: str, unread: UnreadKeys) -> Iterator[Example]:
        """The examples of a split, in order; `unread` counts the keys of a file's rows that are not read."""
        ...


class _Content:
    """A hash of all tokens, weights, rewards and turns.

    If any example has a weight, the weights of all are hashed, which is known only at the end. So there are two hashes, without
    and with weights, to avoid a second reading of the examples.
    """

    def __init__(self) -> None:
        self._plain, self._weighted = hashlib.sha256(), hashlib.sha256()
        self.heaviest: float | None = None

    def add(self, tokens: bytes, example: Example) -> None:
        weight = example.features.get(WEIGHT)
        if weight is not None:
            self.heaviest = max(weight, self.heaviest or 0)
        rewards = token_rewards(example.features, len(example.targets))
        suffix = b"" if rewards is None else repr(rewards.tolist()).encode()
        suffix += b"" if TURNS not in example.features else repr(example.features[TURNS]).encode()
        self._plain.update(tokens + suffix)
        self._weighted.update(tokens + repr(float(1 if weight is None else weight)).encode() + suffix)

    def digest(self) -> str:
        return (self._plain if self.heaviest is None else self._weighted).hexdigest()


def write_records(task: TaskPart, reader: ExampleReader, split: str, folder: pathlib.Path) -> None:
    """Writes the files of a split, as `records` describes them, into an empty folder.

    Raises:
        UserError: no examples, or one whose weight or rewards cannot be used.
    """
    vocabularies = {key: vocabulary_of(task, key) for key in FEATURES}
    eos_ids = vocabularies["targets"].eos_ids
    lengths, last_lengths, without_eos, rewarded, content = [], [], 0, 0, _Content()
    conversations = turns_left_out = 0
    losses = {feature: Losses() for feature in FEATURES}
    unread = UnreadKeys(READ)
    # Each group has one record, so that reading an example decompresses only that one.
    writer = array_record_module.ArrayRecordWriter(str(folder / "examples.array_record"), "group_size:1")
    try:
        for example in reader.examples(split, unread):
            _check(example, f"task {task.name}, {split}, example {len(lengths)}")
            tokens = _encode_tokens(example)
            writer.write(tokens + json.dumps(example.features).encode())
            content.add(tokens, example)
            rewarded += has_rewards(example.features)
            for feature, lost in losses.items():
                text = stored_text(example.features, feature)
                lost.add(vocabularies[feature], getattr(example, feature), text)
            lengths.append((len(example.inputs), len(example.targets)))
            last = last_turn(example)
            last_lengths.append((len(last.inputs), len(last.targets)))
            conversations += TURNS in example.features
            turns_left_out += TURNS_LEFT_OUT in example.features
            without_eos += len(example.targets) == 0 or int(example.targets[-1]) not in eos_ids
    finally:
        writer.close()
    if not lengths:
        raise UserError(f"split {split!r} of task {task.name} is empty: check its source")
    if content.heaviest == 0:
        raise UserError(
            f"every weight in split {split!r} of task {task.name} is 0: nothing is left to learn from"
        )
    np.save(folder / "lengths.npy", np.array([lengths, last_lengths], np.int64))
    info = {
        "task": task.name,
        "split": split,
        "examples": len(lengths),
        "without_eos": without_eos,
        "losses": {feature: dataclasses.asdict(lost) for feature, lost in losses.items()},
        "unread": dict(unread.counts),
        "weighted": content.heaviest is not None,
        "rewarded": rewarded,
        "conversations": conversations,
        "turns_left_out": turns_left_out,
        "content": content.digest(),
    }
    (folder / "info.json").write_text(json.dumps(info))


def _check(example: Example, where: str) -> None:
    if WEIGHT in example.features:
        check_weight(example.features[WEIGHT], where)
    check_rewards(example.features, len(example.targets), where)


def _encode_tokens(example: Example) -> bytes:
    counts = np.array([len(example.inputs), len(example.targets)], "<i4")
    tokens = np.concatenate([example.inputs, example.targets]).astype("<i4")
    return counts.tobytes() + tokens.tobytes()
