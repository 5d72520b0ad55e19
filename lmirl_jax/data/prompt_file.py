"""Prompts of a file for a trained model to answer: JSONL with `inputs` on each line, or text with a prompt a line."""

import collections
import hashlib
import itertools
import json
import logging
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Annotated, Any

import numpy as np

from lmirl_jax.arguments import Count, Lengths, Path, Words, checked, has_parameter
from lmirl_jax.data.batches import encoder_decoder_row, stack_rows
from lmirl_jax.data.dataset import warn_once
from lmirl_jax.data.eval_dataset import EvalDataset
from lmirl_jax.data.jsonl import read_jsonl
from lmirl_jax.data.mixture_or_task import FEATURES, Task
from lmirl_jax.data.vocabulary_losses import Losses, describe_losses
from lmirl_jax.types import Batch, UserError

_log = logging.getLogger(__name__)
MakesDataset = Annotated[
    Callable[..., Any], Words("@data.validation_dataset, without brackets", has_parameter("split"))
]


@checked
class PromptFile:
    """A file's prompts in order, with the vocabulary of a task; the model reads a prompt as it stands there, and EOS.

    A prompt's answers stay the same where the file's lines change their order: they are keyed by the `sampling_id` of its text.

    Args:
        path: a file named *.jsonl of objects with the string `inputs`, and maybe `targets`; of any other name, text, whose
            empty lines are passed over.
        task: whose vocabulary the model has.
        lengths: tokens of a row, for `inputs` and `targets`.
        num_examples: at most so many; None for all.
        truncate: whether longer prompts are cut off, which is counted and logged.

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
        file = pathlib.Path(str(path)).expanduser()
        if not file.is_file():
            raise UserError(f"no file at {path}: PROMPTS must be JSONL with inputs on every line, or text")
        self.task, self.name = task, file.stem
        self.lengths = {key: int(lengths[key]) for key in FEATURES}
        read = _jsonl(file) if file.suffix == ".jsonl" else _text(file)
        self.examples = _numbered(itertools.islice(read, num_examples))
        vocabulary = task.input_vocabulary
        self._tokens = [
            np.array([*vocabulary.encode(example["inputs_pretokenized"]), vocabulary.eos_id], np.int32)
            for example in self.examples
        ]
        self._check_lengths(path, truncate)
        self._tell_losses(path)

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

    def _tell_losses(self, path: str) -> None:
        lost = Losses()
        for example, tokens in zip(self.examples, self._tokens, strict=True):
            lost.add(self.task.input_vocabulary, tokens, example["inputs_pretokenized"])
        line = describe_losses(str(path), len(self.examples), {"inputs": lost})
        if line is not None:
            warn_once(line)

    def __len__(self) -> int:
        return len(self.examples)

    def batches(self, batch_size: int) -> Iterator[tuple[Batch, list[dict[str, Any]]]]:
        """Global batches in order, the last one filled up with rows of zeros, each with its examples."""
        nothing = np.zeros(0, np.int32)
        for start in range(0, len(self.examples), batch_size):
            part = slice(start, start + batch_size)
            rows = [
                encoder_decoder_row(
                    tokens, nothing, lengths=self.lengths, discount=1.0, eos_id=self.task.eos_id
                )
                for tokens in self._tokens[part]
            ]
            yield stack_rows(rows, batch_size), self.examples[part]

    def decode(self, tokens: Sequence[int] | np.ndarray) -> str:
        return self.task.decode(tokens)


@checked
def prompts(
    dataset: MakesDataset,
    path: Path | None,
    task: Task,
    lengths: Lengths,
    num_examples: Count | None = None,
    truncate: bool = True,
) -> EvalDataset | PromptFile:
    """What to answer: a file's prompts where `path` names one, else the data set that `dataset` makes.

    Raises:
        UserError: there is neither; or what `PromptFile` raises.
    """
    if path is not None:
        return PromptFile(path, task, lengths, num_examples, truncate)
    found = dataset()
    if found is None:
        raise UserError(
            "the task has no such split: set INFER_SPLIT (--gin.INFER_SPLIT=\"'train'\"), or PROMPTS to a file"
        )
    return found


def content_hash(prompts: EvalDataset | PromptFile) -> str:
    """A hash of the texts and tokens of all prompts, in order."""
    digest = hashlib.sha256(repr(sorted(prompts.lengths.items())).encode())
    for batch, examples in prompts.batches(256):
        digest.update(np.ascontiguousarray(batch.encoder_input_tokens).tobytes())
        for example in examples:
            texts = [example.get(f"{key}_pretokenized") for key in FEATURES]
            digest.update(json.dumps(texts, default=str).encode())
    return digest.hexdigest()[:16]


def _numbered(examples: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Gives each a `sampling_id`, 31 bits of its prompt and how often that came before: no answer hangs on the order."""
    seen: collections.Counter[str] = collections.Counter()
    numbered = []
    for example in examples:
        text = example["inputs_pretokenized"]
        digest = hashlib.sha256(f"{seen[text]} {text}".encode()).digest()
        numbered.append(example | {"sampling_id": int.from_bytes(digest[:4], "big") >> 1})
        seen[text] += 1
    return numbered


def _jsonl(file: pathlib.Path) -> Iterator[dict[str, Any]]:
    for example in read_jsonl(file, required=("inputs",), optional=("targets",)):
        yield {f"{key}_pretokenized": text for key, text in example.items()}


def _text(file: pathlib.Path) -> Iterator[dict[str, Any]]:
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not UTF-8 ({error.reason}); save the file as UTF-8") from None
    found = [line.removesuffix("\r") for line in lines if line.strip()]
    if not found:
        raise UserError(f"{file} is empty: write a prompt a line")
    yield from ({"inputs_pretokenized": line} for line in found)
