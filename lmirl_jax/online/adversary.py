"""Rewards from a discriminator that learns to distinguish demonstrations from rollouts, token by token or in pairs."""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lmirl_jax.argument_rules import Within
from lmirl_jax.arguments import Count, Elementwise, NonNegative, check_arguments
from lmirl_jax.models import Critic
from lmirl_jax.models.critic import gradient_penalty
from lmirl_jax.objectives import discriminator_loss, logit_reward, relativistic_loss, softplus_reward
from lmirl_jax.training.sums import Sums, WeightedSum, last_tokens, weighted_sum
from lmirl_jax.types import Batch

HEAD = "discriminator"
# The number of bins of the calibration error.
BINS = 10
Scores = Float[Array, "rows states"]
SampledScores = Float[Array, "answers sampled_states"]


@check_arguments
@dataclasses.dataclass(frozen=True)
class Adversary:
    """GAIL's discriminator, which classifies every token as the expert's or the policy's.

    Args:
        reward: the reward of a token as a function of the discriminator's logit: `objectives.softplus_reward`,
            `log_sigmoid_reward` or `logit_reward`.
        updates: the number of updates of the discriminator after each update of the policy.
        label_smoothing: the smoothing of the discriminator's labels, from 0 to below 1/2.
        gradient_penalty: the weight of the squared gradient by the embeddings of the expert's tokens.

    Source: https://arxiv.org/abs/2409.01369, section 3.1; GAIL, https://arxiv.org/abs/1606.03476.
    """

    reward: Elementwise = softplus_reward
    updates: Count = 1
    label_smoothing: Annotated[float, Within(0, 0.5, open_high=True)] = 0.0
    gradient_penalty: NonNegative = 0.0

    in_pairs = False

    def rewards(self, scores: Scores, answers: Batch) -> Float[Array, "rows length"]:
        """The reward of each token, in nats, from the logit of the state after it."""
        return answers.weights * self.reward(scores[:, 1:])

    def sums(self, expert: Scores, demonstrations: Batch, sampled: SampledScores, answers: Batch) -> Sums:
        """The sums of the metrics, and of `loss_expert` and `loss_samples`; the loss is the average of these two means.

        Args:
            expert: the discriminator's logits of demonstrations, [rows, length + 1].
            demonstrations: these demonstrations.
            sampled: the discriminator's logits of rollouts, [answers, length + 1].
            answers: these rollouts.
        """
        scores = jnp.concatenate([expert[:, 1:].reshape(-1), sampled[:, 1:].reshape(-1)])
        weights = jnp.concatenate([demonstrations.weights.reshape(-1), answers.weights.reshape(-1)])
        is_expert = jnp.arange(scores.shape[0]) < demonstrations.weights.size
        losses = discriminator_loss(scores, is_expert, label_smoothing=self.label_smoothing)
        right = (scores > 0) == is_expert
        sums = {}
        for name, values in {"loss": losses, "accuracy": right.astype(jnp.float32)}.items():
            sums[f"{name}_expert"] = weighted_sum(values, weights * is_expert)
            sums[f"{name}_samples"] = weighted_sum(values, weights * ~is_expert)
        probability = jax.nn.sigmoid(scores)
        error = weights * (probability - is_expert)
        bins = jnp.clip(jnp.floor(BINS * probability).astype(jnp.int32), 0, BINS - 1)
        return sums | {"calibration": WeightedSum(jax.ops.segment_sum(error, bins, BINS), jnp.sum(weights))}

    def penalty(self, critic: Critic, demonstrations: Batch) -> Float[Array, ""]:
        """The summed gradient penalty of the demonstrations."""
        return jnp.sum(gradient_penalty(critic, demonstrations, HEAD))


@check_arguments
@dataclasses.dataclass(frozen=True)
class PairwiseAdversary:
    """GAD's discriminator, which finds the demonstration among two answers to a prompt. Its score is that of the whole answer.

    Args:
        updates: the number of updates of the discriminator after each update of the policy.
        gradient_penalty: the weight of the squared gradient of a demonstration's score by the embeddings of its tokens.

    Source: https://arxiv.org/abs/2511.10643.
    """

    updates: Count = 1
    gradient_penalty: NonNegative = 0.0

    in_pairs = True
    reward = staticmethod(logit_reward)

    def rewards(self, scores: Scores, answers: Batch) -> Float[Array, "rows length"]:
        """The score of each answer, at its last token."""
        return last_tokens(answers) * scores[:, 1:]

    def sums(self, expert: Scores, demonstrations: Batch, sampled: SampledScores, answers: Batch) -> Sums:
        """The sums of loss and accuracy over pairs; demonstrations and groups of rollouts have the same order of prompts."""
        rollout = jnp.sum(last_tokens(answers) * sampled[:, 1:], axis=-1).reshape(
            demonstrations.weights.shape[0], -1
        )
        reference = jnp.sum(last_tokens(demonstrations) * expert[:, 1:], axis=-1)[:, None]
        losses, right = relativistic_loss(reference, rollout), (reference > rollout).astype(jnp.float32)
        pairs = jnp.ones_like(rollout)
        return {"loss": weighted_sum(losses, pairs), "accuracy": weighted_sum(right, pairs)}

    def penalty(self, critic: Critic, demonstrations: Batch) -> Float[Array, ""]:
        return jnp.sum(gradient_penalty(critic, demonstrations, HEAD, weights=last_tokens(demonstrations)))


def discriminator_metrics(sums: Sums) -> dict[str, Float[Array, ""]]:
    """Computes loss, accuracy and expected calibration error (both shares) from the sums over the whole batch."""
    mean = {name: value / weight for name, (value, weight) in sums.items() if name != "calibration"}
    metrics = {}
    for name in ("loss", "accuracy"):
        # Demonstrations and rollouts have the same weight, whatever their numbers of tokens.
        kinds = [mean[kind] for kind in (name, f"{name}_expert", f"{name}_samples") if kind in mean]
        metrics[f"discriminator/{name}"] = jnp.mean(jnp.stack(kinds))
    if "calibration" in sums:
        error, weight = sums["calibration"]
        metrics["discriminator/calibration_error"] = jnp.sum(jnp.abs(error)) / weight
    return metrics
