"""Losses on rollouts whose gradients are policy gradients, and the metrics that accompany them."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from lmirl_jax.types import UserError


def clipped_policy_gradient(
    log_probs: Float[Array, "*batch length"],
    sampled_log_probs: Float[Array, "*batch length"],
    advantages: Float[Array, "*#batch #length"],
    *,
    clip: float = 0.2,
    clip_high: float | None = None,
) -> Float[Array, "*batch length"]:
    """Per-token policy gradient on rollouts of a slightly older policy; a token whose ratio leaves its bounds has no gradient.

        loss_t = -min(ratio_t A_t, bounded(ratio_t, 1 - clip, 1 + clip_high) A_t)
        ratio_t = pi(a_t|s_t) / pi_sampled(a_t|s_t)

    On new rollouts (ratio 1) its gradient is that of `-A_t log pi(a_t|s_t)`, REINFORCE. No gradient flows through the
    advantages or the sampled log-probabilities.

    Args:
        log_probs: the log-probabilities of the sampled tokens under the policy that learns, [*batch, length], in nats.
        sampled_log_probs: the behaviour log-probabilities of the same tokens, under the policy that sampled them,
            [*batch, length], in nats.
        advantages: broadcast to [*batch, length]; [batch, 1] for one advantage for each sequence.
        clip: the distance below 1 up to which a ratio still has a gradient that lowers it; infinity clips nothing.
        clip_high: the distance above 1 up to which a ratio still has a gradient that raises it; None for the value of `clip`.

    Returns:
        The loss of each token, [*batch, length], in the unit of the advantages. The caller masks and reduces.

    Raises:
        UserError: a negative clip.

    Source: PPO, https://arxiv.org/abs/1707.06347, equation 7; clip_high is of https://arxiv.org/abs/2503.14476.
    """
    advantages = jax.lax.stop_gradient(jnp.broadcast_to(advantages, log_probs.shape))
    clipped = _is_clipped(log_probs, sampled_log_probs, advantages, clip, clip_high)
    low, high = _bounds(clip, clip_high)
    # Clipped tokens must not reach the exponential: an infinity there times 0 would make the gradient NaN.
    log_ratio = jnp.where(clipped, 0.0, log_probs - jax.lax.stop_gradient(sampled_log_probs))
    bound = jnp.where(advantages > 0, high, low).astype(log_probs.dtype)
    return -jnp.where(clipped, bound, jnp.exp(log_ratio)) * advantages


def clip_share(
    log_probs: Float[Array, "*batch length"],
    sampled_log_probs: Float[Array, "*batch length"],
    advantages: Float[Array, "*#batch #length"],
    *,
    clip: float = 0.2,
    clip_high: float | None = None,
) -> Float[Array, "*batch length"]:
    """Marks each token whose gradient `clipped_policy_gradient` clips with 1, others with 0.

    Args and Raises as in `clipped_policy_gradient`.

    Returns:
        The indicator, [*batch, length].
    """
    advantages = jnp.broadcast_to(advantages, log_probs.shape)
    return _is_clipped(log_probs, sampled_log_probs, advantages, clip, clip_high).astype(log_probs.dtype)


def kl_to_reference(
    log_probs: Float[Array, "*batch length"], reference_log_probs: Float[Array, "*batch length"]
) -> Float[Array, "*batch length"]:
    """Per-token loss that pulls the policy towards a reference.

        loss_t = (log pi(a_t|s_t) - log reference(a_t|s_t)) ** 2 / 2

    Its gradient, averaged over the policy's own tokens, is that of KL(pi(.|s_t) || reference(.|s_t)) in the states that
    were visited; what a token does to later states is left out. Its value is no estimate of the KL: `kl_estimate` is.

    Args:
        log_probs: the log-probabilities of the sampled tokens under the policy that learns, [*batch, length], in nats.
        reference_log_probs: those of the same tokens under the reference, [*batch, length], in nats, without a gradient.

    Returns:
        The loss of each token, [*batch, length], in nats squared. The caller masks and reduces.

    Source: http://joschu.net/blog/kl-approx.html (k2).
    """
    return (log_probs - jax.lax.stop_gradient(reference_log_probs)) ** 2 / 2


def kl_estimate(
    log_probs: Float[Array, "*batch length"], reference_log_probs: Float[Array, "*batch length"]
) -> Float[Array, "*batch length"]:
    """Per-token estimate of KL(pi || reference) on the policy's own tokens, for a metric: it has no gradient.

        exp(-x_t) - 1 + x_t,   x_t = log pi(a_t|s_t) - log reference(a_t|s_t)

    Args:
        log_probs: as in `kl_to_reference`, and so is `reference_log_probs`.

    Returns:
        The estimates, [*batch, length], in nats: 0 or more, and the KL on average.

    Source: http://joschu.net/blog/kl-approx.html (k3).
    """
    x = log_probs - reference_log_probs
    # Rounding must not make it negative.
    return jax.lax.stop_gradient(jnp.maximum(jnp.expm1(-x) + x, 0.0))


def value_loss(
    values: Float[Array, "*batch length"], targets: Float[Array, "*batch length"]
) -> Float[Array, "*batch length"]:
    """Per-token loss of a learned value.

        loss_t = (value_t - stop_gradient(target_t)) ** 2 / 2

    Args:
        values: the value of the state before each token, [*batch, length].
        targets: the return that followed, for example `gae(...) + values` with the values at sampling, [*batch, length].

    Returns:
        The loss of each token, [*batch, length], in the square of the rewards' unit. The caller masks and reduces.
    """
    return (values - jax.lax.stop_gradient(targets)) ** 2 / 2


def _bounds(clip: float, clip_high: float | None) -> tuple[float, float]:
    high = clip if clip_high is None else clip_high
    for name, bound in (("clip", clip), ("clip_high", high)):
        if not bound >= 0:
            raise UserError(
                f"objectives.clipped_policy_gradient: {name} = {bound} must be 0 or more; 0.2 is usual"
            )
    return 1 - clip, 1 + high


def _is_clipped(
    log_probs: Float[Array, "*batch length"],
    sampled_log_probs: Float[Array, "*batch length"],
    advantages: Float[Array, "*batch length"],
    clip: float,
    clip_high: float | None,
) -> Bool[Array, "*batch length"]:
    """Whether the ratio of each token is out of its bounds, on the side to which the advantage pushes it."""
    low, high = _bounds(clip, clip_high)
    ratio = jnp.exp(jax.lax.stop_gradient(log_probs - sampled_log_probs))
    return ((advantages > 0) & (ratio > high)) | ((advantages < 0) & (ratio < low))
