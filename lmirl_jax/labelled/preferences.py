"""Learns from preferences: DPO and its relatives, and IQLearn with a preference term."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from lmirl_jax.arguments import check_arguments
from lmirl_jax.labelled.preference_loss import PreferenceLoss, preference_sums, reference_scores
from lmirl_jax.models.trainable import frozen
from lmirl_jax.training import Setting, TrainState, Updates
from lmirl_jax.training.learner import Metrics, check_no_labels, jit_update, warn_of_unused_rewards
from lmirl_jax.training.microbatches import flatten_groups, gradient_of, group_rows, sum_over_parts
from lmirl_jax.training.schedules import value_at
from lmirl_jax.training.state import apply_gradients
from lmirl_jax.training.sums import Sums, count_tokens, means, padding_share
from lmirl_jax.types import Batch, UserError


@check_arguments
@dataclasses.dataclass(frozen=True)
class Preferences:
    """A learner that raises the probability of chosen answers over that of rejected ones.

    The reference is the policy that the run began with: with adapters the base without them, else a copy of the parameters.

    Args:
        loss: the loss of a batch of preferences.
    """

    loss: PreferenceLoss

    def start(self, setting: Setting) -> Updates:
        if not setting.has_preferences:
            raise UserError(
                "LEARNER=@labelled.Preferences(): the data are demonstrations alone; set data.TrainDataset.preferences = True, "
                "as gin/runs/dpo.gin does, and write 'chosen' and 'rejected' in every row"
            )
        check_no_labels(setting, "LEARNER=@labelled.Preferences()")
        warn_of_unused_rewards(setting, "LEARNER=@labelled.Preferences()")
        shapes, shardings = setting.policy_state
        # With adapters, the first policy is the base without them, which never changes.
        copies_reference = not self.loss.reference_free and not frozen(shapes.params)

        def extra(params: Any, key: Any) -> dict[str, Any]:
            return {"reference": jax.tree.map(jnp.copy, params)} if copies_reference else {}

        if copies_reference:
            shapes = dataclasses.replace(shapes, extra={"reference": shapes.params})
            shardings = dataclasses.replace(shardings, extra={"reference": shardings.params})
        else:
            shapes, shardings = (dataclasses.replace(each, extra={}) for each in (shapes, shardings))
        step = functools.partial(preference_step, loss=self.loss, setting=setting)

        def describe(shape: tuple[int, int]) -> str:
            form = setting.soft_q_form(shape, self.loss.soft_q_config)
            return f"{self.loss.describe()}; soft Q-values: {form}"

        return Updates(
            shapes,
            shardings,
            step=jit_update(step, setting, shardings),
            describe=describe,
            extra=extra,
            from_scratch="preferences compare answers of a policy that can answer: start from a run of gin/runs/finetune.gin",
        )


def preference_step(
    state: TrainState, batch: Batch, *, loss: PreferenceLoss, setting: Setting
) -> tuple[TrainState, Metrics]:
    """Updates the policy once from a batch of preferences; see `PreferenceLoss`.

    There is no dropout, with which the policy would differ from the reference before the first update.

    Args:
        state: `extra` has "reference" (parameters) if a copy is needed.
        batch: the global batch, [rows, ...], of which each two are the chosen and the rejected answer to one prompt.
        loss: the loss that is minimised.
        setting: the settings of the run.

    Returns:
        The next state, and the metrics of this batch before the update; see `preference_sums`.
    """
    td_weight = value_at(loss.td_weight, state.step)
    pairs = jnp.sum(jnp.max(batch.weights[::2], axis=-1))
    tokens = jnp.sum(batch.weights[::2])
    # Where every weight is 0 the loss is 0.
    divisors = [jnp.where(count > 0, count, 1.0) for count in (pairs, tokens)]
    first = None if loss.reference_free else setting.first_policy(state)

    def loss_of_part(params: Any, part: Any, keys: None) -> tuple[Float[Array, ""], Sums]:
        rows = flatten_groups(part)
        reference = None if first is None else reference_scores(first, rows, loss)
        model = nnx.merge(setting.graph, params)
        sums = preference_sums(model, rows, reference, loss, td_weight)
        value = loss.preference_weight * sums["loss_preference"].total / divisors[0]
        value += loss.demonstration_weight * sums["loss_demonstrations"].total / divisors[1]
        return value, jax.lax.stop_gradient(sums)

    groups = group_rows(batch, setting.rows_together)
    gradient = gradient_of(loss_of_part)
    gradients, sums = sum_over_parts(gradient, state.params, groups, None, setting.microbatches)
    state, update_metrics = apply_gradients(state, gradients, setting.optimizer, setting.graph)
    total = loss.preference_weight * sums["loss_preference"].total / divisors[0]
    total += loss.demonstration_weight * sums["loss_demonstrations"].total / divisors[1]
    counts = {"target_tokens": count_tokens(batch), "padding_share": padding_share(batch)}
    return state, means(sums) | {"loss": total, "td_weight": td_weight} | update_metrics | counts
