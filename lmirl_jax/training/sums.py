"""Metrics as sums and the weights to divide them by, which travel apart until the whole batch is in."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from lmirl_jax.objectives import implied_rewards
from lmirl_jax.types import Batch, SoftQ


class WeightedSum(NamedTuple):
    """A sum, and the weight to divide it by. A histogram is an array of sums."""

    total: Float[Array, "*bins"]
    weight: Float[Array, ""]


Sums = dict[str, WeightedSum]


def weighted_sum(
    values: Float[Array, "*batch length"], weights: Float[Array, "*batch length"]
) -> WeightedSum:
    return WeightedSum(jnp.sum(weights * values), jnp.sum(weights))


def means(sums: Sums) -> dict[str, Float[Array, ""]]:
    """The weighted mean of each metric; undefined, hence NaN, where nothing has any weight."""
    return {name: total / weight for name, (total, weight) in sums.items()}


def total_weight(batch: Batch) -> Float[Array, ""]:
    """The divisor of sums over the tokens of a batch; 1 where every weight is 0, so that the loss is 0."""
    weight = jnp.sum(batch.weights)
    return jnp.where(weight > 0, weight, 1.0)


def count_tokens(batch: Batch) -> Float[Array, ""]:
    """The number of tokens with a weight above 0."""
    return jnp.sum(jnp.asarray(batch.weights) > 0).astype(jnp.float32)


def padding_share(batch: Batch) -> Float[Array, ""]:
    """The share of the places for prompts and answers that hold no token."""
    kinds = [ids for ids in (batch.prompt_segment_ids, batch.segment_ids) if ids is not None]
    # Counts of padding, because 1 less the share of tokens may be rounded below 0.
    padding = sum(jnp.sum(jnp.asarray(ids) == 0) for ids in kinds)
    return jnp.asarray(padding, jnp.float32) / sum(ids.size for ids in kinds)


def last_tokens(batch: Batch) -> Float[Array, "rows length"]:
    """Marks the last token of each row with 1, others with 0."""
    real = (batch.weights > 0).astype(jnp.float32)
    return real * (1 - jnp.pad(real[:, 1:], ((0, 0), (0, 1))))


def policy_sums(out: SoftQ, batch: Batch) -> Sums:
    """Sums for the metrics of demonstrations or rollouts: the reward that the policy implies, and its entropy, in nats."""
    reward = implied_rewards(out, batch.discounts)
    return {
        "reward": weighted_sum(reward, batch.weights * batch.td_weights),
        "entropy": weighted_sum(out.entropy, batch.weights),
    }


def accuracy_sum(out: SoftQ, weights: Float[Array, "*batch length"]) -> WeightedSum:
    """The share of tokens to which the policy gives the highest probability."""
    return weighted_sum((out.q >= out.max_logit).astype(jnp.float32), weights)
