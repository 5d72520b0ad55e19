"""Rank correlations of each seed and of each bootstrap draw over prompts and seeds, with the evidence behind them."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, Num

from lmirl_jax.statistics.bootstrap import resampling_weights, seed_mean
from lmirl_jax.statistics.evidence import Evidence, event_prompts
from lmirl_jax.statistics.rank_correlation import (
    POOLED,
    AnswerTable,
    kendall,
    kendall_by_prompt,
    spearman,
    spearman_by_prompt,
)
from lmirl_jax.statistics.resampled_ranks import MOST_PAIRED, resampled_kendall, resampled_spearman

BY_PROMPT = {"spearman": spearman_by_prompt, "kendall": kendall_by_prompt}


@dataclasses.dataclass(frozen=True)
class CorrelationSample:
    """The correlations of every measure with every metric.

    Args:
        by_seed: the correlation in each seed; NaN where it is undefined.
        by_draw: the mean over seeds in each bootstrap draw; NaN where it is undefined.
        answers: the number of answers behind each correlation, in all seeds together.
        prompts: the number of prompts behind each correlation, in all seeds together.
        left_out: the number of prompts that were left out, because their own correlation is undefined.
        evidence: the evidence for each measure and metric.
    """

    by_seed: Float[np.ndarray, "seeds measures metrics"]
    by_draw: Float[np.ndarray, "draws measures metrics"]
    answers: Int[np.ndarray, "measures metrics"]
    prompts: Int[np.ndarray, "measures metrics"]
    left_out: Int[np.ndarray, "measures metrics"]
    evidence: Sequence[Sequence[Evidence]]


def correlation_sample(
    tables: Sequence[AnswerTable],
    measures: Sequence[str],
    metrics: Sequence[str],
    which: tuple[str, str],
    seed: int,
    draws: int,
) -> CorrelationSample:
    """The correlations of every measure with every metric.

    Args:
        tables: a table for each seed.
        measures: names of variables in the tables.
        metrics: names of variables in the tables.
        which: the kind ("spearman" or "kendall") and the scope ("pooled" or "within prompt").
        seed: the seed of the bootstrap.
        draws: the number of draws of the bootstrap.
    """
    kind, scope = which
    return (_pooled_sample if scope == POOLED else _within_prompt_sample)(
        tables, measures, metrics, kind, seed, draws
    )


def _within_prompt_sample(
    tables: Sequence[AnswerTable],
    measures: Sequence[str],
    metrics: Sequence[str],
    kind: str,
    seed: int,
    draws: int,
) -> CorrelationSample:
    """The mean over prompts of the correlation within each prompt, for each seed and for each draw."""
    by_prompt = np.stack([
        BY_PROMPT[kind](t.rows(measures), t.rows(metrics), t.prompts, t.prompt_count) for t in tables
    ])  # fmt: skip
    counts = np.stack([table.counts for table in tables])
    defined = np.isfinite(by_prompt)
    values, counts_used = np.where(defined, by_prompt, 0.0), defined.sum(axis=-1)
    prompts, seeds = _weights(tables, seed, draws)
    by_draw = seed_mean(_ratio(values @ prompts.T, defined @ prompts.T).transpose(3, 0, 1, 2), seeds)
    by_seed, total = _ratio(values.sum(axis=-1), counts_used), counts_used.sum(axis=0)
    answers = np.einsum("smkp,sp->mk", defined.astype(int), counts)
    different, of = defined.any(axis=0).sum(axis=-1), int((counts > 0).any(axis=0).sum())
    evidence = [[Evidence(int(n), of, int(n), "the correlation") for n in row] for row in different]
    return CorrelationSample(by_seed, by_draw, answers, total, (counts > 0).sum() - total, evidence)


def _pooled_sample(
    tables: Sequence[AnswerTable],
    measures: Sequence[str],
    metrics: Sequence[str],
    kind: str,
    seed: int,
    draws: int,
) -> CorrelationSample:
    """The correlation over all answers, for each seed and for each draw."""
    correlate = {"spearman": spearman, "kendall": kendall}[kind]
    by_seed = np.array([
        [[_number(correlate(x, y)) for y in table.rows(metrics)] for x in table.rows(measures)] for table in tables
    ])  # fmt: skip
    prompts, seeds = _weights(tables, seed, draws)
    if kind == "kendall" and max(len(table.prompts) for table in tables) > MOST_PAIRED:
        by_draw = np.full((draws, len(measures), len(metrics)), np.nan)
    else:
        by_draw = seed_mean(
            np.stack([_resampled_correlations(t, measures, metrics, kind, prompts) for t in tables], axis=1),
            seeds,
        )
    shape = by_seed.shape[1:]
    answers, answered = (
        np.full(shape, sum(map(count, tables)))
        for count in (lambda table: len(table.prompts), lambda table: int((table.counts > 0).sum()))
    )
    evidence = [[pooled_evidence(tables, one, other) for other in metrics] for one in measures]
    return CorrelationSample(by_seed, by_draw, answers, answered, np.zeros_like(answered), evidence)


def pooled_evidence(tables: Sequence[AnswerTable], *names: str) -> Evidence:
    """The evidence for a statistic over all answers; its events are those of the variable that varies least."""
    answered = int((np.stack([table.counts for table in tables]) > 0).any(axis=0).sum())
    prompts = np.concatenate([table.prompts for table in tables])
    events, what = min(
        (len(event_prompts(np.concatenate([table.rows([name])[0] for table in tables]), prompts)), name)
        for name in names
    )
    return Evidence(answered, answered, events, f"`{what}`")


def _resampled_correlations(
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
