"""Networks beside the policy: scalar heads on copies of it, each with an optimizer's state of its own."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, Key

from lmirl_jax.models import Critic, CriticConfig, critic_params
from lmirl_jax.objectives import value_loss
from lmirl_jax.online.adversary import HEAD, discriminator_metrics
from lmirl_jax.online.experience import flat, joined
from lmirl_jax.training import Setting, TrainState
from lmirl_jax.training.learner import Metrics
from lmirl_jax.training.state import build, init_params, state_shardings
from lmirl_jax.training.step import (
    Sums,
    mapped_over_parts,
    means,
    row_keys,
    summed_over_parts,
    total,
    updated,
)
from lmirl_jax.types import Batch


@dataclasses.dataclass(frozen=True)
class Network:
    """The recipe of one of them.

    Args:
        config: its trunk and heads.
        optimizer: its own.
        setting: of the run.
    """

    config: CriticConfig
    optimizer: optax.GradientTransformation
    setting: Setting

    @functools.cached_property
    def graph(self) -> nnx.GraphDef:
        return build(self.config, self.setting.key)[0]

    def shardings(self) -> tuple[TrainState, TrainState]:
        """Shapes and shardings of its state."""
        return state_shardings(self.setting.mesh, self.config, self.optimizer, self.setting.key)

    def first_state(self, policy_params: Any, key: Key[Array, ""]) -> TrainState:
        """Its trunk begins as the policy's, its heads at 0."""
        params = critic_params(policy_params, init_params(self.config, key))
        return TrainState(jnp.zeros((), jnp.int32), params, self.optimizer.init(params))

    def model(self, params: Any) -> Critic:
        return nnx.merge(self.graph, params)

    def read(self, params: Any, answers: Batch) -> dict[str, Float[Array, "rows states"]]:
        """What each head says of the answers, part by part and without dropout."""
        return mapped_over_parts(lambda part: self.model(params)(part), answers, self.setting.microbatches)


def make_networks(
    setting: Setting, optimizer: optax.GradientTransformation, heads: tuple[str, ...], share_trunk: bool
) -> dict[str, Network]:
    """One network for each head, or one for all."""
    groups = [heads] if share_trunk and heads else [(head,) for head in heads]
    return {
        "_and_".join(group): Network(CriticConfig(setting.model, group), optimizer, setting)
        for group in groups
    }


def update_network(
    network: Network, adversary: Any, state: TrainState, part: Any, key: Key[Array, ""]
) -> tuple[TrainState, Metrics]:
    """Its updates: one, or where it has the discriminator's head as many as the adversary asks for."""
    shown, answers, _ = part
    counts = jnp.sum(answers.weights), 1.0 if shown is None else jnp.sum(shown.weights)
    parts, shape = network.setting.microbatches, answers.weights.shape[:2]

    def loss_of_part(params: Any, part: Any, keys: Any) -> tuple[Float[Array, ""], Sums]:
        return _network_loss(network.model(params), adversary, counts, shape[0] * shape[1], *part, keys)

    def update(state: TrainState, key: Key[Array, ""] | None) -> tuple[TrainState, Any]:
        keys = None
        if key is not None:
            first = shown.weights.shape[0]
            every = row_keys(key, state.step, first + shape[0] * shape[1])
            keys = every[:first], jnp.reshape(every[first:], shape)
        gradient = jax.grad(loss_of_part, has_aux=True)
        gradients, sums = summed_over_parts(gradient, state.params, part, keys, parts)
        state, watched = updated(state, gradients, network.optimizer)
        return state, (sums, watched["gradient_norm"])

    if adversary is None:
        state, (sums, norm) = update(state, None)
    else:
        state, (sums, norm) = jax.lax.scan(update, state, jax.random.split(key, adversary.updates))
        sums, norm = jax.tree.map(lambda x: x[0], (sums, norm))
    name = "_and_".join(network.config.heads)
    metrics = {f"{name}/gradient_norm": norm}
    if "value" in sums:
        metrics["value/loss"] = means({"loss": sums.pop("value")})["loss"]
    return state, metrics | (discriminator_metrics(sums) if adversary is not None else {})


def _network_loss(
    critic: Any,
    adversary: Any,
    counts: tuple[Any, Any],
    answers_in_all: int,
    shown: Batch | None,
    answers: Batch,
    targets: Float[Array, "prompts samples length"],
    keys: Any,
) -> tuple[Float[Array, ""], Sums]:
    answers, targets = flat((answers, targets))
    rows, length = targets.shape
    batch = answers if shown is None else joined(shown, answers)
    keys = None if keys is None else jnp.concatenate([keys[0], jnp.reshape(keys[1], (-1,))])
    heads = critic(batch, keys)
    value, sums = jnp.zeros(()), {}
    if "value" in heads:
        losses = value_loss(heads["value"][-rows:, :length], targets)
        sums["value"] = total(losses, answers.weights)
        value += sums["value"][0] / counts[0]
    if adversary is not None:
        scores = heads[HEAD]
        expert = scores[:-rows, : shown.weights.shape[1] + 1]
        found = adversary.sums(expert, shown, scores[-rows:, : length + 1], answers)
        if adversary.in_pairs:
            value += found["loss"][0] / answers_in_all
        else:
            value += (found["loss_expert"][0] / counts[1] + found["loss_samples"][0] / counts[0]) / 2
        if adversary.gradient_penalty:
            share = answers_in_all / rows * shown.weights.shape[0]  # Demonstrations in all.
            value += adversary.gradient_penalty * adversary.penalty(critic, shown) / share
        sums |= found
    return value, jax.lax.stop_gradient(sums)
