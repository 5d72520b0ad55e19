"""How well scores of steps find the first wrong step of an answer, as a checker of steps knows it."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lmirl_jax.data.steps import split_steps
from lmirl_jax.labelled.pits import first_pit
from lmirl_jax.labelled.step_scorers import StepScore, score_steps
from lmirl_jax.rewards.scored import ScoredAnswer
from lmirl_jax.rewards.step_scores import OF_TOKENS, step_scores
from lmirl_jax.rewards.trust_findings import Runs
from lmirl_jax.statistics.auc import auc, auc_interval
from lmirl_jax.statistics.bootstrap import Ends
from lmirl_jax.statistics.proportions import mean_interval

Scores = Callable[[ScoredAnswer], Sequence[float]]


@dataclasses.dataclass(frozen=True)
class StepFinding:
    """How well one score of steps finds first wrong steps, in answers of two or more steps that have a wrong one.

    Args:
        run: the label of the run.
        scores: the name of the scores.
        prompts: the number of prompts with such answers.
        answers: the number of such answers.
        found: the share of answers whose lowest score is that of the first wrong step, as a mean over prompts.
        found_interval: its 95% interval; the answers to a prompt are no independent cases.
        by_chance: the share that a score without meaning would find.
        auc: the share of pairs of a right step and a first wrong one, of any answers, in which the right one scores higher.
        auc_interval: its 95% interval; None for both ends with fewer than 10 prompts.
    """

    run: str
    scores: str
    prompts: int
    answers: int
    found: float
    found_interval: Ends
    by_chance: float
    auc: float | None
    auc_interval: Ends


@dataclasses.dataclass(frozen=True)
class _Case:
    """An answer with a wrong step, and whether each of its steps is right."""

    answer: ScoredAnswer
    right: Sequence[bool]

    @property
    def first_wrong(self) -> int:
        return self.right.index(False)


def step_findings(
    scored: Runs, gold: Callable[..., Any], scorers: Mapping[str, Callable[..., Any]] | None = None
) -> list[StepFinding]:
    """Compares scores of steps with a checker that knows which steps are right.

    Args:
        scored: the scored answers of each seed of each run; those to one prompt have the same `example`.
        gold: a function (prompt, answer) that gives a number for each step, above 0.5 where the step is right.
        scorers: further scores, as functions (prompt, answer).

    Returns:
        A finding for each run and score; none for a run whose answers of two or more steps have no wrong one. Runs without a
        reference have no 'log_ratio'.

    Raises:
        UserError: not as many numbers as steps, or numbers that are not finite.
    """
    cached: dict[tuple[str, str, str], Sequence[float]] = {}
    findings = []
    for run, seeds in scored.items():
        answers = [answer for seed in seeds for answer in seed]
        cases = [case for answer in answers if (case := _case(answer, gold)) is not None]
        for name, scores in _all_scores(cases, scorers or {}, cached).items():
            findings.append(_finding(run, name, cases, [scores(case.answer) for case in cases]))
    return findings


def _case(answer: ScoredAnswer, gold: Callable[..., Any]) -> _Case | None:
    if len(split_steps(answer.targets)) < 2:
        return None
    right = [number > 0.5 for number in _call(gold, answer, "GOLD_STEPS")]
    return None if all(right) else _Case(answer, right)


def _all_scores(
    cases: Sequence[_Case],
    scorers: Mapping[str, Callable[..., Any]],
    cached: dict[tuple[str, str, str], Sequence[float]],
) -> dict[str, Scores]:
    """The scores that all answers have: of their tokens, and of functions, which see each answer once."""
    if not cases:
        return {}
    compared = all(case.answer.reference_log_prob is not None for case in cases)
    scores: dict[str, Scores] = {
        kind: functools.partial(_scores_of_tokens, kind=kind)
        for kind in OF_TOKENS
        if kind != "log_ratio" or compared
    }

    def called(answer: ScoredAnswer, name: str) -> Sequence[float]:
        key = name, answer.inputs, answer.targets
        if key not in cached:
            cached[key] = _call(scorers[name], answer, f"STEP_SCORES[{name!r}]")
        return cached[key]

    return scores | {name: lambda answer, name=name: called(answer, name) for name in scorers}


def _scores_of_tokens(answer: ScoredAnswer, kind: StepScore) -> Sequence[float]:
    return step_scores(answer, kind)


def _call(function: Callable[..., Any], answer: ScoredAnswer, name: str) -> list[float]:
    references = answer.references or (() if answer.reference is None else (answer.reference,))
    return score_steps(function, name, answer.inputs, answer.targets, references, answer.messages)


def _finding(run: str, name: str, cases: Sequence[_Case], scores: Sequence[Sequence[float]]) -> StepFinding:
    examples, prompts = np.unique([case.answer.example for case in cases], return_inverse=True)
    hits = np.array([first_pit(each) == case.first_wrong for each, case in zip(scores, cases, strict=True)])
    counts = np.bincount(prompts)
    found = np.bincount(prompts, hits) / counts
    wrong = np.array([each[case.first_wrong] for each, case in zip(scores, cases, strict=True)])
    right = np.array([
        (score, prompt)
        for each, case, prompt in zip(scores, cases, prompts, strict=True)
        for score, good in zip(each, case.right, strict=True)
        if good
    ]).reshape(-1, 2)  # fmt: skip
    return StepFinding(
        run,
        name,
        len(examples),
        len(cases),
        float(found.mean()),
        mean_interval(found),
        float((np.bincount(prompts, [1 / len(case.right) for case in cases]) / counts).mean()),
        auc(right[:, 0], wrong) if len(right) else None,
        auc_interval(right[:, 0], wrong, right[:, 1].astype(int), prompts) if len(right) else (None, None),
    )
