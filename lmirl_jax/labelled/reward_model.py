"""Reward models: heads on a language model that learn which answers are better, from preferences or from labels."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from lmirl_jax.arguments import check_arguments
from lmirl_jax.labelled.reward_loss import RewardLoss, reward_sums
from lmirl_jax.models import reward_heads
from lmirl_jax.training import Setting, TrainState, Updates
from lmirl_jax.training.keys import row_keys
from lmirl_jax.training.learner import Metrics, jit_update, warn_of_unused_rewards
from lmirl_jax.training.microbatches import flatten_groups, gradient_of, group_rows, sum_over_parts
from lmirl_jax.training.state import apply_gradients
from lmirl_jax.training.sums import Sums, count_tokens, means, padding_share
from lmirl_jax.types import Batch, UserError


@check_arguments
@dataclasses.dataclass(frozen=True)
class RewardModel:
    """A learner of rewards of whole answers, or of prefixes, or of the chance that an answer which begins like this is right.

    Args:
        loss: the loss of a batch.
    """

    loss: RewardLoss

    def start(self, setting: Setting) -> Updates:
        heads = reward_heads(setting.model)
        if not heads:
            raise UserError(
                "LEARNER=@labelled.RewardModel() needs a model with heads whose names begin with 'reward', which "
                "gin/runs/reward_model.gin sets as NETWORK; adapters (gin/adapters/lora.gin) do not go with it"
            )
        if setting.has_preferences == setting.has_labels:
            found = "both" if setting.has_labels else "neither"
            raise UserError(
                f"LEARNER=@labelled.RewardModel() learns from preferences or from labels, and the data have {found}: write "
                "'chosen' and 'rejected' in every row, or 'label' with FROM_PREFERENCES=False (docs/labelled.md)"
            )
        if setting.packed:
            raise UserError("PACK=True: a reward model reads one answer a row; set it to False")
        if not setting.has_labels:
            warn_of_unused_rewards(setting, "LEARNER=@labelled.RewardModel()")
        shapes, shardings = (dataclasses.replace(each, extra={}) for each in setting.policy_state)
        step = functools.partial(reward_step, loss=self.loss, setting=setting)
        kind = "preferences" if setting.has_preferences else "right and wrong answers"
        return Updates(
            shapes,
            shardings,
            step=jit_update(step, setting, shardings),
            describe=lambda shape: f"rewards of {kind}: {len(heads)} head(s)",
            extra=lambda params, key: {},
            from_scratch="a reward model that cannot read learns little: start from a run of gin/runs/finetune.gin",
        )


def reward_step(
    state: TrainState, batch: Batch, *, loss: RewardLoss, setting: Setting
) -> tuple[TrainState, Metrics]:
    """Updates a reward model once; see `RewardLoss`.

    Args:
        state: `extra` is empty.
        batch: the global batch, [rows, ...].
        loss: the loss that is minimised.
        setting: the settings of the run.

    Returns:
        The next state, and the metrics of this batch before the update; see `reward_sums`.
    """
    weights = batch.weights if setting.has_labels else jnp.max(batch.weights[::2], axis=-1)
    divisor = jnp.sum(weights)
    # Where every weight is 0 the loss is 0.
    divisor = jnp.where(divisor > 0, divisor, 1.0)
    dropout_keys = row_keys(setting.dropout_key, state.step, batch.weights.shape[0])

    def loss_of_part(params: Any, part: Any, keys: Any) -> tuple[Float[Array, ""], Sums]:
        rows, keys = flatten_groups((part, keys))
        sums = reward_sums(nnx.merge(setting.graph, params), rows, keys, loss)
        return sums["loss"].total / divisor, jax.lax.stop_gradient(sums)

    groups, keys = group_rows((batch, dropout_keys), setting.rows_together)
    gradient = gradient_of(loss_of_part)
    gradients, sums = sum_over_parts(gradient, state.params, groups, keys, setting.microbatches)
    state, update_metrics = apply_gradients(state, gradients, setting.optimizer, setting.graph)
    metrics = means(sums) | {"loss": sums["loss"].total / divisor} | update_metrics
    counts = {"target_tokens": count_tokens(batch), "padding_share": padding_share(batch)}
    return state, metrics | counts
