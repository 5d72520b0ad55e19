"""Chooses the answers that show best where a reward and a task's metric agree and where they disagree."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from lmirl_jax.rewards.scored import ScoredAnswer
from lmirl_jax.statistics.rank_correlation import pooled_ranks, spearman


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two answers to one prompt: the one with the higher return and the one with the lower."""

    higher: ScoredAnswer
    lower: ScoredAnswer


@dataclasses.dataclass(frozen=True)
class RankedPrompt:
    """The distinct answers to a prompt, the highest return first, each with its count, and the correlation over the answers."""

    answers: tuple[tuple[ScoredAnswer, int], ...]
    correlation: float | None


def pairs(answers: Sequence[ScoredAnswer], metric: str, count: int, *, agreeing: bool) -> list[Pair]:
    """The clearest pairs of answers to one prompt that return and metric rank in the same order, or in opposite orders.

    The clearest pairs have the largest product of the differences in return and in metric. There is at most one pair a prompt.

    Args:
        answers: the answers to all prompts.
        metric: larger is better.
        count: the most pairs.
        agreeing: whether the answer with the higher return has the larger metric, or the smaller one.
    """
    candidates = []
    for prompt_answers in by_prompt(answers).values():
        returns, metrics = np.array(
            [[a.total for a in prompt_answers], [a.metrics[metric] for a in prompt_answers]]
        )
        gaps = (
            np.maximum(returns[:, None] - returns, 0) * (metrics[:, None] - metrics) * (1 if agreeing else -1)
        )
        first, second = np.unravel_index(np.argmax(gaps), gaps.shape)
        if gaps[first, second] > 0:
            candidates.append(
                (float(gaps[first, second]), Pair(prompt_answers[first], prompt_answers[second]))
            )
    return [pair for _, pair in sorted(candidates, key=lambda item: -item[0])[:count]]


def misjudged_answers(
    answers: Sequence[ScoredAnswer], metric: str, count: int, *, overrated: bool
) -> list[ScoredAnswer]:
    """The answers whose rank by return among all answers is farthest above their rank by metric, or below; one for each prompt.

    Args:
        answers: the answers to all prompts.
        metric: larger is better.
        count: the most answers.
        overrated: whether the rank by return is the higher one, or the rank by metric.
    """
    values = np.array([[a.total for a in answers], [a.metrics[metric] for a in answers]])
    ranks = pooled_ranks(values)
    if not ranks.any(axis=1).all():
        return []
    gaps = (ranks[0] - ranks[1]) * (1 if overrated else -1)
    by_example: dict[int, ScoredAnswer] = {}
    for place in np.argsort(-gaps, kind="stable"):
        if gaps[place] <= 0 or len(by_example) == count:
            break
        by_example.setdefault(answers[place].example, answers[place])
    return list(by_example.values())


def ranked_prompts(answers: Sequence[ScoredAnswer], metric: str | None, count: int) -> list[RankedPrompt]:
    """Prompts with ranked answers: those with the lowest, a middle and the highest correlation of return and metric.

    Where no prompt has a defined correlation, the result is the first prompts.
    """
    prompts = list(by_prompt(answers).values())
    correlated: list[tuple[float, list[ScoredAnswer]]] = []
    for candidates in prompts:
        correlation = _correlation(candidates, metric) if metric else None
        if correlation is not None:
            correlated.append((correlation, candidates))
    if not correlated:
        return [RankedPrompt(_rank(candidates), None) for candidates in prompts[:count]]
    correlated.sort(key=lambda item: item[0])
    places = np.unique(np.linspace(0, len(correlated) - 1, count).round().astype(int))
    return [
        RankedPrompt(_rank(candidates), correlation)
        for correlation, candidates in (correlated[i] for i in places)
    ]


def by_prompt(answers: Sequence[ScoredAnswer]) -> Mapping[int, list[ScoredAnswer]]:
    """The answers to each prompt."""
    by_example: dict[int, list[ScoredAnswer]] = {}
    for answer in answers:
        by_example.setdefault(answer.example, []).append(answer)
    return by_example


def _correlation(answers: Sequence[ScoredAnswer], metric: str) -> float | None:
    """Spearman's correlation of return and metric over these answers; None where either is constant."""
    returns = np.array([answer.total for answer in answers])
    return spearman(returns, np.array([answer.metrics[metric] for answer in answers]))


def _rank(answers: Sequence[ScoredAnswer]) -> tuple[tuple[ScoredAnswer, int], ...]:
    times: dict[str, int] = {}
    first: dict[str, ScoredAnswer] = {}
    for answer in answers:
        times[answer.targets] = times.get(answer.targets, 0) + 1
        first.setdefault(answer.targets, answer)
    ranked = sorted(first.values(), key=lambda answer: -answer.total)
    return tuple((answer, times[answer.targets]) for answer in ranked)
