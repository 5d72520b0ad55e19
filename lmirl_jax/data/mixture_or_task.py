"""Finds the training data: a registered SeqIO task or mixture, or a file."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lmirl_jax.arguments import Path, ShareBelowOne, Text, check_arguments
from lmirl_jax.data import vocabularies
from lmirl_jax.data.chat_vocabulary import ChatVocabulary
from lmirl_jax.data.columns import ColumnNames, Columns
from lmirl_jax.data.file_source import FileSource, HeldOut
from lmirl_jax.data.file_task import FileRates, FileTask, file_tasks
from lmirl_jax.data.task_parts import TaskPart, vocabulary_of
from lmirl_jax.data.vocabularies import Vocabulary
from lmirl_jax.types import UserError


@dataclasses.dataclass(frozen=True)
class Task:
    """A task, or a mixture of tasks with the rate at which each is sampled.

    Args:
        name: the name of the task or the mixture.
        tasks: the tasks.
        rates: the rate of each.
        columns: the columns of files of prompts and of answers for this task, where they have them.
    """

    name: str
    tasks: tuple[TaskPart, ...]
    rates: tuple[float, ...]
    columns: Columns = dataclasses.field(default_factory=lambda: Columns(lenient=True))

    @property
    def input_vocabulary(self) -> Vocabulary:
        return vocabulary_of(self.tasks[0], "inputs")

    @property
    def output_vocabulary(self) -> Vocabulary:
        return vocabulary_of(self.tasks[0], "targets")

    @property
    def vocab_size(self) -> int:
        """The number of rows of an embedding table for both vocabularies."""
        return vocabularies.padded_vocab_size(self.input_vocabulary, self.output_vocabulary)

    @property
    def vocabulary_fingerprints(self) -> dict[str, str]:
        """The fingerprint of each feature's vocabulary; a checkpoint can only be used with the same vocabularies."""
        return {
            "inputs": self.input_vocabulary.fingerprint(),
            "targets": self.output_vocabulary.fingerprint(),
        }

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """The tokens that end an answer; the first is the one that demonstrations end with."""
        return self.output_vocabulary.eos_ids

    def decode(self, tokens: Sequence[int] | np.ndarray) -> str:
        """The text of target tokens, up to the first EOS; give no padding, as every id may be a word."""
        return self.output_vocabulary.decode(np.asarray(tokens).tolist())

    def decode_inputs(self, tokens: Sequence[int] | np.ndarray) -> str:
        """The text of a prompt's tokens, in the same way; of a chat, the user's text or the whole conversation."""
        vocabulary, ids = self.input_vocabulary, np.asarray(tokens).tolist()
        return (
            vocabulary.decode_prompt(ids)
            if isinstance(vocabulary, ChatVocabulary)
            else vocabulary.decode(ids)
        )

    def trim_prompt(self, tokens: np.ndarray, size: int) -> np.ndarray:
        """The part of a prompt that a row of `size` tokens holds: its beginning, or that of a chat its end, which asks."""
        if isinstance(self.input_vocabulary, ChatVocabulary):
            return tokens[max(len(tokens) - size, 0) :]
        return tokens[:size]


