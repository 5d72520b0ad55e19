"""Intervals of a data set's metrics are those of the plain functions, on the texts that the metrics see."""

import functools

import numpy as np
import pytest

from lmirl_jax import evaluation
from lmirl_jax.evaluation import Answers
from lmirl_jax.evaluation.front import Cell, curves

TARGETS = ["the cat sat on the mat", "a dog runs in the park", "birds fly over the old house"]
SAMPLES = [
    ("the cat sat on a mat", "a cat sat on the mat"),
    ("a dog runs in a park", "the dog ran in the park"),
    ("birds fly over an old house", "birds fly"),
]
ANSWERS = [Answers({}, texts, ((1,),) * 2, ((0.0,),) * 2) for texts in SAMPLES]


class Texts:
    """Two tasks of the same texts, one with BLEU and ChrF, one with ChrF++."""

    def corpora(self, samples):
        upper = [[text.upper() for text in texts] for texts in samples]  # The second's postprocessing.
        yield "", [evaluation.bleu, evaluation.exact_match, evaluation.chrf], TARGETS, samples
        yield "other/", [functools.partial(evaluation.chrf, word_order=2)], TARGETS, upper


def test_each_has_its_own():
    values = [0.0, 1.0, 1.0]
    found = evaluation.intervals(Texts(), ANSWERS, {"accuracy": values})
    upper = [[text.upper() for text in texts] for texts in SAMPLES]
    assert found == {
        "accuracy": evaluation.bootstrap_interval(values),
        "bleu": evaluation.bleu_interval(TARGETS, SAMPLES),
        "chrf": evaluation.chrf_interval(TARGETS, SAMPLES),
        "other/chrf": evaluation.chrf_interval(TARGETS, upper, word_order=2),
    }
    mean = np.mean([evaluation.bleu(TARGETS, list(texts))["bleu"] for texts in zip(*SAMPLES, strict=True)])
    low, high = found["bleu"]
    assert low < mean < high


def test_they_are_those_of_a_front():
    values = [0.25, 0.5, 1.0]
    (curve,) = curves([Cell("MLE", 0, 1.0, {"accuracy": np.mean(values)}, {"accuracy": values})])
    interval = curve.interval("accuracy", 0)
    found = evaluation.intervals(Texts(), ANSWERS, {"accuracy": values})["accuracy"]
    assert found == pytest.approx((interval.low, interval.high), abs=0)
