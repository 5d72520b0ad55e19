"""The update of offline training, as a pure function of state and batch."""

import dataclasses
import inspect
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, Key

from lmirl_jax.objectives import mle
from lmirl_jax.training.keys import row_keys
from lmirl_jax.training.microbatches import flatten_groups, gradient_of, group_rows, sum_over_parts
from lmirl_jax.training.schedules import value_at
from lmirl_jax.training.soft_q_config import SoftQConfig, read_soft_q
from lmirl_jax.training.state import TrainState, apply_gradients
from lmirl_jax.training.sums import (
    Sums,
    accuracy_sum,
    count_tokens,
    means,
    padding_share,
    policy_sums,
    total_weight,
    weighted_sum,
)
from lmirl_jax.types import Batch, Model, Objective, Schedule, SoftQ


@dataclasses.dataclass(frozen=True)
class TokenLoss:
    """The loss that an update minimises.

    Args:
        objective: the per-token loss.
        td_weight: lambda, a number or a schedule of the updates made.
        soft_q_config: the settings with which soft Q-values are computed.
    """

    objective: Objective
    td_weight: float | Schedule = 0.0
    soft_q_config: SoftQConfig = dataclasses.field(default_factory=SoftQConfig)


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    graph: nnx.GraphDef,
    loss: TokenLoss,
    optimizer: optax.GradientTransformation,
    key: Key[Array, ""],
    microbatches: int,
    rows_together: int = 1,
) -> tuple[TrainState, dict[str, Float[Array, ""]]]:
    """Updates the parameters once.

        loss = sum_t weight_t * loss_t / sum_t weight_t   over the answers' tokens in the global batch

    An example's weight w counts its tokens w times, in either sum: as if it stood there so often. Where the data have labels, the
    likelihood is a mean over the tokens of right answers alone, and the TD part one over those of all.

    Args:
        state: parameters and optimizer's state; donated, where jitted by the trainer.
        batch: the global batch, [batch, ...].
        graph: the network without its arrays.
        loss: the loss that is minimised.
        optimizer: turns gradients into updates.
        key: the key of the run. Dropout depends on it, the step and the row, so that it is the same on every mesh.
        microbatches: parts of the batch whose gradients are summed one after the other.
        rows_together: rows that follow one another and are never dealt to different parts.

    Returns:
        The next state, and the metrics of this batch before the update.
    """
    dropout_keys = row_keys(key, state.step, batch.weights.shape[0])
    td_weight = value_at(loss.td_weight, state.step)
    weight = total_weight(batch)
    batch = weigh_labels(batch)

    def loss_of_part(params: Any, part: Any, keys: Any) -> tuple[Float[Array, ""], Sums]:
        rows, keys = flatten_groups((part, keys))
        model = nnx.merge(graph, params)
        sums = loss_sums(model, loss.objective, rows, td_weight, keys, loss.soft_q_config)
        return sums["loss"].total / weight, sums

    groups, keys = group_rows((batch, dropout_keys), rows_together)
    gradients, sums = sum_over_parts(gradient_of(loss_of_part), state.params, groups, keys, microbatches)
    state, update_metrics = apply_gradients(state, gradients, optimizer, graph)
    metrics = means(sums) | {"loss": sums["loss"].total / weight, "td_weight": td_weight}
    counts = {"target_tokens": count_tokens(batch), "padding_share": padding_share(batch)}
    return state, metrics | update_metrics | counts


def loss_sums(
    model: Model,
    objective: Objective,
    batch: Batch,
    td_weight: Float[Array, ""],
    dropout_keys: Key[Array, " batch"] | None = None,
    soft_q_config: SoftQConfig = SoftQConfig(),
) -> Sums:
    """The loss and the metrics beside it, each as a sum over tokens and the sum of the weights.

    Args:
        model: the policy.
        objective: the per-token loss; see `token_losses`.
        batch: [batch, ...].
        td_weight: lambda of this step.
        dropout_keys: one key for each row; None for no dropout.
        soft_q_config: the settings with which soft Q-values are computed.

    Returns:
        loss, loss_mle, loss_td (what an objective with a TD weight adds to loss_mle), reward, entropy (nats) and accuracy
        (a share).
    """
    out = read_soft_q(model, batch, dropout_keys, soft_q_config)
    imitated = batch.weights if batch.labels is None else batch.weights * batch.labels
    per_token = token_losses(out, objective, batch, td_weight, model.unembedding().kernel.shape[1])
    likelihood = mle(out)
    has_td_weight = "td_weight" in inspect.signature(objective).parameters
    added = jnp.zeros_like(likelihood)
    if has_td_weight:
        added = per_token - (likelihood if batch.labels is None else batch.labels * likelihood)
    sums = {
        "loss_mle": weighted_sum(likelihood, imitated),
        "loss_td": weighted_sum(added, batch.weights),
        **policy_sums(out, batch),
        "accuracy": accuracy_sum(out, imitated),
    }
    return {"loss": weighted_sum(per_token, batch.weights), **jax.lax.stop_gradient(sums)}


def token_losses(
    out: SoftQ, objective: Objective, batch: Batch, td_weight: Float[Array, ""], vocab_size: int
) -> Float[Array, "batch length"]:
    """The loss of each token, from those of the arrays of `types.Objective` that the objective names.

    Where the data have labels, an objective without `mle_weight` is of right answers alone.
    """
    offered = {
        "discounts": batch.discounts,
        "td_weight": td_weight * batch.td_weights,
        "vocab_size": vocab_size,
    }
    if batch.rewards is not None:
        offered["rewards"] = batch.rewards
    if batch.labels is not None:
        offered["mle_weight"] = batch.labels
    named = inspect.signature(objective).parameters
    losses = objective(out, **{name: value for name, value in offered.items() if name in named})
    return losses if batch.labels is None or "mle_weight" in named else batch.labels * losses


def weigh_labels(batch: Batch, scale: Any = None) -> Batch:
    """The batch with labels as weights of the likelihood, with which a mean over all tokens is one over those of right answers.

        label_t * sum_t weight_t / sum_t weight_t label_t

    Args:
        batch: a batch, with labels of 0 and 1 or without.
        scale: the quotient of the sums; None for that of the batch, or 0 where no answer is right.
    """
    if batch.labels is None:
        return batch
    if scale is None:
        total, right = jnp.sum(batch.weights), jnp.sum(batch.weights * batch.labels)
        scale = jnp.where(right > 0, total / jnp.where(right > 0, right, 1.0), 0.0)
    return dataclasses.replace(batch, labels=batch.labels * scale)
