"""The loss of a reward model: of preferences, by Bradley-Terry, or of right and wrong answers, for every beginning of them."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from lmirl_jax.arguments import check_arguments
from lmirl_jax.labelled.preference_loss import PairLossFunction
from lmirl_jax.models import reward_values
from lmirl_jax.training.sums import Sums, WeightedSum, last_tokens, weighted_sum
from lmirl_jax.types import Batch


@check_arguments
@dataclasses.dataclass(frozen=True)
class RewardLoss:
    """The loss of a batch of preferences, or of right and wrong answers. Each head of an ensemble has its own.

        preferences:  mean over pairs and heads of  loss(R(chosen) - R(rejected)),   R = the head after the last token
        labels:       mean over tokens and heads of  -log P(label_t),   P(right) = sigmoid(the head after token t)

    With `objectives.dpo` at beta 1 the first is the likelihood of Bradley-Terry. The second is fitted to the share of right
    answers among those that begin like this one.

    Args:
        preference: the loss of a pair.

    Source: Bradley-Terry in https://arxiv.org/abs/2203.02155; values of prefixes from outcomes, https://arxiv.org/abs/2110.14168.
    """

    preference: PairLossFunction


def reward_sums(model: Any, batch: Batch, dropout_keys: Key[Array, " rows"] | None, loss: RewardLoss) -> Sums:
    """The loss and the metrics beside it, each as a sum and the sum of the weights.

    Args:
        model: a reward model.
        batch: [rows, ...]; with labels, or with each two rows the chosen and the rejected answer to one prompt.
        dropout_keys: one key for each row; None for no dropout.
        loss: the loss.

    Returns:
        loss; accuracy, the share of pairs, or of answers, that the mean of the heads judges right; disagreement, the standard
        deviation of the heads, of margins or of whole answers; and of pairs `margin`, of the mean.
    """
    values = reward_values(model, batch, dropout_keys)[..., 1:]
    answers = jnp.sum(last_tokens(batch)[None] * values, axis=-1)
    if batch.labels is None:
        return _of_pairs(answers[:, ::2] - answers[:, 1::2], jnp.max(batch.weights[::2], axis=-1), loss)
    return _of_labels(values, answers, batch)


def _of_pairs(
    margins: Float[Array, "heads pairs"], weights: Float[Array, " pairs"], loss: RewardLoss
) -> Sums:
    losses = jnp.mean(jax.vmap(loss.preference)(margins), axis=0)
    mean = jnp.mean(margins, axis=0)
    metrics = {
        "accuracy": _weighted((mean > 0).astype(jnp.float32), weights),
        "margin": _weighted(mean, weights),
        "disagreement": _weighted(jnp.std(margins, axis=0), weights),
    }
    return {"loss": _weighted(losses, weights), **jax.lax.stop_gradient(metrics)}


def _of_labels(
    values: Float[Array, "heads rows length"], answers: Float[Array, "heads rows"], batch: Batch
) -> Sums:
    labels = jnp.broadcast_to(batch.labels[None], values.shape)
    losses = jnp.mean(optax.sigmoid_binary_cross_entropy(values, labels), axis=0)
    right = jnp.max(batch.labels, axis=-1)
    weights = jnp.max(batch.weights, axis=-1)
    judged = (jnp.mean(answers, axis=0) > 0) == (right > 0)
    metrics = {
        "accuracy": _weighted(judged.astype(jnp.float32), weights),
        "disagreement": _weighted(jnp.std(answers, axis=0), weights),
    }
    return {"loss": weighted_sum(losses, batch.weights), **jax.lax.stop_gradient(metrics)}


def _weighted(values: Float[Array, " entries"], weights: Float[Array, " entries"]) -> WeightedSum:
    # An entry without weight may have any value, which times 0 must not be NaN.
    return WeightedSum(jnp.sum(jnp.where(weights > 0, weights * values, 0.0)), jnp.sum(weights))
