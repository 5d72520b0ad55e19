"""Objectives inside T5X: its models, trainer, partitioning, checkpoints and decoding, with another loss.

T5X's models own their loss. `with_objective` gives one of them ours, on the logits that it computes; t5x.gin beside this file
does so in T5X's own `train.py`. docs/t5x.md says how T5X is installed and what differs from our trainer.
"""

import copy
import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from clu import metrics as clu_metrics
from jaxtyping import Array, Float
from t5x import losses, models
from t5x import metrics as t5x_metrics

from lmirl_jax import soft_q
from lmirl_jax.arguments import LossFunction, NonNegative, Positive, Share, check_arguments, trace_objective
from lmirl_jax.objectives import implied_rewards, mle
from lmirl_jax.types import Objective, SoftQ, UserError

# T5X's batch by the names of its feature converters, and T5X's metrics by name.
T5XBatch = Mapping[str, Any]
Metrics = dict[str, Any]

KINDS = (models.EncoderDecoderModel, models.DecoderOnlyModel)


@check_arguments
def with_objective(
    model: Any,
    *,
    objective: LossFunction,
    td_weight: NonNegative = 0.0,
    discount: Share = 1.0,
    temperature: Positive | None = None,
) -> Any:
    """T5X's model with one of our objectives as its loss; all else about it stays T5X's.

        loss_t = T5X's loss_t + objective_t - (-log pi(a_t|s_t))

    T5X's loss is its cross-entropy with the model's `label_smoothing` and `z_loss`, so that maximum likelihood, and IQLearn at
    td_weight 0, are T5X's own loss. The sum over tokens is weighted and normalised as T5X does (`decoder_loss_weights` and
    `loss_normalizing_factor`).

    Args:
        model: a T5X `EncoderDecoderModel` or `DecoderOnlyModel`; it is not changed.
        objective: the per-token loss. It is given those of `discounts`, `td_weight` and `vocab_size` that it names.
        td_weight: lambda; no schedule, because T5X gives a loss no step.
        discount: gamma, between the tokens of a target.
        temperature: the temperature of `SoftQ.tempered`, for objectives that use it (GEM); None does not compute it.

    Returns:
        A copy of the model, with its own `loss_fn` and the same parameters, optimizer, decoding and scoring.

    Raises:
        UserError: another kind of model, one whose class has a loss of its own, a vocabulary without EOS, or an objective that
            needs a temperature.
    """
    _check_model(model)
    trace_objective(objective, absent=() if temperature is not None else ("tempered",))
    changed = copy.copy(model)
    changed.loss_fn = _Loss(model, objective, td_weight, discount, temperature)
    return changed


def episodes(
    batch: T5XBatch, eos_id: int, discount: float
) -> tuple[Float[Array, "batch length"], Float[Array, "batch length"]]:
    """Marks the tokens of T5X's targets as `lmirl_jax.rows` marks those of our answers.

        discount_t = gamma (0 at a target's last token),   td_weight_t = 1 (0 at the last token unless it is EOS)

    The rows of a `DecoderOnlyModel` hold prompts too, which have no weight in T5X's loss: they are no part of an episode.

    Args:
        batch: `decoder_target_tokens`, and `decoder_segment_ids` where rows are packed, [batch, length]; else T5X's padding is
            id 0. Without `encoder_input_tokens`, answers are where `decoder_loss_weights` are above 0.
        eos_id: the token that ends a target; one without it is truncated, and its last token has no reward.
        discount: gamma.

    Returns:
        Discounts and TD weights in float32, [batch, length]; 0 on padding.
    """
    tokens = batch["decoder_target_tokens"]
    segments = batch.get("decoder_segment_ids")
    if segments is None:
        segments = (tokens > 0).astype(jnp.int32)
    weights = batch.get("decoder_loss_weights")
    if "encoder_input_tokens" not in batch and weights is not None:
        segments = jnp.where(weights > 0, segments, 0)
    real = segments > 0
    next_segments = jnp.pad(segments[:, 1:], ((0, 0), (0, 1)))
    before_last = real & (next_segments == segments)
    has_reward = before_last | (real & (tokens == eos_id))
    return discount * before_last.astype(jnp.float32), has_reward.astype(jnp.float32)


