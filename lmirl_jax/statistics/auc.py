"""The area under the ROC curve, with an interval over prompts."""

import numpy as np
from jaxtyping import Float, Int

from lmirl_jax.statistics.bootstrap import Ends, resampling_weights
from lmirl_jax.statistics.evidence import FEWEST_PROMPTS
from lmirl_jax.statistics.proportions import bounded_interval

# The number of weights in memory at once.
ELEMENTS = 2**22


def auc(high: Float[np.ndarray, " m"], low: Float[np.ndarray, " n"]) -> float:
    """The share of pairs in which the first value is above the second; equal ones count half.

        AUC = mean_ij 1(high_i > low_j) + 1(high_i = low_j) / 2

    It is 1 where the values tell the two apart, and 0.5 where they say nothing.

    Args:
        high: the values of what should be high; at least one.
        low: the values of what should be low; at least one.
    """
    return float(_shares_below(high, low, np.ones((1, len(low)))).mean())


def auc_interval(
    high: Float[np.ndarray, " m"],
    low: Float[np.ndarray, " n"],
    prompts_of_high: Int[np.ndarray, " m"],
    prompts_of_low: Int[np.ndarray, " n"],
    seed: int = 0,
) -> Ends:
    """The 95% interval of an AUC: Wilson's, by the variance over draws of prompts, each with all of its values.

    Args:
        high: the values of what should be high.
        low: the values of what should be low.
        prompts_of_high: the number of the prompt of each, from 0.
        prompts_of_low: the same for `low`.
        seed: the seed of the draws.

    Returns:
        The lower and the upper end; None for both with values of fewer than 10 prompts.
    """
    count = int(max(prompts_of_high.max(), prompts_of_low.max())) + 1
    if len(np.union1d(prompts_of_high, prompts_of_low)) < FEWEST_PROMPTS:
        return None, None
    weights, drawn = resampling_weights(count, seed), []
    step = max(1, ELEMENTS // (len(high) + len(low)))
    for begin in range(0, len(weights), step):
        part = weights[begin : begin + step]
        of_high = part[:, prompts_of_high]
        shares = (_shares_below(high, low, part[:, prompts_of_low]) * of_high).sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            drawn.append(shares / of_high.sum(axis=1))
    return bounded_interval(auc(high, low), float(np.nanvar(np.concatenate(drawn))), count)


def _shares_below(
    high: Float[np.ndarray, " m"], low: Float[np.ndarray, " n"], weights: Float[np.ndarray, "draws n"]
) -> Float[np.ndarray, "draws m"]:
    """The weighted share of `low` that is below each of `high`."""
    order = np.argsort(low)
    below = np.concatenate([np.zeros((len(weights), 1)), np.cumsum(weights[:, order], axis=1)], axis=1)
    left, right = (np.searchsorted(low[order], high, side) for side in ("left", "right"))
    with np.errstate(invalid="ignore", divide="ignore"):
        return (below[:, left] + below[:, right]) / 2 / below[:, -1:]
