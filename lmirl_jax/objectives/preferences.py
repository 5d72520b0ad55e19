"""Objectives on preferences: a loss for each pair of answers to one prompt, of which the first is preferred.

They read margins, h = [s(chosen) - s_ref(chosen)] - [s(rejected) - s_ref(rejected)], where s is the log-probability of an answer
under the policy and s_ref that under the reference.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lmirl_jax.arguments import Positive, ShareBelowOne, check_arguments


@check_arguments
def dpo(
    margins: Float[Array, " pairs"], *, beta: Positive = 0.1, label_smoothing: ShareBelowOne = 0.0
) -> Float[Array, " pairs"]:
    """Direct preference optimisation: the likelihood of the preferences where beta log pi / pi_ref is the reward.

        loss = -(1 - e) log sigmoid(beta h) - e log sigmoid(-beta h)

    Args:
        margins: h, in nats, [pairs].
        beta: the weight of the KL divergence from the reference, in rewards per nat; a small one moves the policy further.
        label_smoothing: e, the share of preferences that are taken to be wrong, from 0 to below 1; 0.5 prefers nothing.

    Returns:
        The loss of each pair, [pairs], in nats.

    Source: https://arxiv.org/abs/2305.18290, equation 7; label smoothing is cDPO (E. Mitchell, "A note on DPO with noisy
    preferences and relationship to IPO", 2023).
    """
    rewards = beta * margins
    return -(1 - label_smoothing) * jax.nn.log_sigmoid(rewards) - label_smoothing * jax.nn.log_sigmoid(
        -rewards
    )


@check_arguments
def hinge(margins: Float[Array, " pairs"], *, beta: Positive = 0.1) -> Float[Array, " pairs"]:
    """The hinge loss of preferences: no gradient beyond a margin of 1 / beta.

        loss = max(0, 1 - beta h)

    Args:
        margins: h, in nats, [pairs].
        beta: the inverse of the margin that is enough, in 1/nats.

    Returns:
        The loss of each pair, [pairs].

    Source: SLiC-HF, https://arxiv.org/abs/2305.10425; with a reference RSO, https://arxiv.org/abs/2309.06657.
    """
    return jnp.maximum(1 - beta * margins, 0.0)


@check_arguments
def ipo(margins: Float[Array, " pairs"], *, beta: Positive = 0.1) -> Float[Array, " pairs"]:
    """Identity preference optimisation: a regression of the margin on 1 / (2 beta), which has a finite optimum.

        loss = (h - 1 / (2 beta)) ** 2

    Args:
        margins: h, in nats, [pairs]; a mean over tokens instead of a sum makes answers of different lengths alike.
        beta: the weight of the KL divergence from the reference, tau of the paper, in 1/nats.

    Returns:
        The loss of each pair, [pairs], in nats squared.

    Source: https://arxiv.org/abs/2310.12036, equation 17.
    """
    return (margins - 1 / (2 * beta)) ** 2
