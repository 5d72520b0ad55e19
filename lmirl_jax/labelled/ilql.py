"""ILQL: offline Q-learning from answers with rewards, by heads on the policy's network."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float

from lmirl_jax.arguments import check_arguments
from lmirl_jax.labelled.ilql_loss import ACTIONS, VALUE, ILQLLoss, ilql_sums
from lmirl_jax.models import HeadsConfig
from lmirl_jax.models.trainable import HEADS
from lmirl_jax.training import Setting, TrainState, Updates
from lmirl_jax.training.keys import row_keys
from lmirl_jax.training.learner import Metrics, check_demonstrations, jit_update
from lmirl_jax.training.microbatches import flatten_groups, gradient_of, group_rows, sum_over_parts
from lmirl_jax.training.state import apply_gradients
from lmirl_jax.training.sums import Sums, count_tokens, means, padding_share, total_weight
from lmirl_jax.types import Batch, UserError

TARGET = "target"


@check_arguments
@dataclasses.dataclass(frozen=True)
class ILQL:
    """A learner that values the tokens of answers with rewards, and imitates these answers; its heads then guide sampling.

    Args:
        loss: the loss of a batch of answers.
    """

    loss: ILQLLoss

    def start(self, setting: Setting) -> Updates:
        check_demonstrations(setting, "LEARNER=@labelled.ILQL()")
        model = setting.model
        if not isinstance(model, HeadsConfig) or model.actions != ACTIONS or model.states != (VALUE,):
            raise UserError(
                f"LEARNER=@labelled.ILQL() needs a model with the heads {VALUE}, {' and '.join(ACTIONS)}, which "
                "gin/runs/ilql.gin sets as NETWORK; adapters (gin/adapters/lora.gin) do not go with it"
            )
        if not setting.has_rewards:
            raise UserError(
                "LEARNER=@labelled.ILQL() learns from rewards, and the data give none: write 'reward', 'rewards' or 'label' in "
                "every row (docs/labelled.md)"
            )
        shapes, shardings = setting.policy_state

        def extra(params: Any, key: Any) -> dict[str, Any]:
            return {TARGET: jax.tree.map(jnp.copy, _action_heads(params))}

        shapes = dataclasses.replace(shapes, extra={TARGET: _action_heads(shapes.params)})
        shardings = dataclasses.replace(shardings, extra={TARGET: _action_heads(shardings.params)})
        step = functools.partial(ilql_step, loss=self.loss, setting=setting)

        def describe(shape: tuple[int, int]) -> str:
            form = setting.soft_q_form(shape, self.loss.soft_q_config)
            return f"ILQL: tau {self.loss.tau}, CQL {self.loss.cql_weight}, beta {self.loss.beta}; soft Q-values: {form}"

        return Updates(
            shapes,
            shardings,
            step=jit_update(step, setting, shardings),
            describe=describe,
            extra=extra,
            from_scratch="Q-values of a policy's own answers need that policy: start from a run of gin/runs/finetune.gin",
        )


def ilql_step(
    state: TrainState, batch: Batch, *, loss: ILQLLoss, setting: Setting
) -> tuple[TrainState, Metrics]:
    """Updates the policy and its heads once from answers with rewards; see `ILQLLoss`.

    Args:
        state: `extra` has "target", the parameters of the target heads.
        batch: the global batch, [rows, ...]. Labels of right answers are read as rewards alone.
        loss: the loss that is minimised.
        setting: the settings of the run.

    Returns:
        The next state, and the metrics of this batch before the update; see `ilql_sums`.
    """
    batch = dataclasses.replace(batch, labels=None)
    weight = total_weight(batch)
    dropout_keys = row_keys(setting.dropout_key, state.step, batch.weights.shape[0])
    targets = state.extra[TARGET]

    def loss_of_part(params: Any, part: Any, keys: Any) -> tuple[Float[Array, ""], Sums]:
        rows, keys = flatten_groups((part, keys))
        model: Any = nnx.merge(setting.graph, params)
        target_heads = getattr(nnx.merge(setting.graph, _with_heads(params, targets)), HEADS)
        sums = ilql_sums(model, {name: target_heads[name] for name in ACTIONS}, rows, keys, loss)
        return sums["loss"].total / weight, jax.lax.stop_gradient(sums)

    groups, keys = group_rows((batch, dropout_keys), setting.rows_together)
    gradient = gradient_of(loss_of_part)
    gradients, sums = sum_over_parts(gradient, state.params, groups, keys, setting.microbatches)
    state, update_metrics = apply_gradients(state, gradients, setting.optimizer, setting.graph)
    targets = optax.incremental_update(_action_heads(state.params), targets, loss.target_rate)
    metrics = means(sums) | {"loss": sums["loss"].total / weight} | update_metrics
    counts = {"target_tokens": count_tokens(batch), "padding_share": padding_share(batch)}
    return dataclasses.replace(state, extra={TARGET: targets}), metrics | counts


def _action_heads(params: Any) -> dict[str, Any]:
    return {name: params[HEADS][name] for name in ACTIONS}


def _with_heads(params: Any, heads: Any) -> Any:
    return {**params, HEADS: {**params[HEADS], **heads}}
