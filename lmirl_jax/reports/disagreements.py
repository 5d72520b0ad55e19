"""Which answers show best where a reward and a task's metric agree and where they do not."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from lmirl_jax.rewards.scored import Scored
from lmirl_jax.statistics.rank_correlation import pooled_ranks, spearman


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two answers to one prompt: the one with the higher return and the one with the lower."""

    higher: Scored
    lower: Scored


@dataclasses.dataclass(frozen=True)
class Ranked:
    """A prompt's different answers, the highest return first, with how often each was given, and the prompt's correlation."""

    answers: tuple[tuple[Scored, int], ...]
    correlation: float | None


def pairs(answers: Sequence[Scored], metric: str, count: int, *, agreeing: bool) -> list[Pair]:
    """The clearest pairs of different answers to one prompt that return and metric put in the same order, or do not.

    Clearest: the difference in return times that in the metric is largest. One pair a prompt at most.

    Args:
        answers: of all prompts.
        metric: larger is better.
        count: at most so many pairs.
        agreeing: whether the higher return is to have the larger metric, or the smaller.
    """
    found = []
    for own in by_prompt(answers).values():
        returns, metrics = np.array([[a.total for a in own], [a.metrics[metric] for a in own]])
        gaps = (
            np.maximum(returns[:, None] - returns, 0) * (metrics[:, None] - metrics) * (1 if agreeing else -1)
        )
        first, second = np.unravel_index(np.argmax(gaps), gaps.shape)
        if gaps[first, second] > 0:
            found.append((float(gaps[first, second]), Pair(own[first], own[second])))
    return [pair for _, pair in sorted(found, key=lambda item: -item[0])[:count]]


def misjudged(answers: Sequence[Scored], metric: str, count: int, *, overrated: bool) -> list[Scored]:
    """The answers, of different prompts, whose rank by return among all is farthest above that by metric, or below.

    Args:
        answers: of all prompts.
        metric: larger is better.
        count: at most so many.
        overrated: whether the return is to be the higher one, or the metric.
    """
    values = np.array([[a.total for a in answers], [a.metrics[metric] for a in answers]])
    ranks = pooled_ranks(values)
    if not ranks.any(axis=1).all():
        return []
    gaps = (ranks[0] - ranks[1]) * (1 if overrated else -1)
    found: dict[int, Scored] = {}
    for place in np.argsort(-gaps, kind="stable"):
        if gaps[place] <= 0 or len(found) == count:
            break
        found.setdefault(answers[place].example, answers[place])
    return list(found.values())


def ranked_prompts(answers: Sequence[Scored], metric: str | None, count: int) -> list[Ranked]:
    """Prompts with their answers ranked: those where return and metric go together least, middling and most.

    Prompts of which nothing can be correlated come in the order of their numbers where there are no others.
    """
    prompts = list(by_prompt(answers).values())
    correlated: list[tuple[float, list[Scored]]] = []
    for candidates in prompts:
        correlation = _correlation(candidates, metric) if metric else None
        if correlation is not None:
            correlated.append((correlation, candidates))
    if not correlated:
        return [Ranked(_rank(candidates), None) for candidates in prompts[:count]]
    correlated.sort(key=lambda item: item[0])
    places = np.unique(np.linspace(0, len(correlated) - 1, count).round().astype(int))
    return [
        Ranked(_rank(candidates), correlation) for correlation, candidates in (correlated[i] for i in places)
    ]


def by_prompt(answers: Sequence[Scored]) -> Mapping[int, list[Scored]]:
    """The answers to each prompt."""
    found: dict[int, list[Scored]] = {}
    for answer in answers:
        found.setdefault(answer.example, []).append(answer)
    return found


def _correlation(answers: Sequence[Scored], metric: str) -> float | None:
    """Spearman's correlation of return and metric over these answers; None where either is constant."""
    returns = np.array([answer.total for answer in answers])
    return spearman(returns, np.array([answer.metrics[metric] for answer in answers]))


def _rank(answers: Sequence[Scored]) -> tuple[tuple[Scored, int], ...]:
    times: dict[str, int] = {}
    first: dict[str, Scored] = {}
    for answer in answers:
        times[answer.targets] = times.get(answer.targets, 0) + 1
        first.setdefault(answer.targets, answer)
    ranked = sorted(first.values(), key=lambda answer: -answer.total)
    return tuple((answer, times[answer.targets]) for answer in ranked)
