"""Prompts of a file for a trained model to answer: rows with `inputs` or `messages`, or text with a prompt a line."""

import collections
import hashlib
import itertools
import json
import logging
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Annotated, Any

import numpy as np

from lmirl_jax.argument_rules import Words
from lmirl_jax.arguments import Count, Lengths, Path, check_arguments, has_parameter, takes
from lmirl_jax.data.columns import Columns
from lmirl_jax.data.data_files import data_files, name_of
from lmirl_jax.data.eval_dataset import EvalDataset
from lmirl_jax.data.file_task import text_features
from lmirl_jax.data.formats import is_text
from lmirl_jax.data.json_rows import keys_of
from lmirl_jax.data.jsonl import MESSAGES, check_targets, check_text, read_objects
from lmirl_jax.data.messages import encode_prompt
from lmirl_jax.data.mixture_or_task import Task
from lmirl_jax.data.pair_file import READ_KEYS
from lmirl_jax.data.split_checks import warn_once
from lmirl_jax.data.task_parts import FEATURES
from lmirl_jax.data.unread_keys import UnreadKeys, describe_unread
from lmirl_jax.data.vocabularies import Vocabulary
from lmirl_jax.data.vocabulary_losses import Losses, describe_losses
from lmirl_jax.rows import example_row, stack_rows
from lmirl_jax.types import Batch, UserError

_log = logging.getLogger(__name__)


def _makes_a_data_set(function: Callable[..., Any]) -> bool:
    """Whether a function is `validation_dataset`, whose arguments a configuration has bound, or one without arguments."""
    return has_parameter("split")(function) or takes(0)(function)


MakesDataset = Annotated[
    Callable[..., Any], Words("@data.validation_dataset, without brackets", _makes_a_data_set)
]


@check_arguments
class PromptFile:
    """The prompts of a file in order; the model reads each as it stands, with the special tokens of its vocabulary around it.

    A conversation ends with a message to answer, or with an assistant turn, which is its reference. Examples of conversations
    that `inputs_pretokenized` alone would not give back have `messages`, those before the answer.

    Sampling keys come from a prompt's text (`sampling_id`), so that its answers stay the same if the lines change their order.

    Args:
        path: a file of rows with the string `inputs`, and maybe `targets`, or with `messages`, of any format in `formats`; or
            named *.txt, text, whose empty lines are passed over; a folder that `datasets` saved, or a pattern of file names.
        task: whose vocabulary the model has.
        lengths: tokens of a row, for `inputs` and `targets`.
        num_examples: the maximum number of prompts; None for all.
        truncate: whether longer prompts are truncated, which is counted and logged.

    Raises:
        UserError: no such file, nothing in it, a line that cannot be read, or with `truncate=False` a prompt too long.
    """

    split = "prompts"

    def __init__(
        self,
        path: Path,
        task: Task,
        lengths: Lengths,
        num_examples: Count | None = None,
        truncate: bool = True,
    ):
        files = data_files(path, "PROMPTS must name a file with inputs in every row, or text (.txt)")
        self.task, self.name = task, name_of(path)
        self.lengths = {key: int(lengths[key]) for key in FEATURES}
        read = _read(files, path, task.columns)
        encoded = [
            _encode(row, task.input_vocabulary, where) for where, row in itertools.islice(read, num_examples)
        ]
        self._tokens = [tokens for tokens, _ in encoded]
        self.examples = _add_sampling_ids(features for _, features in encoded)
        self._check_lengths(path, truncate)
        self._report_losses(path)

    def _check_lengths(self, path: str, truncate: bool) -> None:
        sizes = [len(tokens) for tokens in self._tokens]
        long = sum(size > self.lengths["inputs"] for size in sizes)
        if not long:
            return
        message = f"{path}: {long} of {len(sizes)} prompts are longer than {self.lengths['inputs']} tokens"
        remedy = f"TASK_FEATURE_LENGTHS with 'inputs': {max(sizes)} takes all of them"
        if not truncate:
            raise UserError(f"{message}: {remedy}, or TRUNCATE = True")
        _log.warning("%s and are truncated; %s", message, remedy)

    def _report_losses(self, path: str) -> None:
        losses = Losses()
        for example, tokens in zip(self.examples, self._tokens, strict=True):
            losses.add(self.task.input_vocabulary, tokens, example["inputs_pretokenized"])
        line = describe_losses(str(path), len(self.examples), {"inputs": losses})
        if line is not None:
            warn_once(line)

    def __len__(self) -> int:
        return len(self.examples)

    def batches(self, batch_size: int) -> Iterator[tuple[Batch, list[dict[str, Any]]]]:
        """Yields global batches in order, each with its examples; the last one is padded with rows of zeros."""
        nothing = np.zeros(0, np.int32)
        for start in range(0, len(self.examples), batch_size):
            part = slice(start, start + batch_size)
            rows = [
                example_row(
                    self.task.trim_prompt(tokens, self.lengths["inputs"]),
                    nothing,
                    lengths=self.lengths,
                    discount=1.0,
                    eos_ids=self.task.eos_ids,
                )
                for tokens in self._tokens[part]
            ]
            yield stack_rows(rows, batch_size), self.examples[part]

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """The tokens that end an answer."""
        return self.task.eos_ids

    def decode(self, tokens: Sequence[int] | np.ndarray) -> str:
        return self.task.decode(tokens)


