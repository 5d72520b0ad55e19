"""Pairs of a prompt and an answer from a file: one answer a line, several candidates, or what `lmirl infer` wrote."""

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int32

from lmirl_jax.arguments import Count, Lengths, Path, Text, check_arguments
from lmirl_jax.data.chat_template import Message
from lmirl_jax.data.data_files import data_files, name_of
from lmirl_jax.data.file_source import content_hash
from lmirl_jax.data.given_rewards import LABEL
from lmirl_jax.data.json_rows import keys_of
from lmirl_jax.data.jsonl import MESSAGES, READ, check_targets, check_text, read_objects
from lmirl_jax.data.messages import encode_prompt
from lmirl_jax.data.mixture_or_task import Task
from lmirl_jax.data.split_checks import warn_once
from lmirl_jax.data.task_pairs import Pair, TaskPairs, make_pair
from lmirl_jax.data.task_parts import FEATURES
from lmirl_jax.data.unread_keys import UnreadKeys, describe_unread
from lmirl_jax.data.vocabularies import Vocabulary
from lmirl_jax.data.vocabulary_losses import Losses, describe_losses
from lmirl_jax.types import UserError

# The keys of a file of pairs, and those that `lmirl infer` writes beside its samples.
READ_KEYS = (
    # Whether an answer is right has no effect on its score.
    *(key for key in READ if key != LABEL),
    *("candidates", "samples", "reference", "tokens"),
    *("log_probs", "token_log_probs", "token_entropies", "returns", "normalised_returns", "best", "majority"),
)
REMEDY = "write inputs or messages, and targets (a string), candidates or samples (lists of strings)"


@check_arguments
class PairFile:
    """The pairs of a file: in each row `inputs`, and `targets`, or several `candidates`, or an infer output's `samples`.

    Beside candidates and samples `targets` is the reference; a line of one pair may have `reference` too, and any line an
    `id`. Texts are read as they stand, after none of a task's preprocessors; samples keep the tokens that were drawn. In
    place of inputs a line may have `messages`: a last assistant turn is the answer, or beside candidates the reference.

    Args:
        path: the file, a folder that `datasets` saved or a pattern of file names; every line is checked here, before the first
            is scored.
        task: whose vocabularies the model has.
        lengths: tokens of a row, for `inputs` and `targets`.
        num_examples: the maximum number of lines; None for all.

    Raises:
        UserError: no such file, nothing in it, or a line that cannot be read.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        task: Task,
        lengths: Lengths,
        num_examples: Count | None = None,
    ):
        self.path = os.fspath(path)
        self.files = data_files(path, "DATA must name a file with inputs and targets in every row")
        self.task, self.lengths, self.num_examples = task, lengths, num_examples
        self.name = name_of(path)
        unread, counts, several = UnreadKeys(READ_KEYS), [], 0
        for line in self._lines(unread):
            counts.append(len(line.answers))
            several += line.further
        self._count = sum(counts)
        if several:
            warn_once(
                f"{self.path}: {several} of {len(counts)} rows have several targets: the first is scored"
            )
        line = describe_unread(self.path, len(counts), unread.counts, READ_KEYS)
        if line is not None:
            warn_once(line)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Pair]:
        longest, truncated = self.lengths["inputs"], 0
        losses = {feature: Losses() for feature in FEATURES}
        for number, line in enumerate(self._lines()):
            for candidate, (text, tokens) in enumerate(line.answers):
                place = {"example": number, "candidate": candidate, "candidates": len(line.answers)}
                about = {"reference": line.reference, "references": line.references}
                about |= {"id": line.id, "messages": line.messages}
                pair = make_pair(self.task, line.inputs, text, tokens, line.prompt, **about, **place)
                longest = max(longest, len(pair.input_tokens))
                truncated += len(pair.input_tokens) > self.lengths["inputs"]
                losses["inputs"].add(self.task.input_vocabulary, pair.input_tokens, pair.inputs)
                losses["targets"].add(self.task.output_vocabulary, pair.target_tokens, pair.targets)
                trimmed = self.task.trim_prompt(pair.input_tokens, self.lengths["inputs"])
                yield dataclasses.replace(pair, input_tokens=trimmed)
        message = describe_losses(self.path, len(self), losses)
        if message is not None:
            warn_once(message)
        if truncated:
            warn_once(
                f"{self.path}: the prompts of {truncated} answers are longer than {self.lengths['inputs']} tokens and are "
                f"truncated; TASK_FEATURE_LENGTHS with 'inputs': {longest} takes all of them"
            )

    def fingerprint(self) -> str:
        return f"{content_hash(self.files)[:16]} {self.num_examples}"

    def _lines(self, unread: UnreadKeys | None = None) -> Iterator["_Line"]:
        lines = read_objects(self.files, FEATURES)
        for number, (where, given) in enumerate(lines):
            if number == self.num_examples:
                return
            row = self.task.columns.read(given, where)
            if unread is not None:
                unread.check(row.values, where)
                unread.add(row.values, row.hidden)
            yield _read_line(row.values, where, self.task.input_vocabulary)


@dataclasses.dataclass(frozen=True)
class _Line:
    """A line: its prompt, with tokens and messages if it is a conversation, and its answers, with tokens where it has them."""

    inputs: str
    answers: list[tuple[str, Sequence[int] | None]]
    reference: str | None
    id: str | None
    prompt: Int32[np.ndarray, " n"] | None = None
    messages: Sequence[Message] | None = None
    references: tuple[str, ...] = ()  # All, where there are several.
    further: bool = False  # Whether it has further targets than the one that is scored.


@check_arguments
def pairs(
    task: Task,
    lengths: Lengths,
    path: Path | None = None,
    split: Text = "validation",
    num_examples: Count | None = None,
    truncate: bool = True,
) -> "PairFile | TaskPairs":
    """Returns the pairs to score: those of the file at `path`, or without a path those of the task's split."""
    if path is not None:
        return PairFile(path, task, lengths, num_examples)
    return TaskPairs(task, split, lengths, num_examples, truncate)


