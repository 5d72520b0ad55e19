"""A task over a file of `inputs` and `targets`, or of `messages`, for fine-tuning without a line of code."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from lmirl_jax.data.data_files import name_of
from lmirl_jax.data.file_source import FileSource, file_source
from lmirl_jax.data.given_rewards import REWARD, REWARDS, check_rewards, check_turns
from lmirl_jax.data.jsonl import KEYS, MESSAGES, WEIGHT
from lmirl_jax.data.messages import encode_conversation
from lmirl_jax.data.task_parts import Example
from lmirl_jax.data.unread_keys import UnreadKeys
from lmirl_jax.data.vocabularies import Vocabulary, encode_answer


def exact_match(targets: Sequence[str], predictions: Sequence[str]) -> dict[str, float]:
    """The fraction of predictions that equal their target, apart from white space at the ends."""
    hits = [t.strip() == p.strip() for t, p in zip(targets, predictions, strict=True)]
    return {"exact_match": sum(hits) / max(len(hits), 1)}


@dataclasses.dataclass(frozen=True)
class FileFeature:
    """The vocabulary of a feature."""

    vocabulary: Vocabulary


@dataclasses.dataclass(frozen=True)
class FileTask:
    """The counterpart of `seqio.Task` for files: its metric is `exact_match`, and texts are not postprocessed.

    Args:
        name: the task's name, in the names of metrics and folders.
        source: the files.
        vocabulary: the vocabulary of both features.
    """

    name: str
    source: FileSource
    vocabulary: Vocabulary
    predict_metric_fns = (exact_match,)
    predict_with_aux_metric_fns = ()

    @property
    def splits(self) -> tuple[str, ...]:
        return self.source.splits

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
        for where, row in self.rows(split, unread):
            yield self.encode(where, row)

    def rows(self, split: str, unread: UnreadKeys) -> Iterator[tuple[str, dict[str, Any]]]:
        """Reads a split once, in the file's order; yields for each row its name in errors, and its texts and numbers."""
        return self.source.rows(split, unread)

    def encode(self, where: str, row: Mapping[str, Any]) -> Example:
        """The tokens of one row; a function of its arguments alone, which another process can call.

        Raises:
            UserError: messages or rewards that do not fit the vocabulary or the answer; names `where`.
        """
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
        return Example(inputs, targets, features)


def file_task(data: str, validation_data: str | None, vocabulary: Vocabulary) -> FileTask:
    """A task over one file or two, named after the first."""
    return FileTask(name_of(data), file_source(data, validation_data), vocabulary)
