"""The loss of preferences: on the margins of pairs of answers, and optionally on the tokens of the chosen ones too."""

import dataclasses
from collections.abc import Callable
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lmirl_jax import soft_q
from lmirl_jax.argument_rules import Words
from lmirl_jax.arguments import LossFunction, NonNegative, Schedule, check_arguments, has_parameter
from lmirl_jax.objectives import implied_rewards, mle
from lmirl_jax.training.soft_q_config import SoftQConfig, check_objective, read_soft_q
from lmirl_jax.training.step import token_losses
from lmirl_jax.training.sums import Sums, WeightedSum, weighted_sum
from lmirl_jax.types import Batch, Model, SoftQ, UserError

PairLossFunction = Annotated[
    Callable[..., Array],
    Words("a loss of pairs such as @objectives.dpo, without brackets", has_parameter("margins")),
]


@check_arguments
@dataclasses.dataclass(frozen=True)
class PreferenceLoss:
    """The loss of a batch of preferences.

        loss = preference_weight * mean over pairs of  loss(h)  +  demonstration_weight * mean over chosen tokens of  objective
        h = [s(chosen) - s_ref(chosen)] - [s(rejected) - s_ref(rejected)]

    With `score='return'`, without a reference, and with `objective=iqlearn` at weight 1 it is IQLearn with a preference term. At
    gamma 1 the returns of answers to one prompt differ by their log-probabilities, so that the term is reference-free DPO.

    Args:
        preference: the loss of a pair, such as `objectives.dpo`.
        objective: the loss of the tokens of chosen answers.
        preference_weight: its weight.
        reference_free: whether s_ref is 0 instead of the score under the policy that the run began with.
        score: the score of an answer, in nats: 'log_prob', the sum of log pi_t, or 'return', the sum of the rewards that the
            policy implies, r_t = q_t - discount_t * v_{t+1}.
        length_normalised: whether scores are means over tokens instead of sums.
        demonstration_weight: the weight of the objective; 0 leaves it out.
        td_weight: lambda of the objective, a number or a schedule over updates.
        soft_q_config: the settings with which soft Q-values are computed.
    """

    preference: PairLossFunction
    objective: LossFunction
    preference_weight: NonNegative = 1.0
    reference_free: bool = False
    score: Literal["log_prob", "return"] = "log_prob"
    length_normalised: bool = False
    demonstration_weight: NonNegative = 0.0
    td_weight: NonNegative | Schedule = 0.0
    soft_q_config: SoftQConfig = dataclasses.field(default_factory=SoftQConfig)

    def __post_init__(self):
        check_objective(self.objective, self.soft_q_config)
        if not self.preference_weight and not self.demonstration_weight:
            raise UserError(
                "PREFERENCE_WEIGHT=0 and DEMONSTRATION_WEIGHT=0: nothing is learnt; set one of them above 0"
            )

    def describe(self) -> str:
        """Says in words what the loss compares."""
        score = "log-probabilities" if self.score == "log_prob" else "returns"
        kind = f"mean {score} of tokens" if self.length_normalised else f"{score} of answers"
        reference = "without a reference" if self.reference_free else "against the first policy"
        return f"preferences by {getattr(self.preference, '__name__', self.preference)}: {kind}, {reference}"


def answer_scores(out: SoftQ, batch: Batch, loss: PreferenceLoss) -> Float[Array, " rows"]:
    """The score of the answer in each row, in nats; see `PreferenceLoss`."""
    values, counted = out.q - out.v, batch.weights > 0
    if loss.score == "return":
        # The reward of the last token of a truncated answer is not known.
        values, counted = implied_rewards(out, batch.discounts), counted & (batch.td_weights > 0)
    total = jnp.sum(jnp.where(counted, values, 0.0), axis=-1)
    return total / jnp.maximum(jnp.sum(counted, axis=-1), 1) if loss.length_normalised else total


def reference_scores(model: Model, batch: Batch, loss: PreferenceLoss) -> Float[Array, " rows"]:
    """The score of each answer under the reference, which has no gradient."""
    out = soft_q.from_model(model, batch, None, block_size=loss.soft_q_config.block_size)
    return jax.lax.stop_gradient(answer_scores(out, batch, loss))


def preference_sums(
    model: Model,
    batch: Batch,
    reference: Float[Array, " rows"] | None,
    loss: PreferenceLoss,
    td_weight: Float[Array, ""],
) -> Sums:
    """The two losses and the metrics beside them, each as a sum and the sum of the weights.

    Args:
        model: the policy.
        batch: [rows, ...], of which each two are the chosen and the rejected answer to one prompt.
        reference: the scores under the reference; None where it is not used.
        loss: the loss.
        td_weight: lambda of this step.

    Returns:
        loss_preference; loss_demonstrations over the chosen tokens; loss_mle of these and loss_mle_rejected; the share of pairs
        with h above 0, `preference_accuracy`; `margin`, h; `chosen_score` and `rejected_score`, s - s_ref.
    """
    out = read_soft_q(model, batch, None, loss.soft_q_config)
    scores = answer_scores(out, batch, loss)
    if reference is not None:
        scores = scores - reference
    chosen, rejected = scores[::2], scores[1::2]
    margins = chosen - rejected
    # A pair counts as often as its weight says; the tokens of a pair of weight 0 have none.
    weights = jnp.max(batch.weights[::2], axis=-1)
    token_weights = batch.weights.at[1::2].set(0.0)
    per_token = token_losses(out, loss.objective, batch, td_weight, model.unembedding().kernel.shape[1])
    likelihood = mle(out)
    metrics = {
        "loss_mle": weighted_sum(likelihood, token_weights),
        "loss_mle_rejected": weighted_sum(likelihood, batch.weights - token_weights),
        "preference_accuracy": _over_pairs((margins > 0).astype(jnp.float32), weights),
        "margin": _over_pairs(margins, weights),
        "chosen_score": _over_pairs(chosen, weights),
        "rejected_score": _over_pairs(rejected, weights),
    }
    return {
        "loss_preference": _over_pairs(loss.preference(margins), weights),
        "loss_demonstrations": weighted_sum(per_token, token_weights),
        **jax.lax.stop_gradient(metrics),
    }


def _over_pairs(values: Float[Array, " pairs"], weights: Float[Array, " pairs"]) -> WeightedSum:
    # A pair without weight may have any value, which times 0 must not be NaN.
    return WeightedSum(jnp.sum(jnp.where(weights > 0, weights * values, 0.0)), jnp.sum(weights))
