"""Finding what to train on: a registered SeqIO task or mixture, or a JSONL file."""

import dataclasses
import difflib
from collections.abc import Sequence

import numpy as np

from lmirl_jax.arguments import Path, Text, checked
from lmirl_jax.data import jsonl, vocabularies
from lmirl_jax.data.seqio_library import seqio
from lmirl_jax.types import UserError

FEATURES = ("inputs", "targets")


@dataclasses.dataclass(frozen=True)
class Task:
    """A task, or a mixture of several: SeqIO's tasks as they will be read, and the rate at which each is drawn."""

    name: str
    tasks: tuple[seqio.Task, ...]
    rates: tuple[float, ...]

    @property
    def input_vocabulary(self) -> seqio.Vocabulary:
        return self.tasks[0].output_features["inputs"].vocabulary

    @property
    def output_vocabulary(self) -> seqio.Vocabulary:
        return self.tasks[0].output_features["targets"].vocabulary

    @property
    def vocab_size(self) -> int:
        """The rows that an embedding table for both vocabularies takes."""
        return vocabularies.padded_vocab_size(self.input_vocabulary, self.output_vocabulary)

    @property
    def vocabulary_fingerprints(self) -> dict[str, str]:
        """Of each feature's vocabulary: a checkpoint means nothing with another one."""
        vocabularies_of = {"inputs": self.input_vocabulary, "targets": self.output_vocabulary}
        return {key: vocabularies.vocabulary_fingerprint(own) for key, own in vocabularies_of.items()}

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """The tokens that end an answer; the first is the one that demonstrations end with."""
        return (self.output_vocabulary.eos_id,)

    def decode(self, tokens: Sequence[int] | np.ndarray) -> str:
        """The text of target tokens, up to the first EOS; padding is dropped."""
        return _text(self.output_vocabulary, tokens)

    def decode_inputs(self, tokens: Sequence[int] | np.ndarray) -> str:
        """The text of a prompt's tokens, in the same way."""
        return _text(self.input_vocabulary, tokens)


def _text(vocabulary: seqio.Vocabulary, tokens: Sequence[int] | np.ndarray) -> str:
    return vocabulary.decode([token for token in np.asarray(tokens).tolist() if token != 0])


@checked
def get_task(
    mixture_or_task_name: Text | None = None,
    data: Path | None = None,
    validation_data: Path | None = None,
    vocabulary_path: Path | None = None,
) -> Task:
    """Finds a registered SeqIO task or mixture by name, or makes a task of a JSONL file.

    Args:
        mixture_or_task_name: a name in SeqIO's registry; the gin file imports the module that registers it.
        data: instead of a name, a JSONL file with the strings `inputs` and `targets` on each line.
        validation_data: with `data`, a second such file; without it there is no validation split.
        vocabulary_path: a SentencePiece model that replaces the task's own vocabularies; None keeps them (a JSONL
            file's is bytes).

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
    if data is not None:
        task = jsonl.jsonl_task(data, validation_data, vocabularies.vocabulary(vocabulary_path))
        return Task(task.name, (task,), (1.0,))
    found = _registered(mixture_or_task_name)
    if isinstance(found, seqio.Mixture):
        tasks, rates = tuple(found.tasks), tuple(float(found.get_rate(task)) for task in found.tasks)
    else:
        tasks, rates = (found,), (1.0,)
    for task in tasks:
        _check_features(task)
    if vocabulary_path is not None:
        tasks = tuple(_with_vocabulary(task, vocabularies.vocabulary(vocabulary_path)) for task in tasks)
    _check_one_vocabulary(mixture_or_task_name, tasks)
    return Task(mixture_or_task_name, tasks, rates)


@checked
def vocab_size(task: Task) -> int:
    """The rows that an embedding table for a task's vocabularies takes: a multiple of 128, as T5's and ByT5's are."""
    return task.vocab_size


def has_split(task: Task, split: str) -> bool:
    """Whether the task, or any of a mixture's, has the split."""
    return any(split in part.splits for part in task.tasks)


def _registered(name: str) -> seqio.Task | seqio.Mixture:
    known = sorted({*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()})
    if name in known:
        return seqio.get_mixture_or_task(name)
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"did you mean {nearest[0]!r}?" if nearest else f"known: {', '.join(known) or 'none'};"
    raise UserError(
        f"no task or mixture named {name!r}: {hint} A task of your own must be registered by a module that the gin "
        "file imports (import my_tasks)"
    )


def _check_features(task: seqio.Task) -> None:
    for key in FEATURES:
        feature = task.output_features.get(key)
        if feature is None:
            raise UserError(
                f"task {task.name} has the features {', '.join(task.output_features)} and lacks {key!r}: give it "
                "output_features inputs and targets"
            )
        if feature.rank != 1 or not feature.dtype.is_integer:
            raise UserError(
                f"task {task.name}: feature {key!r} is {feature.dtype.name} of rank {feature.rank}; it must be "
                "tokens: integers of rank 1"
            )


def _with_vocabulary(task: seqio.Task, vocabulary: seqio.Vocabulary) -> seqio.Task:
    features = {
        key: dataclasses.replace(feature, vocabulary=vocabulary) if key in FEATURES else feature
        for key, feature in task.output_features.items()
    }
    return task.replace(output_features=features)


def _check_one_vocabulary(name: str, tasks: tuple[seqio.Task, ...]) -> None:
    for key in FEATURES:
        prints = {vocabularies.vocabulary_fingerprint(task.output_features[key].vocabulary) for task in tasks}
        if len(prints) > 1:
            raise UserError(
                f"the tasks of mixture {name} have different vocabularies for {key}: give all the same, or set "
                "VOCABULARY_PATH"
            )
