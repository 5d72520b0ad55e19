"""Intervals of the metrics of `measure`: of means over prompts, and of corpus BLEU and ChrF."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from lmirl_jax.evaluation.corpus_metrics import (
    bleu,
    bleu_interval,
    bleu_signature,
    chrf,
    chrf_interval,
    chrf_signature,
    t5_bleu,
)
from lmirl_jax.evaluation.generation import Answers
from lmirl_jax.statistics.bootstrap import Ends
from lmirl_jax.statistics.proportions import mean_interval

Corpus = tuple[str, list[Callable], list[Any], list[list[Any]]]
OF_CORPUS: dict[Any, tuple[str, Callable[..., Ends], Callable[..., str]]] = {
    bleu: ("bleu", bleu_interval, bleu_signature),
    chrf: ("chrf", chrf_interval, chrf_signature),
    t5_bleu: (
        "t5_bleu",
        functools.partial(bleu_interval, tokenize="intl"),
        functools.partial(bleu_signature, tokenize="intl"),
    ),
}


@runtime_checkable
class Corpora(Protocol):
    """A data set that gives the metric functions of its tasks and their arguments, as `data.EvalDataset` does."""

    def corpora(self, samples: Sequence[Sequence[str]]) -> Iterator[Corpus]: ...


def intervals(
    data: Corpora, answers: Sequence[Answers], per_prompt: Mapping[str, Sequence[float]]
) -> dict[str, tuple[float, float]]:
    """The 95% intervals over prompts of metrics that have one: Wilson's for shares, else the bootstrap's.

    Args:
        data: the data set that was answered.
        answers: the answers to each prompt.
        per_prompt: values by prompt, as `measure` returns them.

    Returns:
        The lower and the upper end, by the name of the metric: for every mean over prompts, and for `evaluation.bleu`,
        `t5_bleu` and `chrf` among the metric functions of the task (options bound by `functools.partial` are respected). Other
        metrics of a whole corpus, such as `distinct_1`, have no interval, nor have metrics with too little evidence
        (`statistics.evidence`).
    """
    ends: dict[str, Ends] = {name: mean_interval(values) for name, values in per_prompt.items()}
    for prefix, functions, targets, samples in data.corpora([list(answer.texts) for answer in answers]):
        for function in functions:
            plain, options = _without_options(function)
            if plain in OF_CORPUS:
                name, interval, _ = OF_CORPUS[plain]
                ends[prefix + name] = interval(targets, samples, **options)
    return {name: (low, high) for name, (low, high) in ends.items() if low is not None and high is not None}


def signatures(data: Corpora, prompts: int) -> dict[str, str]:
    """sacrebleu's signatures of BLEU and ChrF among the metrics of a data set, by the name of the metric.

    Scores with equal signatures can be compared.

    Args:
        data: the data set.
        prompts: the number of its prompts.
    """
    by_name = {}
    for prefix, functions, targets, _ in data.corpora([()] * prompts):
        counts = {1 if isinstance(target, str) else len(target) for target in targets}
        references = counts.pop() if len(counts) == 1 else None
        for function in functions:
            plain, options = _without_options(function)
            if plain in OF_CORPUS:
                name, _, signature = OF_CORPUS[plain]
                by_name[prefix + name] = signature(references, **options)
    return by_name


def _without_options(function: Callable) -> tuple[Callable, dict[str, Any]]:
    if isinstance(function, functools.partial):
        return function.func, dict(function.keywords)
    return function, {}
