"""The draws of rank correlations under the bootstrap over prompts and seeds, with what they rest on."""

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
    """Of every measure with every metric: each seed's value, the mean in each draw, and what these rest on."""

    by_seed: Float[np.ndarray, "seeds measures metrics"]
    drawn: Float[np.ndarray, "draws measures metrics"]
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
    """The correlations of every measure with every metric, of the kind and in the scope that `which` names."""
    kind, scope = which
    return (_pooled if scope == POOLED else _within)(tables, measures, metrics, kind, seed, draws)


def _within(
    tables: Sequence[AnswerTable],
    measures: Sequence[str],
    metrics: Sequence[str],
    kind: str,
    seed: int,
    draws: int,
) -> CorrelationSample:
    """By seed and by draw, the mean over prompts of each prompt's own correlation; how many there are, and are not."""
    own = np.stack([
        BY_PROMPT[kind](t.rows(measures), t.rows(metrics), t.prompts, t.prompt_count) for t in tables
    ])  # fmt: skip
    counts = np.stack([table.counts for table in tables])
    known = np.isfinite(own)
    filled, used = np.where(known, own, 0.0), known.sum(axis=-1)
    prompts, seeds = _weights(tables, seed, draws)
    drawn = seed_mean(_ratio(filled @ prompts.T, known @ prompts.T).transpose(3, 0, 1, 2), seeds)
    by_seed, total = _ratio(filled.sum(axis=-1), used), used.sum(axis=0)
    answers = np.einsum("smkp,sp->mk", known.astype(int), counts)
    different, of = known.any(axis=0).sum(axis=-1), int((counts > 0).any(axis=0).sum())
    evidence = [[Evidence(int(n), of, int(n), "the correlation") for n in row] for row in different]
    return CorrelationSample(by_seed, drawn, answers, total, (counts > 0).sum() - total, evidence)


def _pooled(
    tables: Sequence[AnswerTable],
    measures: Sequence[str],
    metrics: Sequence[str],
    kind: str,
    seed: int,
    draws: int,
) -> CorrelationSample:
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
    shape = by_seed.shape[1:]
    answers, answered = (
        np.full(shape, sum(map(count, tables)))
        for count in (lambda table: len(table.prompts), lambda table: int((table.counts > 0).sum()))
    )
    evidence = [[pooled_evidence(tables, one, other) for other in metrics] for one in measures]
    return CorrelationSample(by_seed, drawn, answers, answered, np.zeros_like(answered), evidence)


def pooled_evidence(tables: Sequence[AnswerTable], *names: str) -> Evidence:
    """The prompts that were answered, and those in which the variable that varies least is other than its commonest value."""
    answered = int((np.stack([table.counts for table in tables]) > 0).any(axis=0).sum())
    prompts = np.concatenate([table.prompts for table in tables])
    events, what = min(
        (len(event_prompts(np.concatenate([table.rows([name])[0] for table in tables]), prompts)), name)
        for name in names
    )
    return Evidence(answered, answered, events, f"`{what}`")


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
