"""How measures of answers go with their metrics: rank correlations with intervals and p-values, pooled and within prompt."""

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
    """A rank correlation of a measure with a metric, the mean over seeds where there are several.

    Args:
        measure: one side.
        metric: the other.
        scope: "pooled" over all answers, or "within prompt": the mean over prompts of each prompt's own.
        kind: "spearman", or "kendall" for tau-b.
        value: None where it is undefined, as either side is constant.
        low: of the 95% interval, by bootstrap over prompts and seeds; None where `too_few` says why, or where more draws are
            undefined than lie beyond its ends.
        high: of the interval.
        p_value: of a permutation test of Spearman's; None for Kendall's.
        answers: how many answers it is taken over, in all seeds together.
        prompts: to how many prompts, in all seeds together.
        left_out: how many more were left out of the mean, as one side is constant within them.
        seeds: over how many seeds the mean is; in the others it is undefined.
        undefined_draws: in how many draws of the bootstrap it is undefined: these count as beyond both ends.
        draws: of the bootstrap.
        too_few: why nothing is concluded from it, with the numbers (`statistics.evidence`); None where there is enough.
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

    The bootstrap draws whole prompts, the same ones in every seed, and seeds. Two null hypotheses are tested, two-sided, the
    data itself counted as one draw. Within prompt: among the answers to a prompt the metric does not depend on the measure;
    metrics change places within each prompt. Pooled: neither does it between prompts; prompts of as many answers change
    places too, each with all its metrics, see `permutation_tests`.

    Args:
        tables: one a seed; they number the same prompts alike.
        measures: names of variables in the tables.
        metrics: names of variables in the tables.
        seed: of bootstrap and permutations.
        draws: of the bootstrap, and of the permutations.

    Returns:
        For each metric and measure four correlations.
    """
    tests = permutation_tests(tables, measures, metrics, seed=seed, draws=draws)
    found = {}
    for kind in BY_PROMPT:
        for scope in (POOLED, WITHIN):
            found[kind, scope] = correlation_sample(tables, measures, metrics, (kind, scope), seed, draws)
    return [
        _correlation(found[kind, scope], tests[scope], (i, j), (measure, metric, scope, kind))
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
        baseline: its tables, one a seed.
        run: its tables.
        measure: name of a variable.
        metric: name of a variable.
        scope: "pooled" or "within prompt".
        paired: whether both number the same prompts alike: then each draw takes the same prompts of both.
        seed: of the bootstrap.
        draws: of the bootstrap.

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
    evidence = min((s.evidence[0][0] for s in (first, second)), key=lambda own: (own.prompts, own.events))
    return value, *interval_of(value, (second.drawn - first.drawn)[:, 0, 0], evidence)


def _correlation(
    sample: CorrelationSample,
    p_values: Sequence[Sequence[float]],
    pair: tuple[int, int],
    names: tuple[str, str, str, str],
) -> Correlation:
    by_seed, drawn = sample.by_seed[:, *pair], sample.drawn[:, *pair]
    known = by_seed[np.isfinite(by_seed)]
    evidence = sample.evidence[pair[0]][pair[1]]
    value = float(known.mean()) if len(known) else None
    interval = _interval(names[2], value, drawn, evidence)
    p = p_values[pair[0]][pair[1]] if names[3] == "spearman" and len(known) else None
    counts = int(sample.answers[pair]), int(sample.prompts[pair]), int(sample.left_out[pair])
    undefined = int(np.isnan(drawn).sum()), len(drawn)
    return Correlation(*names, value, *interval, p, *counts, len(known), *undefined, evidence.too_few)


def _interval(
    scope: str, value: float | None, drawn: Float[np.ndarray, " draws"], evidence: Evidence
) -> Ends:
    """Of a correlation over all answers the draws' ends; of a mean over prompts Wilson's, between -1 and 1.

    Prompts with two answers have 1 or -1 each: where all have 1, all draws have, and yet it is not certain.
    """
    if scope == POOLED:
        return interval_of(value, drawn, evidence)
    if value is None or evidence.too_few or np.isnan(drawn).mean() > widened_tail(0.95, evidence.events):
        return None, None
    low, high = bounded_interval((value + 1) / 2, float(np.nanvar(drawn)) / 4, evidence.prompts)
    return 2 * low - 1, 2 * high - 1
