"""The reward of every token that a policy's logits imply."""

import functools

import jax
import numpy as np
from flax import nnx
from jaxtyping import Float

from lmirl_jax import objectives, soft_q
from lmirl_jax.types import Batch


@functools.partial(jax.jit, static_argnums=0)
def _rewards(graph, params, batch: Batch):
    out = soft_q.of_model(nnx.merge(graph, params), batch)
    return objectives.implied_rewards(out, batch.discounts)


def token_rewards(graph: nnx.GraphDef, params, batch: Batch) -> list[list[float | None]]:
    """The reward of each target token of each row, in nats.

        r_t = q_t - discount_t * v_{t+1}

    Args:
        graph: the network without its arrays.
        params: its parameters.
        batch: prompts and answers, [batch, ...].

    Returns:
        For each row a value for each real token; None at the last token of a truncated target, which has no reward.
    """
    rewards: Float[np.ndarray, "batch length"] = np.asarray(_rewards(graph, params, batch))
    return [
        [float(r) if has else None for r, has, real in zip(*row, strict=True) if real]
        for row in zip(rewards, np.asarray(batch.td_weights), np.asarray(batch.weights), strict=True)
    ]
