"""The findings on rewards from scored answers, as plain numbers; they are all that the page of `lmirl report` is made of."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lmirl_jax.rewards.corruption_effects import CorruptionEffect
from lmirl_jax.rewards.scored import ScoredAnswer
from lmirl_jax.statistics.correlation_samples import correlation_sample
from lmirl_jax.statistics.correlation_split import correlation_split
from lmirl_jax.statistics.correlations import correlations, difference
from lmirl_jax.statistics.length_bins import length_bins
from lmirl_jax.statistics.permutation_tests import DRAWS
from lmirl_jax.statistics.rank_correlation import POOLED, WITHIN, AnswerTable, pooled_ranks
from lmirl_jax.types import UserError

MEASURES = ("return", "normalised return", "log-likelihood", "v_0", "tokens")
PARTS = ("log-likelihood", "v_0", "rest")
# Decimals that float32 can be trusted for: after rounding, answers with equal text tie.
DIGITS = 5
TENTHS = 10

Runs = Mapping[str, Sequence[Sequence[ScoredAnswer]]]


def trust_findings(
    scored: Runs,
    corruptions: Mapping[str, Sequence[CorruptionEffect]] | None = None,
    *,
    metric: str | None = None,
    seed: int = 0,
    draws: int = DRAWS,
) -> dict[str, Any]:
    """Every number of the report, ready for JSON; a number that is undefined is None.

    Args:
        scored: the scored answers of each seed of each run. Answers with the same `example` have the same prompt.
        corruptions: the effects of corruptions for each run.
        metric: the metric of the verdict; None for the first one.
        seed: the seed of the bootstrap and of the permutations.
        draws: the number of draws of the bootstrap, and of permutations.

    Returns:
        `metric`, `metrics`, and `runs`. Each run has `run`, the numbers of seeds, prompts and answers, `correlations` (rows of a
        tidy table), `differences` (from the first run), `split`, `lengths`, `tenths` and `corruptions`.

    Raises:
        UserError: no answers, or a metric that no run has.
    """
    for label, seeds in scored.items():
        if not seeds or not all(len(answers) for answers in seeds):
            raise UserError(f"report: run {label!r} has no scored answers; score some first")
    if not scored:
        raise UserError("report: there are no runs; give the scored answers of one or more")
    metrics = list(dict.fromkeys(name for seeds in scored.values() for name in shared_metrics(seeds)))
    clashes = [name for name in metrics if name in (*MEASURES, "rest")]
    if clashes:
        raise UserError(
            f"report: a metric is called {clashes[0]!r}, as a measure of rewards is; give it another name"
        )
    if metric is not None and metric not in metrics:
        raise UserError(f"report: no run has a metric {metric!r}; there are {', '.join(metrics) or 'none'}")
    tables = {label: answer_tables(seeds) for label, seeds in scored.items()}
    options = {"seed": seed, "draws": draws}
    runs = [_run(label, seeds, tables[label], options) for label, seeds in scored.items()]
    first, *others = scored
    for run in runs:
        run["corruptions"] = [_plain(effect) for effect in (corruptions or {}).get(run["run"], ())]
        run["differences"] = []
        if run["run"] in others:
            run["differences"] = _differences(first, run["run"], scored, tables, options)
    return {"metric": metric or next(iter(metrics), None), "metrics": metrics, "runs": runs}


def shared_metrics(seeds: Sequence[Sequence[ScoredAnswer]]) -> list[str]:
    """The metrics that every answer of a run has."""
    every = [set(answer.metrics) for answers in seeds for answer in answers]
    return [name for name in seeds[0][0].metrics if all(name in names for names in every)]


def answer_tables(seeds: Sequence[Sequence[ScoredAnswer]]) -> list[AnswerTable]:
    """The measures and metrics of the answers of each seed; a prompt has the same number in all tables.

    All answers to a prompt get the same `v_0`, the mean: float32 may compute it slightly differently in different batches.
    `rest` is the return less log-likelihood and v_0.
    """
    metrics = shared_metrics(seeds)
    examples = sorted({answer.example for answers in seeds for answer in answers})
    tables = []
    for answers in seeds:
        in_order = sorted(answers, key=lambda answer: (answer.example, answer.candidate))
        prompts = np.searchsorted(examples, [answer.example for answer in in_order])
        columns = np.array([
            [a.total, a.normalised_return, a.log_likelihood, a.v_0, len(a.tokens), *(a.metrics[m] for m in metrics)]
            for a in in_order
        ]).T  # fmt: skip
        counts = np.bincount(prompts, minlength=len(examples))
        columns[3] = (np.bincount(prompts, columns[3], len(examples)) / np.maximum(counts, 1))[prompts]
        values = np.round(np.concatenate([columns, columns[:1] - columns[2:3] - columns[3:4]]), DIGITS)
        tables.append(AnswerTable((*MEASURES, *metrics, "rest"), values, prompts, len(examples)))
    return tables


def correlation_rows(findings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The correlations of all runs as rows of one tidy table, for a CSV file."""
    return [{"run": run["run"], **row} for run in findings["runs"] for row in run["correlations"]]


