"""What the data sets read of one task: a SeqIO task has all of it, and so has a task over files."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from lmirl_jax.data.vocabularies import Vocabulary, as_vocabulary

FEATURES = ("inputs", "targets")


class Example(NamedTuple):
    """One tokenised example, untrimmed, and its features that are no tokens (texts, numbers and lists of them)."""

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
        """By feature an object with its `vocabulary`, ours or SeqIO's."""
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
