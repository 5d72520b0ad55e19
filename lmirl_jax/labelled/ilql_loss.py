"""The loss of ILQL on a part of the batch: two conservative Q heads, a value head, and the policy."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from lmirl_jax import soft_q
from lmirl_jax.argument_rules import Within
from lmirl_jax.arguments import NonNegative, Positive, Share, check_arguments
from lmirl_jax.models.trainable import HEADS
from lmirl_jax.objectives import advantage_weighted, conservative_q, expectile, mle
from lmirl_jax.training import SoftQConfig
from lmirl_jax.training.sums import Sums, accuracy_sum, policy_sums, weighted_sum
from lmirl_jax.types import Batch, SoftQ

VALUE, ACTIONS = "value", ("q_1", "q_2")


@check_arguments
@dataclasses.dataclass(frozen=True)
class ILQLLoss:
    """The loss of ILQL, a mean over the tokens of all answers.

        loss = sum_k [(Q_k,t - discount_t * V_{t+1} - g_t) ** 2 + cql_weight * (log sum_a exp Q_k(s_t, a) - Q_k,t)]
             + |tau - 1(u_t < 0)| * u_t ** 2 + policy_weight * min(exp(beta * u_t), max_weight) * -log pi_t
        u_t = min_k target Q_k,t - V_t,   g_t = reward_scale * reward_t

    There is no gradient through V in the first line, nor through the target Q-values, whose heads follow slowly.

    Args:
        tau: the expectile of the value head.
        cql_weight: the weight of the likelihood under the softmax of each Q.
        policy_weight: the weight of the policy's likelihood; 0 leaves it as it is, but for the layers that it shares.
        beta: of the weights of this likelihood; 0 imitates all answers.
        max_weight: their bound.
        reward_scale: units of Q for each unit of the rewards.
        target_rate: the share of the difference by which the target heads follow the heads in an update.
        soft_q_config: the settings with which numbers over the vocabulary are computed.

    Source: https://arxiv.org/abs/2206.11871.
    """

    tau: Annotated[float, Within(0, 1, open_low=True, open_high=True)] = 0.7
    cql_weight: NonNegative = 0.1
    policy_weight: NonNegative = 1.0
    beta: NonNegative = 0.0
    max_weight: Positive = 100.0
    reward_scale: Positive = 1.0
    target_rate: Share = 0.005
    soft_q_config: SoftQConfig = dataclasses.field(default_factory=SoftQConfig)


def ilql_sums(
    model: Any,
    target_heads: Mapping[str, Any],
    batch: Batch,
    dropout_keys: Key[Array, " rows"] | None,
    loss: ILQLLoss,
) -> Sums:
    """The loss and the metrics beside it, each as a sum over tokens and the sum of the weights.

    Args:
        model: the policy, with its heads.
        target_heads: the target heads of Q by their names.
        batch: answers with rewards, [rows, ...].
        dropout_keys: one key for each row; None for no dropout.
        loss: the loss.

    Returns:
        loss; its parts without their weights, of which those of Q are means over the two heads: loss_q, loss_cql, loss_value,
        loss_policy; loss_mle, entropy, reward and accuracy of the policy; and value, V, and advantage, u.
    """
    hidden = model.hidden(batch, dropout_keys)
    policy = _read(model, hidden, batch, loss)
    heads = getattr(model, HEADS)
    values = soft_q.look_through(heads[VALUE](hidden), batch)
    read = {name: _read_head(heads[name], hidden, batch, loss) for name in ACTIONS}
    targets = [_read_head(head, hidden, batch, loss).q for head in target_heads.values()]
    target = jax.lax.stop_gradient(jnp.min(jnp.stack(targets), axis=0))
    advantages = target - values
    rewards = loss.reward_scale * batch.rewards
    mask, weights = batch.td_weights, batch.weights

    def q_loss(td: float, cql: float) -> Float[Array, "rows length"]:
        known = jax.lax.stop_gradient(values), batch.discounts
        each = [
            conservative_q(out, *known, td_weight=td * mask, rewards=rewards, cql_weight=cql)
            for out in read.values()
        ]
        return jnp.sum(jnp.stack(each), axis=0)

    # The last token of a truncated answer has no temporal difference, and its Q means nothing.
    value_loss = mask * expectile(target, values, tau=loss.tau)
    policy_loss = advantage_weighted(policy, mask * advantages, beta=loss.beta, max_weight=loss.max_weight)
    per_token = q_loss(1.0, loss.cql_weight) + value_loss + loss.policy_weight * policy_loss
    count = len(ACTIONS)
    metrics = {
        "loss_q": weighted_sum(q_loss(1.0, 0.0) / count, weights),
        "loss_cql": weighted_sum(q_loss(0.0, 1.0) / count, weights),
        "loss_value": weighted_sum(value_loss, weights),
        "loss_policy": weighted_sum(policy_loss, weights),
        "loss_mle": weighted_sum(mle(policy), weights),
        **policy_sums(policy, batch),
        "accuracy": accuracy_sum(policy, weights),
        "value": weighted_sum(values, weights),
        "advantage": weighted_sum(advantages, weights * mask),
    }
    return {"loss": weighted_sum(per_token, weights), **jax.lax.stop_gradient(metrics)}


def _read(model: Any, hidden: Array, batch: Batch, loss: ILQLLoss) -> SoftQ:
    wanted = {"with_entropy": True, "with_max": True, "block_size": loss.soft_q_config.block_size}
    return soft_q.from_states(hidden, model.unembedding(), batch, **wanted)


def _read_head(head: Any, hidden: Array, batch: Batch, loss: ILQLLoss) -> SoftQ:
    block_size = loss.soft_q_config.block_size
    return soft_q.from_states(head.layer(hidden), head.unembedding(), batch, block_size=block_size)
