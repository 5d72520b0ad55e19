"""Rank correlations of measures of answers with their metrics: intervals and p-values, pooled and within prompt."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from lmirl_jax.statistics.bootstrap import Ends, interval_of, widened_tail
from lmirl_jax.statistics.correlation_samples import BY_PROMPT, CorrelationSample, correlation_sample
from lmirl_jax.statistics.evidence import Evidence
from lmirl_jax.statistics.permutation_tests import DRAWS, permutation_tests
from lmirl_jax.statistics.proportions import bounded_interval
from lmirl_jax.statistics.rank_correlation import POOLED, WITHIN, AnswerTable


@dataclasses.dataclass(frozen=True)
class Correlation:
    """The rank correlation of a measure with a metric; the mean over seeds where there are several.

    Args:
        measure: the name of one variable.
        metric: the name of the other variable.
        scope: "pooled" for all answers together, or "within prompt" for the mean over prompts of the correlation within each.
        kind: "spearman", or "kendall" for tau-b.
        value: the correlation; None where it is undefined, because either variable is constant.
        low: the lower end of the 95% bootstrap interval over prompts and seeds; None where `too_few` gives a reason, or where
            more draws are undefined than lie beyond an end.
        high: the upper end of the interval.
        p_value: the p-value of a permutation test of Spearman's correlation; None for Kendall's.
        answers: the number of answers, in all seeds together.
        prompts: the number of prompts that these answers belong to, in all seeds together.
        left_out: the number of prompts left out of the mean, because either variable is constant within them.
        seeds: the number of seeds in the mean; in the others the correlation is undefined.
        undefined_draws: the number of bootstrap draws in which it is undefined; these count as beyond both ends.
        draws: the number of draws of the bootstrap.
        too_few: why nothing is concluded from it, with the numbers (`statistics.evidence`); None where there is enough evidence.
    """

    measure: str
    metric: str
    scope: str
    kind: str
    value: float | None
    low: float | None
    high: float | None
    p_value: float | None
    answers: int
    prompts: int
    left_out: int
    seeds: int
    undefined_draws: int
    draws: int
    too_few: str | None


def correlations(
    tables: Sequence[AnswerTable],
    measures: Sequence[str],
    metrics: Sequence[str],
    *,
    seed: int = 0,
    draws: int = DRAWS,
) -> list[Correlation]:
    """Correlates every measure with every metric: Spearman's and Kendall's, pooled and within prompt.

    The bootstrap draws whole prompts, the same ones in every seed, and it draws seeds. The p-values of Spearman's correlations
    are those of `permutation_tests`.

    Args:
        tables: a table for each seed; a prompt has the same number in all of them.
        measures: names of variables in the tables.
        metrics: names of variables in the tables.
        seed: the seed of the bootstrap and of the permutations.
        draws: the number of draws of the bootstrap, and of permutations.

    Returns:
        Four correlations for each metric and measure.
    """
    tests = permutation_tests(tables, measures, metrics, seed=seed, draws=draws)
    samples = {}
    for kind in BY_PROMPT:
        for scope in (POOLED, WITHIN):
            samples[kind, scope] = correlation_sample(tables, measures, metrics, (kind, scope), seed, draws)
    return [
        _correlation(samples[kind, scope], tests[scope], (i, j), (measure, metric, scope, kind))
        for j, metric in enumerate(metrics)
        for i, measure in enumerate(measures)
        for kind in BY_PROMPT
        for scope in (POOLED, WITHIN)
    ]


def difference(
    baseline: Sequence[AnswerTable],
    run: Sequence[AnswerTable],
    measure: str,
    metric: str,
    scope: str,
    *,
    paired: bool,
    seed: int = 0,
    draws: int = DRAWS,
) -> tuple[float | None, float | None, float | None]:
    """Spearman's correlation of a run less a baseline's, with its 95% bootstrap interval; None where undefined.

    Args:
        baseline: the tables of the baseline, one for each seed.
        run: the tables of the run.
        measure: the name of a variable.
        metric: the name of a variable.
        scope: "pooled" or "within prompt".
        paired: whether a prompt has the same number in both; then each draw takes the same prompts of both.
        seed: the seed of the bootstrap.
        draws: the number of draws of the bootstrap.

    Returns:
        The difference and the ends of its interval.
    """
    which = ("spearman", scope)
    first = correlation_sample(baseline, [measure], [metric], which, seed, draws)
    second = correlation_sample(run, [measure], [metric], which, seed if paired else seed + 2, draws)
    values = [s.by_seed[np.isfinite(s.by_seed)] for s in (first, second)]
    if not all(map(len, values)):
        return None, None, None
    value = float(values[1].mean() - values[0].mean())
    evidence = min(
        (s.evidence[0][0] for s in (first, second)),
        key=lambda e: (e.prompts, e.events),
    )
    return value, *interval_of(value, (second.by_draw - first.by_draw)[:, 0, 0], evidence)


def _correlation(
    sample: CorrelationSample,
    p_values: Sequence[Sequence[float]],
    pair: tuple[int, int],
    names: tuple[str, str, str, str],
) -> Correlation:
    by_seed, by_draw = sample.by_seed[:, *pair], sample.by_draw[:, *pair]
    defined = by_seed[np.isfinite(by_seed)]
    evidence = sample.evidence[pair[0]][pair[1]]
    value = float(defined.mean()) if len(defined) else None
    interval = _interval(names[2], value, by_draw, evidence)
    p = p_values[pair[0]][pair[1]] if names[3] == "spearman" and len(defined) else None
    counts = int(sample.answers[pair]), int(sample.prompts[pair]), int(sample.left_out[pair])
    undefined = int(np.isnan(by_draw).sum()), len(by_draw)
    return Correlation(*names, value, *interval, p, *counts, len(defined), *undefined, evidence.too_few)


def _interval(
    scope: str, value: float | None, by_draw: Float[np.ndarray, " draws"], evidence: Evidence
) -> Ends:
    """The interval of a correlation: the bootstrap's for the pooled scope, Wilson's (from -1 to 1) for a mean over prompts.

    A prompt with two answers has a correlation of 1 or -1. Where all prompts have 1, so has every draw, and yet the mean is
    not certain: Wilson's interval shows that, the bootstrap's would not.
    """
    if scope == POOLED:
        return interval_of(value, by_draw, evidence)
    if value is None or evidence.too_few or np.isnan(by_draw).mean() > widened_tail(0.95, evidence.events):
        return None, None
    low, high = bounded_interval((value + 1) / 2, float(np.nanvar(by_draw)) / 4, evidence.prompts)
    return 2 * low - 1, 2 * high - 1
