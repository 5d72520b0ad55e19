"""T5X's cross-entropy: a sum over tokens, which a number may divide."""

import math

import jax
import jax.numpy as jnp


def get_loss_normalizing_factor_and_weights(loss_normalizing_factor, batch):
    weights = batch.get("decoder_loss_weights", None)
    if loss_normalizing_factor == "NUM_REAL_TARGET_TOKENS":
        return jnp.sum(weights), weights
    return loss_normalizing_factor, weights


def compute_weighted_cross_entropy(
    logits, targets, weights=None, label_smoothing=0.0, z_loss=0.0, loss_normalizing_factor=None
):
    size = logits.shape[-1]
    on, off = 1 - label_smoothing, label_smoothing / (size - 1)
    soft_targets = jnp.where(jax.nn.one_hot(targets, size) > 0, on, off)
    least = -on * math.log(on) - (label_smoothing * math.log(off) if label_smoothing else 0.0)
    per_token = -jnp.sum(soft_targets * jax.nn.log_softmax(logits), axis=-1) - least
    per_token_z = z_loss * jax.nn.logsumexp(logits, axis=-1) ** 2
    weights = jnp.ones(targets.shape) if weights is None else weights
    divisor = 1 if loss_normalizing_factor is None else loss_normalizing_factor
    total, total_z = (jnp.sum(weights * each) / divisor for each in (per_token + per_token_z, per_token_z))
    return total, total_z, jnp.sum(weights)
