"""One update of a policy gradient: judge the answers, move the policy, then the networks that judge."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from lmirl_jax.objectives import whiten
from lmirl_jax.online.adversary import HEAD, Adversary, PairwiseAdversary
from lmirl_jax.online.experience import as_batch, demonstrations_batch, flat, grouped
from lmirl_jax.online.networks import Network, update_network
from lmirl_jax.online.policy_loss import Loss, policy_loss
from lmirl_jax.training import Setting, TrainState
from lmirl_jax.training.learner import Metrics
from lmirl_jax.training.step import (
    Sums,
    mapped_over_parts,
    means,
    read_soft_q,
    scheduled,
    summed_over_parts,
    summed_weight,
    updated,
)
from lmirl_jax.types import Batch


def policy_gradient_step(
    state: TrainState,
    expert: Batch,
    *,
    setting: Setting,
    loss: Loss,
    adversary: Adversary | PairwiseAdversary | None,
    networks: Mapping[str, Network],
    samples_per_prompt: int,
    discount: float,
    key: Key[Array, ""],
) -> tuple[TrainState, Metrics]:
    """One update of the policy from the newest draw, then of values and discriminator.

        loss = mean over sampled tokens, or answers, of  clipped policy gradient + kl_weight * KL - entropy_weight * H
             + mle_weight * mean over expert tokens of  -log pi

    Networks are read without dropout; the discriminator alone learns with it.

    Args:
        state: `extra` has "replay", and as asked for "reference" (parameters) and a `TrainState` of each network.
        expert: the global batch of demonstrations, [batch, ...].
        setting: of the run.
        loss: of the policy.
        adversary: an `Adversary`, a `PairwiseAdversary`, or None where answers come with their rewards.
        networks: those beside the policy.
        samples_per_prompt: rows of a prompt in a draw.
        discount: gamma.
        key: of the run's dropout.

    Returns:
        The next state, and the metrics before the update.
    """
    drawn = jax.tree.map(lambda x: x[0], state.extra["replay"].experience)
    answers = as_batch(drawn, discount)
    heads = {
        name: values
        for name_of, network in networks.items()
        for name, values in network.read(state.extra[name_of].params, answers).items()
    }
    rewards = drawn.rewards if adversary is None else adversary.rewards(heads[HEAD], answers)
    advantages, targets, spread = _advantages(
        loss, rewards, answers, heads.get("value"), samples_per_prompt, discount
    )
    metrics = _reward_metrics(rewards, spread, answers)
    metrics["samples/age"] = (state.step - state.extra["replay"].born[0]).astype(jnp.float32)

    by_prompt = functools.partial(grouped, samples=samples_per_prompt)
    shown = expert
    if adversary is not None and adversary.in_pairs:
        # Each prompt's own target, once.
        shown = jax.tree.map(lambda x: x[::samples_per_prompt], demonstrations_batch(drawn, discount))
    critics = {}
    for name, network in networks.items():
        judges = HEAD in network.config.heads
        critics[name], found = update_network(
            network,
            adversary if judges else None,
            state.extra[name],
            shown if judges else None,
            by_prompt(answers),
            by_prompt(targets),
            jax.random.fold_in(key, state.step),
        )
        # One network after the other: together their activations would be half as much again (GAIL, v5e: 9.0 GB, not 5.8).
        critics[name], answers = jax.lax.optimization_barrier((critics[name], answers))
        metrics |= found
    state, found = _update_policy(
        setting, loss, state, expert, by_prompt(answers), by_prompt((drawn.log_probs, advantages))
    )
    return dataclasses.replace(state, extra={**state.extra, **critics}), metrics | found


def _advantages(
    loss: Loss,
    rewards: Float[Array, "rows length"],
    answers: Batch,
    values: Float[Array, "rows states"] | None,
    samples: int,
    discount: float,
) -> tuple[Float[Array, "rows length"], Float[Array, "rows length"], Float[Array, ""]]:
    """The advantage of each token, what the value of the state before it should have been, the spread of advantages."""
    real = answers.weights
    if loss.needs_values:
        # An answer that was cut off would have gone on: the value after its last token stands for the rest.
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
        faded = rewards * real * discount ** jnp.arange(real.shape[1], dtype=jnp.float32)[None]
        of_answers = loss.advantages(jnp.reshape(jnp.sum(faded, axis=-1), (-1, samples)))
        raw = jnp.broadcast_to(jnp.reshape(of_answers, (-1, 1)), real.shape)
        targets = jnp.zeros_like(raw)
    mean = jnp.sum(real * raw) / jnp.sum(real)
    spread = jnp.sqrt(jnp.sum(real * (raw - mean) ** 2) / jnp.sum(real))
    advantages = whiten(raw, real) if loss.whiten else raw * real
    return jax.lax.stop_gradient((advantages, targets, spread))


def _update_policy(
    setting: Setting, loss: Loss, state: TrainState, expert: Batch, answers: Batch, judged: Any
) -> tuple[TrainState, Metrics]:
    kl_weight = scheduled(loss.kl_weight, state.step)
    weight = jnp.sum(loss.weights(answers))
    # Where every answer was cut off and these are masked there is nothing to learn from: a loss of 0.
    counts = jnp.where(weight > 0, weight, 1.0), summed_weight(expert)
    reference = None
    if loss.needs_reference:

        def likelihood(part: Batch) -> Float[Array, "..."]:
            model = nnx.merge(setting.graph, state.extra["reference"])
            out = read_soft_q(model, flat(part), None, loss.soft_q_config)
            return jnp.reshape(out.q - out.v, part.weights.shape)

        reference = mapped_over_parts(likelihood, answers, setting.microbatches)
    part = (expert if loss.mle_weight else None, answers, *judged, reference)

    def loss_of_part(params: Any, part: Any, _: None) -> tuple[Float[Array, ""], Sums]:
        model = nnx.merge(setting.graph, params)
        return policy_loss(model, loss, kl_weight, counts, setting.microbatches, *part)

    gradient = jax.grad(loss_of_part, has_aux=True)
    gradients, sums = summed_over_parts(gradient, state.params, part, None, setting.microbatches)
    state, watched = updated(state, gradients, setting.optimizer, setting.graph)
    tokens = jnp.sum(answers.weights)
    return state, means(sums) | watched | {"target_tokens": tokens, "kl_weight": kl_weight}


def _reward_metrics(
    rewards: Float[Array, "rows length"], spread: Float[Array, ""], answers: Batch
) -> Metrics:
    returns = jnp.sum(answers.weights * rewards, axis=-1)
    return {
        "samples/return": jnp.mean(returns),
        "samples/return_std": jnp.std(returns),
        "samples/advantage_std": spread,
    }
