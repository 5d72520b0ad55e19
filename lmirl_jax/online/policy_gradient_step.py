"""The update of a policy gradient: rewards and advantages of the rollouts, then the policy, then value and discriminator."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from lmirl_jax.objectives import whiten
from lmirl_jax.online.adversary import HEAD, Adversary, PairwiseAdversary
from lmirl_jax.online.experience import Experience, demonstration_batch, rollout_batch
from lmirl_jax.online.networks import Network, update_network
from lmirl_jax.online.policy_loss import Divisors, Loss, PolicyRows, policy_loss
from lmirl_jax.online.rollouts import Rollouts
from lmirl_jax.training import Setting, TrainState
from lmirl_jax.training.learner import Metrics
from lmirl_jax.training.microbatches import (
    flatten_groups,
    gradient_of,
    group_rows,
    map_over_parts,
    sum_over_parts,
)
from lmirl_jax.training.schedules import value_at
from lmirl_jax.training.soft_q_config import read_soft_q
from lmirl_jax.training.state import apply_gradients
from lmirl_jax.training.sums import Sums, means, padding_share, total_weight
from lmirl_jax.types import Batch


def policy_gradient_step(
    state: TrainState,
    expert: Batch,
    *,
    setting: Setting,
    rollouts: Rollouts,
    loss: Loss,
    adversary: Adversary | PairwiseAdversary | None,
    networks: Mapping[str, Network],
) -> tuple[TrainState, Metrics]:
    """Updates the policy from the newest draw, and the networks of value and discriminator.

        loss = mean over sampled tokens, or answers, of  clipped policy gradient + kl_weight * KL - entropy_weight * H
             + mle_weight * mean over expert tokens of  -log pi

    Networks are evaluated without dropout; only the training of the discriminator uses it.

    Args:
        state: `extra` has "replay", "reference" (parameters) if a copy is needed, and a `TrainState` for each network.
        expert: the global batch of demonstrations, [batch, ...]; their rewards are not used.
        setting, rollouts: the settings of the run, and those with which the draw was sampled.
        loss: the loss of the policy.
        adversary: an `Adversary`, a `PairwiseAdversary`, or None where rollouts come with their rewards.
        networks: the networks beside the policy.

    Returns:
        The next state, and the metrics before the update.
    """
    expert = dataclasses.replace(expert, rewards=None)
    experience = jax.tree.map(lambda x: x[0], state.extra["replay"].experience)
    answers = rollout_batch(experience, rollouts.discount)
    outputs: dict[str, Any] = {}
    for name, network in networks.items():
        outputs |= network.read(network.complete(state.extra[name].params, state.params), answers)
    rewards = experience.rewards if adversary is None else adversary.rewards(outputs[HEAD], answers)
    advantages, targets, spread = _advantages(loss, rewards, answers, outputs.get("value"), rollouts)
    metrics = _reward_metrics(rewards, spread, answers) | {"padding_share": padding_share(expert)}
    metrics["samples/age"] = (state.step - state.extra["replay"].born[0]).astype(jnp.float32)

    by_prompt = functools.partial(group_rows, size=rollouts.samples_per_prompt)
    demonstrations = _discriminator_demonstrations(adversary, expert, experience, rollouts)
    critics = {}
    for name, network in networks.items():
        judges = HEAD in network.config.heads
        critics[name], network_metrics = update_network(
            network,
            adversary if judges else None,
            state.extra[name],
            demonstrations if judges else None,
            by_prompt(answers),
            by_prompt(targets),
            jax.random.fold_in(setting.dropout_key, state.step),
            state.params,
        )
        # The barrier makes networks run one after the other. Together, their activations need 9.0 GB instead of 5.8 (GAIL, v5e).
        critics[name], answers = jax.lax.optimization_barrier((critics[name], answers))
        metrics |= network_metrics
    grouped = by_prompt((answers, experience.behaviour_log_probs, advantages))
    state, policy_metrics = _update_policy(setting, loss, state, expert, grouped)
    return dataclasses.replace(state, extra={**state.extra, **critics}), metrics | policy_metrics


def _discriminator_demonstrations(
    adversary: Adversary | PairwiseAdversary | None, expert: Batch, experience: Experience, rollouts: Rollouts
) -> Batch:
    """The demonstrations for the discriminator: the batch, or for pairs the demonstration of each prompt once."""
    if adversary is None or not adversary.in_pairs:
        return expert
    each = demonstration_batch(experience, rollouts.discount)
    return jax.tree.map(lambda x: x[:: rollouts.samples_per_prompt], each)


def _advantages(
    loss: Loss,
    rewards: Float[Array, "rows length"],
    answers: Batch,
    values: Float[Array, "rows states"] | None,
    rollouts: Rollouts,
) -> tuple[Float[Array, "rows length"], Float[Array, "rows length"], Float[Array, ""]]:
    """The advantage of each token, the target of the value before it, and the standard deviation of the advantages."""
    real, discount = answers.weights, rollouts.discount
    if values is not None:
        # A truncated answer would have continued: the value after its last token stands for the rewards that are missing.
        discounts = answers.discounts + discount * (real - answers.td_weights)
        raw = loss.advantages(
            rewards=rewards,
            values=values[:, :-1],
            next_values=values[:, 1:],
            discounts=discounts,
            continues=jnp.pad(real[:, 1:], ((0, 0), (0, 1))) > 0,
        )
        targets = raw + values[:, :-1]
    else:
        discounted = rewards * real * discount ** jnp.arange(real.shape[1], dtype=jnp.float32)[None]
        returns = jnp.reshape(jnp.sum(discounted, axis=-1), (-1, rollouts.samples_per_prompt))
        raw = jnp.broadcast_to(jnp.reshape(loss.advantages(returns), (-1, 1)), real.shape)
        targets = jnp.zeros_like(raw)
    mean = jnp.sum(real * raw) / jnp.sum(real)
    spread = jnp.sqrt(jnp.sum(real * (raw - mean) ** 2) / jnp.sum(real))
    advantages = whiten(raw, real) if loss.whiten else raw * real
    return jax.lax.stop_gradient((advantages, targets, spread))


def _update_policy(
    setting: Setting, loss: Loss, state: TrainState, expert: Batch, grouped: tuple[Batch, Any, Any]
) -> tuple[TrainState, Metrics]:
    """Updates the policy from rollouts, their behaviour log-probabilities and advantages, each [prompts, samples, ...]."""
    answers, behaviour_log_probs, advantages = grouped
    kl_weight = value_at(loss.kl_weight, state.step)
    weight = jnp.sum(loss.weights(answers))
    # Where every answer is truncated and masked, the loss is 0.
    divisors = Divisors(jnp.where(weight > 0, weight, 1.0), total_weight(expert), setting.microbatches)
    reference = _reference_log_probs(setting, loss, state, answers) if loss.needs_reference else None
    demonstrations = expert if loss.mle_weight else None
    rows = PolicyRows(demonstrations, answers, behaviour_log_probs, advantages, reference)

    def loss_of_part(params: Any, part: PolicyRows, _: None) -> tuple[Float[Array, ""], Sums]:
        return policy_loss(nnx.merge(setting.graph, params), loss, kl_weight, part, divisors)

    gradients, sums = sum_over_parts(
        gradient_of(loss_of_part), state.params, rows, None, setting.microbatches
    )
    state, update_metrics = apply_gradients(state, gradients, setting.optimizer, setting.graph)
    tokens = jnp.sum(answers.weights)
    return state, means(sums) | update_metrics | {"target_tokens": tokens, "kl_weight": kl_weight}


def _reference_log_probs(
    setting: Setting, loss: Loss, state: TrainState, answers: Batch
) -> Float[Array, "prompts samples length"]:
    """Log-probabilities of the rollouts' tokens under the policy that the run began with, in nats."""

    reference = setting.first_policy(state)

    def log_probs(part: Batch) -> Float[Array, "prompts samples length"]:
        out = read_soft_q(reference, flatten_groups(part), None, loss.soft_q_config)
        return jnp.reshape(out.q - out.v, part.weights.shape)

    return map_over_parts(log_probs, answers, setting.microbatches)


def _reward_metrics(
    rewards: Float[Array, "rows length"], spread: Float[Array, ""], answers: Batch
) -> Metrics:
    returns = jnp.sum(answers.weights * rewards, axis=-1)
    return {
        "samples/return": jnp.mean(returns),
        "samples/return_std": jnp.std(returns),
        "samples/advantage_std": spread,
    }
