"""The correlation of a measure with a metric among answers of about the same length."""

import dataclasses

import numpy as np
from jaxtyping import Float, Int

from lmirl_jax.statistics.evidence import Evidence, event_prompts
from lmirl_jax.statistics.rank_correlation import spearman

BINS = 5


@dataclasses.dataclass(frozen=True)
class LengthBin:
    """Answers of about the same length.

    Args:
        shortest: the length of the shortest answer, in tokens.
        longest: the length of the longest answer, in tokens.
        answers: the number of answers.
        measure: the mean of the measure.
        metric: the mean of the metric.
        correlation: Spearman's correlation of measure and metric; None where either is constant.
        too_few: why nothing is concluded from the correlation, with the numbers; None where there is enough evidence.
    """

    shortest: int
    longest: int
    answers: int
    measure: float
    metric: float
    correlation: float | None
    too_few: str | None


def length_bins(
    lengths: Float[np.ndarray, " n"],
    measure: Float[np.ndarray, " n"],
    metric: Float[np.ndarray, " n"],
    *,
    prompts: Int[np.ndarray, " n"] | None = None,
    bins: int = BINS,
) -> list[LengthBin]:
    """Sorts answers by length into bins of about as many answers; answers of one length stay together.

    Args:
        lengths: the length of each answer, in tokens.
        measure: the measure of each answer.
        metric: the metric of each answer.
        prompts: the prompt of each answer; None where each answer belongs to another prompt.
        bins: the largest number of bins; there are fewer where many answers have the same length.

    Returns:
        The bins, with the shortest answers first.
    """
    edges = np.unique(np.quantile(lengths, np.arange(1, bins) / bins, method="higher"))
    of_answer = np.searchsorted(edges, lengths, side="right")
    result = []
    for place in np.unique(of_answer):
        inside = of_answer == place
        result.append(
            LengthBin(
                int(lengths[inside].min()),
                int(lengths[inside].max()),
                int(inside.sum()),
                float(measure[inside].mean()),
                float(metric[inside].mean()),
                spearman(measure[inside], metric[inside]),
                _evidence(
                    measure[inside], metric[inside], None if prompts is None else prompts[inside]
                ).too_few,
            )
        )
    return result


def _evidence(
    measure: Float[np.ndarray, " n"], metric: Float[np.ndarray, " n"], prompts: Int[np.ndarray, " n"] | None
) -> Evidence:
    count = len(measure) if prompts is None else len(np.unique(prompts))
    events, what = min(
        (len(event_prompts(values, prompts)), name)
        for values, name in ((measure, "the measure"), (metric, "the metric"))
    )
    return Evidence(count, count, events, what)
