"""Bootstrap intervals of means over prompts, and over training seeds where there are several."""

import functools
from typing import Any

import numpy as np
from jaxtyping import Float

from lmirl_jax.statistics.evidence import Evidence, event_prompts

DRAWS = 2000
Ends = tuple[float | None, float | None]


def bootstrap_interval(values: Any, seed: int = 0, *, coverage: float = 0.95, draws: int = DRAWS) -> Ends:
    """Bootstrap interval of a mean over prompts, and over seeds where there are several; shares have `mean_interval`.

    Args:
        values: one a prompt, `[prompts]`, or `[seeds, prompts]`; seeds are resampled too. With one seed the variation from
            one training run to the next is not in the interval, with two or three it is understated.
        seed: of the resampling; equal seeds give equal intervals.
        coverage: of the interval, between 0 and 1.
        draws: how many times to resample.

    Returns:
        The lower and the upper end; None for both with fewer than 10 prompts, or where fewer than 8 of them have another value
        than the commonest (`statistics.evidence`).

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13; the ends as in `interval_of`.
    """
    table = np.atleast_2d(np.asarray(values, float))
    seeds, prompts = table.shape
    weights = resampling_weights(prompts, seed, draws), resampling_weights(seeds, seed + 1, draws)
    sample = resampled_means(table[None], *weights)[:, 0]
    events = len(event_prompts(table.ravel(), np.tile(np.arange(prompts), seeds)))
    return interval_of(float(table.mean()), sample, Evidence(prompts, prompts, events), coverage)


@functools.lru_cache(maxsize=8)
def resampling_weights(count: int, seed: int, draws: int = DRAWS) -> Float[np.ndarray, "draws count"]:
    """How often each of `count` things is drawn, over `count`, in each of the draws with replacement: rows sum to 1."""
    weights = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=draws) / count
    weights.flags.writeable = False  # It is kept for the next call.
    return weights


def resampled_means(
    values: Float[np.ndarray, "points seeds prompts"],
    prompt_weights: Float[np.ndarray, "draws prompts"],
    seed_weights: Float[np.ndarray, "draws seeds"],
) -> Float[np.ndarray, "draws points"]:
    """The means over seeds and prompts under each draw's weights; one draw is the same for every point."""
    by_seed = np.einsum("tsp,dp->dts", values, prompt_weights, optimize=True)
    return np.einsum("dts,ds->dt", by_seed, seed_weights)


def widened_tail(coverage: float, size: int) -> float:
    """The share of draws beyond each end of an interval, less than half of what it leaves out where `size` is small.

        Phi(-sqrt(n / (n - 1)) * t),   t the quantile of Student's distribution with n - 1 degrees of freedom

    The bootstrap takes the spread of n values for that of all there could be, too small by sqrt((n - 1) / n), and a normal
    distribution for Student's.

    Source: Hesterberg, What teachers should know about the bootstrap, https://arxiv.org/abs/1411.5279, section 5.3 (the
    expanded percentile interval).
    """
    from scipy import special  # Loaded where it is needed: scipy takes half a second.

    quantile = special.stdtrit(size - 1, (1 + coverage) / 2)
    return float(special.ndtr(-np.sqrt(size / (size - 1)) * quantile))


def percentile_interval(
    sample: Float[np.ndarray, " draws"], coverage: float, size: int
) -> tuple[float, float]:
    """The central part of a sample of draws, widened for `size` prompts; an undefined draw lies beyond both ends.

    Args:
        sample: NaN where a draw is undefined.
        coverage: of the interval, between 0 and 1.
        size: how many prompts the statistic rests on, at least 2.

    Returns:
        The lower and the upper end, infinite where more draws are undefined than lie beyond an end.
    """
    tail = widened_tail(coverage, size)
    known = np.isfinite(sample)
    low = np.quantile(np.where(known, sample, -np.inf), tail, method="lower")
    high = np.quantile(np.where(known, sample, np.inf), 1 - tail, method="higher")
    return float(low), float(high)


def interval_of(
    value: float | None, sample: Float[np.ndarray, " draws"], evidence: Evidence, coverage: float = 0.95
) -> Ends:
    """The interval of a statistic by its draws; none where the evidence is too small or the interval cannot hold.

    Args:
        value: of the data; None where it is undefined.
        sample: of the draws, NaN where one is undefined: such draws count as beyond both ends.
        evidence: what the statistic rests on.
        coverage: of the interval.

    Returns:
        Both ends, or None for both: too few prompts or events, more undefined draws than lie beyond an end, or a value
        outside of its own interval.
    """
    if value is None or evidence.too_few:
        return None, None
    low, high = percentile_interval(sample, coverage, evidence.events)
    slack = 1e-6 * max(1.0, abs(value))  # Ranks are taken in float32.
    if not (np.isfinite([low, high]).all() and low - slack <= value <= high + slack):
        return None, None
    return low, high


def seed_mean(
    values: Float[np.ndarray, "draws seeds *rest"], weights: Float[np.ndarray, "draws seeds"]
) -> Float[np.ndarray, "draws *rest"]:
    """The weighted mean over the seeds of each draw; NaN where the value of one that was drawn is undefined."""
    shaped = weights.reshape(*weights.shape, *[1] * (values.ndim - 2))
    return np.sum(np.where(shaped > 0, values, 0) * shaped, axis=1)