def _read_line(line: dict[str, Any], where: str, vocabulary: Vocabulary) -> _Line:
    several = [key for key in ("candidates", "samples") if key in line]
    prompt = messages = None
    targets = line.get("targets")
    if isinstance(targets, list):
        check_targets(targets, f"{where}: targets")
        line = line | {"targets": targets[0]}
    if MESSAGES in line:
        conversation, prompt, features = encode_prompt(line, vocabulary, where)
        messages = features.get(MESSAGES)
        answer = {} if conversation.answer is None else {"targets": conversation.answer}
        line = line | answer | {"inputs": features["inputs_pretokenized"]}
    if "inputs" not in line:
        there = keys_of(line)
        raise UserError(f"{where}: no key 'inputs' (found: {there}); {REMEDY}")
    if len(several) > 1 or not (several or "targets" in line):
        both = " and ".join(several) or "neither targets, candidates nor samples"
        raise UserError(f"{where}: {both}; {REMEDY}")
    texts = line[several[0]] if several else [line["targets"]]
    if not isinstance(texts, list) or not texts:
        raise UserError(f"{where}: {several[0]} is no list of one string or more; {REMEDY}")
    reference = line.get("targets") or None if several else line.get("reference")
    strings = [("inputs", line["inputs"]), *(((several or ["targets"])[0], text) for text in texts)]
    for key, text in [*strings, *([("the reference", reference)] if reference is not None else [])]:
        check_text(text, f"{where}: {key}")
    answers = list(zip(texts, _tokens(line, len(texts), where, several), strict=True))
    all_targets = tuple(targets) if isinstance(targets, list) and len(targets) > 1 else ()
    references, further = (all_targets, False) if several else ((), bool(all_targets))
    name = _id(line.get("id"), where)
    return _Line(line["inputs"], answers, reference, name, prompt, messages, references, further)


def _tokens(
    line: Mapping[str, Any], count: int, where: str, several: list[str]
) -> Sequence[Sequence[int] | None]:
    """The tokens of each sample, where an output of `lmirl infer` has them."""
    if several != ["samples"] or "tokens" not in line:
        return [None] * count
    tokens = line["tokens"]
    whole = isinstance(tokens, list) and all(
        isinstance(ids, list) and all(isinstance(token, int) for token in ids) for ids in tokens
    )
    if not whole or len(tokens) != count:
        raise UserError(
            f"{where}: tokens are no lists of whole numbers, one for each of {count} samples; leave them out, or give "
            "what lmirl infer wrote"
        )
    return tokens


def _id(value: Any, where: str) -> str | None:
    if value is None or isinstance(value, (str, int)):
        return None if value is None else str(value)
    raise UserError(f"{where}: id is {type(value).__name__}; give a string or a whole number")
