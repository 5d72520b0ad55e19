"""Scores answers in a notebook, with arrays as the result: `rewards.score`."""

import dataclasses
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from lmirl_jax.rewards.scored import ScoredAnswer
from lmirl_jax.rewards.scoring import RewardModel, Scorer
from lmirl_jax.types import UserError

_log = logging.getLogger(__name__)

BY_TOKEN = ("q", "v", "reward", "log_prob", "entropy")
BY_ANSWER = ("total", "normalised_return", "v_0", "log_likelihood")


@dataclasses.dataclass(frozen=True)
class Scores:
    """The fields of several `ScoredAnswer` as arrays, in nats; NaN after the end of an answer and in place of None.

    Args:
        answers: the scored answers.
        tokens: the tokens of each answer, 0 after its end.
        q, v, reward, log_prob, entropy: one number for each token; see `ScoredAnswer`.
        total: the return of each answer.
        normalised_return, v_0, log_likelihood: one number for each answer; see `ScoredAnswer`.
        truncated: whether an answer lacks its EOS. Then its last reward is NaN and is not part of its return.
    """

    answers: tuple[ScoredAnswer, ...]
    tokens: Int[np.ndarray, "answers length"]
    q: Float[np.ndarray, "answers length"]
    v: Float[np.ndarray, "answers length"]
    reward: Float[np.ndarray, "answers length"]
    log_prob: Float[np.ndarray, "answers length"]
    entropy: Float[np.ndarray, "answers length"]
    total: Float[np.ndarray, " answers"]
    normalised_return: Float[np.ndarray, " answers"]
    v_0: Float[np.ndarray, " answers"]
    log_likelihood: Float[np.ndarray, " answers"]
    truncated: Bool[np.ndarray, " answers"]

    def __len__(self) -> int:
        return len(self.answers)

    def __iter__(self) -> Iterator[ScoredAnswer]:
        return iter(self.answers)

    @property
    def pieces(self) -> list[tuple[str, ...]]:
        """The texts of each answer's tokens."""
        return [answer.pieces for answer in self.answers]


def score(model: RewardModel, inputs: str | Sequence[Any], targets: Sequence[str], **options: Any) -> Scores:
    """Scores answers to prompts with a checkpoint.

    Args:
        model: the checkpoint, from `runs.load`.
        inputs: a prompt for each answer, or one prompt to which all answers belong; a prompt is a text, or for a chat model
            a conversation, a list of {"role": .., "content": ..}.
        targets: the answers.
        options: other arguments of `Scorer`, such as `discount`, `reference` or `batch_size`.

    Returns:
        Arrays over answers, and over their tokens, EOS included.

    Raises:
        UserError: there are no answers, the numbers of prompts and answers differ, or `Scorer` refuses an option.
    """
    if isinstance(targets, str) or not len(targets):
        raise UserError("rewards.score: targets must be a list of answers, one or more")
    is_one = isinstance(inputs, str) or (len(inputs) > 0 and isinstance(inputs[0], Mapping))
    if not is_one and len(inputs) != len(targets):
        raise UserError(
            f"rewards.score: {len(inputs)} prompts and {len(targets)} answers; give one for each, or one prompt for all"
        )
    prompts = [inputs] if is_one else inputs
    scorer = Scorer(model, **options)
    return as_arrays(list(scorer(_pairs(model.task, prompts, targets, scorer.lengths["inputs"]))))


def answer_returns(policy: RewardModel | None) -> Callable[[Any, Sequence[str]], list[float]] | None:
    """A function that gives the return of each answer to a prompt under a checkpoint; None without one.

    Args:
        policy: the checkpoint, from `runs.load_if_any`; of a reward model the return is its reward.
    """
    if policy is None:
        return None

    warned = False

    def returns(prompt: Any, answers: Sequence[str]) -> list[float]:
        nonlocal warned
        scores = score(policy, prompt, answers, batch_size=_rows(policy.mesh, len(answers)))
        if scores.truncated.any() and not warned:
            warned = True
            _log.warning(
                "some answers are longer than the %d tokens of the run that rewards: their rewards lack what does not fit",
                policy.lengths["targets"],
            )
        return scores.total.tolist()

    return returns


def _rows(mesh: Any, count: int) -> int:
    """The rows of a batch that holds so many answers: a power of two times the devices, so that few programs are compiled."""
    return mesh.size * 2 ** math.ceil(math.log2(max(count / mesh.size, 1)))


def as_arrays(answers: Sequence[ScoredAnswer]) -> Scores:
    """Converts scored answers, for example those of a file, to arrays."""
    length = max(len(answer.tokens) for answer in answers)
    columns: dict[str, Any] = {
        name: np.stack([_pad(getattr(answer, name), length, np.nan) for answer in answers])
        for name in BY_TOKEN
    }
    columns["tokens"] = np.stack([_pad(answer.tokens, length, 0) for answer in answers])
    columns |= {name: np.array([getattr(answer, name) for answer in answers], float) for name in BY_ANSWER}
    columns["truncated"] = np.array([answer.truncated for answer in answers], bool)
    return Scores(tuple(answers), **columns)


def _pairs(task: Any, prompts: Sequence[Any], targets: Sequence[str], longest: int) -> Iterator[Any]:
    """A pair for each answer; one prompt is that of all of them, trimmed to the longest that a row holds."""
    from lmirl_jax.data import make_pair
    from lmirl_jax.data.messages import encode_given

    encoded = [encode_given(prompt, task.input_vocabulary, "rewards.score") for prompt in prompts]
    for number, text in enumerate(targets):
        tokens, features = encoded[number % len(encoded)]
        place = {"example": number}
        if len(encoded) == 1:
            place = {"candidate": number, "candidates": len(targets)}
        about = {"messages": features.get("messages"), **place}
        yield make_pair(
            task, features["inputs_pretokenized"], text, prompt=task.trim_prompt(tokens, longest), **about
        )


def _pad(values: Sequence[Any], length: int, fill: float) -> np.ndarray:
    known = [fill if value is None else value for value in values]
    return np.array(known + [fill] * (length - len(known)), type(fill))
