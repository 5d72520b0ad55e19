"""One update: the whole computation of training, as a pure function of state and batch."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, Key

from lmirl_jax import soft_q, tiles
from lmirl_jax.objectives import implied_rewards, mle
from lmirl_jax.training.state import TrainState
from lmirl_jax.types import Batch, Objective, Schedule, UserError

Sums = dict[str, tuple[Float[Array, ""], Float[Array, ""]]]
"""Metrics as a sum and the weight to divide it by; they travel apart until the whole batch is in."""


@dataclasses.dataclass(frozen=True)
class SoftQConfig:
    """How soft Q-values are read off the hidden states.

    Args:
        temperature: of `SoftQ.tempered`, for objectives that use it (GEM); None: not computed.
        block_size: tokens whose logits exist at a time; None: by size, 0: all (dense).

    Raises:
        UserError: a value out of range.
    """

    temperature: float | None = None
    block_size: int | None = None

    def __post_init__(self):
        tiles.choose_tile(1, 1, self.block_size)
        if self.temperature is not None and not self.temperature > 0:
            raise UserError(f"SOFT_Q_TEMPERATURE={self.temperature!r} must be above 0, or None")


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    graph: nnx.GraphDef,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    td_weight: float | Schedule,
    soft_q_config: SoftQConfig = SoftQConfig(),
    key: Key[Array, ""],
    microbatches: int,
) -> tuple[TrainState, dict[str, Float[Array, ""]]]:
    """One update of the parameters.

        loss = sum_t weight_t * loss_t / sum_t weight_t   over the real target tokens of the global batch

    Args:
        state: parameters and optimizer's state; donated, where jitted by the trainer.
        batch: the global batch, [batch, ...].
        graph: the network without its arrays.
        objective: the per-token loss.
        optimizer: turns gradients into updates.
        td_weight: lambda, a number or a schedule of the steps made.
        soft_q_config: how soft Q-values are read.
        key: of the run; dropout is keyed by it, the step and the row, so that no mesh changes it.
        microbatches: parts of the batch whose gradients are summed one after the other.

    Returns:
        The next state, and the metrics of this batch before the update.
    """
    rows = batch.weights.shape[0]
    dropout_keys = jax.vmap(jax.random.fold_in, (None, 0))(
        jax.random.fold_in(key, state.step), jnp.arange(rows)
    )
    now = td_weight(state.step) if callable(td_weight) else jnp.asarray(td_weight, jnp.float32)
    tokens = jnp.sum(batch.weights)

    def loss_of_part(params: Any, part: Batch, keys: Key[Array, " rows"]) -> tuple[Float[Array, ""], Sums]:
        sums = loss_sums(nnx.merge(graph, params), objective, part, now, keys, soft_q_config)
        return sums["loss"][0] / tokens, sums

    gradient = jax.grad(loss_of_part, has_aux=True)
    gradients, sums = summed_over_parts(gradient, state.params, batch, dropout_keys, microbatches)
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = {name: total / weight for name, (total, weight) in sums.items()}
    metrics |= {"gradient_norm": optax.tree.norm(gradients), "td_weight": now, "target_tokens": tokens}
    # Injected schedules keep a state under the same name: the number is the array.
    learning_rate = optax.tree_utils.tree_get(
        opt_state, "learning_rate", filtering=lambda path, value: isinstance(value, jax.Array)
    )
    if learning_rate is not None:
        metrics["learning_rate"] = learning_rate
    return TrainState(state.step + 1, params, opt_state), metrics


def loss_sums(
    model: Any,
    objective: Objective,
    batch: Batch,
    td_weight: Float[Array, ""],
    dropout_keys: Key[Array, " batch"] | None = None,
    soft_q_config: SoftQConfig = SoftQConfig(),
) -> Sums:
    """The loss and what is watched beside it, each as a sum over tokens and the sum of the weights.

    Args:
        model: a `types.Model`.
        objective: the per-token loss; it is given those of `discounts`, `td_weight` and `vocab_size` that it names.
        batch: [batch, ...].
        td_weight: lambda of this step.
        dropout_keys: one a row, or None for none.
        soft_q_config: how soft Q-values are read.

    Returns:
        loss, loss_mle, loss_td (what an objective with a TD weight adds to loss_mle), reward, entropy (nats) and accuracy
        (a share).
    """
    read = {"with_entropy": True, "with_sum": True, "with_max": True, **dataclasses.asdict(soft_q_config)}
    out = soft_q.of_model(model, batch, dropout_keys, **read)
    offered = {
        "discounts": batch.discounts,
        "td_weight": td_weight * batch.td_weights,
        "vocab_size": model.unembedding().kernel.shape[1],
    }
    named = inspect.signature(objective).parameters
    per_token = objective(out, **{name: value for name, value in offered.items() if name in named})
    likelihood = mle(out)
    reward = implied_rewards(out, batch.discounts)
    added = per_token - likelihood if "td_weight" in named else jnp.zeros_like(likelihood)

    def total(values: Float[Array, "batch length"], weights: Float[Array, "batch length"]):
        return jnp.sum(weights * values), jnp.sum(weights)

    weights, td_mask = batch.weights, batch.weights * batch.td_weights
    sums = {
        "loss_mle": total(likelihood, weights),
        "loss_td": total(added, weights),
        "reward": total(reward, td_mask),
        "entropy": total(out.entropy, weights),
        "accuracy": total((out.q >= out.max_logit).astype(jnp.float32), weights),
    }
    return {"loss": total(per_token, weights), **jax.lax.stop_gradient(sums)}


def summed_over_parts(
    gradient: Callable, params: Any, batch: Batch, keys: Key[Array, " batch"], parts: int
) -> tuple[Any, Sums]:
    """Gradients and sums of the batch, taken in `parts` pieces one after the other."""
    if parts == 1:
        return gradient(params, batch, keys)

    def split(x: Array) -> Array:
        # Every parts-th row goes to the same piece, so that each device cuts up its own rows and none move.
        return jnp.swapaxes(jnp.reshape(x, (x.shape[0] // parts, parts, *x.shape[1:])), 0, 1)

    def add(sums, piece):
        return jax.tree.map(jnp.add, sums, gradient(params, *piece)), None

    pieces = jax.tree.map(split, (batch, keys))
    shapes = jax.eval_shape(gradient, params, *jax.tree.map(lambda x: x[0], pieces))
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    return jax.lax.scan(add, zeros, pieces)[0]
