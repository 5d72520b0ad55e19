"""Inverse soft Q-learning: maximum likelihood with a temporal-difference regulariser.

Q implies a reward: the one under which Q is the soft-optimal value. IQLearn fits the demonstrations while it keeps that
reward small, and so matches not only each next token but the distribution of whole sequences.
"""

import inspect
from collections.abc import Callable
from typing import Annotated, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from lmirl_jax.argument_rules import GivenByCaller
from lmirl_jax.arguments import Elementwise, NonNegative, ShareBelowOne, check_arguments
from lmirl_jax.objectives.divergences import chi_squared
from lmirl_jax.objectives.likelihood import mle
from lmirl_jax.types import SoftQ


@check_arguments
def iqlearn(
    soft_q: SoftQ,
    discounts: Float[Array, "*batch length"],
    *,
    td_weight: Annotated[Float[Array, "..."] | float, GivenByCaller()],
    mle_weight: Float[Array, "..."] | NonNegative = 1.0,
    penalty_weight: Float[Array, "..."] | NonNegative = 1.0,
    rewards: Float[Array, "..."] | float = 0.0,
    reward_scale: NonNegative = 1.0,
    phi: Elementwise = chi_squared,
) -> Float[Array, "*batch length"]:
    """Per-token IQLearn: maximum likelihood, and a penalty on the implied reward that the divergence gives.

        loss_t = mle_weight * -log pi(a_t|s_t) + penalty_weight * (x_t - phi(x_t)) / (4 td_weight)
        x_t = 4 td_weight * (r_t - g_t),   r_t = q_t - discount_t * v_{t+1},   g_t = reward_scale * rewards

    For chi-squared the penalty is `td_weight * (r_t - g_t) ** 2`. It is 0 where td_weight is 0. The gradient flows
    through v_{t+1} too: without it the optimum matches local ratios only, not the occupancy. Online IQLearn is this same
    loss on expert tokens and on the policy's own samples, weighted as `online_weights` says.

    Args:
        soft_q: `q` and `v` of the demonstrated, or sampled, tokens, [batch, length], in nats.
        discounts: gamma inside a sequence and 0 at its last token, [batch, length].
        td_weight: lambda times the TD mask (0 on padding and at the last token of a truncated target), broadcast to
            [batch, length]; 0 gives maximum likelihood. At soft temperature tau, lambda is tau / (4 alpha) of IQ-Learn.
        mle_weight: the weight of the likelihood, broadcast to [batch, length]; 0 on sampled tokens.
        penalty_weight: the weight of the penalty, outside the divergence, broadcast to [batch, length]; with chi-squared
            a factor on td_weight does the same.
        rewards: a given reward of each token, in nats, broadcast to [batch, length]; 0 imitates. A larger lambda moves the
            optimum from imitation towards the soft-optimal policy of these rewards.
        reward_scale: nats for each unit of the rewards: 1 / beta, where the soft-optimal policy is softmax(rewards / beta).
        phi: the divergence, one of `objectives.divergences`.

    Returns:
        The loss of each token, [batch, length], in nats. The caller masks and reduces.

    Source: https://arxiv.org/abs/2409.01369, equation 14; IQ-Learn, https://arxiv.org/abs/2106.12142, equation 12.
    """
    likelihood = mle(soft_q)
    shape = likelihood.shape
    residual = implied_rewards(soft_q, discounts) - jnp.broadcast_to(reward_scale * rewards, shape)
    penalty = _penalty(residual, jnp.broadcast_to(td_weight, shape), phi)
    return (
        jnp.broadcast_to(mle_weight, shape) * likelihood + jnp.broadcast_to(penalty_weight, shape) * penalty
    )


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
    # The first value wraps to the last position, where the discount is 0.
    v_next = jnp.roll(soft_q.v, -1, axis=-1)
    return soft_q.q - discounts * v_next


class OnlineWeights(NamedTuple):
    """The arguments of `iqlearn` in online learning, from `online_weights`; the arrays have the shape of the mask of samples."""

    mle_weight: Float[Array, "*shape"]
    penalty_weight: Float[Array, "*shape"]
    td_factor: float


@check_arguments
def online_weights(
    from_samples: Float[Array, "*shape"], *, alpha: ShareBelowOne, rescale: bool = True
) -> OnlineWeights:
    """The weights of online IQLearn: likelihood of the expert alone, the penalty on a mixture of expert and samples.

        loss = E_expert[-log pi] + (1 - alpha) E_expert[penalty] + alpha E_samples[penalty]
        td_weight = td_factor * lambda * mask,   td_factor = 1 / (1 - alpha) ** 2

    Each expectation is a separate mean: sum the losses of expert tokens and those of sampled tokens apart, and divide each sum
    by its own count. At alpha 0 samples have no influence; samples that equal the expert's tokens give the offline loss at
    td_factor * lambda.

    Args:
        from_samples: 1 on rollouts, 0 on demonstrations; tokens or rows, any shape.
        alpha: the share of samples in the mixture, from 0 to below 1; the paper tries 0.1 to 0.5.
        rescale: False makes the factor 1. It follows from the mixture, but the paper does not say whether it was used.

    Returns:
        `mle_weight` (1 on expert, 0 on samples), `penalty_weight` (1 - alpha on expert, alpha on samples), and the
        number `td_factor`.

    Raises:
        UserError: alpha out of range.

    Source: https://arxiv.org/abs/2409.01369, equations 15 to 17, for chi-squared. With another divergence they would give
    td_weight lambda / (1 - alpha) and penalty weights 1 and alpha / (1 - alpha), which for chi-squared is the same; these
    weights keep the equality with offline, for every divergence.
    """
    from_expert = 1 - from_samples
    return OnlineWeights(
        mle_weight=from_expert,
        penalty_weight=(1 - alpha) * from_expert + alpha * from_samples,
        td_factor=1 / (1 - alpha) ** 2 if rescale else 1.0,
    )


def _penalty(
    residual: Float[Array, "*batch length"],
    td_weight: Float[Array, "*batch length"],
    phi: Callable[[Array], Array],
) -> Float[Array, "*batch length"]:
    """(x - phi(x)) / (4 td_weight) at x = 4 td_weight * residual; 0 without a gradient where td_weight is 0."""
    # Gin passes a wrapper of the function.
    if inspect.unwrap(phi) is inspect.unwrap(chi_squared):
        return td_weight * residual**2
    on = td_weight != 0
    scale = 4 * jnp.where(on, td_weight, 1.0)
    x = scale * jnp.where(on, residual, 0.0)
    return (x - phi(x)) / scale
