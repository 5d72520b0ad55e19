"""Inverse soft Q-learning: maximum likelihood with a temporal-difference regulariser.

Q implies a reward: the one under which Q is the soft-optimal value. IQLearn fits the demonstrations while it keeps that
reward small, and so matches not only each next token but the distribution of whole sequences.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from lmirl_jax.objectives.likelihood import mle
from lmirl_jax.types import SoftQ


def implied_rewards(soft_q: SoftQ, discounts: Float[Array, "*batch length"]) -> Float[Array, "*batch length"]:
    """The reward of each token that Q implies: the inverse soft Bellman operator.

        r_t = q_t - discount_t * v_{t+1}

    Args:
        soft_q: `q` and `v`, [batch, length], in nats.
        discounts: gamma inside a sequence and 0 at its last token, [batch, length]. The 0 gives a terminal state the
            value 0 and keeps padding and packed neighbours out.

    Returns:
        The rewards, [batch, length], in nats. They sum to v_0 + log pi(sequence) where gamma is 1.

    Source: IQ-Learn, https://arxiv.org/abs/2106.12142, section 4.
    """
    v_next = jnp.roll(soft_q.v, -1, axis=-1)  # The value that wraps meets a discount of 0.
    return soft_q.q - discounts * v_next


def iqlearn_terms(
    soft_q: SoftQ, discounts: Float[Array, "*batch length"]
) -> tuple[Float[Array, "*batch length"], Float[Array, "*batch length"]]:
    """The two terms of `iqlearn`, unweighted: `(-log pi_t, r_t ** 2)`, arguments as there."""
    return mle(soft_q), implied_rewards(soft_q, discounts) ** 2


def iqlearn(
    soft_q: SoftQ,
    discounts: Float[Array, "*batch length"],
    *,
    td_weight: Float[Array, "..."] | float,
    mle_weight: Float[Array, "..."] | float = 1.0,
) -> Float[Array, "*batch length"]:
    """Per-token offline IQLearn with the chi-squared divergence.

        loss_t = mle_weight * -log pi(a_t|s_t) + td_weight * r_t ** 2,    r_t = q_t - discount_t * v_{t+1}

    The gradient flows through v_{t+1} too: without it the optimum matches local ratios only, not the occupancy.

    Args:
        soft_q: `q` and `v` of the demonstrated tokens, [batch, length], in nats.
        discounts: gamma inside a sequence and 0 at its last token, [batch, length].
        td_weight: lambda times the TD mask (0 on padding and at the last token of a truncated target), broadcast to
            [batch, length]; 0 gives maximum likelihood. At soft temperature tau, lambda is tau / (4 alpha) of IQ-Learn.
        mle_weight: the weight of the likelihood, broadcast to [batch, length].

    Returns:
        The loss of each token, [batch, length], in nats. The caller masks and reduces.

    Source: https://arxiv.org/abs/2409.01369, equation 14; IQ-Learn, https://arxiv.org/abs/2106.12142, equation 12.
    """
    likelihood, squared_reward = iqlearn_terms(soft_q, discounts)
    shape = likelihood.shape
    return (
        jnp.broadcast_to(mle_weight, shape) * likelihood + jnp.broadcast_to(td_weight, shape) * squared_reward
    )
