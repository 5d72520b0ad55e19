"""How measures of answers go with their metrics: rank correlations with intervals and p-values, pooled and within prompt."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Num

from lmirl_jax.evaluation.bootstrap import percentile_interval, resampling_weights
from lmirl_jax.evaluation.permutations import DRAWS, p_value, permutations
from lmirl_jax.evaluation.rank_correlation import (
    AnswerTable,
    kendall,
    kendall_by_prompt,
    pooled_ranks,
    ranks_within,
    spearman,
    spearman_by_prompt,
)
from lmirl_jax.evaluation.resampled_ranks import MOST_PAIRED, resampled_kendall, resampled_spearman

FEWEST_PROMPTS = 10  # With fewer a bootstrap says nothing of noise.
POOLED, WITHIN = "pooled", "within prompt"
BY_PROMPT = {"spearman": spearman_by_prompt, "kendall": kendall_by_prompt}

# Of every pair: the value of each seed, and of each draw of the bootstrap.
_Sample = tuple[Float[np.ndarray, "seeds measures metrics"], Float[np.ndarray, "draws measures metrics"]]


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
    places too, each with all its metrics, see `permutations`.

    Args:
        tables: one a seed; they number the same prompts alike.
        measures: names of variables in the tables.
        metrics: names of variables in the tables.
        seed: of bootstrap and permutations.
        draws: of the bootstrap, and of the permutations.

    Returns:
        For each metric and measure four correlations.
    """
    tests = _p_values(tables, measures, metrics, seed, draws)
    found = {}
    for kind in BY_PROMPT:
        found[kind, WITHIN] = _within(tables, measures, metrics, kind, seed, draws)
        found[kind, POOLED] = _pooled(tables, measures, metrics, kind, seed, draws)
    return [
        _correlation(tables, found[kind, scope], tests[scope], (i, j), (measure, metric, scope, kind))
        for j, metric in enumerate(metrics)
        for i, measure in enumerate(measures)
        for kind in BY_PROMPT
        for scope in (POOLED, WITHIN)
    ]


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


def _correlation(tables, sample, tests, pair: tuple[int, int], names: tuple[str, str, str, str]) -> Correlation:
    (by_seed, drawn, used, left_out), (i, j) = sample, pair
    known = by_seed[:, i, j][np.isfinite(by_seed[:, i, j])]
    if not len(known):
        return Correlation(*names, None, None, None, None, 0, int(left_out[i, j]))
    low, high = interval_of(drawn[:, i, j], min(int(used[i, j]), tables[0].prompt_count))
    p = tests[i][j] if names[3] == "spearman" else None
    return Correlation(*names, float(known.mean()), low, high, p, int(used[i, j]), int(left_out[i, j]))


def _within(tables, measures, metrics, kind: str, seed: int, draws: int):
    """By seed and by draw, the mean over prompts of each prompt's own correlation; how many there are, and are not."""
    own = np.stack([
        BY_PROMPT[kind](t.rows(measures), t.rows(metrics), t.prompts, t.prompt_count) for t in tables
    ])  # fmt: skip
    answered = np.stack([table.counts > 0 for table in tables])
    known = np.isfinite(own)
    filled, used = np.where(known, own, 0.0), known.sum(axis=-1)
    prompts, seeds = _weights(tables, seed, draws)
    drawn = seed_mean(_ratio(filled @ prompts.T, known @ prompts.T).transpose(3, 0, 1, 2), seeds)
    return _ratio(filled.sum(axis=-1), used), drawn, used.sum(axis=0), answered.sum() - used.sum(axis=0)


def _pooled(tables, measures, metrics, kind: str, seed: int, draws: int):
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
    return by_seed, drawn, used, np.zeros_like(used)


def _drawn(table: AnswerTable, measures, metrics, kind: str, prompts):
    m = len(measures)
    if kind == "kendall":
        return resampled_kendall(table.rows(measures), table.rows(metrics), table.prompts, prompts)
    every = resampled_spearman(table.rows([*measures, *metrics]), table.prompts, prompts)
    return every[:, :m, m:].astype(float)


def _weights(tables: Sequence[AnswerTable], seed: int, draws: int):
    return (
        resampling_weights(tables[0].prompt_count, seed, draws),
        resampling_weights(len(tables), seed + 1, draws),
    )


def _ratio(above: Num[np.ndarray, "*shape"], below: Num[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)


def _number(value: float | None) -> float:
    return np.nan if value is None else value


def _p_values(tables: Sequence[AnswerTable], measures, metrics, seed: int, draws: int):
    """By scope, measure and metric."""
    if not measures or not metrics:
        return {WITHIN: [], POOLED: []}
    sides = {
        WITHIN: [
            [ranks_within(t.rows(names), t.prompts, t.prompt_count) for names in (measures, metrics)]
            for t in tables
        ],
        POOLED: [[pooled_ranks(t.rows(names)) for names in (measures, metrics)] for t in tables],
    }
    drawn: dict[str, list] = {WITHIN: [], POOLED: []}
    for within, between in permutations(np.stack([t.counts for t in tables]), seed=seed, draws=draws):
        for scope, places in ((WITHIN, within), (POOLED, between)):
            drawn[scope].append(
                sum(x @ y[:, own].transpose(1, 2, 0) for (x, y), own in zip(sides[scope], places, strict=True))
            )
    result = {}
    for scope, parts in drawn.items():
        sample = np.concatenate(parts)
        observed = sum(x @ y.T for x, y in sides[scope])
        result[scope] = [
            [p_value(float(observed[i, j]), sample[:, i, j]) for j in range(len(metrics))]
            for i in range(len(measures))
        ]
    return result
