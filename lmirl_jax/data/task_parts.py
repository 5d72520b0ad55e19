"""The parts of a task that data sets use, as protocols that both SeqIO's tasks and tasks over files satisfy."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from lmirl_jax.data.vocabularies import Vocabulary, as_vocabulary

FEATURES = ("inputs", "targets")
# Features of a conversation: the positions in `targets` at which each of several assistant turns begins, and before which it
# ends; and the number of earlier turns that are part of `inputs`, because they cannot be learnt.
TURNS, TURNS_LEFT_OUT = "assistant_turns", "assistant_turns_left_out"

# The feature of an example that has several answers: all of them, the one that is learnt among them.
REFERENCES = "references"


class Example(NamedTuple):
    """One tokenised example, untrimmed, and its features that are not tokens (texts, numbers and lists of them)."""

    inputs: np.ndarray
    targets: np.ndarray
    features: dict[str, Any]


def last_turn(example: Example) -> Example:
    """The last assistant turn of a conversation as an answer, whose prompt is all before it; any other example unchanged."""
    if TURNS not in example.features:
        return example
    begin = example.features[TURNS][-1][0]
    features = {key: value for key, value in example.features.items() if key != TURNS}
    return Example(
        np.concatenate([example.inputs, example.targets[:begin]]), example.targets[begin:], features
    )


@runtime_checkable
class TaskPart(Protocol):
    """A task that can be read by itself: a `seqio.Task`, or a `FileTask`."""

    @property
    def name(self) -> str: ...

    @property
    def splits(self) -> Collection[str]: ...

    @property
    def output_features(self) -> Mapping[str, Any]:
        """For each feature, an object with its `vocabulary`, which may be one of SeqIO."""
        ...

    @property
    def predict_metric_fns(self) -> Sequence[Callable[..., Any]]:
        """Functions of `(targets, predictions)`, and of a file's task `AnswerMetric`s too."""
        ...

    @property
    def predict_with_aux_metric_fns(self) -> Sequence[Callable[..., Any]]:
        """Functions of `(targets, predictions, aux_values)`."""
        ...

    def postprocess_fn(self, decoded_model_output: Any, **kwargs: Any) -> Any: ...


def vocabulary_of(part: TaskPart, feature: str) -> Vocabulary:
    """The vocabulary of a feature."""
    return as_vocabulary(part.output_features[feature].vocabulary)
