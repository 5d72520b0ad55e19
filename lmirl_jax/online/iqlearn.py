"""Online IQLearn: demonstrations and rollouts of the policy under one loss.

Rollouts only have the temporal-difference penalty, so that Q is consistent in the states that the policy reaches, not only in
those of the expert. There is no discriminator, no likelihood ratio and no sampling gradient.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

import lmirl_jax.online.replay as replay
from lmirl_jax.arguments import LossFunction, NonNegative, Schedule, ShareBelowOne, check_arguments
from lmirl_jax.objectives import mle, online_weights
from lmirl_jax.online.experience import rollout_batch
from lmirl_jax.online.gauges import rollout_sums
from lmirl_jax.online.rollouts import Rollouts, Sampler
from lmirl_jax.rows import concatenate
from lmirl_jax.training import Setting, SoftQConfig, TrainState, Updates
from lmirl_jax.training.keys import row_keys
from lmirl_jax.training.learner import (
    Metrics,
    check_demonstrations,
    check_no_labels,
    check_objective_takes,
    jit_update,
)
from lmirl_jax.training.microbatches import gradient_of, sum_over_parts
from lmirl_jax.training.schedules import value_at
from lmirl_jax.training.soft_q_config import check_objective, read_soft_q
from lmirl_jax.training.state import apply_gradients
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
from lmirl_jax.types import Batch, SoftQ, UserError


@check_arguments
@dataclasses.dataclass(frozen=True)
class OnlineIQLearn:
    """A learner of online IQLearn.

    Args:
        objective: `objectives.iqlearn`, with or without a divergence.
        rollouts: the settings of sampling.
        td_weight: lambda, a number or a schedule over updates.
        alpha: the share of rollouts in the mixture that the penalty is taken over, from 0 to below 1. It weights the
            loss, not the batch.
        rescale: whether lambda is divided by (1 - alpha) ** 2, as the mixture asks for.
        soft_q_config: the settings with which soft Q-values are computed.
    """

    objective: LossFunction
    rollouts: Rollouts
    td_weight: NonNegative | Schedule = 0.1
    alpha: ShareBelowOne = 0.1
    rescale: bool = True
    soft_q_config: SoftQConfig = dataclasses.field(default_factory=SoftQConfig)

    def __post_init__(self):
        check_objective(self.objective, self.soft_q_config)
        check_objective_takes(self.objective, "mle_weight", "penalty_weight", "td_weight", "discounts")

    def start(self, setting: Setting) -> Updates:
        check_demonstrations(setting, "LEARNER=@online.OnlineIQLearn()")
        check_no_labels(setting, "LEARNER=@online.OnlineIQLearn()")
        if setting.has_rewards:
            raise UserError(
                "online.OnlineIQLearn: the data give rewards, and the policy's own samples have none; leave `reward` and "
                "`rewards` out of the data, or learn from them offline (LEARNER=@training.Offline())"
            )
        sampler = Sampler(self.rollouts, setting)
        shapes, shardings = setting.policy_state

        def extra(params: Any = None, key: Any = None) -> dict[str, Any]:
            return {"replay": replay.make_empty(self.rollouts.draws, self.rollouts.shapes())}

        extra_shapes = jax.eval_shape(extra)
        shapes = dataclasses.replace(shapes, extra=extra_shapes)
        extra_shardings = {"replay": replay.shardings(setting.mesh, extra_shapes["replay"])}
        shardings = dataclasses.replace(shardings, extra=extra_shardings)
        step = functools.partial(online_step, learner=self, setting=setting)

        def describe(shape: tuple[int, int]) -> str:
            form = setting.soft_q_form((shape[0] + self.rollouts.rows, shape[1]), self.soft_q_config)
            return f"{self.rollouts.describe()}; soft Q-values: {form}"

        return Updates(
            shapes,
            shardings,
            step=jit_update(step, setting, shardings),
            describe=describe,
            draws_before=sampler.draws_before,
            draw=sampler.draw,
            extra=extra,
            prompts=sampler.prompts,
            from_scratch="rollouts of random parameters are noise: start from a run of gin/objectives/mle.gin or iqlearn.gin",
        )


def online_step(
    state: TrainState, expert: Batch, *, learner: OnlineIQLearn, setting: Setting
) -> tuple[TrainState, Metrics]:
    """Updates the policy from a batch of demonstrations and as many rows of the replay buffer as a draw has.

        loss = mean over expert tokens of  -log pi_t + (1 - alpha) penalty_t
             + mean over sampled tokens of  alpha penalty_t

    with the penalty of `objectives.iqlearn` at lambda / (1 - alpha) ** 2.

    Args:
        state: the state of training; its `extra` is {"replay": Replay}.
        expert: the global batch of demonstrations, [batch, ...].
        learner: the settings of the learner.
        setting: the settings of the run.

    Returns:
        The next state, and the metrics before the update: those of the expert's tokens as in offline training, those of the
        sampled ones under `samples/`.

    Source: https://arxiv.org/abs/2409.01369, equations 15 to 17.
    """
    td_weight = value_at(learner.td_weight, state.step)
    batch, is_rollout, behaviour_log_probs, ages = _both_kinds(state, expert, learner, setting)
    expert_rows = expert.weights.shape[0]
    counts = total_weight(expert), jnp.sum(batch.weights[expert_rows:])

    def loss_of_part(params: Any, part: Any, keys: Key[Array, " rows"]) -> tuple[Float[Array, ""], Sums]:
        batch, is_rollout, behaviour_log_probs = part
        out = read_soft_q(nnx.merge(setting.graph, params), batch, keys, learner.soft_q_config)
        mask = jnp.broadcast_to(is_rollout[:, None], batch.weights.shape)
        per_token = _losses(learner, out, batch, mask, td_weight)
        sums = _sums(out, per_token, batch, mask, behaviour_log_probs)
        loss = sums["loss_expert"].total / counts[0] + sums["loss_samples"].total / counts[1]
        return loss, jax.lax.stop_gradient(sums)

    keys = row_keys(setting.dropout_key, state.step, batch.weights.shape[0])
    part = (batch, is_rollout, behaviour_log_probs)
    gradients, sums = sum_over_parts(
        gradient_of(loss_of_part), state.params, part, keys, setting.microbatches
    )
    state, update_metrics = apply_gradients(state, gradients, setting.optimizer, setting.graph)
    metrics = means(sums) | update_metrics
    loss = sums["loss_expert"].total / counts[0] + metrics.pop("loss_samples")
    del metrics["loss_expert"]
    metrics |= {"loss": loss, "loss_td": loss - metrics["loss_mle"], "td_weight": td_weight}
    metrics["samples/age"] = jnp.mean(ages.astype(jnp.float32))
    return state, metrics | {"target_tokens": count_tokens(expert), "padding_share": padding_share(expert)}


def _both_kinds(
    state: TrainState, expert: Batch, learner: OnlineIQLearn, setting: Setting
) -> tuple[Batch, Float[Array, " rows"], Float[Array, "rows length"], Any]:
    """Joins demonstrations and rollouts; also returns a mask of rollouts, behaviour log-probabilities, and ages in updates."""
    buffer, rollouts = state.extra["replay"], learner.rollouts
    count = expert.weights.shape[0]
    rows = count + buffer.experience.behaviour_log_probs.shape[1]
    key = jax.random.fold_in(jax.random.fold_in(setting.dropout_key, state.step), rows)
    experience, ages = replay.sample_rows(buffer, key, state.step, rollouts.max_age)
    batch = concatenate(expert, rollout_batch(experience, rollouts.discount))
    log_probs = experience.behaviour_log_probs
    missing = batch.weights.shape[1] - log_probs.shape[1]
    is_rollout = jnp.concatenate([jnp.zeros(count), jnp.ones(ages.shape)])
    return batch, is_rollout, jnp.pad(log_probs, ((count, 0), (0, missing))), ages


def _losses(
    learner: OnlineIQLearn,
    out: SoftQ,
    batch: Batch,
    is_rollout: Float[Array, "rows length"],
    td_weight: Float[Array, ""],
) -> Float[Array, "rows length"]:
    """The loss of each token, with the weights of its kind: demonstration or rollout."""
    weights = online_weights(is_rollout, alpha=learner.alpha, rescale=learner.rescale)
    return learner.objective(
        out,
        discounts=batch.discounts,
        td_weight=weights.td_factor * td_weight * batch.td_weights,
        mle_weight=weights.mle_weight,
        penalty_weight=weights.penalty_weight,
    )


def _sums(
    out: SoftQ,
    per_token: Float[Array, "rows length"],
    batch: Batch,
    is_rollout: Float[Array, "rows length"],
    behaviour_log_probs: Float[Array, "rows length"],
) -> Sums:
    """The sums of the two losses and of all metrics, separately for demonstrations and rollouts."""
    rollouts = dataclasses.replace(batch, weights=batch.weights * is_rollout)
    demonstrations = dataclasses.replace(batch, weights=batch.weights * (1 - is_rollout))
    return {
        "loss_expert": weighted_sum(per_token, demonstrations.weights),
        "loss_samples": weighted_sum(per_token, rollouts.weights),
        "loss_mle": weighted_sum(mle(out), demonstrations.weights),
        **policy_sums(out, demonstrations),
        "accuracy": accuracy_sum(out, demonstrations.weights),
        **rollout_sums(out, rollouts, behaviour_log_probs, is_rollout[:, 0]),
    }
