"""RERANK and what goes with it: scores for the samples of `lmirl infer` and of a sweep."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from etils import epath

from lmirl_jax.arguments import Path, Share, checked


@checked
@dataclasses.dataclass(frozen=True)
class Reranking:
    """Whether samples are scored, and by which checkpoint.

    Args:
        on: RERANK, True or None.
        reward_path: of the run whose returns they are; None for the policy's own.
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
                raise _error(f"{name}={value!r} has no effect without RERANK: add --gin.RERANK=True")

    def settings(self, checkpoint: epath.Path) -> dict[str, Any]:
        """What scores depend on beside the samples of a policy's checkpoint, by the names of the macros; nothing if off.

        Raises:
            UserError: no checkpoint at REWARD_CHECKPOINT_PATH.
        """
        if not self.on:
            return {}
        from lmirl_jax.evaluation.sweep_cells import identity
        from lmirl_jax.training import checkpoints

        own = self.reward_path is None
        rewarding = checkpoint if own else checkpoints.find_checkpoint(self.reward_path)
        gamma = self.discount if own and self.reward_discount is None else self.reward_discount
        return {
            "RERANK": f"by {identity(rewarding)} at gamma {'of its training' if gamma is None else gamma}"
        }

    def reranker(
        self, checkpoint: epath.Path, graph: Any, params: Any, mesh: Any, data: Any, generator: Any
    ) -> Any:
        """A `rewards.Reranker` for the samples that the generator draws from this policy to prompts of this data; None if off."""
        if not self.on:
            return None
        from lmirl_jax import rewards, runs

        if self.reward_path is None:
            model = runs.Run(checkpoint, graph, params, mesh, data.task, data.lengths, self.discount)
        else:
            model = runs.load(self.reward_path, mesh, data.task)
        lengths: Mapping[str, int] = {
            "inputs": data.lengths["inputs"],
            "targets": generator.max_length or data.lengths["targets"],
        }
        scorer = rewards.Scorer(
            model, batch_size=generator.batch_size, lengths=lengths, discount=self.reward_discount
        )
        return rewards.Reranker(scorer)


def _error(line: str) -> Exception:
    from lmirl_jax.types import UserError  # It imports JAX, which a command's help does without.

    return UserError(line)
