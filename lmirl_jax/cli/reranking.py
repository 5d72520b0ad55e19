"""RERANK and its settings: scores for the samples of `lmirl infer` and of a sweep."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from etils import epath

from lmirl_jax import checkpoints, rewards, runs
from lmirl_jax.arguments import Path, Share, check_arguments
from lmirl_jax.types import UserError


@check_arguments
@dataclasses.dataclass(frozen=True)
class Reranking:
    """The settings for scoring samples.

    Args:
        on: RERANK, True or None.
        reward_path: the path of the run whose returns are the scores; None for the policy itself.
        reward_discount: gamma of these returns; None for that of the rewarding run's training.
        discount: gamma of the policy's training.

    Raises:
        UserError: a setting out of range, or one that would have no effect.
    """

    on: bool | None = None
    reward_path: Path | None = None
    reward_discount: Share | None = None
    discount: Share = 1.0

    def __post_init__(self):
        given = {"REWARD_CHECKPOINT_PATH": self.reward_path, "REWARD_DISCOUNT": self.reward_discount}
        for name, value in given.items():
            if value is not None and not self.on:
                raise UserError(f"{name}={value!r} has no effect without RERANK: add --gin.RERANK=True")

    def settings(self, checkpoint: epath.Path) -> dict[str, Any]:
        """The settings that determine the scores of given samples, by the names of the macros; empty if samples are not scored.

        Args:
            checkpoint: the checkpoint of the policy that generates the samples.

        Raises:
            UserError: no checkpoint at REWARD_CHECKPOINT_PATH.
        """
        if not self.on:
            return {}
        rewarding, gamma = checkpoint, self.reward_discount
        if self.reward_path is not None:
            rewarding = checkpoints.find_checkpoint(self.reward_path)
        elif gamma is None:
            gamma = self.discount
        return {
            "RERANK": f"by {checkpoints.identity(rewarding)} at gamma {'of its training' if gamma is None else gamma}"
        }

    def reranker(
        self, policy: runs.Policy, batch_size: int, max_length: int | None
    ) -> rewards.Reranker | None:
        """Makes the scorer of a policy's samples; None if samples are not scored.

        Args:
            policy: the policy that generates the samples.
            batch_size: the number of samples that are scored at a time.
            max_length: the maximum number of tokens of a sample; None for that of the policy's targets.
        """
        if not self.on:
            return None
        model = policy if self.reward_path is None else runs.load(self.reward_path, policy.mesh, policy.task)
        lengths: Mapping[str, int] = {
            "inputs": policy.lengths["inputs"],
            "targets": max_length or policy.lengths["targets"],
        }
        scorer = rewards.Scorer(model, batch_size=batch_size, lengths=lengths, discount=self.reward_discount)
        return rewards.Reranker(scorer)
