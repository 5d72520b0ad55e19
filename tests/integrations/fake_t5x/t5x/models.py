"""T5X's models, as far as a loss reaches."""

from t5x import losses, metrics


class BaseTransformerModel:
    def __init__(
        self,
        module,
        input_vocabulary,
        output_vocabulary,
        optimizer_def=None,
        label_smoothing=0.0,
        z_loss=0.0,
        loss_normalizing_factor=None,
    ):
        self.module, self.optimizer_def = module, optimizer_def
        self.input_vocabulary, self.output_vocabulary = input_vocabulary, output_vocabulary
        self._label_smoothing, self._z_loss = label_smoothing, z_loss
        self._loss_normalizing_factor = loss_normalizing_factor

    def loss_fn(self, params, batch, dropout_rng):
        logits = self._compute_logits(params, batch, dropout_rng)
        factor, weights = losses.get_loss_normalizing_factor_and_weights(self._loss_normalizing_factor, batch)
        targets = batch["decoder_target_tokens"]
        loss, z_loss, _ = losses.compute_weighted_cross_entropy(
            logits, targets, weights, self._label_smoothing, self._z_loss, factor
        )
        return loss, self._compute_metrics(logits, targets, weights, loss, z_loss)

    def eval_fn(self, params, batch):
        return self.loss_fn(params=params, batch=batch, dropout_rng=None)

    def _compute_metrics(self, logits, targets, mask, loss, z_loss=None, segment_ids=None):
        found = {"loss": loss, "z_loss": z_loss, "cross_ent_loss": loss - z_loss}
        found |= {f"tokens/{name}": (ids != 0).sum() for name, ids in (segment_ids or {}).items()}
        return {name: metrics.AveragePerStep(total=total) for name, total in found.items()}


class EncoderDecoderModel(BaseTransformerModel):
    def _compute_logits(self, params, batch, dropout_rng=None, mutable=False, other_variables=None):
        return self.module(params, batch, dropout_rng)


class DecoderOnlyModel(BaseTransformerModel):
    def _compute_logits(self, params, batch, dropout_rng=None, mutable=False, other_variables=None):
        return self.module(params, batch, dropout_rng)
