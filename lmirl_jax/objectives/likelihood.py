"""Maximum likelihood: behavioural cloning of the demonstrations, with T5X's two options."""

import math
from typing import Annotated

from jaxtyping import Array, Float

from lmirl_jax.argument_rules import GivenByCaller
from lmirl_jax.arguments import Count, NonNegative, ShareBelowOne, check_arguments
from lmirl_jax.types import SoftQ, UserError


@check_arguments
def mle(
    soft_q: SoftQ,
    *,
    label_smoothing: ShareBelowOne = 0.0,
    z_loss: NonNegative = 0.0,
    vocab_size: Annotated[Count | None, GivenByCaller()] = None,
) -> Float[Array, "*batch length"]:
    """Per-token negative log-likelihood.

        loss_t = -log pi(a_t|s_t) = v_t - q_t

    Label smoothing e puts 1 - e on the target and e / (V - 1) on each other word, less the entropy of that, so that the
    smallest loss is 0; z-loss adds z_loss * v_t ** 2, which draws the soft value to 0 and leaves the policy alone:

        loss_t = -(1 - e) log pi(a_t|s_t) - e / (V - 1) sum_{b != a_t} log pi(b|s_t) - constant(e, V) + z_loss * v_t ** 2

    Args:
        soft_q: `q` and `v` of the demonstrated tokens, [batch, length], in nats; with label smoothing also `sum_logits`.
        label_smoothing: e, from 0 to below 1.
        z_loss: the weight of v_t ** 2, in 1/nats.
        vocab_size: V, the number of logits; label smoothing needs it.

    Returns:
        The loss of each token, [batch, length], in nats.

    Raises:
        UserError: label smoothing out of range, or without `sum_logits` or `vocab_size`.

    Source: label smoothing and z-loss are T5X's (https://arxiv.org/abs/2203.17189).
    """
    loss = soft_q.v - soft_q.q
    if label_smoothing:
        loss = _smooth(soft_q, label_smoothing, vocab_size)
    if z_loss:
        loss = loss + z_loss * soft_q.v**2
    return loss


def _smooth(soft_q: SoftQ, smoothing: float, vocab_size: int | None) -> Float[Array, "*batch length"]:
    """The cross-entropy to the smoothed target, computed from the sum of all logits, less its smallest possible value."""
    if soft_q.sum_logits is None:
        raise UserError(
            "objectives.mle: label smoothing needs sum_logits; ask soft_q for it with `with_sum=True`"
        )
    if vocab_size is None or vocab_size < 2:
        raise UserError(
            f"objectives.mle: label smoothing over vocab_size = {vocab_size}; pass the number of logits, 2 or more"
        )
    target, other = 1 - smoothing, smoothing / (vocab_size - 1)
    entropy = -target * math.log(target) - smoothing * math.log(other)
    return soft_q.v - (target - other) * soft_q.q - other * soft_q.sum_logits - entropy
