"""Bootstrap intervals of means over prompts, and over training seeds where there are several."""

import functools
from typing import Any

import numpy as np
from jaxtyping import Float

DRAWS = 2000
FEWEST_PROMPTS = 10  # With fewer a bootstrap says nothing of noise.


def bootstrap_interval(
    values: Any, seed: int = 0, *, coverage: float = 0.95, draws: int = DRAWS
) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean over prompts, and over seeds where there are several.

    Args:
        values: one a prompt, `[prompts]`, or `[seeds, prompts]`; seeds are resampled too. With one seed the variation from
            one training run to the next is not in the interval, with two or three it is understated.
        seed: of the resampling; equal seeds give equal intervals.
        coverage: of the interval, between 0 and 1.
        draws: how many times to resample.

    Returns:
        The lower and the upper end.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
    """
    table = np.atleast_2d(np.asarray(values, float))
    prompts, seeds = (
        resampling_weights(table.shape[1], seed, draws),
        resampling_weights(table.shape[0], seed + 1, draws),
    )
    return percentile_interval(resampled_means(table[None], prompts, seeds)[:, 0], coverage)


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


def percentile_interval(sample: Float[np.ndarray, " draws"], coverage: float) -> tuple[float, float]:
    """The central part of a sample that holds this share of it."""
    low, high = np.quantile(sample, [(1 - coverage) / 2, (1 + coverage) / 2])
    return float(low), float(high)


def interval_of(sample: Float[np.ndarray, " draws"], prompts: int) -> tuple[float | None, float | None]:
    """The 95% percentile interval of the draws in which a value is defined; none where these are few, or the prompts."""
    defined = sample[np.isfinite(sample)]
    if prompts < FEWEST_PROMPTS or 2 * len(defined) < len(sample):
        return None, None
    return percentile_interval(defined, 0.95)


def seed_mean(
    values: Float[np.ndarray, "draws seeds *rest"], weights: Float[np.ndarray, "draws seeds"]
) -> Float[np.ndarray, "draws *rest"]:
    """The weighted mean over the seeds in which a value is defined; NaN where it is in none that was drawn."""
    shaped = weights.reshape(*weights.shape, *[1] * (values.ndim - 2))
    known = np.isfinite(values)
    total = np.sum(shaped * np.where(known, values, 0), axis=1)
    weight = np.sum(shaped * known, axis=1)
    return np.divide(total, weight, out=np.full(total.shape, np.nan), where=weight > 0)
