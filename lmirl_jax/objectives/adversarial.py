"""Losses of a discriminator between tokens of the expert and of the policy, and the rewards that its logit gives.

The discriminator reads token t before it gives the logit d_t, so that it judges EOS too; d > 0 says "the expert's". At chance,
d = 0, every reward here is exactly 0, so that neither short nor long answers gain from their length.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from lmirl_jax.types import UserError


def discriminator_loss(
    logits: Float[Array, "*batch length"],
    is_expert: Bool[Array, "*#batch #length"],
    *,
    label_smoothing: float = 0.0,
) -> Float[Array, "*batch length"]:
    """Per-token binary cross-entropy: the expert's tokens against the policy's.

        loss_t = -y_t log sigmoid(d_t) - (1 - y_t) log sigmoid(-d_t)

    with y = 1 - label_smoothing on the expert's tokens and label_smoothing on the policy's. It is log 2 at chance. Without
    smoothing its optimum is d = log(occupancy of the expert / occupancy of the policy), each weighted by its share of the loss.

    Args:
        logits: d_t, [*batch, length], in nats.
        is_expert: true on demonstrated tokens, broadcast to [*batch, length]; [batch, 1] for whole rows.
        label_smoothing: from 0 to below 1/2; it bounds the logits of the optimum.

    Returns:
        The loss of each token, [*batch, length], in nats. The caller masks and reduces.

    Raises:
        UserError: label smoothing out of range.

    Source: GAIL, https://arxiv.org/abs/1606.03476; label smoothing, https://arxiv.org/abs/1606.03498 (there one-sided).
    """
    if not 0 <= label_smoothing < 0.5:
        raise UserError(
            f"objectives.discriminator_loss: label_smoothing = {label_smoothing} is not in [0, 0.5); "
            "0.1 is usual, 0 is none"
        )
    # The sign is turned so that a right logit is large: softplus(-d) keeps the digits that softplus(d) - d loses.
    agrees = jnp.where(jnp.broadcast_to(is_expert, logits.shape), logits, -logits)
    loss = jax.nn.softplus(-agrees)
    if label_smoothing:
        loss = (1 - label_smoothing) * loss + label_smoothing * jax.nn.softplus(agrees)
    return loss


def relativistic_loss(
    expert_scores: Float[Array, "*#shape"], sampled_scores: Float[Array, "*#shape"]
) -> Float[Array, "*shape"]:
    """Loss of each pair of a demonstration and a rollout: the demonstration should have the higher score.

        loss = -log sigmoid(expert_score - sampled_score)

    Args:
        expert_scores: the score of the demonstration of each prompt, [prompts, 1].
        sampled_scores: the score of each rollout, [prompts, samples]. The two are broadcast.

    Returns:
        The loss of each pair, [prompts, samples], in nats; log 2 at chance.

    Source: GAD, https://arxiv.org/abs/2511.10643.
    """
    return jax.nn.softplus(sampled_scores - expert_scores)


def softplus_reward(logits: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The reward `softplus(d) - log 2 = -log(1 - sigmoid(d)) - log 2`: from -log 2 up, without bound.

    Args:
        logits: d of the discriminator, any shape, in nats.

    Returns:
        The rewards, of the same shape, in nats; exactly 0 at d = 0.

    Source: https://arxiv.org/abs/2409.01369, section 3.1; the offset is ours.
    """
    # log((1 + exp(d)) / 2), in a form that is exact at 0, never overflows, and has the slope 1/2 at 0 (abs would not).
    positive = logits > 0
    falling = jnp.where(positive, -logits, logits)
    return jnp.where(positive, logits, 0.0) + jnp.log1p(jnp.expm1(falling) / 2)


def log_sigmoid_reward(logits: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The reward `log sigmoid(d) + log 2`: up to log 2, without bound below.

    Args and Returns as in `softplus_reward`.

    Source: GAIL, https://arxiv.org/abs/1606.03476; the offset is ours.
    """
    return -softplus_reward(-logits)


def logit_reward(logits: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The reward `d = log sigmoid(d) - log(1 - sigmoid(d))`: without bounds, symmetric.

    Args and Returns as in `softplus_reward`.

    Source: AIRL, https://arxiv.org/abs/1710.11248.
    """
    return logits
