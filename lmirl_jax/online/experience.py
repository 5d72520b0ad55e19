"""Rollouts as the replay buffer holds them, and as a batch, to be learnt from as demonstrations are."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lmirl_jax.rows import answer_rows
from lmirl_jax.types import Batch


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Experience:
    """Rollouts, one a row, the samples of a prompt one after the other.

    The arrays are [rows, ...], or [draws, rows, ...] in a replay buffer.

    Args:
        prompts: the prompt of each rollout, a `PromptBatch`.
        answers: what the policy answered, an `AnswerBatch`.
        behaviour_log_probs: log-probabilities of the answers' tokens under the policy that sampled them, in nats and at
            temperature 1, [rows, length].
        demonstrations: the demonstration of each prompt, an `AnswerBatch`, where a learner asks for it.
        rewards: the reward of each token, where a reward function gives it, [rows, length].
    """

    prompts: Any
    answers: Any
    behaviour_log_probs: Any
    demonstrations: Any = None
    rewards: Any = None


def rollout_batch(experience: Experience, discount: float) -> Batch:
    """The rollouts as a `Batch`, which a network reads token by token as the policy sampled them.

    Args:
        experience: [rows, ...].
        discount: gamma.

    Returns:
        The batch. A truncated answer has no reward at its last token, as a truncated demonstration has none.
    """
    return answer_rows(experience.prompts, experience.answers, discount)


def demonstration_batch(experience: Experience, discount: float) -> Batch:
    """The demonstrations of the rollouts' prompts as a `Batch`, a row for each rollout."""
    return answer_rows(experience.prompts, experience.demonstrations, discount)


def truncated_rows(batch: Batch) -> Float[Array, " rows"]:
    """1 for answers that do not end, else 0."""
    return jnp.any(batch.weights > batch.td_weights, axis=-1).astype(jnp.float32)
