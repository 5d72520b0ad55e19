"""Scores of the steps of an answer by rollouts: how often samples that go on from a step end right."""

import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lmirl_jax import sharding
from lmirl_jax.arguments import Count, Positive, Seed, check_arguments
from lmirl_jax.data.messages import encode_given
from lmirl_jax.data.offsets import Offsets
from lmirl_jax.data.pieces import encode_with_offsets
from lmirl_jax.data.steps import split_steps
from lmirl_jax.evaluation import Generator, TokenPrompts
from lmirl_jax.labelled.checkers import CheckerName, make_checker
from lmirl_jax.rewards.scoring import RewardModel
from lmirl_jax.types import UserError

# The prompts of a batch: beginnings of one answer, of which few have more steps.
BATCH = 8


@check_arguments
class RolloutScores:
    """Scores each step of an answer by Monte-Carlo rollouts of a policy from there.

        Q_i = mean_k R(x, y_1 .. y_i, continuation_k),   with best_of = n: 1 - (1 - Q_i) ** n

    A step after which no rollout ends right is a pit; of several the first is taken. Source: https://arxiv.org/abs/2406.14532.

    Args:
        policy: the policy that goes on, from `runs.load`; those who draw it with None are told what to set.
        checker: what says whether an answer is right, above 0.5; see `labelled.make_checker`.
        rollouts: how many continuations of each beginning are sampled.
        best_of: n of the policy that draws n answers and keeps a right one.
        temperature: the sampling temperature.
        seed: the seed of the sampling; the scores of an answer depend on it, the prompt and the answer alone.
    """

    def __init__(
        self,
        policy: RewardModel | None,
        checker: CheckerName | None,
        rollouts: Count = 4,
        best_of: Count = 1,
        temperature: Positive = 1.0,
        seed: Seed = 0,
    ):
        if policy is None:
            raise UserError(
                "STEP_SCORES=@rewards.RolloutScores() needs the policy that goes on from each step: set ROLLOUT_CHECKPOINT_PATH"
            )
        if checker is None:
            raise UserError(
                "STEP_SCORES=@rewards.RolloutScores() needs a CHECKER, which says whether a rollout ends right"
            )
        self.policy, self.check = policy, make_checker(checker)
        self.rollouts, self.best_of, self.temperature, self.seed = rollouts, best_of, temperature, seed

    def __call__(
        self,
        prompt: str,
        answer: str,
        references: Sequence[str] = (),
        messages: Sequence[Mapping[str, Any]] | None = None,
    ) -> list[float]:
        """The score of each step that `data.steps.split_steps` finds, from 0 to 1.

        Args:
            prompt: the prompt.
            answer: the answer.
            references: what the checker compares with, if it does.
            messages: the prompt as a conversation, which a chat model reads in place of the text; None for none.
        """
        task, length = self.policy.task, self.policy.lengths["targets"]
        tokens, offsets = encode_with_offsets(task.output_vocabulary, answer)
        if len(tokens) > length:
            raise UserError(
                f"the answer {answer!r} has {len(tokens)} tokens, and the run that goes on answers with at most {length}: set "
                "ROLLOUT_CHECKPOINT_PATH to a run with a longer TASK_FEATURE_LENGTHS['targets']"
            )
        ends = [_tokens_before(offsets, begin) for begin, _ in split_steps(answer)[1:]] + [len(tokens)]
        beginnings = [np.asarray(tokens[:end], np.int32) for end in ends]
        asked, _ = encode_given(messages or prompt, task.input_vocabulary, "RolloutScores")
        data = TokenPrompts([asked] * len(beginnings), length, task, beginnings)
        generator = Generator(
            _rows(self.policy), self.rollouts, seed=self._seed_of(prompt, answer), continues=True
        )
        made = generator(self.policy.graph, self.policy.params, self.policy.mesh, data, self.temperature)
        return [
            self._score([self.check(prompt, text, references) > 0.5 for text in each.texts]) for each in made
        ]

    def _score(self, right: list[bool]) -> float:
        return 1 - (1 - sum(right) / len(right)) ** self.best_of

    def _seed_of(self, prompt: str, answer: str) -> int:
        return zlib.crc32(f"{self.seed} {prompt} {answer}".encode("utf-8", "surrogatepass")) >> 1


def _tokens_before(offsets: Offsets, begin: int) -> int:
    """The number of tokens that end before a character: with those of the white space between two steps."""
    return sum(end <= begin for _, end in offsets)


def _rows(policy: RewardModel) -> int:
    parts = math.prod(policy.mesh.shape[axis] for axis in sharding.BATCH_AXES)
    return -(-BATCH // parts) * parts
