"""Online IQLearn: demonstrations, and the policy's own answers, under one loss.

Own answers carry the temporal-difference penalty alone, so that Q is consistent where the policy goes and not only where the
expert went. There is no discriminator, no likelihood ratio and no sampling gradient.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, Key

import lmirl_jax.online.replay as replay
from lmirl_jax.arguments import LossFunction, NonNegative, Schedule, ShareBelowOne, checked
from lmirl_jax.objectives import mle, online_weights
from lmirl_jax.online.experience import as_batch, joined
from lmirl_jax.online.gauges import sample_sums
from lmirl_jax.online.rollouts import Rollouts, Sampler
from lmirl_jax.training import Setting, SoftQConfig, TrainState, Updates
from lmirl_jax.training.learner import check_objective_takes, jit_update
from lmirl_jax.training.step import (
    Sums,
    check_objective,
    means,
    policy_sums,
    read_soft_q,
    row_keys,
    scheduled,
    summed_over_parts,
    summed_weight,
    target_tokens,
    total,
    updated,
)
from lmirl_jax.types import Batch, Objective, SoftQ


@checked
@dataclasses.dataclass(frozen=True)
class OnlineIQLearn:
    """A learner of online IQLearn.

    Args:
        objective: `objectives.iqlearn`, with a divergence or without.
        rollouts: the policy's own answers.
        td_weight: lambda, a number or a schedule of the updates made.
        alpha: the share of own answers in the mixture that the penalty is taken over, from 0 to below 1. It weights the
            loss, not the batch.
        rescale: whether lambda is divided by (1 - alpha) ** 2, as the mixture asks for.
        soft_q_config: how soft Q-values are read off the hidden states.
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
        sampler = Sampler(self.rollouts, setting)
        shapes, shardings = setting.policy_state

        def extra(params: Any = None, key: Any = None) -> dict[str, Any]:
            return {"replay": replay.empty(self.rollouts.draws, self.rollouts.shapes())}

        kept = jax.eval_shape(extra)
        shapes = dataclasses.replace(shapes, extra=kept)
        places = {"replay": replay.shardings(setting.mesh, kept["replay"])}
        shardings = dataclasses.replace(shardings, extra=places)
        step = functools.partial(
            online_step,
            graph=setting.graph,
            optimizer=setting.optimizer,
            key=jax.random.fold_in(setting.key, 1),
            microbatches=setting.microbatches,
            objective=self.objective,
            td_weight=self.td_weight,
            alpha=self.alpha,
            rescale=self.rescale,
            discount=self.rollouts.discount,
            max_age=self.rollouts.max_age,
            soft_q_config=self.soft_q_config,
        )

        def describe(shape: tuple[int, int]) -> str:
            form = setting.soft_q_form((shape[0] + self.rollouts.rows, shape[1]), self.soft_q_config)
            return f"{self.rollouts.describe()}; soft Q-values: {form}"

        return Updates(
            shapes,
            shardings,
            step=jit_update(step, setting.mesh, shardings),
            describe=describe,
            draws_before=sampler.draws_before,
            draw=sampler.draw,
            extra=extra,
            prompts=sampler.prompts,
            from_scratch="its own answers are noise at first; a run of gin/objectives/mle.gin or iqlearn.gin is a better start",
        )


