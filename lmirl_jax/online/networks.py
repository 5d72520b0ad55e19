"""Networks beside the policy: scalar heads on copies of it, each with its own optimizer state."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, Key

from lmirl_jax.models import Critic, CriticConfig, critic_params
from lmirl_jax.models.abstract import build, parameter_shapes
from lmirl_jax.models.trainable import frozen, join, trainable
from lmirl_jax.objectives import value_loss
from lmirl_jax.online.adversary import HEAD, Adversary, PairwiseAdversary, discriminator_metrics
from lmirl_jax.rows import concatenate
from lmirl_jax.training import Setting, TrainState
from lmirl_jax.training.keys import row_keys
from lmirl_jax.training.learner import Metrics
from lmirl_jax.training.microbatches import flatten_groups, gradient_of, map_over_parts, sum_over_parts
from lmirl_jax.training.parameter_axes import for_model
from lmirl_jax.training.state import apply_gradients, init_params, state_shardings
from lmirl_jax.training.sums import Sums, total_weight, weighted_sum
from lmirl_jax.types import Batch


@dataclasses.dataclass(frozen=True)
class Network:
    """The recipe of a network beside the policy.

    Args:
        config: the trunk and the heads.
        optimizer: the optimizer of the network.
        setting: the settings of the run.
    """

    config: CriticConfig
    optimizer: optax.GradientTransformation
    setting: Setting

    @functools.cached_property
    def graph(self) -> nnx.GraphDef:
        return build(self.config)[0]

    @functools.cached_property
    def shapes(self) -> Any:
        """The shapes of all parameters."""
        return parameter_shapes(self.config)

    def shardings(self) -> tuple[TrainState, TrainState]:
        """The shapes and the shardings of the network's own state."""
        both = state_shardings(self.setting.mesh, self.config, self.optimizer)
        return self.own(both[0]), self.own(both[1])

    def first_state(self, policy_params: Any, key: Key[Array, ""]) -> TrainState:
        """The state before training: its trunk is a copy of the policy's, its heads are 0; what is frozen is left out."""
        params = critic_params(policy_params, init_params(self.config, key))
        optimizer = for_model(self.optimizer, nnx.state(self.model(params)))
        params = trainable(params)
        return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))

    def complete(self, params: Any, policy_params: Any) -> Any:
        """The parameters of the network, of which the frozen ones are the policy's, whose base it shares."""
        shared = frozen(self.shapes)
        return join(params, {"trunk": _like(policy_params, shared["trunk"])} if shared else {})

    def completed(self, state: TrainState, policy_params: Any) -> TrainState:
        return dataclasses.replace(state, params=self.complete(state.params, policy_params))

    def own(self, state: TrainState) -> TrainState:
        """The state without what is shared with the policy; the inverse of `completed`."""
        return dataclasses.replace(state, params=trainable(state.params))

    def model(self, params: Any) -> Critic:
        return nnx.merge(self.graph, params)

    def read(self, params: Any, answers: Batch) -> dict[str, Float[Array, "rows states"]]:
        """The outputs of each head for the rollouts, computed in microbatches and without dropout."""
        return map_over_parts(lambda part: self.model(params)(part), answers, self.setting.microbatches)


def make_networks(
    setting: Setting, optimizer: optax.GradientTransformation, heads: tuple[str, ...], share_trunk: bool
) -> dict[str, Network]:
    """Makes one network for each head, or one for all of them."""
    groups = [heads] if share_trunk and heads else [(head,) for head in heads]
    return {
        "_and_".join(group): Network(CriticConfig(setting.model, group), optimizer, setting)
        for group in groups
    }


def _like(params: Any, wanted: Any) -> Any:
    """The parts of nested dicts that are in `wanted` too."""
    if not isinstance(wanted, Mapping):
        return params
    return {name: _like(params[name], part) for name, part in wanted.items()}


class Counts(NamedTuple):
    """The divisors of the sums over a part of the batch.

    Args:
        sampled_tokens: the number of tokens of the rollouts in the whole batch.
        answers: the number of rollouts in the whole batch.
        expert_tokens: the sum of the weights of the demonstrations in the whole batch.
        demonstrations: the number of demonstrations in the whole batch.
    """

    sampled_tokens: Any
    answers: int
    expert_tokens: Any = 1.0
    demonstrations: int = 1


