"""Yields pairs of a prompt and an answer of a task's split for scoring, one after the other, never all in memory."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int32

from lmirl_jax.arguments import Count, Lengths, Text, check_arguments
from lmirl_jax.data.chat_template import Message
from lmirl_jax.data.jsonl import MESSAGES
from lmirl_jax.data.mixture_or_task import Task
from lmirl_jax.data.offsets import Offsets
from lmirl_jax.data.pieces import decode_with_offsets, encode_with_offsets
from lmirl_jax.data.records import tokenized_records
from lmirl_jax.data.split_checks import check_records
from lmirl_jax.data.task_parts import last_turn
from lmirl_jax.data.texts import stored_text
from lmirl_jax.data.vocabularies import ends_itself
from lmirl_jax.types import UserError


@dataclasses.dataclass(frozen=True)
class Pair:
    """An answer to a prompt: texts, tokens (EOS included, untrimmed), and the characters of each target token.

    `example` numbers prompts and `candidate` the `candidates` answers of each, which come one after the other.
    `reference` is the answer of the data set, if the answer to score is another one, and `references` are all of several, with
    which metrics compare. `messages` is the prompt as a
    conversation, where `inputs` alone would not give it back. A prompt of a chat model is trimmed to the end that a row holds.
    """

    inputs: str
    targets: str
    input_tokens: Int32[np.ndarray, " n"]
    target_tokens: Int32[np.ndarray, " m"]
    offsets: Offsets
    example: int = 0
    candidate: int = 0
    candidates: int = 1
    reference: str | None = None
    references: tuple[str, ...] = ()
    id: str | None = None
    messages: Sequence[Message] | None = None


def make_pair(
    task: Task,
    inputs: str,
    targets: str,
    tokens: Sequence[int] | None = None,
    prompt: Int32[np.ndarray, " n"] | None = None,
    **place: Any,
) -> Pair:
    """Makes a pair of two texts: the prompt as its vocabulary has it, and the answer with EOS after it.

    Args:
        task: the task whose vocabularies are used; its preprocessors are not used.
        inputs: the prompt.
        targets: the answer.
        tokens: the tokens of the answer, with or without EOS, if known; they are used if they decode to its text.
        prompt: the tokens of the prompt, if known.
        place: the other fields of the pair.
    """
    if prompt is None:
        prompt = np.array(task.input_vocabulary.encode_prompt(inputs), np.int32)
    vocabulary = task.output_vocabulary
    if tokens is not None and len(tokens):
        text, offsets = decode_with_offsets(vocabulary, tokens)
        if text == targets:
            return Pair(inputs, targets, prompt, np.array(tokens, np.int32), offsets, **place)
    ids, offsets = encode_with_offsets(vocabulary, targets)
    ends = () if ends_itself(vocabulary, ids) else vocabulary.eos_ids[:1]
    answer = np.array([*ids, *ends], np.int32)
    return Pair(
        inputs, targets, prompt, answer, offsets + ((len(targets), len(targets)),) * len(ends), **place
    )


@check_arguments
class TaskPairs:
    """The pairs of a task's split: prompts with their targets, as the task tokenises them.

    Args:
        task: the task, from `get_task`.
        split: a split of the task.
        lengths: tokens of a row, for `inputs` and `targets`.
        num_examples: the maximum number of examples of each task of a mixture; None for all.
        truncate: whether trimming is allowed; it is counted and logged.

    Raises:
        UserError: no such split, or with `truncate=False` an example that does not fit.
    """

    def __init__(
        self,
        task: Task,
        split: Text,
        lengths: Lengths,
        num_examples: Count | None = None,
        truncate: bool = True,
    ):
        parts = [part for part in task.tasks if split in part.splits]
        if not parts:
            splits = sorted({split for part in task.tasks for split in part.splits})
            raise UserError(
                f"{task.name} has no split {split!r}; it has {', '.join(splits) or 'none'}: set SCORE_SPLIT, or DATA to a file"
            )
        self.task, self.lengths = task, lengths
        self.name = f"{task.name}-{split}"
        self._records = [tokenized_records(part, split) for part in parts]
        for part, records in zip(parts, self._records, strict=True):
            check_records(part.name, split, records, lengths, truncate)
        self._counts = [min(num_examples or len(records), len(records)) for records in self._records]

    def __len__(self) -> int:
        return sum(self._counts)

    def __iter__(self) -> Iterator[Pair]:
        number = 0
        for records, count in zip(self._records, self._counts, strict=True):
            for index in range(count):
                example = last_turn(records.source[index])
                yield self._pair(example.inputs, example.targets, example.features, number)
                number += 1

    def fingerprint(self) -> str:
        return " ".join(
            f"{records.content[:16]} {count}"
            for records, count in zip(self._records, self._counts, strict=True)
        )

    def _pair(self, inputs: Any, targets: Any, features: Mapping[str, Any], number: int) -> Pair:
        if not len(targets):
            raise UserError(f"{self.name}, example {number}: it has no target, so there is nothing to score")
        prompt = features.get("inputs_pretokenized", self.task.decode_inputs(inputs))
        text, offsets = self._text(targets, stored_text(features, "targets"))
        tokens = self.task.trim_prompt(np.asarray(inputs), self.lengths["inputs"])
        messages = features.get(MESSAGES)
        return Pair(prompt, text, tokens, np.asarray(targets), offsets, number, messages=messages)

    def _text(self, tokens: Any, text: str | None) -> tuple[str, Offsets]:
        """The text that the task stored, if the tokens are those of this text; else the text that they decode to."""
        vocabulary = self.task.output_vocabulary
        if text is not None:
            encoded, offsets = encode_with_offsets(vocabulary, text)
            ends = len(tokens) - len(encoded)
            if ends in (0, 1) and np.array_equal(encoded, tokens[: len(encoded)]):
                return text, offsets + ((len(text), len(text)),) * ends
        return decode_with_offsets(vocabulary, tokens)
