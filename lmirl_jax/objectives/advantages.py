"""Advantages: how much better than expected each sampled token, or each sampled answer, was. They weight policy gradients.

None of these stops a gradient: the losses of `objectives.policy_gradient` do.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from lmirl_jax.arguments import Positive, Share, check_arguments
from lmirl_jax.types import UserError


@check_arguments
def gae(
    rewards: Float[Array, "*batch length"],
    values: Float[Array, "*batch length"],
    next_values: Float[Array, "*batch length"],
    discounts: Float[Array, "*batch length"],
    continues: Bool[Array, "*batch length"],
    *,
    trace: Share = 0.95,
) -> Float[Array, "*batch length"]:
    """Generalised advantage estimates: the temporal differences of a value, summed with fading weights.

        A_t = delta_t + discount_t * trace * A_{t+1},   delta_t = r_t + discount_t * next_value_t - value_t

    where A_{t+1} is left out unless the sequence continues. The target of the value is `A + values`. For a `Batch` of
    sampled answers, `discounts` is `batch.discounts + gamma * (batch.weights - batch.td_weights)` and `continues` is
    `batch.discounts != 0`.

    Args:
        rewards: the reward of each token, [*batch, length].
        values: the value of the state before each token, [*batch, length].
        next_values: the value of the state after each token, [*batch, length]; at the end of a truncated answer it stands
            for all that would have followed.
        discounts: gamma inside a sequence and at the last token of a truncated one, 0 at EOS, [*batch, length].
        continues: whether the next position holds the next token of the same sequence, [*batch, length]: false at each
            last token and on padding, which keeps padding and packed neighbours out.
        trace: the lambda of the source, 0 to 1: 0 trusts the values (little variance), 1 only the rewards (no bias).

    Returns:
        The advantages, [*batch, length], in the unit of the rewards; those on padding are meaningless.

    Raises:
        UserError: a trace out of range.

    Source: https://arxiv.org/abs/1506.02438.
    """
    deltas = rewards + discounts * next_values - values

    def step(after: Float[Array, "*batch"], inputs):
        delta, fade, on = inputs
        advantage = delta + jnp.where(on, fade * after, jnp.zeros_like(after))
        return advantage, advantage

    by_time = [jnp.moveaxis(x, -1, 0) for x in (deltas, discounts * trace, continues)]
    _, advantages = jax.lax.scan(step, jnp.zeros_like(by_time[0][0]), tuple(by_time), reverse=True)
    return jnp.moveaxis(advantages, 0, -1)


def leave_one_out(returns: Float[Array, "*prompts samples"]) -> Float[Array, "*prompts samples"]:
    """The return of each answer less the mean return of the other answers to its prompt: a baseline without bias or parameters.

        A_i = R_i - sum_{j != i} R_j / (n - 1)

    Args:
        returns: the summed rewards of each of a prompt's n answers, [*prompts, samples].

    Returns:
        The advantages, [*prompts, samples], in the unit of the returns; exactly 0 where all returns are equal.

    Raises:
        UserError: a single answer to each prompt.

    Source: https://arxiv.org/abs/2402.14740.
    """
    samples = _samples(returns, "leave_one_out")
    return _subtract_mean(returns) * (samples / (samples - 1))


@check_arguments
def group_relative(
    returns: Float[Array, "*prompts samples"],
    *,
    scale: bool = True,
    epsilon: Positive = 1e-4,
    ddof: Literal[0, 1] = 0,
) -> Float[Array, "*prompts samples"]:
    """The return of each answer less the mean return of the answers to its prompt, in units of their standard deviation.

        A_i = (R_i - mean_j R_j) / (std_j R_j + epsilon)

    Args:
        returns: the summed rewards of each of a prompt's n answers, [*prompts, samples].
        scale: false leaves out the division (Dr. GRPO), which amplifies prompts whose answers hardly differ.
        epsilon: keeps the division from amplifying much smaller differences, in the unit of the returns.
        ddof: the variance is the sum of squared distances over n - ddof. 0 is the variance of these answers. 1 is the unbiased
            estimate that TRL uses: advantages are then sqrt((n - 1) / n) times as large, .87 at four answers.

    Returns:
        The advantages, [*prompts, samples]; exactly 0 where all returns are equal.

    Raises:
        UserError: a single answer to each prompt, or a ddof that is neither 0 nor 1.

    Source: GRPO, https://arxiv.org/abs/2402.03300; without the scale, https://arxiv.org/abs/2503.20783.
    """
    samples = _samples(returns, "group_relative")
    centred = _subtract_mean(returns)
    if not scale:
        return centred
    deviation = jnp.sqrt(jnp.sum(centred**2, axis=-1, keepdims=True) / (samples - ddof))
    return centred / (deviation + epsilon)


def whiten(
    values: Float[Array, "*shape"], weights: Float[Array, "*shape"], *, epsilon: float = 1e-6
) -> Float[Array, "*shape"]:
    """Shifts and scales to a weighted mean of 0 and a weighted standard deviation of 1, over the whole array.

        (x - mean) / (std + epsilon)

    Args:
        values: such as the advantages of a batch's tokens, any shape.
        weights: the weight of each value, 0 or more, of the same shape; values of weight 0 have no influence.
        epsilon: as in `group_relative`.

    Returns:
        The whitened values, of the same shape; 0 where the weight is 0, and exactly 0 where all values are equal.
    """
    real = weights > 0
    # The largest value is subtracted first, so that equal values give exactly 0, free of rounding.
    largest = jnp.max(values, initial=-jnp.inf, where=real)
    shifted = jnp.where(real, values - largest, jnp.zeros_like(values))
    total = jnp.sum(weights)
    total = jnp.where(total > 0, total, jnp.ones_like(total))
    centred = shifted - jnp.sum(weights * shifted) / total
    deviation = jnp.sqrt(jnp.sum(weights * centred**2) / total)
    return jnp.where(real, centred / (deviation + epsilon), jnp.zeros_like(values))


def _samples(returns: Float[Array, "*prompts samples"], name: str) -> int:
    samples = returns.shape[-1]
    if samples < 2:
        raise UserError(
            f"objectives.{name} compares a prompt's answers with one another, and there is {samples} a prompt; "
            "sample 2 or more"
        )
    return samples


def _subtract_mean(returns: Float[Array, "*prompts samples"]) -> Float[Array, "*prompts samples"]:
    """Subtracts the mean; the first return is subtracted before, so that equal returns give exactly 0."""
    shifted = returns - returns[..., :1]
    return shifted - jnp.mean(shifted, axis=-1, keepdims=True)
