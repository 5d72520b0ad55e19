"""How measures of answers go with their metrics: rank correlations with intervals and p-values, pooled and within prompt."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, Num

from lmirl_jax.evaluation.bootstrap import interval_of, resampling_weights, seed_mean
from lmirl_jax.evaluation.permutation_tests import DRAWS, permutation_tests
from lmirl_jax.evaluation.rank_correlation import (
    POOLED,
    WITHIN,
    AnswerTable,
    kendall,
    kendall_by_prompt,
    spearman,
    spearman_by_prompt,
)
from lmirl_jax.evaluation.resampled_ranks import MOST_PAIRED, resampled_kendall, resampled_spearman

BY_PROMPT = {"spearman": spearman_by_prompt, "kendall": kendall_by_prompt}


@dataclasses.dataclass(frozen=True)
class Correlation:
    """A rank correlation of a measure with a metric, the mean over seeds where there are several.

    Args:
        measure: one side.
        metric: the other.
        scope: "pooled" over all answers, or "within prompt": the mean over prompts of each prompt's own.
        kind: "spearman", or "kendall" for tau-b.
        value: None where it is undefined, as either side is constant.
        low: of the 95% interval, by bootstrap over prompts and seeds; None with fewer than 10 prompts.
        high: of the interval.
        p_value: of a permutation test of Spearman's; None for Kendall's.
        prompts: how many prompts it is taken over, in all seeds together.
        left_out: how many more were left out of the mean, as one side is constant within them.
    """

    measure: str
    metric: str
    scope: str
    kind: str
    value: float | None
    low: float | None
    high: float | None
    p_value: float | None
    prompts: int
    left_out: int


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
            found[kind, scope] = _sample(tables, measures, metrics, (kind, scope), seed, draws)
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
    first = _sample(baseline, [measure], [metric], which, seed, draws)
    second = _sample(run, [measure], [metric], which, seed if paired else seed + 2, draws)
    values = [s.by_seed[np.isfinite(s.by_seed)] for s in (first, second)]
    if not all(map(len, values)):
        return None, None, None
    prompts = min(int(s.prompts[0, 0]) // len(s.by_seed) for s in (first, second))
    interval = interval_of((second.drawn - first.drawn)[:, 0, 0], prompts)
    return float(values[1].mean() - values[0].mean()), *interval


@dataclasses.dataclass(frozen=True)
class _Sample:
    """Of every measure with every metric: each seed's value, the mean in each draw, how many prompts these are over."""

    by_seed: Float[np.ndarray, "seeds measures metrics"]
    drawn: Float[np.ndarray, "draws measures metrics"]
    prompts: Int[np.ndarray, "measures metrics"]
    left_out: Int[np.ndarray, "measures metrics"]


def _correlation(
    sample: _Sample,
    p_values: Sequence[Sequence[float]],
    pair: tuple[int, int],
    names: tuple[str, str, str, str],
) -> Correlation:
    by_seed, prompts, left_out = (
        sample.by_seed[:, *pair],
        int(sample.prompts[pair]),
        int(sample.left_out[pair]),
    )
    known = by_seed[np.isfinite(by_seed)]
    if not len(known):
        return Correlation(*names, None, None, None, None, 0, left_out)
    p = p_values[pair[0]][pair[1]] if names[3] == "spearman" else None
    interval = interval_of(sample.drawn[:, *pair], prompts // len(by_seed))
    return Correlation(*names, float(known.mean()), *interval, p, prompts, left_out)


def _sample(
    tables: Sequence[AnswerTable],
    measures: Sequence[str],
    metrics: Sequence[str],
    which: tuple[str, str],
    seed: int,
    draws: int,
) -> _Sample:
    kind, scope = which
    return (_pooled if scope == POOLED else _within)(tables, measures, metrics, kind, seed, draws)


def _within(
    tables: Sequence[AnswerTable],
    measures: Sequence[str],
    metrics: Sequence[str],
    kind: str,
    seed: int,
    draws: int,
) -> _Sample:
    """By seed and by draw, the mean over prompts of each prompt's own correlation; how many there are, and are not."""
    own = np.stack([
        BY_PROMPT[kind](t.rows(measures), t.rows(metrics), t.prompts, t.prompt_count) for t in tables
    ])  # fmt: skip
    answered = np.stack([table.counts > 0 for table in tables])
    known = np.isfinite(own)
    filled, used = np.where(known, own, 0.0), known.sum(axis=-1)
    prompts, seeds = _weights(tables, seed, draws)
    drawn = seed_mean(_ratio(filled @ prompts.T, known @ prompts.T).transpose(3, 0, 1, 2), seeds)
    by_seed, total = _ratio(filled.sum(axis=-1), used), used.sum(axis=0)
    return _Sample(by_seed, drawn, total, answered.sum() - total)


def _pooled(
    tables: Sequence[AnswerTable],
    measures: Sequence[str],
    metrics: Sequence[str],
    kind: str,
    seed: int,
    draws: int,
) -> _Sample:
    """By seed and by draw, the correlation over all answers; how many prompts they belong to."""
    whole = {"spearman": spearman, "kendall": kendall}[kind]
    by_seed = np.array([
        [[_number(whole(x, y)) for y in table.rows(metrics)] for x in table.rows(measures)] for table in tables
    ])  # fmt: skip
    prompts, seeds = _weights(tables, seed, draws)
    if kind == "kendall" and max(len(table.prompts) for table in tables) > MOST_PAIRED:
        drawn = np.full((draws, len(measures), len(metrics)), np.nan)
    else:
        drawn = seed_mean(
            np.stack([_drawn(t, measures, metrics, kind, prompts) for t in tables], axis=1), seeds
        )
    answered = sum(int((table.counts > 0).sum()) for table in tables)
    used = np.full(by_seed.shape[1:], answered)
    return _Sample(by_seed, drawn, used, np.zeros_like(used))


def _drawn(
    table: AnswerTable,
    measures: Sequence[str],
    metrics: Sequence[str],
    kind: str,
    prompts: Float[np.ndarray, "draws prompts"],
) -> Float[np.ndarray, "draws measures metrics"]:
    m = len(measures)
    if kind == "kendall":
        return resampled_kendall(table.rows(measures), table.rows(metrics), table.prompts, prompts)
    every = resampled_spearman(table.rows([*measures, *metrics]), table.prompts, prompts)
    return every[:, :m, m:].astype(float)


def _weights(
    tables: Sequence[AnswerTable], seed: int, draws: int
) -> tuple[Float[np.ndarray, "draws prompts"], Float[np.ndarray, "draws seeds"]]:
    return (
        resampling_weights(tables[0].prompt_count, seed, draws),
        resampling_weights(len(tables), seed + 1, draws),
    )


def _ratio(above: Num[np.ndarray, "*shape"], below: Num[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)


def _number(value: float | None) -> float:
    return np.nan if value is None else value
