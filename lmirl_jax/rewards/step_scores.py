"""Scores of the steps of an answer, from the numbers of its tokens under a checkpoint; lower is worse."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

from lmirl_jax.data.steps import split_steps
from lmirl_jax.labelled import AnswerSet
from lmirl_jax.labelled.step_scorers import StepScore
from lmirl_jax.rewards.scored import ScoredAnswer
from lmirl_jax.rewards.scored_file import read_scored
from lmirl_jax.types import UserError


def _rewards(answer: ScoredAnswer) -> list[float]:
    return [0.0 if reward is None else reward for reward in answer.reward]


def _log_ratios(answer: ScoredAnswer) -> list[float]:
    if answer.reference_log_prob is None:
        raise UserError(
            "STEP_SCORES='log_ratio' compares with a reference: give lmirl score the REFERENCE_PATH of the first policy"
        )
    return [ours - theirs for ours, theirs in zip(answer.log_prob, answer.reference_log_prob, strict=True)]


def _value_progress(answer: ScoredAnswer) -> list[float]:
    # The value after the last token is that of nothing left to gain.
    return [following - value for value, following in itertools.pairwise([*answer.v, 0.0])]


# What each token adds to the score of its step.
OF_TOKENS: Mapping[StepScore, Callable[[ScoredAnswer], list[float]]] = {
    "reward": _rewards,
    "log_prob": lambda answer: list(answer.log_prob),
    "log_ratio": _log_ratios,
    "value": _value_progress,
}


def step_scores(answer: ScoredAnswer, kind: StepScore) -> list[float]:
    """The score of each step of an answer: the sum over its tokens and the white space after it.

    | kind | of a token | what it says |
    |---|---|---|
    | 'reward' | the reward under the checkpoint | IQ rewards; of a reward model of labels, the growth of its log odds |
    | 'log_prob' | log pi | the likelihood |
    | 'log_ratio' | log pi - log pi_ref | of a policy that learnt right samples and the one that drew them: log Q - log V |
    | 'value' | v_{t+1} - v_t | the progress of the soft value, as labelled IQLearn learns it |

    Args:
        answer: the scored answer; EOS belongs to its last step.
        kind: which numbers of its tokens are added up.

    Returns:
        A number for each step that `data.steps.split_steps` finds, in nats.

    Raises:
        UserError: a ratio without a reference.
    """
    begins = [begin for begin, _ in split_steps(answer.targets)]
    scores = [0.0] * max(len(begins), 1)
    for value, (begin, _) in zip(OF_TOKENS[kind](answer), answer.offsets, strict=True):
        step = sum(start <= begin for start in begins) - 1
        scores[max(step, 0)] += value
    return scores


def scored_answer_sets(path: str, kind: StepScore) -> Iterator[AnswerSet]:
    """The prompts of a file that `lmirl score` wrote, in order, each with its answers and the scores of their steps.

    Raises:
        UserError: no such file, or a line that `lmirl score` did not write.
    """
    numbered = enumerate(read_scored(path, "ANSWERS"), start=1)
    for _, group in itertools.groupby(numbered, lambda pair: pair[1].example):
        lines = list(group)
        (line, first), answers = lines[0], [answer for _, answer in lines]
        yield AnswerSet(
            f"{path}:{line}",
            first.inputs,
            first.messages,
            [answer.targets for answer in answers],
            first.references or _references(first.reference),
            [step_scores(answer, kind) for answer in answers],
        )


def _references(reference: str | None) -> Sequence[str]:
    return () if reference is None else (reference,)
