"""Offline Q-learning with values of its own: a conservative Q, a value that is an expectile of it, and weighted likelihood."""

from typing import Annotated

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lmirl_jax.argument_rules import GivenByCaller, Within
from lmirl_jax.arguments import NonNegative, Positive, check_arguments
from lmirl_jax.objectives.inverse_q import implied_rewards
from lmirl_jax.types import SoftQ


@check_arguments
def conservative_q(
    action_values: SoftQ,
    values: Float[Array, "*batch length"],
    discounts: Float[Array, "*batch length"],
    *,
    td_weight: Annotated[Float[Array, "..."] | float, GivenByCaller()],
    rewards: Float[Array, "..."] | float = 0.0,
    cql_weight: NonNegative = 1.0,
) -> Float[Array, "*batch length"]:
    """Per-token Q-learning towards a value of the next state, with a likelihood that keeps Q low off the data.

        loss_t = td_weight * (Q_t - discount_t * V_{t+1} - g_t) ** 2 + cql_weight * (log sum_a exp Q(s_t, a) - Q_t)

    With `values` equal to `action_values.v` and a `cql_weight` of 1 it is `iqlearn`.

    Args:
        action_values: the Q-values as `q`, of the token taken, and `v`, their logsumexp, [batch, length].
        values: V of the state before each token, [batch, length]; no gradient should flow through them in ILQL.
        discounts: gamma inside a sequence and 0 at its last token, [batch, length].
        td_weight: the weight of the temporal difference times the TD mask, broadcast to [batch, length].
        rewards: the reward of each token, broadcast to [batch, length].
        cql_weight: the weight of the likelihood.

    Returns:
        The loss of each token, [batch, length].

    Source: ILQL, https://arxiv.org/abs/2206.11871, section 4; CQL, https://arxiv.org/abs/2006.04779.
    """
    residual = implied_rewards(SoftQ(action_values.q, values), discounts) - rewards
    return td_weight * residual**2 + cql_weight * (action_values.v - action_values.q)


@check_arguments
def expectile(
    targets: Float[Array, "*batch"],
    values: Float[Array, "*batch"],
    *,
    tau: Annotated[float, Within(0, 1, open_low=True, open_high=True)] = 0.7,
) -> Float[Array, "*batch"]:
    """Expectile regression: a mean in which errors above it weigh tau, and those below 1 - tau.

        loss = |tau - 1(u < 0)| * u ** 2,   u = target - value

    Args:
        targets: what values are fitted to, any shape; no gradient flows through them.
        values: the values, of the same shape.
        tau: 1/2 is the mean; towards 1 it is the maximum over what the data hold.

    Returns:
        The losses, of the same shape.

    Source: IQL, https://arxiv.org/abs/2110.06169, equation 5.
    """
    difference = jax.lax.stop_gradient(targets) - values
    return jnp.where(difference < 0, 1 - tau, tau) * difference**2


@check_arguments
def advantage_weighted(
    soft_q: SoftQ,
    advantages: Float[Array, "*batch length"],
    *,
    beta: NonNegative = 1.0,
    max_weight: Positive = 100.0,
) -> Float[Array, "*batch length"]:
    """Per-token likelihood of a policy, weighted by advantages.

        loss_t = min(exp(beta * A_t), max_weight) * -log pi(a_t|s_t)

    At beta 0 it is maximum likelihood; with A = log pi and beta 1 its gradient is that of `dft`.

    Args:
        soft_q: `q` and `v` of the policy, [batch, length], in nats.
        advantages: A, [batch, length]; no gradient flows through them.
        beta: the inverse of the temperature.
        max_weight: the bound of the weights.

    Returns:
        The loss of each token, [batch, length], in nats.

    Source: AWR, https://arxiv.org/abs/1910.00177; the bound is IQL's, https://arxiv.org/abs/2110.06169.
    """
    weights = jnp.minimum(jnp.exp(beta * jax.lax.stop_gradient(advantages)), max_weight)
    return weights * (soft_q.v - soft_q.q)
