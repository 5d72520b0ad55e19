"""Logits read as soft Q-values: what every objective needs of them, one number a token.

With pi(a|s) = exp(Q(s, a)) / sum_b exp(Q(s, b)), a language model's logits are soft Q-values at temperature 1 and their
logsumexp is the soft value; there is no extra head and no target network. Objectives see the result, never the logits.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from lmirl_jax.types import Batch, Model, SoftQ


def from_logits(
    logits: Float[Array, "*batch vocab"],
    targets: Int[Array, "*batch"],
    *,
    temperature: float | None = None,
    with_entropy: bool = False,
    with_sum: bool = False,
    with_max: bool = False,
) -> SoftQ:
    """Reads soft Q-values off dense logits.

        q = logits[target],   v = log sum_a exp(logits[a])

    Args:
        logits: soft Q-values Q(s_t, .), in nats; any float type, computed in float32 or wider.
        targets: the token a_t taken at each position.
        temperature: where given, also `tempered = temperature * logsumexp(logits / temperature)`.
        with_entropy: also the entropy of the policy.
        with_sum: also the sum of the logits over the vocabulary.
        with_max: also the largest logit, through which no gradient flows.

    Returns:
        A `SoftQ` of arrays of the shape of `targets`, in nats; None where not asked for.
    """
    logits = logits.astype(np.promote_types(logits.dtype, jnp.float32))
    q = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    # Centred on the maximum, so that neither the entropy nor v loses digits to the size of the logits.
    maximum = jnp.max(jax.lax.stop_gradient(logits), axis=-1)
    centred = logits - maximum[..., None]
    log_sum = jnp.log(jnp.sum(jnp.exp(centred), axis=-1))
    v = maximum + log_sum
    entropy = tempered = sum_logits = None
    if with_entropy:
        policy = jnp.exp(centred - log_sum[..., None])
        entropy = log_sum - jnp.sum(policy * centred, axis=-1)
    if temperature is not None:
        tempered = maximum + temperature * jnp.log(jnp.sum(jnp.exp(centred / temperature), axis=-1))
    if with_sum:
        sum_logits = jnp.sum(logits, axis=-1)
    return SoftQ(q, v, entropy, tempered, sum_logits, maximum if with_max else None)


def logits_from_hidden(
    hidden: Float[Array, "*batch embed"],
    unembedding: Float[Array, "embed vocab"],
    *,
    scale: float = 1.0,
    soft_cap: float | None = None,
) -> Float[Array, "*batch vocab"]:
    """Dense float32 logits of hidden states.

        logits = scale * hidden @ unembedding,   or   soft_cap * tanh(scale * hidden @ unembedding / soft_cap)

    Args:
        hidden: hidden states, in the type in which the product is taken.
        unembedding: the output embedding, cast to the type of `hidden`.
        scale: a factor on the product (1/sqrt(embed) where T5 1.0 ties its embeddings).
        soft_cap: the bound of the logits, in nats, or None.

    Returns:
        The logits, in nats and float32 (float64 where `hidden` is).
    """
    wide = np.promote_types(hidden.dtype, jnp.float32)
    logits = jnp.matmul(hidden, unembedding.astype(hidden.dtype), preferred_element_type=wide)
    if scale != 1.0:
        logits = logits * scale
    if soft_cap is not None:
        logits = soft_cap * jnp.tanh(logits / soft_cap)
    return logits


def from_hidden(
    hidden: Float[Array, "*batch embed"],
    unembedding: Float[Array, "embed vocab"],
    targets: Int[Array, "*batch"],
    *,
    scale: float = 1.0,
    soft_cap: float | None = None,
    temperature: float | None = None,
    with_entropy: bool = False,
    with_sum: bool = False,
    with_max: bool = False,
) -> SoftQ:
    """Soft Q-values of hidden states: `from_logits` of `logits_from_hidden`, arguments and result as there."""
    logits = logits_from_hidden(hidden, unembedding, scale=scale, soft_cap=soft_cap)
    return from_logits(
        logits,
        targets,
        temperature=temperature,
        with_entropy=with_entropy,
        with_sum=with_sum,
        with_max=with_max,
    )


def of_model(
    model: Model,
    batch: Batch,
    dropout_keys: Key[Array, " rows"] | None = None,
    **options: float | bool | None,
) -> SoftQ:
    """Soft Q-values of a batch's target tokens under a model; `options` as `from_hidden` has them."""
    unembedding = model.unembedding()
    return from_hidden(
        model.hidden(batch, dropout_keys),
        unembedding.kernel,
        batch.decoder_target_tokens,
        scale=unembedding.scale,
        soft_cap=unembedding.soft_cap,
        **options,
    )
