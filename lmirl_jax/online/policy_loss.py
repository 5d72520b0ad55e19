"""The loss of a policy gradient: on rollouts, and optionally on demonstrations too."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lmirl_jax.argument_rules import Words
from lmirl_jax.arguments import NonNegative, Schedule, check_arguments, has_parameter
from lmirl_jax.objectives import clip_share, clipped_policy_gradient, kl_estimate, kl_to_reference, mle
from lmirl_jax.online.gauges import rollout_sums
from lmirl_jax.rows import concatenate
from lmirl_jax.training.microbatches import flatten_groups
from lmirl_jax.training.soft_q_config import SoftQConfig, read_soft_q
from lmirl_jax.training.sums import Sums, WeightedSum, policy_sums, weighted_sum
from lmirl_jax.types import Batch, Model

Advantages = Annotated[
    Callable[..., Array],
    Words(
        "an estimator such as @objectives.gae or @objectives.group_relative",
        has_parameter("returns", "values"),
    ),
]


@check_arguments
@dataclasses.dataclass(frozen=True)
class Loss:
    """The policy's loss, on each token of its rollouts and of demonstrations.

    Args:
        advantages: an estimator: `objectives.gae` (asks for `values`), `leave_one_out` or `group_relative`.
        clip: the distance below 1 at which the ratio of a token's probabilities is clipped.
        clip_high: the same above 1; None for the value of `clip`.
        whiten: whether the advantages of a batch are shifted and scaled to mean 0 and standard deviation 1.
        kl_weight: the weight of the KL divergence from the initial policy, a number or a schedule over updates.
        entropy_weight: the weight of the policy's entropy on its rollouts.
        mle_weight: the weight of the likelihood of demonstrations; 0 leaves them out.
        mean_over: 'tokens' takes the mean of the loss over the tokens of all rollouts, so that long ones count more;
            'answers' first takes the mean within each rollout, as in GRPO's paper.
        mask_truncated: whether truncated answers are left out of the loss, as in DAPO. They still count among the
            returns that others are compared with, and a learned value learns from them.
        soft_q_config: the settings with which soft Q-values are computed.
    """

    advantages: Advantages
    clip: NonNegative = 0.2
    clip_high: NonNegative | None = None
    whiten: bool = True
    kl_weight: NonNegative | Schedule = 0.0
    entropy_weight: NonNegative = 0.0
    mle_weight: NonNegative = 0.0
    mean_over: Literal["tokens", "answers"] = "tokens"
    mask_truncated: bool = False
    soft_q_config: SoftQConfig = dataclasses.field(default_factory=SoftQConfig)

    def weights(self, answers: Batch) -> Float[Array, "*batch length"]:
        """The weight of each rollout's tokens in the loss, [*batch, length]; the loss is divided by their sum."""
        real = answers.weights
        if self.mask_truncated:
            truncated = jnp.any(answers.weights > answers.td_weights, axis=-1, keepdims=True)
            real = jnp.where(truncated, 0.0, real)
        if self.mean_over == "tokens":
            return real
        return real / jnp.maximum(jnp.sum(real, axis=-1, keepdims=True), 1.0)

    @property
    def needs_values(self) -> bool:
        return "values" in inspect.signature(self.advantages).parameters

    @property
    def needs_reference(self) -> bool:
        return callable(self.kl_weight) or self.kl_weight > 0


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PolicyRows:
    """The rows that a policy gradient learns from: rollouts grouped by prompt, [prompts, samples, ...], and demonstrations.

    Args:
        expert: demonstrations, a `Batch` of [rows, ...]; None where they are left out.
        answers: rollouts, a `Batch`.
        behaviour_log_probs: the log-probabilities of the rollouts' tokens under the policy that sampled them, in nats.
        advantages: the advantages of the rollouts' tokens.
        reference_log_probs: the log-probabilities of these tokens under the initial policy, in nats; None without KL.
    """

    expert: Any
    answers: Any
    behaviour_log_probs: Any
    advantages: Any
    reference_log_probs: Any


class Divisors(NamedTuple):
    """The divisors of the sums over a part of the batch.

    Args:
        sampled: the summed loss weights of the rollouts in the whole batch.
        expert: the summed weights of the demonstrations in the whole batch.
        parts: the number of parts of the batch.
    """

    sampled: Float[Array, ""]
    expert: Float[Array, ""]
    parts: int


def policy_loss(
    model: Model, loss: Loss, kl_weight: Float[Array, ""], rows: PolicyRows, divisors: Divisors
) -> tuple[Float[Array, ""], Sums]:
    """Computes the share of a part of the batch in the loss, and the sums for its metrics.

    Args:
        model: the policy.
        loss: the settings of the loss.
        kl_weight: the weight of the KL divergence in this update.
        rows: the part of the batch.
        divisors: the divisors for the whole batch.

    Returns:
        The loss, and sums with the weights by which they are divided.
    """
    answers, behaviour, advantages, reference = flatten_groups(
        (rows.answers, rows.behaviour_log_probs, rows.advantages, rows.reference_log_probs)
    )
    expert, (count, length) = rows.expert, behaviour.shape
    batch = answers if expert is None else concatenate(expert, answers)
    both = read_soft_q(model, batch, None, loss.soft_q_config)
    out = jax.tree.map(lambda x: x[-count:, :length], both)
    log_probs, weights = out.q - out.v, loss.weights(answers)
    clips = {"clip": loss.clip, "clip_high": loss.clip_high}
    gradient = clipped_policy_gradient(log_probs, behaviour, advantages, **clips)
    per_token = gradient - loss.entropy_weight * out.entropy
    sums = {
        "loss_policy": weighted_sum(gradient, weights),
        "clip_share": weighted_sum(clip_share(log_probs, behaviour, advantages, **clips), answers.weights),
        **rollout_sums(out, answers, behaviour, jnp.ones(count)),
    }
    if reference is not None:
        per_token += kl_weight * kl_to_reference(log_probs, reference)
        sums["kl"] = weighted_sum(kl_estimate(log_probs, reference), answers.weights)
    value = jnp.sum(weights * per_token) / divisors.sampled
    if expert is not None:
        expert_out = jax.tree.map(lambda x: x[:-count, : expert.weights.shape[1]], both)
        sums["loss_mle"] = weighted_sum(mle(expert_out), expert.weights)
        sums |= policy_sums(expert_out, expert)
        value += loss.mle_weight * sums["loss_mle"].total / divisors.expert
    # The parts' losses add up to the loss.
    return value, jax.lax.stop_gradient(
        sums | {"loss": WeightedSum(value, jnp.asarray(1.0 / divisors.parts))}
    )
