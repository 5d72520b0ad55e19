"""Tasks and mixtures in SeqIO's registry, with their vocabularies or another one."""

import dataclasses
import difflib
from collections.abc import Sequence

from lmirl_jax.data.chat_vocabulary import ChatVocabulary
from lmirl_jax.data.seqio_library import seqio
from lmirl_jax.data.seqio_vocabularies import WrappedVocabulary, seqio_vocabulary
from lmirl_jax.data.task_parts import FEATURES, vocabulary_of
from lmirl_jax.types import UserError


def find_tasks(
    name: str, vocabulary_path: str | None = None, chat: bool | None = None
) -> tuple[tuple[seqio.Task, ...], tuple[float, ...]]:
    """A task, or those of a mixture, and the rate of each.

    Args:
        name: the name in SeqIO's registry.
        vocabulary_path: a vocabulary, as for `vocabulary`, in place of the tasks' own; None keeps these.
        chat: whether its chat template is used; see `vocabulary`.

    Raises:
        UserError: an unknown name, a task of the wrong shape, or a mixture of several vocabularies.
    """
    task_or_mixture = _look_up(name)
    if isinstance(task_or_mixture, seqio.Mixture):
        tasks = tuple(task_or_mixture.tasks)
        rates = tuple(float(task_or_mixture.get_rate(task)) for task in tasks)
    else:
        tasks, rates = (task_or_mixture,), (1.0,)
    for task in tasks:
        _check_features(task)
    if vocabulary_path is not None:
        tasks = _with_vocabulary(tasks, vocabulary_path, chat)
    elif chat:
        raise UserError(
            f"CHAT=True, and {name} has a vocabulary of its own: set VOCABULARY_PATH to the folder of a chat model"
        )
    _check_one_vocabulary(name, tasks)
    return tasks, rates


def _look_up(name: str) -> seqio.Task | seqio.Mixture:
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


def _with_vocabulary(tasks: Sequence[seqio.Task], path: str, chat: bool | None) -> tuple[seqio.Task, ...]:
    """The tasks with the vocabulary at a path.

    A task that ends its prompts with EOS gets in its place the special tokens that a Hugging Face tokenizer puts around a prompt.
    With a chat template, every prompt is the message of a user.
    """
    vocabulary = seqio_vocabulary(path, chat=chat)
    made = []
    for task in tasks:
        features = dict(task.output_features)
        for key in FEATURES:
            features[key] = dataclasses.replace(features[key], vocabulary=vocabulary)
        if isinstance(vocabulary, WrappedVocabulary) and (
            features["inputs"].add_eos or isinstance(vocabulary.wrapped, ChatVocabulary)
        ):
            prompts = WrappedVocabulary(vocabulary.wrapped, for_prompts=True)
            features["inputs"] = dataclasses.replace(features["inputs"], vocabulary=prompts, add_eos=False)
        made.append(task.replace(output_features=features))
    return tuple(made)


def _check_one_vocabulary(name: str, tasks: tuple[seqio.Task, ...]) -> None:
    for key in FEATURES:
        prints = {vocabulary_of(task, key).fingerprint() for task in tasks}
        if len(prints) > 1:
            raise UserError(
                f"the tasks of mixture {name} have different vocabularies for {key}: give all the same, or set "
                "VOCABULARY_PATH"
            )
