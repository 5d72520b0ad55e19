"""Rewards of a policy for exports and frozen-reward training: implied by Q, shaped, or corrected by a reference."""

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

from lmirl_jax.arguments import check_arguments
from lmirl_jax.objectives.inverse_q import implied_rewards
from lmirl_jax.types import SoftQ

Shaping = Literal["value"]


@check_arguments
def extracted_rewards(
    soft_q: SoftQ,
    discounts: Float[Array, "*batch length"],
    *,
    shaping: Shaping | None = None,
    reference: SoftQ | None = None,
    beta: float = 1.0,
) -> Float[Array, "*batch length"]:
    """Implied rewards for exports and frozen-reward training, with optional shaping by v and correction by a reference policy.

        r_t = q_t - discount_t * v_{t+1}  [+ discount_t * v_{t+1} - v_t]  [- beta * log pi_ref(a_t|s_t)]

    Args:
        soft_q: the soft Q-values of the policy that rewards, [batch, length], in nats.
        discounts: gamma inside a sequence and 0 at its last token, [batch, length].
        shaping: 'value' adds the first bracket, which makes the reward log pi; None leaves it out.
        reference: `q` and `v` of the same tokens under the reference policy; None leaves the second bracket out.
        beta: the weight of the correction.

    Returns:
        The rewards, [batch, length], in nats.
    """
    rewards = implied_rewards(soft_q, discounts)
    if shaping == "value":
        rewards = shaped_rewards(rewards, soft_q.v, discounts)
    if reference is not None:
        rewards = rewards - beta * (reference.q - reference.v)
    return rewards


def shaped_rewards(
    rewards: Float[Array, "*batch length"],
    potentials: Float[Array, "*batch length"],
    discounts: Float[Array, "*batch length"],
) -> Float[Array, "*batch length"]:
    """Adds the differences of a potential to rewards, which does not change the optimal policy.

        r'_t = r_t + discount_t * potential_{t+1} - potential_t

    They telescope: the discounted sum only changes by -potential_0. With v as the potential, implied rewards become
    log pi(a_t|s_t), for any gamma.

    Args:
        rewards: the reward of each token, [batch, length].
        potentials: the potential of the state before each token, [batch, length], in nats.
        discounts: gamma inside a sequence and 0 at its last token, [batch, length]: a terminal state has potential 0.

    Returns:
        The shaped rewards, [batch, length].

    Source: Ng, Harada and Russell, Policy invariance under reward transformations (1999).
    """
    # The first potential wraps to the last position, where the discount is 0.
    after = jnp.roll(potentials, -1, axis=-1)
    return rewards + discounts * after - potentials
