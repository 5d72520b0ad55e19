"""A task over a file of `inputs` and `targets`, or of `messages`, for fine-tuning without a line of code."""

import dataclasses
import hashlib
import json
import os
import pathlib
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from lmirl_jax.data.given_rewards import REWARD, REWARDS, check_rewards, check_turns
from lmirl_jax.data.jsonl import KEYS, MESSAGES, WEIGHT, existing_file, read_demonstrations
from lmirl_jax.data.messages import encode_conversation
from lmirl_jax.data.task_parts import Example
from lmirl_jax.data.unread_keys import UnreadKeys
from lmirl_jax.data.vocabularies import Vocabulary, encode_answer

# A file whose time of change is at most this many nanoseconds ago may change again without a change of that time.
SETTLED = 2 * 10**9

# Loss and answers of a run are evaluated on the same file, which is hashed once.
_hashes: dict[tuple[str, int, int, int], str] = {}


def exact_match(targets: Sequence[str], predictions: Sequence[str]) -> dict[str, float]:
    """The fraction of predictions that equal their target, apart from white space at the ends."""
    hits = [t.strip() == p.strip() for t, p in zip(targets, predictions, strict=True)]
    return {"exact_match": sum(hits) / max(len(hits), 1)}


@dataclasses.dataclass(frozen=True)
class FileSource:
    """A file for each split. The content of a file is its identity, not its path."""

    files: Mapping[str, str]

    def content_hash(self, split: str) -> str:
        """Hashes a split's file, unless this process has hashed it since its last change."""
        return _content_hash(existing_file(self.files[split], split))

    def rows(self, split: str, unread: UnreadKeys) -> Iterator[tuple[str, dict[str, Any]]]:
        """Reads a split's file once; yields for each row its name in errors, and its texts and numbers."""
        return read_demonstrations(existing_file(self.files[split], split), unread)


@dataclasses.dataclass(frozen=True)
class FileFeature:
    """The vocabulary of a feature."""

    vocabulary: Vocabulary


@dataclasses.dataclass(frozen=True)
class FileTask:
    """The counterpart of `seqio.Task` for files; texts are not postprocessed.

    Args:
        name: the task's name, in the names of metrics and folders.
        source: the files.
        vocabulary: the vocabulary of both features.
        predict_metric_fns: see `task_parts.TaskPart`.
    """

    name: str
    source: FileSource
    vocabulary: Vocabulary
    predict_metric_fns: tuple[Callable[..., Any], ...] = (exact_match,)
    predict_with_aux_metric_fns = ()

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self.source.files)

    @property
    def output_features(self) -> dict[str, FileFeature]:
        return dict.fromkeys(KEYS, FileFeature(self.vocabulary))

    def postprocess_fn(self, decoded_model_output: Any, **kwargs: Any) -> Any:
        return decoded_model_output

    def fingerprint(self, split: str, format_version: int) -> str:
        """The hash that names a split's tokens on disk."""
        described = {
            "format": format_version,
            "task": self.name,
            "split": split,
            "vocabulary": self.vocabulary.fingerprint(),
            "file": self.source.content_hash(split),
        }
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()

    def examples(self, split: str, unread: UnreadKeys) -> Iterator[Example]:
        """The tokens of a split in the file's order: prompts as the vocabulary has them, answers with EOS after them.

        A conversation of several assistant turns has them as its feature `turns`.

        Args:
            split: an element of `splits`.
            unread: counts the keys that are not read.

        Raises:
            UserError: a row that cannot be read; it names the file and the line.
        """
        for where, row in self.source.rows(split, unread):
            if MESSAGES in row:
                chat, features = encode_conversation(row, self.vocabulary, where)
                prompt, answer = chat.inputs, chat.targets
                check_turns(row, len(chat.turns), where)
            else:
                prompt, answer = (
                    self.vocabulary.encode_prompt(row["inputs"]),
                    encode_answer(self.vocabulary, row["targets"]),
                )
                features = {f"{key}_pretokenized": row[key] for key in KEYS}
            inputs, targets = np.array(prompt, np.int32), np.array(answer, np.int32)
            check_rewards(row, len(targets), where)
            for key in (WEIGHT, REWARD):
                if key in row:
                    features[key] = float(row[key])
            if REWARDS in row:
                features[REWARDS] = [float(reward) for reward in row[REWARDS]]
            yield Example(inputs, targets, features)


def _content_hash(file: pathlib.Path) -> str:
    stat = file.stat()
    key = (str(file.resolve()), stat.st_ino, stat.st_size, stat.st_mtime_ns)
    if key not in _hashes:
        with open(file, "rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        if time.time_ns() - stat.st_mtime_ns < SETTLED:
            return digest
        _hashes[key] = digest
    return _hashes[key]


def file_task(
    data: str,
    validation_data: str | None,
    vocabulary: Vocabulary,
    metrics: Sequence[Callable[..., Any]] | None = None,
) -> FileTask:
    """A task over one file or two, named after the first."""
    paths = {"train": data, "validation": validation_data}
    files = {split: os.fspath(path) for split, path in paths.items() if path is not None}
    name = re.sub(r"[^\w.]", "_", pathlib.PurePath(files["train"]).stem) or "data"
    return FileTask(
        name, FileSource(files), vocabulary, (exact_match,) if metrics is None else tuple(metrics)
    )
