"""What is watched of the policy's own answers: how old, how far off the policy that learns from them, how long."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from lmirl_jax.online.experience import truncated
from lmirl_jax.training.step import Sums, policy_sums, total
from lmirl_jax.types import Batch, SoftQ


def sample_sums(
    out: SoftQ, answers: Batch, written: Float[Array, "rows length"], rows: Float[Array, " rows"]
) -> Sums:
    """Gauges of sampled answers, each as a sum and the weight to divide it by.

    Args:
        out: soft Q-values under the policy that learns, as it is in training (so with dropout, if there is any).
        answers: a batch, [rows, ...], of weight 0 where it holds no sampled token.
        written: log-probabilities under the policy that wrote them, [rows, length], in nats.
        rows: 1 on rows that are sampled answers, else 0.

    Returns:
        samples/reward (implied, a token, in nats), samples/entropy (nats), samples/log_prob_gap (the mean distance of the two
        log-probabilities of a token, in nats), samples/length (tokens, EOS included) and samples/truncated (a share).
    """
    gap = jnp.abs(out.q - out.v - written)
    count = jnp.sum(rows)
    return {
        **{f"samples/{name}": sums for name, sums in policy_sums(out, answers).items()},
        "samples/log_prob_gap": total(gap, answers.weights),
        "samples/length": (jnp.sum(answers.weights), count),
        "samples/truncated": (jnp.sum(rows * truncated(answers)), count),
    }
