"""Calls the metric functions of a task on postprocessed texts, and takes the numbers among what they return."""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lmirl_jax.data.answer_metric import AnswerMetric
from lmirl_jax.data.task_parts import REFERENCES, TaskPart, vocabulary_of
from lmirl_jax.data.texts import mark_unknown, unknown_surface
from lmirl_jax.types import UserError

_log = logging.getLogger(__name__)


class _MissingAuxValue(KeyError):
    """A metric function asks for a value that was not computed this time."""


class _AuxValues(dict):
    def __missing__(self, key: str) -> Any:
        raise _MissingAuxValue(key)


def predict_metrics(
    task: TaskPart, prompts: list[str], targets: list[Any], predictions: list[Any]
) -> dict[str, float]:
    """The metrics of functions of `(targets, predictions)`, and those of each answer by itself, which read its prompt."""
    results: dict[str, Any] = {}
    for function in task.predict_metric_fns:
        if isinstance(function, AnswerMetric):
            results |= function(prompts, targets, predictions)
        else:
            results |= function(targets, predictions)
    return _numbers(results)


def aux_metrics(
    task: TaskPart, targets: list[Any], predictions: list[Any], aux_values: dict[str, list[Any]]
) -> dict[str, float]:
    """The metrics of functions of `(targets, predictions, aux_values)`, where `aux_values` has what they ask for."""
    results: dict[str, Any] = {}
    for function in task.predict_with_aux_metric_fns:
        try:
            results |= function(targets, predictions, _AuxValues(aux_values))
        except _MissingAuxValue as missing:
            _log.debug("a metric of task %s is left out: it needs aux_values[%s]", task.name, missing)
    return _numbers(results)


def answer_metrics(
    task: TaskPart, inputs: str, reference: str, answer: str, references: Sequence[str] = ()
) -> dict[str, float]:
    """The task's metrics of one answer alone, against its reference, or against all `references`; all are texts.

    Raises:
        UserError: the task's functions cannot read the texts.
    """
    several = {REFERENCES: list(references)} if references else {}
    example = as_seqio({"inputs_pretokenized": inputs, "targets_pretokenized": reference, **several})
    surface = unknown_surface(vocabulary_of(task, "targets"))
    prediction = mark_unknown(answer, reference, surface)
    try:
        target = task.postprocess_fn(reference, example=example, is_target=True)
        output = task.postprocess_fn(prediction, example=example, is_target=False)
        return predict_metrics(task, [inputs], [target], [output])
    except UserError:
        raise
    except Exception as error:
        what = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        raise UserError(
            f"the metrics of task {task.name} raised {what} for the answer {answer!r} to {inputs!r}: set SCORE_METRICS=False to "
            "score without them"
        ) from error


def _numbers(results: Mapping[str, Any]) -> dict[str, float]:
    values = {key: getattr(value, "value", value) for key, value in results.items()}
    return {key: float(value) for key, value in values.items() if _is_number(value)}


def _is_number(value: Any) -> bool:
    """Whether the value is a defined scalar: SeqIO also has metrics that are texts, images and histograms."""
    try:
        return math.isfinite(float(value))
    except (TypeError, ValueError):
        return False


def as_seqio(example: Mapping[str, Any]) -> dict[str, Any]:
    """The example as SeqIO hands it to `postprocess_fn`: numpy values, texts as bytes."""
    return {key: _as_numpy(value) for key, value in example.items() if key != "task_name"}


def _as_numpy(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", errors="surrogateescape")
    if isinstance(value, list):
        items = [_as_numpy(item) for item in value]
        return np.array(items, dtype=object if items and isinstance(items[0], bytes) else None)
    if isinstance(value, (bool, int, float)):
        return np.asarray(value)[()]
    return value
