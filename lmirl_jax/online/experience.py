"""Rollouts in the layout of the replay buffer, and as a `Batch`, the layout of demonstrations."""

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
    """Rollouts, one in each row; the samples of a prompt lie in consecutive rows.

    The arrays are [rows, ...], or [draws, rows, ...] in a replay buffer.

    Args:
        prompts: the prompt of each rollout, a `PromptBatch`.
        answers: the answers of the policy, an `AnswerBatch`.
        behaviour_log_probs: log-probabilities of the answers' tokens under the policy that sampled them, in nats and at
            temperature 1, [rows, length].
        demonstrations: the demonstration of each prompt, an `AnswerBatch`; None unless a learner needs them.
        rewards: the reward of each token, [rows, length]; None unless a reward function gives rewards.
    """

    prompts: Any
    answers: Any
    behaviour_log_probs: Any
    demonstrations: Any = None
    rewards: Any = None


def rollout_batch(experience: Experience, discount: float) -> Batch:
    """Makes a `Batch` of the rollouts.

    Args:
        experience: [rows, ...].
        discount: gamma.

    Returns:
        The batch. A truncated answer has no reward at its last token, as a truncated demonstration has none.
    """
    return answer_rows(experience.prompts, experience.answers, discount)


def demonstration_batch(experience: Experience, discount: float) -> Batch:
    """Makes a `Batch` of the demonstrations of the rollouts' prompts, with one row for each rollout."""
    return answer_rows(experience.prompts, experience.demonstrations, discount)


def truncated_rows(batch: Batch) -> Float[Array, " rows"]:
    """Marks truncated answers with 1, others with 0."""
    return jnp.any(batch.weights > batch.td_weights, axis=-1).astype(jnp.float32)
