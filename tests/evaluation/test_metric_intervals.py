"""Intervals of a data set's metrics are those of the plain functions, on the texts that the metrics see."""

import functools

import numpy as np
import pytest

from lmirl_jax import evaluation
from lmirl_jax.evaluation import Answers
from lmirl_jax.evaluation.front import Cell, curves
from lmirl_jax.statistics.proportions import share_interval

WORDS = ["cat", "dog", "bird", "fish", "cow", "hen", "fox", "bee", "owl", "ant", "elk", "ape"]
TARGETS = [f"the {word} sat on the {other}" for word, other in zip(WORDS, WORDS[::-1], strict=True)]
SAMPLES = [
    (f"the {word} sat on {'a' * (1 + i)} {word}", f"a {word} sat" + " on" * (i % 4))
    for i, word in enumerate(WORDS)
]
ANSWERS = [Answers({}, texts, ((1,),) * 2, ((0.0,),) * 2) for texts in SAMPLES]


class Texts:
    """Two tasks of the same texts, one with BLEU and ChrF, one with ChrF++."""

    def __init__(self, count=len(TARGETS)):
        self.targets = TARGETS[:count]

    def corpora(self, samples):
        titled = [[text.title() for text in texts] for texts in samples]  # The second's postprocessing.
        yield "", [evaluation.bleu, evaluation.exact_match, evaluation.chrf], self.targets, samples
        yield "other/", [functools.partial(evaluation.chrf, word_order=2)], self.targets, titled


def test_every_metric_has_its_interval():
    values = [0.0, 1.0, 1.0] * 4
    found = evaluation.intervals(Texts(), ANSWERS, {"accuracy": values})
    titled = [[text.title() for text in texts] for texts in SAMPLES]
    assert found == {
        "accuracy": pytest.approx(share_interval([value == 1 for value in values])),
        "bleu": evaluation.bleu_interval(TARGETS, SAMPLES),
        "chrf": evaluation.chrf_interval(TARGETS, SAMPLES),
        "other/chrf": evaluation.chrf_interval(TARGETS, titled, word_order=2),
    }
    mean = np.mean([evaluation.bleu(TARGETS, list(texts))["bleu"] for texts in zip(*SAMPLES, strict=True)])
    low, high = found["bleu"]
    assert low < mean < high


def test_a_share_has_wilsons_and_what_says_too_little_none():
    """20 right of 20: the lower end is 20 / (20 + 1.96 ** 2). Three prompts say nothing of BLEU or of lengths."""
    few = [ANSWERS[i] for i in range(3)]
    found = evaluation.intervals(Texts(3), few, {"accuracy": [1.0] * 20, "answer_tokens": [1.0, 2.0, 3.0]})
    assert found == {"accuracy": (pytest.approx(20 / (20 + 1.959964**2)), 1.0)}


def test_they_are_those_of_a_front():
    values = [0.25, 0.5, 1.0] * 4
    (curve,) = curves([Cell("MLE", 0, 1.0, {"accuracy": np.mean(values)}, {"accuracy": values})])
    interval = curve.interval("accuracy", 0)
    found = evaluation.intervals(Texts(), ANSWERS, {"accuracy": values})["accuracy"]
    assert found == pytest.approx((interval.low, interval.high), abs=0)


def test_signatures_are_sacrebleus_with_each_metrics_options():
    """One reference each: nrefs is 1; prompts that differ in how many they have: var."""
    found = evaluation.signatures(Texts(), 12)
    assert found == {
        "bleu": evaluation.bleu_signature(1),
        "chrf": evaluation.chrf_signature(1),
        "other/chrf": evaluation.chrf_signature(1, word_order=2),
    }
    several = Texts(2)
    several.targets = [["a b", "a c"], "a d"]
    assert "nrefs:var" in evaluation.signatures(several, 2)["bleu"]