def online_step(
    state: TrainState,
    expert: Batch,
    *,
    graph: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    key: Key[Array, ""],
    microbatches: int,
    objective: Objective,
    td_weight: float | Schedule,
    alpha: float,
    rescale: bool,
    discount: float,
    max_age: int | None,
    soft_q_config: SoftQConfig,
) -> tuple[TrainState, dict[str, Float[Array, ""]]]:
    """One update from a batch of demonstrations and as many rows of the replay buffer as a draw has.

        loss = mean over expert tokens of  -log pi_t + (1 - alpha) penalty_t
             + mean over sampled tokens of  alpha penalty_t

    with the penalty of `objectives.iqlearn` at lambda / (1 - alpha) ** 2.

    Args:
        state: its `extra` is {"replay": Replay}; donated, where jitted.
        expert: the global batch of demonstrations, [batch, ...].
        graph, optimizer, key, microbatches: as in `training.train_step`.
        objective, td_weight, alpha, rescale, soft_q_config: as in `OnlineIQLearn`.
        discount, max_age: as in `Rollouts`.

    Returns:
        The next state, and the metrics before the update: of the expert's tokens as in training offline, of the sampled
        ones under `samples/`.

    Source: https://arxiv.org/abs/2409.01369, equations 15 to 17.
    """
    rows = expert.weights.shape[0] + state.extra["replay"].experience.tokens.shape[1]
    choice = jax.random.fold_in(jax.random.fold_in(key, state.step), rows)
    taken, ages = replay.take(state.extra["replay"], choice, state.step, max_age)
    sampled = as_batch(taken, discount)
    now = scheduled(td_weight, state.step)
    expert_weight, sampled_tokens = summed_weight(expert), jnp.sum(sampled.weights)
    batch = joined(expert, sampled)
    length = batch.weights.shape[1]
    written = jnp.pad(taken.log_probs, ((expert.weights.shape[0], 0), (0, length - taken.log_probs.shape[1])))
    from_samples = jnp.concatenate([jnp.zeros(expert.weights.shape[0]), jnp.ones(ages.shape)])

    def loss_of_part(params: Any, part: Any, keys: Key[Array, " rows"]) -> tuple[Float[Array, ""], Sums]:
        batch, written, from_samples = part
        out = read_soft_q(nnx.merge(graph, params), batch, keys, soft_q_config)
        of_samples = jnp.broadcast_to(from_samples[:, None], batch.weights.shape)
        weights = online_weights(of_samples, alpha=alpha, rescale=rescale)
        per_token = objective(
            out,
            discounts=batch.discounts,
            td_weight=weights.td_factor * now * batch.td_weights,
            mle_weight=weights.mle_weight,
            penalty_weight=weights.penalty_weight,
        )
        sums = _sums(out, per_token, batch, of_samples, written)
        loss = sums["loss_expert"][0] / expert_weight + sums["loss_samples"][0] / sampled_tokens
        return loss, jax.lax.stop_gradient(sums)

    gradient = jax.grad(loss_of_part, has_aux=True)
    keys = row_keys(key, state.step, rows)
    part = (batch, written, from_samples)
    gradients, sums = summed_over_parts(gradient, state.params, part, keys, microbatches)
    state, watched = updated(state, gradients, optimizer, graph)
    metrics = means(sums) | watched
    loss = sums["loss_expert"][0] / expert_weight + metrics.pop("loss_samples")
    del metrics["loss_expert"]
    metrics |= {"loss": loss, "loss_td": loss - metrics["loss_mle"]}
    metrics |= {"samples/age": jnp.mean(ages.astype(jnp.float32)), "td_weight": now}
    return state, metrics | {"target_tokens": target_tokens(expert)}


def _sums(
    out: SoftQ,
    per_token: Float[Array, "rows length"],
    batch: Batch,
    of_samples: Float[Array, "rows length"],
    written: Float[Array, "rows length"],
) -> Sums:
    """The two losses and all gauges, the expert's tokens and the sampled ones apart."""
    own = dataclasses.replace(batch, weights=batch.weights * of_samples)
    shown = dataclasses.replace(batch, weights=batch.weights * (1 - of_samples))
    return {
        "loss_expert": total(per_token, shown.weights),
        "loss_samples": total(per_token, own.weights),
        "loss_mle": total(mle(out), shown.weights),
        **policy_sums(out, shown),
        "accuracy": total((out.q >= out.max_logit).astype(jnp.float32), shown.weights),
        **sample_sums(out, own, written, of_samples[:, 0]),
    }
