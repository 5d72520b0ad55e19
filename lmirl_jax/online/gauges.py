"""Metrics of rollouts, such as their length and their distance from the policy that learns from them."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from lmirl_jax.online.experience import truncated_rows
from lmirl_jax.training.sums import Sums, WeightedSum, policy_sums, weighted_sum
from lmirl_jax.types import Batch, SoftQ


def rollout_sums(
    out: SoftQ,
    answers: Batch,
    behaviour_log_probs: Float[Array, "rows length"],
    is_rollout: Float[Array, " rows"],
) -> Sums:
    """Computes metrics of rollouts, each as a sum and the weight by which it is divided.

    Args:
        out: the soft Q-values under the policy that learns, in the mode of training (with its dropout, if any).
        answers: a batch, [rows, ...]; the weight is 0 at tokens that are not of a rollout.
        behaviour_log_probs: log-probabilities under the policy that sampled the tokens, [rows, length], in nats.
        is_rollout: 1 on rows that are rollouts, else 0.

    Returns:
        samples/reward (implied, a token, in nats), samples/entropy (nats), samples/log_prob_gap (the mean distance of the two
        log-probabilities of a token, in nats), samples/length (tokens, EOS included) and samples/truncated (a share).
    """
    gap = jnp.abs(out.q - out.v - behaviour_log_probs)
    count = jnp.sum(is_rollout)
    return {
        **{f"samples/{name}": sums for name, sums in policy_sums(out, answers).items()},
        "samples/log_prob_gap": weighted_sum(gap, answers.weights),
        "samples/length": WeightedSum(jnp.sum(answers.weights), count),
        "samples/truncated": WeightedSum(jnp.sum(is_rollout * truncated_rows(answers)), count),
    }
