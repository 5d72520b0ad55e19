"""Intervals of shares: how many of a number of cases are so."""

from collections.abc import Sequence


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
    from scipy import stats  # Half a second, which nothing else should wait for.

    test = stats.binomtest(sum(map(bool, cases)), len(cases))
    interval = test.proportion_ci(coverage, method="wilson")
    return float(interval.low), float(interval.high)
