"""Intervals of shares: how many of a number of cases are so, and means of shares that are counted prompt by prompt."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from lmirl_jax.statistics.bootstrap import Ends, bootstrap_interval


def share_interval(cases: Sequence[bool], coverage: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share of independent cases.

        all p with |share - p| <= z * sqrt(p (1 - p) / n)

    Where all cases are alike, or none, it is no single point as the bootstrap's is: 10 of 10 may well be 8 of 10 in truth.

    Args:
        cases: whether each is so; at least one.
        coverage: of the interval, between 0 and 1.

    Returns:
        The lower and the upper end.

    Source: Wilson, Probable inference, the law of succession, and statistical inference, JASA 22 (1927).
    """
    return wilson_interval(float(np.mean(np.asarray(cases, bool))), len(cases), coverage)


def mean_interval(values: Any, seed: int = 0, *, coverage: float = 0.95) -> Ends:
    """The interval of a mean over prompts, and over seeds where there are several: of shares Wilson's, else the bootstrap's.

    Values that all lie between 0 and 1 are shares: right or wrong, the share of a prompt's samples that are right, pass@k.

    Args:
        values: one a prompt, `[prompts]`, or `[seeds, prompts]`. With one seed the variation from one training run to the
            next is not in the interval, with two or three it is understated.
        seed: of the bootstrap.
        coverage: of the interval, between 0 and 1.

    Returns:
        The lower and the upper end; None for both where there is too little to say, which for shares is only where all
        prompts have one and the same value other than 0 and 1.
    """
    table = np.atleast_2d(np.asarray(values, float))
    if not (table.min() >= 0 and table.max() <= 1):
        return bootstrap_interval(table, seed, coverage=coverage)
    size = effective_size(table, coverage)
    return (None, None) if np.isinf(size) else wilson_interval(float(table.mean()), size, coverage)


def wilson_interval(share: float, size: float, coverage: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a share among `size` independent cases; the size need not be a whole number."""
    from scipy import special

    z = float(special.ndtri((1 + coverage) / 2))
    # A share of 0 has the lower end 0, and one of 1 the upper end 1: not 1e-17 beside them.
    middle = (share + z * z / (2 * size)) / (1 + z * z / size)
    half = z * np.sqrt(share * (1 - share) / size + (z / (2 * size)) ** 2) / (1 + z * z / size)
    low = 0.0 if share <= 0 else max(0.0, middle - half)
    high = 1.0 if share >= 1 else min(1.0, middle + half)
    return float(low), float(high)


def effective_size(shares: Float[np.ndarray, "seeds prompts"], coverage: float = 0.95) -> float:
    """How many independent cases would vary as much as the mean of these shares does over prompts, and over seeds.

        n_eff = p (1 - p) / (variance over prompts + variance over seeds)

    A prompt's samples are no independent cases: how alike they are is read off the prompts. No prompt is worth less than one
    case, so right or wrong alone gives the number of prompts. The variance is divided by what it may be too small by, as few
    prompts leave the commonest value: m of them count as m - 1 degrees of freedom of Student's distribution. Simulated
    (tests/statistics/test_coverage.py): 10 to 400 prompts of 1 to 16 samples, alike or not, shares from .0025 to .95: the
    interval covers .88 or more where less than one right answer is expected in all, and .90 or more else.

    Args:
        shares: of each seed and prompt, between 0 and 1.
        coverage: of the interval that it is for.

    Returns:
        The number; infinite where nothing varies and the mean is neither 0 nor 1.

    Source: Korn and Graubard, Confidence intervals for proportions with small expected number of positive counts estimated
    from survey data, Survey Methodology 24 (1998).
    """
    seeds, prompts = shares.shape
    of_prompts = shares.mean(axis=0)
    share = float(of_prompts.mean())
    # Prompts that hold an event: where few do, the variance is hardly known.
    known = min(int((of_prompts > 0).sum()), int((of_prompts < 1).sum()))
    over_prompts = float(of_prompts.var()) / prompts / _doubt(known, coverage)
    over_seeds = float(shares.mean(axis=1).var(ddof=1)) / seeds if seeds > 1 else 0.0
    return _size(share, min(over_prompts, share * (1 - share) / prompts) + over_seeds, prompts)


def bounded_interval(
    share: float, variance: float, prompts: int, coverage: float = 0.95
) -> tuple[float, float]:
    """Wilson's interval of a mean of numbers between 0 and 1 whose variance is known otherwise, by a bootstrap say.

    Args:
        share: the mean.
        variance: of the mean, over prompts and seeds; 0 where all prompts have the same number: each is then one case.
        prompts: over which it is.
        coverage: of the interval, between 0 and 1.
    """
    if variance < 1e-15:
        return wilson_interval(share, prompts, coverage)
    return wilson_interval(share, _size(share, variance / _doubt(prompts, coverage), prompts), coverage)


def _size(share: float, variance: float, prompts: int) -> float:
    most = share * (1 - share)
    if most < 1e-15:
        return float(prompts)
    return most / variance if variance > 1e-15 else np.inf


def _doubt(known: int, coverage: float) -> float:
    """How much too small a variance may be that is read off so few values, with a normal's quantile for Student's."""
    from scipy import special

    known = max(known, 2)
    z, t = special.ndtri((1 + coverage) / 2), special.stdtrit(known - 1, (1 + coverage) / 2)
    return float((known - 1) / known * (z / t) ** 2)
