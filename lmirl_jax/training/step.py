"""One update: the whole computation of training, as a pure function of state and batch."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from lmirl_jax import soft_q
from lmirl_jax.arguments import Positive, Whole, checked, trace_objective
from lmirl_jax.objectives import implied_rewards, mle
from lmirl_jax.training.parameter_axes import for_model
from lmirl_jax.training.state import TrainState
from lmirl_jax.types import Batch, Objective, Schedule, SoftQ

Sums = dict[str, tuple[Float[Array, ""], Float[Array, ""]]]
"""Metrics as a sum and the weight to divide it by; they travel apart until the whole batch is in."""


@checked
@dataclasses.dataclass(frozen=True)
class SoftQConfig:
    """How soft Q-values are read off the hidden states.

    Args:
        temperature: of `SoftQ.tempered`, for objectives that use it (GEM); None: not computed.
        block_size: tokens whose logits exist at a time; None: by size, 0: all (dense).

    Raises:
        UserError: a value out of range.
    """

    temperature: Positive | None = None
    block_size: Whole | None = None


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

    An example's weight w counts its tokens w times, in either sum: as if it stood there so often.

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
    dropout_keys = row_keys(key, state.step, batch.weights.shape[0])
    now = scheduled(td_weight, state.step)
    weight = summed_weight(batch)

    def loss_of_part(params: Any, part: Batch, keys: Key[Array, " rows"]) -> tuple[Float[Array, ""], Sums]:
        sums = loss_sums(nnx.merge(graph, params), objective, part, now, keys, soft_q_config)
        return sums["loss"][0] / weight, sums

    gradient = jax.grad(loss_of_part, has_aux=True)
    gradients, sums = summed_over_parts(gradient, state.params, batch, dropout_keys, microbatches)
    state, watched = updated(state, gradients, optimizer, graph)
    metrics = means(sums) | {"loss": sums["loss"][0] / weight}
    return state, metrics | watched | {"td_weight": now, "target_tokens": target_tokens(batch)}


def summed_weight(batch: Batch) -> Float[Array, ""]:
    """What sums over the batch's tokens are divided by: 1, for a loss of 0, where every weight is 0."""
    weight = jnp.sum(batch.weights)
    return jnp.where(weight > 0, weight, 1.0)


def target_tokens(batch: Batch) -> Float[Array, ""]:
    """How many target tokens count at all."""
    return jnp.sum(jnp.asarray(batch.weights) > 0).astype(jnp.float32)


def scheduled(value: float | Schedule, step: Int[Array, ""]) -> Float[Array, ""]:
    """The value of this step, of a number or a schedule of the updates made."""
    return jnp.asarray(value(step) if callable(value) else value, jnp.float32)


def row_keys(key: Key[Array, ""], step: Int[Array, ""], rows: int) -> Key[Array, " rows"]:
    """A key for each row of the global batch of a step, whatever the mesh."""
    return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.fold_in(key, step), jnp.arange(rows))


def updated(
    state: TrainState, gradients: Any, optimizer: optax.GradientTransformation, graph: nnx.GraphDef
) -> tuple[TrainState, dict[str, Float[Array, ""]]]:
    """The state after one update of the network of that graph, and the gradient's norm and the learning rate."""
    optimizer = for_model(optimizer, nnx.state(nnx.merge(graph, state.params)))
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = {"gradient_norm": optax.tree.norm(gradients)}
    # Injected schedules keep a state under the same name: the number is the array.
    learning_rate = optax.tree_utils.tree_get(
        opt_state, "learning_rate", filtering=lambda path, value: isinstance(value, jax.Array)
    )
    if learning_rate is not None:
        metrics["learning_rate"] = learning_rate
    return dataclasses.replace(state, step=state.step + 1, params=params, opt_state=opt_state), metrics


def means(sums: Sums) -> dict[str, Float[Array, ""]]:
    """Sums over their weights: undefined, hence NaN, where there was nothing to weigh."""
    return {name: total / weight for name, (total, weight) in sums.items()}


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
    out = read_soft_q(model, batch, dropout_keys, soft_q_config)
    offered = {
        "discounts": batch.discounts,
        "td_weight": td_weight * batch.td_weights,
        "vocab_size": model.unembedding().kernel.shape[1],
    }
    named = inspect.signature(objective).parameters
    per_token = objective(out, **{name: value for name, value in offered.items() if name in named})
    likelihood = mle(out)
    added = per_token - likelihood if "td_weight" in named else jnp.zeros_like(likelihood)
    sums = {
        "loss_mle": total(likelihood, batch.weights),
        "loss_td": total(added, batch.weights),
        **policy_sums(out, batch),
        "accuracy": total((out.q >= out.max_logit).astype(jnp.float32), batch.weights),
    }
    return {"loss": total(per_token, batch.weights), **jax.lax.stop_gradient(sums)}


def read_soft_q(
    model: Any, batch: Batch, dropout_keys: Key[Array, " batch"] | None, config: SoftQConfig
) -> SoftQ:
    """Soft Q-values with all that objectives and metrics may ask for."""
    read = {"with_entropy": True, "with_sum": True, "with_max": True, **dataclasses.asdict(config)}
    return soft_q.of_model(model, batch, dropout_keys, **read)


def check_objective(objective: Objective, config: SoftQConfig) -> None:
    """Raises the UserError of an objective that needs what soft Q-values read so do not have, such as a temperature."""
    trace_objective(objective, absent=() if config.temperature is not None else ("tempered",))


def policy_sums(out: SoftQ, batch: Batch) -> Sums:
    """What is watched of any tokens, whoever wrote them: the reward that the policy implies, and its entropy."""
    reward = implied_rewards(out, batch.discounts)
    return {
        "reward": total(reward, batch.weights * batch.td_weights),
        "entropy": total(out.entropy, batch.weights),
    }


def total(
    values: Float[Array, "*batch length"], weights: Float[Array, "*batch length"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    return jnp.sum(weights * values), jnp.sum(weights)


def summed_over_parts(gradient: Callable, params: Any, batch: Any, keys: Any, parts: int) -> tuple[Any, Sums]:
    """Gradients and sums of the batch, taken in `parts` pieces one after the other.

    `batch` and `keys` are trees of arrays, each with a leading axis that `parts` divides.
    """
    if parts == 1:
        return gradient(params, batch, keys)

    def add(sums, piece):
        return jax.tree.map(jnp.add, sums, gradient(params, *piece)), None

    pieces = jax.tree.map(lambda x: _split(x, parts), (batch, keys))
    shapes = jax.eval_shape(gradient, params, *jax.tree.map(lambda x: x[0], pieces))
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    return jax.lax.scan(add, zeros, pieces)[0]


def mapped_over_parts(function: Callable, batch: Any, parts: int) -> Any:
    """A function of rows to rows, applied to `parts` pieces one after the other."""
    if parts == 1:
        return function(batch)
    found = jax.lax.map(function, jax.tree.map(lambda x: _split(x, parts), batch))
    return jax.tree.map(lambda x: jnp.reshape(jnp.swapaxes(x, 0, 1), (-1, *x.shape[2:])), found)


def _split(x: Array, parts: int) -> Array:
    # Every parts-th row goes to the same piece, so that each device cuts up its own rows and none move.
    return jnp.swapaxes(jnp.reshape(x, (x.shape[0] // parts, parts, *x.shape[1:])), 0, 1)
