"""How a measure and a metric go together among answers of about the same length."""

import dataclasses

import numpy as np
from jaxtyping import Float

from lmirl_jax.evaluation.rank_correlation import spearman

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
    """

    shortest: int
    longest: int
    answers: int
    measure: float
    metric: float
    correlation: float | None


def length_bins(
    lengths: Float[np.ndarray, " n"],
    measure: Float[np.ndarray, " n"],
    metric: Float[np.ndarray, " n"],
    *,
    bins: int = BINS,
) -> list[LengthBin]:
    """Sorts answers by length into bins of about as many answers; answers of one length stay together.

    Args:
        lengths: in tokens.
        measure: of each answer.
        metric: of each answer.
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
            )
        )
    return found