def update_network(
    network: Network,
    adversary: Adversary | PairwiseAdversary | None,
    state: TrainState,
    demonstrations: Batch | None,
    answers: Batch,
    targets: Float[Array, "prompts samples length"],
    key: Key[Array, ""],
    policy_params: Any,
) -> tuple[TrainState, Metrics]:
    """Updates a network once, or, if it has the discriminator's head, `adversary.updates` times.

    Args:
        network: the recipe of the network.
        adversary: the adversary if the network has the discriminator's head, else None.
        state: the state of the network.
        demonstrations: demonstrations, [rows, ...], for the discriminator.
        answers: rollouts, [prompts, samples, ...].
        targets: the targets of the values of the states before the rollouts' tokens.
        key: the dropout key for the discriminator.
        policy_params: the parameters of the policy, whose base the network shares if it is frozen.

    Returns:
        The next state, and the metrics before the first of the updates.
    """
    prompts, samples = answers.weights.shape[:2]
    counts = Counts(jnp.sum(answers.weights), prompts * samples)
    if demonstrations is not None:
        counts = Counts(*counts[:2], total_weight(demonstrations), demonstrations.weights.shape[0])
    parts = network.setting.microbatches

    def loss_of_part(params: Any, part: Any, keys: Any) -> tuple[Float[Array, ""], Sums]:
        return _loss_of_part(network.model(params), adversary, counts, part, keys)

    def update(state: TrainState, key: Key[Array, ""]) -> tuple[TrainState, Any]:
        keys = None
        if demonstrations is not None:
            every = row_keys(key, state.step, counts.demonstrations + counts.answers)
            keys = (
                every[: counts.demonstrations],
                jnp.reshape(every[counts.demonstrations :], (prompts, samples)),
            )
        part = demonstrations, answers, targets
        state = network.completed(state, policy_params)
        gradients, sums = sum_over_parts(gradient_of(loss_of_part), state.params, part, keys, parts)
        state, update_metrics = apply_gradients(state, gradients, network.optimizer, network.graph)
        return network.own(state), (sums, update_metrics["gradient_norm"])

    times = 1 if adversary is None else adversary.updates
    state, each = jax.lax.scan(update, state, jax.random.split(key, times))
    sums, norms = jax.tree.map(lambda x: x[0], each[0]), each[1]
    # The trainer reads from it whether every update of the network was finite.
    norm = jnp.where(jnp.all(jnp.isfinite(norms)), norms[0], jnp.nan)
    metrics = {f"{'_and_'.join(network.config.heads)}/gradient_norm": norm}
    if "value" in sums:
        value_loss_sum, tokens = sums.pop("value")
        metrics["value/loss"] = value_loss_sum / tokens
    return state, metrics | (discriminator_metrics(sums) if sums else {})


def _loss_of_part(
    critic: Critic,
    adversary: Adversary | PairwiseAdversary | None,
    counts: Counts,
    part: tuple[Batch | None, Batch, Float[Array, "prompts samples length"]],
    keys: Any,
) -> tuple[Float[Array, ""], Sums]:
    """Computes the share of a part of the batch in the losses of value and discriminator, and the sums for its metrics."""
    demonstrations, (answers, targets) = part[0], flatten_groups(part[1:])
    rows, length = targets.shape
    batch = answers if demonstrations is None else concatenate(demonstrations, answers)
    keys = None if keys is None else jnp.concatenate([keys[0], jnp.reshape(keys[1], (-1,))])
    heads = critic(batch, keys)
    loss, sums = jnp.zeros(()), {}
    if "value" in heads:
        losses = value_loss(heads["value"][-rows:, :length], targets)
        sums["value"] = weighted_sum(losses, answers.weights)
        loss += sums["value"].total / counts.sampled_tokens
    if adversary is not None and demonstrations is not None:
        expert = heads[HEAD][:-rows, : demonstrations.weights.shape[1] + 1]
        losses = adversary.sums(expert, demonstrations, heads[HEAD][-rows:, : length + 1], answers)
        if adversary.in_pairs:
            loss += losses["loss"].total / counts.answers
        else:
            loss += losses["loss_expert"].total / counts.expert_tokens / 2
            loss += losses["loss_samples"].total / counts.sampled_tokens / 2
        if adversary.gradient_penalty:
            penalty = adversary.penalty(critic, demonstrations) / counts.demonstrations
            loss += adversary.gradient_penalty * penalty
        sums |= losses
    return loss, jax.lax.stop_gradient(sums)
