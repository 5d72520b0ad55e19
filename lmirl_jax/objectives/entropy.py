"""Maximum likelihood that keeps the policy's entropy."""

from jaxtyping import Array, Float

from lmirl_jax.arguments import NonNegative, check_arguments
from lmirl_jax.objectives.likelihood import mle
from lmirl_jax.types import SoftQ, UserError


@check_arguments
def entropy_regularised_mle(
    soft_q: SoftQ, *, entropy_weight: NonNegative = 0.1
) -> Float[Array, "*batch length"]:
    """Per-token negative log-likelihood with a bonus for the entropy of the policy.

        loss_t = -log pi(a_t|s_t) - entropy_weight * H(pi(.|s_t))

    Args:
        soft_q: `q`, `v` and `entropy` of the demonstrated tokens, [batch, length], in nats.
        entropy_weight: the paper's lambda for this loss: 0 is maximum likelihood; it tries 0.01, 0.05 and 0.1.

    Returns:
        The loss of each token, [batch, length], in nats.

    Raises:
        UserError: `soft_q` was made without the entropy.

    Source: https://arxiv.org/abs/2409.01369, equation 18.
    """
    if soft_q.entropy is None:
        raise UserError(
            "objectives.entropy_regularised_mle needs the entropy; ask soft_q for it with `with_entropy=True`"
        )
    return mle(soft_q) - entropy_weight * soft_q.entropy


def gem(soft_q: SoftQ) -> Float[Array, "*batch length"]:
    """Per-token GEM, the linear form: reverse KL to the expert with an entropy bonus, played as a game.

        loss_t = beta * logsumexp(logits_t / beta) - q_t

    Its gradient is softmax(logits_t / beta) less one at the target: the policy tempered by beta is fitted to the expert,
    so that with beta below 1 the policy itself is flatter.

    Args:
        soft_q: `q`, and `tempered` at temperature beta, of the demonstrated tokens, [batch, length], in nats. The gin
            macro SOFT_Q_TEMPERATURE is beta, 0.7 in the source; 1 gives maximum likelihood.

    Returns:
        The loss of each token, [batch, length], in nats.

    Raises:
        UserError: `soft_q` was made without a temperature.

    Source: https://arxiv.org/abs/2408.16673.
    """
    if soft_q.tempered is None:
        raise UserError(
            "objectives.gem needs a temperature; set SOFT_Q_TEMPERATURE = 0.7, or ask soft_q with `temperature=0.7`"
        )
    return soft_q.tempered - soft_q.q
