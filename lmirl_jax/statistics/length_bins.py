"""How a measure and a metric go together among answers of about the same length."""

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
        shortest: of them, in tokens.
        longest: of them.
        answers: how many there are.
        measure: its mean.
        metric: its mean.
        correlation: Spearman's, of measure and metric; None where either is constant.
        too_few: why nothing is concluded from the correlation, with the numbers; None where there is enough.
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
        lengths: in tokens.
        measure: of each answer.
        metric: of each answer.
        prompts: of each answer; None where each belongs to another.
        bins: at most so many; fewer where many answers are of one length.

    Returns:
        The bins, short answers first.
    """
    edges = np.unique(np.quantile(lengths, np.arange(1, bins) / bins, method="higher"))
    of_answer = np.searchsorted(edges, lengths, side="right")
    found = []
    for place in np.unique(of_answer):
        own = of_answer == place
        found.append(
            LengthBin(
                int(lengths[own].min()),
                int(lengths[own].max()),
                int(own.sum()),
                float(measure[own].mean()),
                float(metric[own].mean()),
                spearman(measure[own], metric[own]),
                _evidence(measure[own], metric[own], None if prompts is None else prompts[own]).too_few,
            )
        )
    return found


def _evidence(
    measure: Float[np.ndarray, " n"], metric: Float[np.ndarray, " n"], prompts: Int[np.ndarray, " n"] | None
) -> Evidence:
    count = len(measure) if prompts is None else len(np.unique(prompts))
    events, what = min(
        (len(event_prompts(values, prompts)), name)
        for values, name in ((measure, "the measure"), (metric, "the metric"))
    )
    return Evidence(count, count, events, what)
