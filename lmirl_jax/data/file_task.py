"""A task over a file of `inputs` and `targets`, or of `messages`, for fine-tuning without a line of code."""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any

import numpy as np

from lmirl_jax.argument_rules import Words
from lmirl_jax.arguments import Positive
from lmirl_jax.data.columns import KEYS, MESSAGES, REJECTED, WEIGHT, Columns
from lmirl_jax.data.data_files import name_of
from lmirl_jax.data.file_source import FileSource, HeldOut, file_source
from lmirl_jax.data.given_rewards import LABEL, REWARD, REWARDS, STEP_REWARDS, check_rewards, check_turns
from lmirl_jax.data.messages import encode_conversation
from lmirl_jax.data.preferences import rejected_features
from lmirl_jax.data.step_rewards import with_token_rewards
from lmirl_jax.data.task_parts import REFERENCES, Example
from lmirl_jax.data.texts import mark_unknown, unknown_surface
from lmirl_jax.data.unread_keys import UnreadKeys
from lmirl_jax.data.vocabularies import Vocabulary, encode_answer

FileRates = Annotated[
    Mapping[str, Positive],
    Words(
        "{'a.jsonl': 3, 'b/*.csv': 1}, each path with a rate above 0",
        lambda rates: all(rates) and bool(rates),
    ),
]


def exact_match(targets: Sequence[str | Sequence[str]], predictions: Sequence[str]) -> dict[str, float]:
    """The fraction of predictions that equal their target, or any of several, apart from white space at the ends."""
    hits = [
        prediction.strip() in [text.strip() for text in ([target] if isinstance(target, str) else target)]
        for target, prediction in zip(targets, predictions, strict=True)
    ]
    return {"exact_match": sum(hits) / max(len(hits), 1)}


@dataclasses.dataclass(frozen=True)
class FileFeature:
    """The vocabulary of a feature."""

    vocabulary: Vocabulary


@dataclasses.dataclass(frozen=True)
class FileTask:
    """The counterpart of `seqio.Task` for files; texts are not postprocessed.

    Of several answers to a prompt the first is learnt, and metrics get all of them as a list.

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
        return self.source.splits

    @property
    def output_features(self) -> dict[str, FileFeature]:
        return dict.fromkeys(KEYS, FileFeature(self.vocabulary))

    def postprocess_fn(
        self,
        decoded_model_output: str,
        example: Mapping[str, Any] | None = None,
        is_target: bool = False,
        **kwargs: Any,
    ) -> str | list[str]:
        """The text itself; as a target, all references of an example that has several."""
        if example is None or REFERENCES not in example:
            return decoded_model_output
        references = [text.decode(errors="surrogateescape") for text in example[REFERENCES]]
        if is_target:
            return references
        return mark_unknown(decoded_model_output, "\n".join(references), unknown_surface(self.vocabulary))

    def fingerprint(self, split: str, format_version: int) -> str:
        """The hash that names a split's tokens on disk."""
        described = {
            "format": format_version,
            "task": self.name,
            "split": split,
            "vocabulary": self.vocabulary.fingerprint(),
            **self.source.identity(split),
        }
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()

    def rows(self, split: str, unread: UnreadKeys) -> Iterator[tuple[str, dict[str, Any]]]:
        """Reads a split once, in the file's order; yields for each row its name in errors, and its texts and numbers."""
        return self.source.rows(split, unread)

    def encode(self, where: str, row: Mapping[str, Any]) -> Example:
        """The tokens of one row; a function of its arguments alone, which another process can call.

        A conversation of several assistant turns has them as its feature `turns`.

        Raises:
            UserError: messages, rewards or a rejected answer that do not fit the vocabulary or the answer; names `where`.
        """
        if MESSAGES in row:
            chat, features = encode_conversation(row, self.vocabulary, where)
            prompt, answer = chat.inputs, chat.targets
            check_turns(row, len(chat.turns), where)
        else:
            features = text_features(row)
            prompt = self.vocabulary.encode_prompt(row["inputs"])
            answer = encode_answer(self.vocabulary, features["targets_pretokenized"])
            if STEP_REWARDS in row:
                texts = features["targets_pretokenized"], answer
                row = with_token_rewards(row, *texts, self.vocabulary, where)
        inputs, targets = np.array(prompt, np.int32), np.array(answer, np.int32)
        check_rewards(row, len(targets), where)
        for key in (WEIGHT, REWARD):
            if key in row:
                features[key] = float(row[key])
        if LABEL in row:
            features[LABEL] = bool(row[LABEL])
        if REWARDS in row:
            features[REWARDS] = [float(reward) for reward in row[REWARDS]]
        example = Example(inputs, targets, features)
        if REJECTED in row:
            features |= rejected_features(row, example, self.vocabulary, where)
        return example


def text_features(row: Mapping[str, Any]) -> dict[str, Any]:
    """The texts of a row as features: of several targets the first, and all of them as `references`."""
    features = {f"{key}_pretokenized": row[key] for key in KEYS if key in row}
    targets = row.get("targets")
    if isinstance(targets, list):
        features["targets_pretokenized"] = targets[0]
        if len(targets) > 1:
            features[REFERENCES] = targets
    return features


def file_tasks(
    data: str | Mapping[str, float],
    held_out: HeldOut,
    vocabulary: Vocabulary,
    columns: Columns,
    metrics: Sequence[Callable[..., Any]] | None = None,
) -> tuple[tuple[FileTask, ...], tuple[float, ...]]:
    """A task for each path of DATA, named after it, and the rate of each.

    In a mixture the files of VALIDATION_DATA are a task of their own, of rate 0.

    Raises:
        UserError: validation data both in a file and as a share of DATA.
    """
    held_out.check()
    rates = data if isinstance(data, Mapping) else {data: 1.0}
    parts = [(path, file_source(path, held_out, columns), float(rate)) for path, rate in rates.items()]
    if len(parts) > 1 and held_out.data is not None:
        validation = (held_out.data, parts[0][1].only("validation"), 0.0)
        parts = [*((path, source.only("train"), rate) for path, source, rate in parts), validation]
    functions = (exact_match,) if metrics is None else tuple(metrics)
    tasks: list[FileTask] = []
    for path, source, _ in parts:
        name = _unique(name_of(path), [task.name for task in tasks])
        tasks.append(FileTask(name, source, vocabulary, functions))
    return tuple(tasks), tuple(rate for _, _, rate in parts)


def _unique(name: str, taken: Sequence[str]) -> str:
    """The name, with a number behind it if it is taken."""
    names = itertools.chain([name], (f"{name}_{number}" for number in itertools.count(2)))
    return next(each for each in names if each not in taken)