@dataclasses.dataclass(frozen=True)
class _Loss:
    """What stands in for the `loss_fn` of a T5X model, in training and in evaluation."""

    model: Any
    objective: Objective
    td_weight: float
    discount: float
    temperature: float | None

    def __call__(
        self, params: Any, batch: T5XBatch, dropout_rng: Array | None
    ) -> tuple[Float[Array, ""], Metrics]:
        """The loss and T5X's metrics, with those of the loss's parts beside them."""
        model, targets = self.model, batch["decoder_target_tokens"]
        logits = model._compute_logits(params, batch, dropout_rng)
        factor, weights = losses.get_loss_normalizing_factor_and_weights(
            model._loss_normalizing_factor, batch
        )
        likelihood, z_loss, _ = losses.compute_weighted_cross_entropy(
            logits,
            targets=targets,
            weights=weights,
            label_smoothing=model._label_smoothing,
            z_loss=model._z_loss,
            loss_normalizing_factor=factor,
        )
        out = soft_q.from_logits(
            logits, targets, temperature=self.temperature, with_entropy=True, with_sum=True, with_max=True
        )
        discounts, has_reward = episodes(batch, model.output_vocabulary.eos_id, self.discount)
        # SeqIO's converters give whole numbers.
        token_weights = jnp.ones(targets.shape) if weights is None else weights.astype(jnp.float32)
        added = jnp.sum(token_weights * self._added(out, discounts, has_reward, logits.shape[-1]))
        if factor is not None:
            added = added / factor
        loss = likelihood + added
        metrics = model._compute_metrics(
            logits=logits,
            targets=targets,
            mask=weights,
            loss=loss,
            z_loss=z_loss,
            segment_ids=_segment_ids(batch),
        )
        sums = {"cross_ent_loss": likelihood - z_loss}
        if self._has_td_weight:
            sums["td_loss"] = added
        means = {
            "reward": (implied_rewards(out, discounts), token_weights * has_reward),
            "entropy": (out.entropy, token_weights),
        }
        return loss, metrics | _loss_metrics(sums, token_weights) | _mean_metrics(means)

    @property
    def _has_td_weight(self) -> bool:
        return "td_weight" in inspect.signature(self.objective).parameters

    def _added(
        self,
        out: SoftQ,
        discounts: Float[Array, "batch length"],
        has_reward: Float[Array, "batch length"],
        vocab_size: int,
    ) -> Float[Array, "batch length"]:
        """What the objective adds to the negative log-likelihood of each token."""
        # Its options are T5X's own, which are in T5X's part of the loss. Gin passes a wrapper of the function.
        if inspect.unwrap(self.objective) is inspect.unwrap(mle):
            return jnp.zeros_like(out.q)
        offered = {
            "discounts": discounts,
            "td_weight": self.td_weight * has_reward,
            "vocab_size": vocab_size,
        }
        named = inspect.signature(self.objective).parameters
        given = {name: value for name, value in offered.items() if name in named}
        return self.objective(out, **given) - mle(out)


def _check_model(model: Any) -> None:
    """Raises a UserError for a model whose loss cannot be replaced."""
    kind = type(model).__name__
    if not isinstance(model, KINDS):
        raise UserError(
            f"integrations.with_objective: {kind} is no EncoderDecoderModel or DecoderOnlyModel of T5X; leave it its own loss"
        )
    if type(model).loss_fn is not models.BaseTransformerModel.loss_fn:
        raise UserError(
            f"integrations.with_objective: {kind} has a loss of its own, which an objective would replace; "
            "use T5X's EncoderDecoderModel or DecoderOnlyModel"
        )
    if model.output_vocabulary.eos_id is None:
        raise UserError(
            "integrations.with_objective: the output vocabulary has no EOS, so that every target would count as "
            "truncated; use a vocabulary with an eos_id"
        )


def _segment_ids(batch: T5XBatch) -> dict[str, Array]:
    """Where each feature has tokens, for T5X's metrics of padding: its segment ids, or without packing its mask."""
    suffix = "_segment_ids"
    packed = {name.removesuffix(suffix): ids for name, ids in batch.items() if name.endswith(suffix)}
    names = [name for name in ("encoder_input_tokens", "decoder_target_tokens") if name in batch]
    return packed or {name: batch[name] != 0 for name in names}


def _loss_metrics(sums: Mapping[str, Float[Array, ""]], weights: Float[Array, "batch length"]) -> Metrics:
    """Each part of the loss under the three names, and with the three divisors, that T5X has for the loss."""
    found: Metrics = {}
    for name, total in sums.items():
        found[name] = t5x_metrics.AveragePerStep(total=total)
        found[f"{name}_per_nonpadding_target_token"] = clu_metrics.Average(
            total=total, count=jnp.sum(weights)
        )
        found[f"{name}_per_all_target_tokens"] = clu_metrics.Average(
            total=total, count=jnp.array(weights.size)
        )
    return found


def _mean_metrics(
    means: Mapping[str, tuple[Float[Array, "batch length"], Float[Array, "batch length"]]],
) -> Metrics:
    """Weighted means over tokens of values and their weights; NaN where nothing has any weight."""
    return {
        name: clu_metrics.Average(total=jnp.sum(weights * values), count=jnp.sum(weights))
        for name, (values, weights) in means.items()
    }