def _run(
    label: str,
    seeds: Sequence[Sequence[ScoredAnswer]],
    tables: Sequence[AnswerTable],
    options: Mapping[str, int],
) -> dict[str, Any]:
    answers = [answer for seed_answers in seeds for answer in seed_answers]
    per_prompt = np.concatenate([table.counts[table.counts > 0] for table in tables])
    metrics = shared_metrics(seeds)
    rest = np.concatenate([table.rows(["rest"])[0] for table in tables])
    has_rest = bool(np.abs(rest).max() > 1e-3)
    measures = [*MEASURES, "rest"] if has_rest else list(MEASURES)
    return {
        "run": label,
        "seeds": len(seeds),
        "answers": len(answers),
        "prompts": tables[0].prompt_count,
        "answers_per_prompt": [int(per_prompt.min()), int(per_prompt.max())],
        "truncated": sum(answer.truncated for answer in answers),
        "telescopes": _telescopes(answers),
        "correlations": [
            dataclasses.asdict(row)
            for row in correlations(tables, measures, [*metrics, "tokens"], **options)
            if row.measure != row.metric
        ],
        "split": {name: _split(tables, name, has_rest, options) for name in metrics},
        "lengths": _lengths(tables, metrics),
        "tenths": {name: _tenths(tables, name) for name in metrics},
    }


def _telescopes(answers: Sequence[ScoredAnswer]) -> bool:
    """Whether the return of every complete answer is its log-likelihood plus the value of the prompt, as at gamma 1."""
    return all(
        abs(a.total - a.log_likelihood - a.v_0) < 1e-3 * (1 + abs(a.total))
        for a in answers
        if not a.truncated
    )


def _split(
    tables: Sequence[AnswerTable], metric: str, has_rest: bool, options: Mapping[str, int]
) -> list[dict[str, Any]]:
    parts = PARTS if has_rest else PARTS[:2]
    return [dataclasses.asdict(share) for share in correlation_split(tables, parts, metric, **options)]


def _lengths(tables: Sequence[AnswerTable], metrics: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """The bins of length by metric; under "" where there is no metric."""
    columns = {name: np.concatenate([table.rows([name])[0] for table in tables]) for name in tables[0].names}
    prompts = np.concatenate([table.prompts for table in tables])
    by_metric = {}
    for name in metrics or [""]:
        metric = columns[name] if name else np.zeros_like(columns["tokens"])
        bins = length_bins(columns["tokens"], columns["return"], metric, prompts=prompts)
        per_token = length_bins(columns["tokens"], columns["normalised return"], metric)
        by_metric[name] = [
            {
                **dataclasses.asdict(of_return),
                "per_token": of_normalised.measure,
                "metric": of_return.metric if name else None,
            }
            for of_return, of_normalised in zip(bins, per_token, strict=True)
        ]
    return by_metric


def _tenths(tables: Sequence[AnswerTable], metric: str) -> list[dict[str, Any]]:
    """The mean metric of answers in tenths by return, lowest first; each seed is ranked separately."""
    places, values = [], []
    for table in tables:
        ranks = pooled_ranks(table.rows(["return"]))[0]
        order = np.searchsorted(np.sort(ranks), ranks, side="left") + np.searchsorted(
            np.sort(ranks), ranks, side="right"
        )
        places.append(order * TENTHS // (2 * len(ranks)))
        values.append(table.rows([metric])[0])
    place, value = np.minimum(np.concatenate(places), TENTHS - 1), np.concatenate(values)
    return [
        {"tenth": i, "answers": int((place == i).sum()), "mean": float(value[place == i].mean())}
        for i in np.unique(place).tolist()
    ]


def _differences(
    baseline: str,
    label: str,
    scored: Runs,
    tables: Mapping[str, Sequence[AnswerTable]],
    options: Mapping[str, int],
) -> list[dict[str, Any]]:
    """The differences of two runs in the correlation of return and metric, for each metric that both have."""
    first, run = tables[baseline], tables[label]
    prompts = [_texts(scored[name], "inputs") for name in (baseline, label)]
    answers = [_texts(scored[name], "targets") for name in (baseline, label)]
    same = {"paired": prompts[0] == prompts[1], "same_answers": answers[0] == answers[1]}
    metrics = [name for name in run[0].names if name in first[0].names and name not in (*MEASURES, "rest")]
    rows = []
    for metric in metrics:
        for scope in (POOLED, WITHIN):
            value, low, high = difference(
                first, run, "return", metric, scope, paired=same["paired"], **options
            )
            row = {
                "baseline": baseline,
                "metric": metric,
                "scope": scope,
                "value": value,
                "low": low,
                "high": high,
            }
            counts = [_too_few(one, metric, scope) for one in (first, run)]
            rows.append(row | same | {"too_few": next(filter(None, counts), None)})
    return rows


def _too_few(tables: Sequence[AnswerTable], metric: str, scope: str) -> str | None:
    sample = correlation_sample(tables, ["return"], [metric], ("spearman", scope), 0, 1)
    return sample.evidence[0][0].too_few


def _texts(seeds: Sequence[Sequence[ScoredAnswer]], what: str) -> set[tuple[int, str]]:
    return {(answer.example, getattr(answer, what)) for answers in seeds for answer in answers}


def _plain(effect: CorruptionEffect) -> dict[str, Any]:
    row = {field.name: getattr(effect, field.name) for field in dataclasses.fields(effect)}
    del row["examples"]
    return {name: list(value) if isinstance(value, tuple) else value for name, value in row.items()}
