"""Metrics of several samples of a prompt: pass@k, and the answer of the majority, maj@k, plain or weighted."""

import math
import operator
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from lmirl_jax.argument_rules import fits
from lmirl_jax.arguments import Count
from lmirl_jax.types import UserError

# Sums of weights that differ by less than this share of the largest one differ by rounding.
TIE = 1e-9


def pass_at_k(correct: Any, total: Any, k: int) -> float:
    """pass@k, 0 to 1: the chance that at least one of k samples is right, estimated from counts; the mean over prompts.

    The unbiased estimate: of all ways to choose k of a prompt's n samples, c of them right, the share that holds a right one,

        1 - C(n - c, k) / C(n, k).

    Args:
        correct: c, the number of right samples of a prompt; one number for all prompts, or one for each.
        total: n, the number of samples of a prompt; one number for all prompts, or one for each.
        k: 1 to n.

    Returns:
        The mean over prompts.

    Raises:
        UserError: no prompts, counts that are no whole numbers or do not fit each other, or k out of range.

    Source: Chen et al., https://arxiv.org/abs/2107.03374.
    """
    values = pass_at_k_per_prompt(correct, total, k)
    return sum(values) / len(values)


def pass_at_k_per_prompt(correct: Any, total: Any, k: int) -> list[float]:
    """pass@k of each prompt, 0 to 1; see `pass_at_k`, which is its mean."""
    rights, totals = _counts("correct", correct), _counts("total", total)
    count = len(rights) if np.ndim(correct) else len(totals)
    rights = rights * count if np.ndim(correct) == 0 else rights
    totals = totals * count if np.ndim(total) == 0 else totals
    if len(rights) != len(totals):
        raise UserError(
            f"pass@k: {len(rights)} counts of right samples for {len(totals)} prompts; give one for each"
        )
    if not rights:
        raise UserError("pass@k: there are no prompts; give counts for at least one")
    for i, (c, n) in enumerate(zip(rights, totals)):
        if not 0 <= c <= n:
            raise UserError(f"pass@k: prompt {i} has {c} right of {n} samples; give 0 to {n}")
        _check_k("pass@k", k, n, i)
    return [1 - math.comb(n - c, k) / math.comb(n, k) for c, n in zip(rights, totals)]


def maj_at_k(
    answers: Sequence[Sequence[Hashable]], targets: Sequence[Hashable], k: int | None = None
) -> float:
    """maj@k, 0 to 1: how often the answer that most of a prompt's first k samples give is right; the mean over prompts.

    A sample without an answer is None and has no vote; a prompt without votes counts as wrong. A tie counts as a random choice:
    a prompt whose right answer ties with two others counts 1/3.

    Args:
        answers: for each prompt its samples' answers, such as final numbers.
        targets: for each prompt the right answer.
        k: the number of samples that vote; None for all.

    Returns:
        The mean over prompts.

    Raises:
        UserError: no prompts, a prompt without samples or with fewer than k, or targets that differ in number.

    Source: Wang et al., https://arxiv.org/abs/2203.11171.
    """
    values = maj_at_k_per_prompt(answers, targets, k)
    return sum(values) / len(values)


def maj_at_k_per_prompt(
    answers: Sequence[Sequence[Hashable]], targets: Sequence[Hashable], k: int | None = None
) -> list[float]:
    """maj@k of each prompt, 0 to 1; see `maj_at_k`, which is its mean."""
    _check_answers("maj@k", answers, targets)
    if k is not None:
        for i, sample_answers in enumerate(answers):
            _check_k("maj@k", k, len(sample_answers), i)
    return [_share_right(sample_answers[:k], target) for sample_answers, target in zip(answers, targets)]


def weighted_maj_at_k(
    answers: Sequence[Sequence[Hashable]],
    targets: Sequence[Hashable],
    scores: Sequence[Sequence[float]],
    k: int | None = None,
) -> float:
    """Weighted maj@k, 0 to 1: the vote of each sample of a prompt has the weight exp(score).

    As in `maj_at_k`, None has no vote and a tie counts as a random choice. A constant added to all scores of a prompt changes
    nothing.

    Args:
        answers: for each prompt its samples' answers.
        targets: for each prompt the right answer.
        scores: for each prompt a number for each of its samples, such as its return or its log-likelihood, in nats; equal
            scores give `maj_at_k`.
        k: the number of samples that vote; None for all.

    Returns:
        The mean over prompts.

    Raises:
        UserError: as `maj_at_k`; or scores that are not one for each sample, or not finite.
    """
    values = weighted_maj_at_k_per_prompt(answers, targets, scores, k)
    return sum(values) / len(values)