@check_arguments
def prompts(
    dataset: MakesDataset,
    path: Path | None,
    task: Task,
    lengths: Lengths,
    num_examples: Count | None = None,
    truncate: bool = True,
) -> EvalDataset | PromptFile:
    """Returns the prompts to answer: those of the file at `path`, or without a path the data set that `dataset` makes.

    Raises:
        UserError: there is neither a path nor a data set, or `PromptFile` refuses the file.
    """
    if path is not None:
        return PromptFile(path, task, lengths, num_examples, truncate)
    made = dataset()
    if made is None:
        raise UserError(
            "the task has no such split: set INFER_SPLIT (--gin.INFER_SPLIT=\"'train'\"), or PROMPTS to a file"
        )
    return made


def content_hash(prompts: EvalDataset | PromptFile) -> str:
    """A hash of the texts and tokens of all prompts, in order."""
    digest = hashlib.sha256(repr(sorted(prompts.lengths.items())).encode())
    for batch, examples in prompts.batches(256):
        digest.update(np.ascontiguousarray(batch.prompt_tokens).tobytes())
        for example in examples:
            texts = [example.get(f"{key}_pretokenized") for key in FEATURES]
            digest.update(json.dumps(texts, default=str).encode())
    return digest.hexdigest()[:16]


def _add_sampling_ids(examples: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Gives each example a `sampling_id`: 31 bits of a hash of its prompt, and of how often that prompt came before.

    So an answer does not depend on the order of the prompts.
    """
    seen: collections.Counter[str] = collections.Counter()
    result = []
    for example in examples:
        text = example["inputs_pretokenized"]
        digest = hashlib.sha256(f"{seen[text]} {text}".encode()).digest()
        result.append(example | {"sampling_id": int.from_bytes(digest[:4], "big") >> 1})
        seen[text] += 1
    return result


def _read(files: Iterable[pathlib.Path], name: str, columns: Columns) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of files with their names in errors; `_encode` checks messages."""
    unread, count = UnreadKeys(READ_KEYS), 0
    for file in files:
        for where, row in _text(file) if is_text(file) else _rows(file, columns, unread):
            count += 1
            yield where, row
    line = describe_unread(name, count, unread.counts, READ_KEYS)
    if line is not None:
        warn_once(line)


def _rows(file: pathlib.Path, columns: Columns, unread: UnreadKeys) -> Iterator[tuple[str, dict[str, Any]]]:
    for where, given in read_objects([file], ("inputs",), also=", or text with a prompt a line (.txt)"):
        values, names, hidden = columns.read(given, where)
        unread.check(values, where)
        unread.add(values, hidden)
        if MESSAGES not in values and "inputs" not in values:
            there = keys_of(given)
            raise UserError(
                f"{where}: no key 'inputs' (found: {there}); every row needs inputs, or {MESSAGES}, or names that COLUMNS gives"
            )
        for key, check in zip(FEATURES, (check_text, check_targets), strict=True):
            if key in values:
                check(values[key], f"{where}: {names[key]}")
        yield where, values


def _encode(row: dict[str, Any], vocabulary: Vocabulary, where: str) -> tuple[np.ndarray, dict[str, Any]]:
    """The tokens of a prompt, and its features. Where `lmirl infer` wrote the row, `inputs` is the text of its messages."""
    if MESSAGES in row:
        _, tokens, features = encode_prompt(row, vocabulary, where)
        return tokens, text_features({"targets": row["targets"]} if "targets" in row else {}) | features
    return np.array(vocabulary.encode_prompt(row["inputs"]), np.int32), text_features(row)


def _text(file: pathlib.Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not UTF-8 ({error.reason}); save the file as UTF-8") from None
    texts = [line.removesuffix("\r") for line in lines if line.strip()]
    if not texts:
        raise UserError(f"{file} is empty: write a prompt a line")
    yield from ((str(file), {"inputs": line}) for line in texts)