@check_arguments
def get_task(
    mixture_or_task_name: Text | None = None,
    data: Path | FileRates | None = None,
    validation_data: Path | None = None,
    vocabulary_path: Path | None = None,
    chat: bool | None = None,
    columns: ColumnNames | None = None,
    validation_share: ShareBelowOne = 0.0,
    metrics: Sequence[Callable[..., Any]] | None = None,
) -> Task:
    """Finds a registered SeqIO task or mixture by name, or makes a task of a file.

    Args:
        mixture_or_task_name: a name in SeqIO's registry; the gin file imports the module that registers it.
        data: instead of a name, a file with the strings `inputs` and `targets` in each row, of any format in `formats`; or a
            folder that `datasets` saved, or a pattern of file names. Of several, it is a mapping by them, with the rate at which
            each is sampled.
        validation_data: the same for validation, only with `data`; without it only a folder with such a split has one.
        vocabulary_path: a folder with a Hugging Face tokenizer, or a SentencePiece model, that replaces the task's own
            vocabularies; None keeps them (a file's is bytes).
        chat: whether prompts are written with the tokenizer's chat template; None where it has one, True where it must have
            one.
        columns: by role (`inputs`, `targets`, `messages`, `weight`, `reward`, `rewards`, `id`), the name of its column in files;
            the other roles have their usual names (`columns`).
        validation_share: the share of the prompts in `data` that are held out as the validation split, by a hash of each.
        metrics: the metric functions of a file, from `evaluation.metric_functions`; None for `exact_match`.

    Returns:
        The task.

    Raises:
        UserError: not exactly one of name and data, an unknown name, a missing file, or a task of the wrong shape.
    """
    if (mixture_or_task_name is None) == (data is None):
        given = "neither" if data is None else "both"
        raise UserError(f"{given} of MIXTURE_OR_TASK_NAME and DATA given: set exactly one of them")
    if validation_data is not None and data is None:
        raise UserError(
            "VALIDATION_DATA goes with DATA; a named task has a validation split of its own: leave it out"
        )
    if metrics is not None and data is None:
        raise UserError("METRICS goes with DATA; a named task has metrics of its own: leave it out")
    if validation_share and data is None:
        raise UserError("VALIDATION_SHARE goes with DATA; a named task has its own splits: set it to 0")
    if data is not None:
        own = vocabularies.vocabulary(vocabulary_path, chat)
        held_out = HeldOut(validation_data, validation_share)
        tasks, rates = file_tasks(data, held_out, own, Columns(columns or {}), metrics)
        name = tasks[0].name if len(tasks) == 1 else "mixture"
        return Task(name, tasks, rates, _for_answers(columns))
    assert mixture_or_task_name is not None
    # This import loads SeqIO and TensorFlow.
    from lmirl_jax.data.seqio_tasks import find_tasks

    found = find_tasks(mixture_or_task_name, vocabulary_path, chat)
    return Task(mixture_or_task_name, *found, _for_answers(columns))


@check_arguments
def get_task_or_vocabulary(
    mixture_or_task_name: Text | None = None,
    data: Path | FileRates | None = None,
    validation_data: Path | None = None,
    vocabulary_path: Path | None = None,
    chat: bool | None = None,
    columns: ColumnNames | None = None,
    validation_share: ShareBelowOne = 0.0,
    metrics: Sequence[Callable[..., Any]] | None = None,
) -> Task:
    """Does what `get_task` does; where neither a name nor data is given, returns a task without splits.

    It is for checkpoints that no run of ours has trained: they have a vocabulary, but no task.
    """
    if mixture_or_task_name is None and data is None:
        task = vocabulary_task(vocabularies.vocabulary(vocabulary_path, chat))
        return dataclasses.replace(task, columns=_for_answers(columns))
    return get_task(
        mixture_or_task_name,
        data,
        validation_data,
        vocabulary_path,
        chat,
        columns,
        validation_share,
        metrics,
    )


def vocabulary_task(vocabulary: Vocabulary) -> Task:
    """A task without splits, for the texts of a vocabulary."""
    return Task("texts", (FileTask("texts", FileSource(), vocabulary),), (1.0,))


def _for_answers(columns: ColumnNames | None) -> Columns:
    """The columns of files of prompts and answers: those that `lmirl infer` writes have the usual names."""
    return Columns(columns or {}, lenient=True)


@check_arguments
def vocab_size(task: Task) -> int:
    """The number of rows of an embedding table for a task's vocabularies: a multiple of 128, as in T5 and ByT5."""
    return task.vocab_size


@check_arguments
def decoder_start_id(task: Task) -> int:
    """The token that an encoder-decoder's decoder is fed first, which no answer holds before its end."""
    return task.output_vocabulary.start_id


def has_split(task: Task, split: str) -> bool:
    """Whether the task, or any task of the mixture, has the split."""
    return any(split in part.splits for part in task.tasks)