def weighted_maj_at_k_per_prompt(
    answers: Sequence[Sequence[Hashable]],
    targets: Sequence[Hashable],
    scores: Sequence[Sequence[float]],
    k: int | None = None,
) -> list[float]:
    """The weighted maj@k of each prompt, 0 to 1; see `weighted_maj_at_k`, which is its mean."""
    _check_answers("weighted maj@k", answers, targets)
    for i, votes in enumerate(answers):
        values = scores[i] if i < len(scores) else []
        if len(values) != len(votes) or not np.isfinite(values).all():
            raise UserError(
                f"weighted maj@k: prompt {i} has {len(votes)} samples and the scores {list(values)}; give each a finite number"
            )
        if k is not None:
            _check_k("weighted maj@k", k, len(votes), i)
    return [
        _share_right(votes[:k], target, values[:k])
        for votes, target, values in zip(answers, targets, scores, strict=True)
    ]


def votes(
    answers: Sequence[Sequence[Hashable]],
    targets: Sequence[Hashable],
    scores: Mapping[str, Sequence[Sequence[float]]] | None = None,
) -> dict[str, float]:
    """pass@n and maj@n of n samples for each prompt, as a SeqIO metric function of samples returns them.

    Args:
        answers: for each prompt its samples' answers; None for a sample without one.
        targets: for each prompt the right answer.
        scores: the scores of `weighted_maj_at_k`, by name; `aux_values["scores"]` of a SeqIO metric function.

    Returns:
        `pass_at_N` and `maj_at_N`, 0 to 1, where N is the number of samples, and `weighted_maj_at_N_by_NAME` for each of the
        scores; nothing where a prompt has one sample only.

    Raises:
        UserError: no prompts, a prompt without samples, or scores that do not fit.
    """
    _check_answers("votes", answers, targets)
    n = min(map(len, answers))
    if n < 2:
        return {}
    rights = [
        sum(_is_right(answer, target) for answer in sample_answers)
        for sample_answers, target in zip(answers, targets)
    ]
    weighted = {
        f"weighted_maj_at_{n}_by_{name}": weighted_maj_at_k(answers, targets, score_values, n)
        for name, score_values in (scores or {}).items()
    }
    return {
        f"pass_at_{n}": pass_at_k(rights, list(map(len, answers)), n),
        f"maj_at_{n}": maj_at_k(answers, targets, n),
        **weighted,
    }


def majority(answers: Sequence[Hashable], scores: Sequence[float] | None = None) -> Hashable:
    """The answer that most of one prompt's samples give, or whose samples' exp(score) add up to the most.

    Args:
        answers: the answers of the samples; None for a sample without one, which has no vote.
        scores: a finite number for each sample, in nats; None for one vote each.

    Returns:
        The answer; the first of several that tie, and None where no sample has an answer.
    """
    return next(iter(_winners(answers, scores)), None)


def _share_right(
    sample_answers: Sequence[Hashable], target: Hashable, scores: Sequence[float] | None = None
) -> float:
    winners = _winners(sample_answers, scores)
    return sum(_is_right(answer, target) for answer in winners) / max(len(winners), 1)


def _winners(sample_answers: Sequence[Hashable], scores: Sequence[float] | None) -> list[Hashable]:
    """The answers with the most votes, in the order of their first samples."""
    voters = [i for i, answer in enumerate(sample_answers) if answer is not None]
    # Less the largest score, so that at least one weight is 1, however small the likelihoods are.
    largest = max((scores[i] for i in voters), default=0.0) if scores is not None else 0.0
    weights: dict[Hashable, list[float]] = {}
    for i in voters:
        weights.setdefault(sample_answers[i], []).append(
            1.0 if scores is None else math.exp(scores[i] - largest)
        )
    sums = {answer: math.fsum(votes) for answer, votes in weights.items()}
    top = max(sums.values(), default=0.0)
    return [answer for answer, votes in sums.items() if votes >= top * (1 - TIE)]


def _is_right(answer: Hashable, target: Hashable) -> bool:
    return answer is not None and answer == target


def _counts(name: str, values: Any) -> list[int]:
    try:
        return [operator.index(value) for value in (values if np.ndim(values) else [values])]
    except TypeError:
        raise UserError(f"pass@k: {name} is {values!r}; give whole numbers, one for each prompt") from None


def _check_k(metric: str, k: int, samples: int, prompt: int) -> None:
    if not fits(k, Count):
        raise UserError(f"{metric}: k is {k!r}; give a whole number of 1 or more")
    if k > samples:
        raise UserError(
            f"{metric}: k is {k}, but prompt {prompt} has {samples} sample(s); draw more or lower k"
        )


def _check_answers(metric: str, answers: Sequence[Sequence[Hashable]], targets: Sequence[Hashable]) -> None:
    if len(answers) != len(targets):
        raise UserError(
            f"{metric}: answers to {len(answers)} prompts for {len(targets)} targets; give one for each"
        )
    if not answers:
        raise UserError(f"{metric}: there are no prompts; give answers to at least one")
    for i, sample_answers in enumerate(answers):
        if not len(sample_answers):
            raise UserError(f"{metric}: prompt {i} has no samples; draw at least one")
