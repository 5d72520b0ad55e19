"""One update of a policy gradient: judge the answers, move the policy, then the networks that judge."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from lmirl_jax.objectives import (
    clip_share,
    clipped_policy_gradient,
    kl_estimate,
    kl_to_reference,
    mle,
    whiten,
)
from lmirl_jax.online.adversary import HEAD, Adversary, PairwiseAdversary
from lmirl_jax.online.experience import as_batch, demonstrations_batch, flat, grouped, joined
from lmirl_jax.online.gauges import sample_sums
from lmirl_jax.online.networks import Network, update_network
from lmirl_jax.training import Setting, SoftQConfig, TrainState
from lmirl_jax.training.learner import Metrics
from lmirl_jax.training.step import (
    Sums,
    mapped_over_parts,
    means,
    policy_sums,
    read_soft_q,
    scheduled,
    summed_over_parts,
    total,
    updated,
)
from lmirl_jax.types import Batch, Schedule, UserError


@dataclasses.dataclass(frozen=True)
class Loss:
    """The policy's loss, on each token of its own answers and of demonstrations.

    Args:
        advantages: an estimator: `objectives.gae` (asks for `values`), `leave_one_out` or `group_relative`.
        clip: how far below 1 the ratio of a token's probabilities may fall before it is pushed no further.
        clip_high: how far above 1; None: as `clip`.
        whiten: shift and scale the advantages of a batch to mean 0 and standard deviation 1.
        kl_weight: of the divergence to the policy that the run began with, a number or a schedule of the updates made.
        entropy_weight: of the policy's entropy on its own answers.
        mle_weight: of the likelihood of demonstrations; 0 leaves them out.
        soft_q_config: how soft Q-values are read off the hidden states.
    """

    advantages: Callable[..., Array]
    clip: float = 0.2
    clip_high: float | None = None
    whiten: bool = True
    kl_weight: float | Schedule = 0.0
    entropy_weight: float = 0.0
    mle_weight: float = 0.0
    soft_q_config: SoftQConfig = dataclasses.field(default_factory=SoftQConfig)

    def __post_init__(self):
        if not callable(self.advantages):
            raise UserError(
                f"ADVANTAGES={self.advantages!r} is no estimator: use @objectives.gae or @objectives.group_relative"
            )
        for name in ("clip", "clip_high", "kl_weight", "entropy_weight", "mle_weight"):
            value = getattr(self, name)
            special = value is None if name == "clip_high" else name == "kl_weight" and callable(value)
            if not special and not (isinstance(value, (int, float)) and value >= 0):
                may_be = ", or a schedule" if name == "kl_weight" else ""
                raise UserError(f"{name.upper()}={value!r} must be a number of 0 or more{may_be}")

    @property
    def needs_values(self) -> bool:
        return "values" in inspect.signature(self.advantages).parameters

    @property
    def needs_reference(self) -> bool:
        return callable(self.kl_weight) or self.kl_weight > 0


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

        loss = mean over sampled tokens of  clipped policy gradient + kl_weight * KL - entropy_weight * H
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
    shown = demonstrations_batch(drawn, discount) if getattr(adversary, "in_pairs", False) else expert
    if shown is not expert:
        shown = jax.tree.map(lambda x: x[::samples_per_prompt], shown)
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
    counts = jnp.sum(answers.weights), jnp.sum(expert.weights)
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
        return _policy_loss(model, loss, kl_weight, counts, setting.microbatches, *part)

    gradient = jax.grad(loss_of_part, has_aux=True)
    gradients, sums = summed_over_parts(gradient, state.params, part, None, setting.microbatches)
    state, watched = updated(state, gradients, setting.optimizer)
    return state, means(sums) | watched | {"target_tokens": counts[0], "kl_weight": kl_weight}


def _policy_loss(
    model: Any,
    loss: Loss,
    kl_weight: Float[Array, ""],
    counts: tuple[Float[Array, ""], Float[Array, ""]],
    parts: int,
    expert: Batch | None,
    answers: Batch,
    written: Float[Array, "prompts samples length"],
    advantages: Float[Array, "prompts samples length"],
    reference: Float[Array, "prompts samples length"] | None,
) -> tuple[Float[Array, ""], Sums]:
    answers, written, advantages, reference = flat((answers, written, advantages, reference))
    rows, length = written.shape
    batch = answers if expert is None else joined(expert, answers)
    everything = read_soft_q(model, batch, None, loss.soft_q_config)
    out = jax.tree.map(lambda x: x[-rows:, :length], everything)
    log_probs, weights = out.q - out.v, answers.weights
    clips = {"clip": loss.clip, "clip_high": loss.clip_high}
    gradient = clipped_policy_gradient(log_probs, written, advantages, **clips)
    per_token = gradient - loss.entropy_weight * out.entropy
    sums = {
        "loss_policy": total(gradient, weights),
        "clip_share": total(clip_share(log_probs, written, advantages, **clips), weights),
        **sample_sums(out, answers, written, jnp.ones(rows)),
    }
    if reference is not None:
        per_token += kl_weight * kl_to_reference(log_probs, reference)
        sums["kl"] = total(kl_estimate(log_probs, reference), weights)
    value = jnp.sum(weights * per_token) / counts[0]
    if expert is not None:
        shown = jax.tree.map(lambda x: x[:-rows, : expert.weights.shape[1]], everything)
        sums["loss_mle"] = total(mle(shown), expert.weights)
        sums |= policy_sums(shown, expert)
        value += loss.mle_weight * sums["loss_mle"][0] / counts[1]
    # The parts' losses add up to the loss.
    return value, jax.lax.stop_gradient(sums | {"loss": (value, jnp.asarray(1.0 / parts))})


def _reward_metrics(
    rewards: Float[Array, "rows length"], spread: Float[Array, ""], answers: Batch
) -> Metrics:
    returns = jnp.sum(answers.weights * rewards, axis=-1)
    return {
        "samples/return": jnp.mean(returns),
        "samples/return_std": jnp.std(returns),
        "samples/advantage_std": spread,
    }
