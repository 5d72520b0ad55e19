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
        values: one value for each prompt, `[prompts]` or `[seeds, prompts]`; seeds are resampled too. With one seed the
            interval lacks the variation between training runs; with two or three it understates it.
        seed: the seed of the resampling; equal seeds give equal intervals.
        coverage: the coverage of the interval, between 0 and 1.
        draws: the number of resamples.

    Returns:
        The lower and the upper end; None for both with fewer than 10 prompts, or where fewer than 8 prompts have a value
        other than the commonest (`statistics.evidence`).

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
    """The share that each of `count` items has of each draw with replacement; the shares of a draw sum to 1."""
    weights = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=draws) / count
    # The cache returns this very array to the next caller.
    weights.flags.writeable = False
    return weights


def resampled_means(
    values: Float[np.ndarray, "points seeds prompts"],
    prompt_weights: Float[np.ndarray, "draws prompts"],
    seed_weights: Float[np.ndarray, "draws seeds"],
) -> Float[np.ndarray, "draws points"]:
    """The means over seeds and prompts under the weights of each draw. Every point sees the same draws."""
    by_seed = np.einsum("tsp,dp->dts", values, prompt_weights, optimize=True)
    return np.einsum("dts,ds->dt", by_seed, seed_weights)


def widened_tail(coverage: float, size: int) -> float:
    """The share of draws beyond each end of an interval: half of `1 - coverage`, and less where `size` is small.

        Phi(-sqrt(n / (n - 1)) * t),   t the quantile of Student's distribution with n - 1 degrees of freedom

    The bootstrap underestimates the standard deviation by the factor sqrt((n - 1) / n), and it uses a normal distribution where
    Student's belongs. The smaller share corrects both.

    Source: Hesterberg, What teachers should know about the bootstrap, https://arxiv.org/abs/1411.5279, section 5.3 (the
    expanded percentile interval).
    """
    # The import is here, because loading scipy takes half a second.
    from scipy import special

    quantile = special.stdtrit(size - 1, (1 + coverage) / 2)
    return float(special.ndtr(-np.sqrt(size / (size - 1)) * quantile))


def percentile_interval(
    sample: Float[np.ndarray, " draws"], coverage: float, size: int
) -> tuple[float, float]:
    """The central part of a sample of draws, widened for `size` prompts. An undefined draw counts as beyond both ends.

    Args:
        sample: NaN where a draw is undefined.
        coverage: the coverage of the interval, between 0 and 1.
        size: the number of prompts behind the statistic, at least 2.

    Returns:
        The lower and the upper end, infinite where more draws are undefined than lie beyond an end.
    """
    tail = widened_tail(coverage, size)
    defined = np.isfinite(sample)
    low = np.quantile(np.where(defined, sample, -np.inf), tail, method="lower")
    high = np.quantile(np.where(defined, sample, np.inf), 1 - tail, method="higher")
    return float(low), float(high)


def interval_of(
    value: float | None, sample: Float[np.ndarray, " draws"], evidence: Evidence, coverage: float = 0.95
) -> Ends:
    """The bootstrap interval of a statistic; None where there is too little evidence, or where the interval makes no sense.

    Args:
        value: the statistic of the data; None where it is undefined.
        sample: the statistic of each draw; NaN where it is undefined, which counts as beyond both ends.
        evidence: the numbers of prompts and events behind the statistic.
        coverage: the coverage of the interval, between 0 and 1.

    Returns:
        Both ends, or None for both: too few prompts or events, more undefined draws than lie beyond an end, or a value
        outside of its own interval.
    """
    if value is None or evidence.too_few:
        return None, None
    low, high = percentile_interval(sample, coverage, evidence.events)
    # The draws are float32 where ranks are resampled, so that rounding may put the value just outside.
    slack = 1e-6 * max(1.0, abs(value))
    if not (np.isfinite([low, high]).all() and low - slack <= value <= high + slack):
        return None, None
    return low, high


def seed_mean(
    values: Float[np.ndarray, "draws seeds *rest"], weights: Float[np.ndarray, "draws seeds"]
) -> Float[np.ndarray, "draws *rest"]:
    """The weighted mean over the seeds of each draw; NaN where the value of a seed with a positive weight is NaN."""
    factors = weights.reshape(*weights.shape, *[1] * (values.ndim - 2))
    return np.sum(np.where(factors > 0, values, 0) * factors, axis=1)
