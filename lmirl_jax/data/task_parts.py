"""The parts of a task that data sets use, as protocols that both SeqIO's tasks and tasks over files satisfy."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from lmirl_jax.data.vocabularies import Vocabulary, as_vocabulary

FEATURES = ("inputs", "targets")


class Example(NamedTuple):
    """One tokenised example, untrimmed, and its features that are not tokens (texts, numbers and lists of them)."""

    inputs: np.ndarray
    targets: np.ndarray
    features: dict[str, Any]


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
        """Functions of `(targets, predictions)`."""
        ...

    @property
    def predict_with_aux_metric_fns(self) -> Sequence[Callable[..., Any]]:
        """Functions of `(targets, predictions, aux_values)`."""
        ...

    def postprocess_fn(self, decoded_model_output: Any, **kwargs: Any) -> Any: ...


def vocabulary_of(part: TaskPart, feature: str) -> Vocabulary:
    """The vocabulary of a feature."""
    return as_vocabulary(part.output_features[feature].vocabulary)
