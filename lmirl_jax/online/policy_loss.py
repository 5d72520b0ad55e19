"""What a policy gradient minimises: on own answers, and on demonstrations beside them."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lmirl_jax.argument_rules import Words
from lmirl_jax.arguments import NonNegative, Schedule, checked, has_parameter
from lmirl_jax.objectives import clip_share, clipped_policy_gradient, kl_estimate, kl_to_reference, mle
from lmirl_jax.online.experience import flat, joined
from lmirl_jax.online.gauges import sample_sums
from lmirl_jax.training import SoftQConfig
from lmirl_jax.training.step import Sums, policy_sums, read_soft_q, total
from lmirl_jax.types import Batch

Advantages = Annotated[
    Callable[..., Array],
    Words(
        "an estimator such as @objectives.gae or @objectives.group_relative",
        has_parameter("returns", "values"),
    ),
]


@checked
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
        mean_over: what the loss on own answers is a mean over: 'tokens' of all answers, so that long ones count more, or
            'answers', of each of which the mean over its tokens is taken first, as in GRPO's paper.
        mask_truncated: leaves answers that were cut off before EOS out of the loss, as DAPO does. They still count among the
            returns that others are compared with, and a learned value learns from them.
        soft_q_config: how soft Q-values are read off the hidden states.
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
        """How much the loss of each token of own answers, [*batch, length], counts; the loss is divided by their sum."""
        real = answers.weights
        if self.mask_truncated:
            cut_off = jnp.any(answers.weights > answers.td_weights, axis=-1, keepdims=True)
            real = jnp.where(cut_off, 0.0, real)
        if self.mean_over == "tokens":
            return real
        return real / jnp.maximum(jnp.sum(real, axis=-1, keepdims=True), 1.0)

    @property
    def needs_values(self) -> bool:
        return "values" in inspect.signature(self.advantages).parameters

    @property
    def needs_reference(self) -> bool:
        return callable(self.kl_weight) or self.kl_weight > 0


def policy_loss(
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
    """What a part of the batch adds to the loss, and the sums that are watched.

    Args:
        model: the policy.
        loss: its settings.
        kl_weight: of this update.
        counts: the summed weights of sampled and of expert tokens in the whole batch.
        parts: of the batch.
        expert: demonstrations, [rows, ...]; None where they are left out.
        answers: sampled ones, [prompts, samples, ...].
        written: log-probabilities of their tokens under the policy that wrote them, in nats.
        advantages: of their tokens.
        reference: log-probabilities of their tokens under the first policy, in nats; None without the KL.

    Returns:
        The loss, and sums with the weights to divide them by.
    """
    answers, written, advantages, reference = flat((answers, written, advantages, reference))
    rows, length = written.shape
    batch = answers if expert is None else joined(expert, answers)
    everything = read_soft_q(model, batch, None, loss.soft_q_config)
    out = jax.tree.map(lambda x: x[-rows:, :length], everything)
    log_probs, weights = out.q - out.v, loss.weights(answers)
    clips = {"clip": loss.clip, "clip_high": loss.clip_high}
    gradient = clipped_policy_gradient(log_probs, written, advantages, **clips)
    per_token = gradient - loss.entropy_weight * out.entropy
    sums = {
        "loss_policy": total(gradient, weights),
        "clip_share": total(clip_share(log_probs, written, advantages, **clips), answers.weights),
        **sample_sums(out, answers, written, jnp.ones(rows)),
    }
    if reference is not None:
        per_token += kl_weight * kl_to_reference(log_probs, reference)
        sums["kl"] = total(kl_estimate(log_probs, reference), answers.weights)
    value = jnp.sum(weights * per_token) / counts[0]
    if expert is not None:
        shown = jax.tree.map(lambda x: x[:-rows, : expert.weights.shape[1]], everything)
        sums["loss_mle"] = total(mle(shown), expert.weights)
        sums |= policy_sums(shown, expert)
        value += loss.mle_weight * sums["loss_mle"][0] / counts[1]
    # The parts' losses add up to the loss.
    return value, jax.lax.stop_gradient(sums | {"loss": (value, jnp.asarray(1.0 / parts))})
