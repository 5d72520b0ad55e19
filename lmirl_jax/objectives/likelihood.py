"""Maximum likelihood: behavioural cloning of the demonstrations."""

from jaxtyping import Array, Float

from lmirl_jax.types import SoftQ


def mle(soft_q: SoftQ) -> Float[Array, "*batch length"]:
    """Per-token negative log-likelihood.

        loss_t = -log pi(a_t|s_t) = v_t - q_t

    Args:
        soft_q: `q` and `v` of the demonstrated tokens, [batch, length], in nats.

    Returns:
        The loss of each token, [batch, length], in nats.
    """
    return soft_q.v - soft_q.q
