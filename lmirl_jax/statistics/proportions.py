"""Wilson intervals of shares: of independent cases, and of means over prompts of values between 0 and 1."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from lmirl_jax.statistics.bootstrap import Ends, bootstrap_interval


def share_interval(cases: Sequence[bool], coverage: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share of independent cases.

        all p with |share - p| <= z * sqrt(p (1 - p) / n)

    Unlike the bootstrap's, it is not a single point where all cases are true or all are false: after 10 of 10, the true share
    may well be 0.8.

    Args:
        cases: whether each case is true; at least one case.
        coverage: the coverage of the interval, between 0 and 1.

    Returns:
        The lower and the upper end.

    Source: Wilson, Probable inference, the law of succession, and statistical inference, JASA 22 (1927).
    """
    return wilson_interval(float(np.mean(np.asarray(cases, bool))), len(cases), coverage)


def mean_interval(values: Any, seed: int = 0, *, coverage: float = 0.95) -> Ends:
    """The interval of a mean over prompts, and over seeds where there are several: Wilson's for shares, else the bootstrap's.

    Values that all lie between 0 and 1 count as shares: for example right or wrong, the share of right samples, or pass@k.

    Args:
        values: one value for each prompt, `[prompts]` or `[seeds, prompts]`. With one seed the interval lacks the variation
            between training runs; with two or three it understates it.
        seed: the seed of the bootstrap.
        coverage: the coverage of the interval, between 0 and 1.

    Returns:
        The lower and the upper end; None for both where there is too little evidence. For shares that is only where all
        prompts have the same value, neither 0 nor 1.
    """
    table = np.atleast_2d(np.asarray(values, float))
    if not (table.min() >= 0 and table.max() <= 1):
        return bootstrap_interval(table, seed, coverage=coverage)
    size = effective_size(table, coverage)
    return (None, None) if np.isinf(size) else wilson_interval(float(table.mean()), size, coverage)


def wilson_interval(share: float, size: float, coverage: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a share of `size` independent cases; `size` may be a fraction."""
    from scipy import special

    z = float(special.ndtri((1 + coverage) / 2))
    # Rounding must not move the lower end of a share of 0, or the upper end of a share of 1.
    middle = (share + z * z / (2 * size)) / (1 + z * z / size)
    half = z * np.sqrt(share * (1 - share) / size + (z / (2 * size)) ** 2) / (1 + z * z / size)
    low = 0.0 if share <= 0 else max(0.0, middle - half)
    high = 1.0 if share >= 1 else min(1.0, middle + half)
    return float(low), float(high)


def effective_size(shares: Float[np.ndarray, "seeds prompts"], coverage: float = 0.95) -> float:
    """The number of independent cases that would vary as much as the mean of these shares does over prompts and seeds.

        n_eff = p (1 - p) / (variance over prompts + variance over seeds)

    The samples of one prompt are not independent cases: the variance between prompts tells how alike they are. Each prompt
    counts as at least one case, so that the size for values of 0 and 1 is the number of prompts. The variance is divided by
    the factor that it may be too small by: with m prompts that differ from the commonest value, it is estimated with
    m - 1 degrees of freedom (Student's distribution). Simulated
    (tests/statistics/test_coverage.py): 10 to 400 prompts of 1 to 16 samples, alike or not, shares from .0025 to .95: the
    interval covers .88 or more where less than one right answer is expected in all, and .90 or more else.

    Args:
        shares: the share of each seed and prompt, between 0 and 1.
        coverage: the coverage of the interval that needs the size.

    Returns:
        The number of cases; infinite where nothing varies and the mean is neither 0 nor 1.

    Source: Korn and Graubard, Confidence intervals for proportions with small expected number of positive counts estimated
    from survey data, Survey Methodology 24 (1998).
    """
    seeds, prompts = shares.shape
    prompt_means = shares.mean(axis=0)
    share = float(prompt_means.mean())
    # With few prompts that hold an event, the estimate of the variance is poor.
    events = min(int((prompt_means > 0).sum()), int((prompt_means < 1).sum()))
    over_prompts = float(prompt_means.var()) / prompts / _underestimation(events, coverage)
    over_seeds = float(shares.mean(axis=1).var(ddof=1)) / seeds if seeds > 1 else 0.0
    return _effective_size(share, min(over_prompts, share * (1 - share) / prompts) + over_seeds, prompts)


def bounded_interval(
    share: float, variance: float, prompts: int, coverage: float = 0.95
) -> tuple[float, float]:
    """Wilson's interval of a mean of numbers between 0 and 1 whose variance is given, for example by a bootstrap.

    Args:
        share: the mean.
        variance: the variance of the mean, over prompts and seeds; at 0 each prompt counts as one case.
        prompts: the number of prompts in the mean.
        coverage: the coverage of the interval, between 0 and 1.
    """
    if variance < 1e-15:
        return wilson_interval(share, prompts, coverage)
    return wilson_interval(
        share, _effective_size(share, variance / _underestimation(prompts, coverage), prompts), coverage
    )


def _effective_size(share: float, variance: float, prompts: int) -> float:
    most = share * (1 - share)
    if most < 1e-15:
        return float(prompts)
    return most / variance if variance > 1e-15 else np.inf


def _underestimation(count: int, coverage: float) -> float:
    """The factor by which a variance estimated from `count` values may be too small, when a normal quantile is used with it."""
    from scipy import special

    count = max(count, 2)
    z, t = special.ndtri((1 + coverage) / 2), special.stdtrit(count - 1, (1 + coverage) / 2)
    return float((count - 1) / count * (z / t) ** 2)
