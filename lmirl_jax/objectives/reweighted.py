"""Maximum likelihood in which the weight of a token depends on its probability under the policy."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lmirl_jax.arguments import NonNegative, check_arguments
from lmirl_jax.objectives.likelihood import mle
from lmirl_jax.types import SoftQ


def dft(soft_q: SoftQ) -> Float[Array, "*batch length"]:
    """Per-token dynamic fine-tuning: tokens that the policy finds improbable count little.

        loss_t = -stop_gradient(pi(a_t|s_t)) * log pi(a_t|s_t)

    Its gradient is that of -pi(a_t|s_t): it maximises the probability of agreeing with the expert, and so ends, where
    the expert is random, at the expert's most probable token alone.

    Args:
        soft_q: `q` and `v` of the demonstrated tokens, [batch, length], in nats.

    Returns:
        The loss of each token, [batch, length], in nats.

    Source: https://arxiv.org/abs/2508.05629.
    """
    loss = mle(soft_q)
    return jnp.exp(-jax.lax.stop_gradient(loss)) * loss


@check_arguments
def focal(soft_q: SoftQ, *, focus: NonNegative = 2.0) -> Float[Array, "*batch length"]:
    """Per-token focal loss: tokens to which the policy gives a high probability count little.

        loss_t = -(1 - pi(a_t|s_t)) ** focus * log pi(a_t|s_t)

    Args:
        soft_q: `q` and `v` of the demonstrated tokens, [batch, length], in nats.
        focus: gamma of the source, 0 or more; 0 gives maximum likelihood, and larger values a flatter policy.

    Returns:
        The loss of each token, [batch, length], in nats.

    Raises:
        UserError: a negative focus, which has no smallest loss.

    Source: https://arxiv.org/abs/1708.02002.
    """
    # Rounding may leave the loss of a token with probability 1 at -1e-7.
    loss = jnp.maximum(mle(soft_q), 0.0)
    # Where the loss is tiny, 1 - pi equals it up to rounding; this form keeps the slope of a fractional power finite at 0.
    tiny = loss < jnp.finfo(loss.dtype).eps
    sure = jnp.where(tiny, loss, 0.0) ** (1 + focus)
    unsure = loss * (-jnp.expm1(-jnp.where(tiny, 1.0, loss))) ** focus
    return jnp.where(tiny, sure, unsure)
