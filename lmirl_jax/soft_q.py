"""Computes the soft Q-values of a language model: the few numbers for each token that objectives need.

With pi(a|s) = exp(Q(s, a)) / sum_b exp(Q(s, b)), a language model's logits are soft Q-values at temperature 1 and their
logsumexp is the soft value; there is no extra head and no target network. Objectives see the result, never the logits.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from lmirl_jax import soft_q_blocked, tiles
from lmirl_jax.types import Batch, Model, SoftQ, Unembedding


def from_logits(
    logits: Float[Array, "*batch vocab"],
    targets: Int[Array, "*batch"],
    *,
    temperature: float | None = None,
    with_entropy: bool = False,
    with_sum: bool = False,
    with_max: bool = False,
) -> SoftQ:
    """Computes soft Q-values from dense logits.

        q = logits[target],   v = log sum_a exp(logits[a])

    Args:
        logits: soft Q-values Q(s_t, .), in nats; any float type, computed in float32 or wider.
        targets: the token a_t taken at each position.
        temperature: if given, `tempered = temperature * logsumexp(logits / temperature)` is computed too.
        with_entropy: whether to compute the entropy of the policy.
        with_sum: whether to compute the sum of the logits over the vocabulary.
        with_max: whether to compute the largest logit, through which no gradient flows.

    Returns:
        A `SoftQ` of arrays of the shape of `targets`, in nats; fields that are not computed are None.
    """
    logits = logits.astype(np.promote_types(logits.dtype, jnp.float32))
    q = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    # The logits are centred on their maximum, so that large logits do not make the entropy and v inexact.
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
        hidden: the hidden states, in the type in which the product is computed.
        unembedding: the output embedding, cast to the type of `hidden`.
        scale: a factor on the product (1/sqrt(embed) where T5 1.0 ties its embeddings).
        soft_cap: the bound of the logits, in nats; None for no bound.

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
    weights: Float[Array, "*batch"] | None = None,
    scale: float = 1.0,
    soft_cap: float | None = None,
    temperature: float | None = None,
    with_entropy: bool = False,
    with_sum: bool = False,
    with_max: bool = False,
    block_size: int | None = None,
) -> SoftQ:
    """Computes soft Q-values from hidden states; all logits are in memory at once only if they are few.

        from_logits(logits_from_hidden(hidden, unembedding), targets)

    Otherwise they are computed in tiles of tokens by words, which the backward pass computes again; the derivative is the
    same. Within `sharding.use(mesh)` each device works on its tokens and words, and none holds the whole unembedding.

    Args:
        hidden: hidden states, in the type in which products are taken; they are summed in float32 or wider.
        unembedding: the output embedding, cast to the type of `hidden`.
        targets: the token a_t taken at each position.
        weights: if given, tokens of weight 0 are skipped: their results and gradients are 0.
        scale: see `logits_from_hidden`.
        soft_cap: see `logits_from_hidden`; in nats.
        temperature, with_entropy, with_sum, with_max: see `from_logits`.
        block_size: the number of tokens of a tile; None chooses by size, 0 is dense.

    Returns:
        A `SoftQ` of arrays of the shape of `targets`, in nats and float32 (float64 where `hidden` is).

    Raises:
        UserError: `block_size` is no whole number of 0 or more.
    """
    tile = tiles.choose_tile(*tiles.local_sizes(targets.shape, unembedding.shape), block_size)
    real = None if weights is None else weights != 0
    read = {
        "temperature": temperature,
        "with_entropy": with_entropy,
        "with_sum": with_sum,
        "with_max": with_max,
    }
    if tile is not None:
        form = soft_q_blocked.Form(tile, scale, soft_cap, **read)
        return soft_q_blocked.from_hidden(form, hidden, unembedding, targets, real)
    out = from_logits(
        logits_from_hidden(hidden, unembedding, scale=scale, soft_cap=soft_cap), targets, **read
    )
    return out if real is None else jax.tree.map(lambda x: jnp.where(real, x, 0.0), out)


def from_model(
    model: Model,
    batch: Batch,
    dropout_keys: Key[Array, " rows"] | None = None,
    **options: Any,
) -> SoftQ:
    """Computes soft Q-values of the answers' tokens in a batch, 0 elsewhere; see `from_states`."""
    return from_states(model.hidden(batch, dropout_keys), model.unembedding(), batch, **options)


def from_states(
    hidden: Float[Array, "batch length embed"],
    unembedding: Unembedding,
    batch: Batch,
    *,
    temperature: float | None = None,
    with_entropy: bool = False,
    with_sum: bool = False,
    with_max: bool = False,
    block_size: int | None = None,
) -> SoftQ:
    """Computes soft Q-values of the answers' tokens in a batch, 0 elsewhere; the options are those of `from_hidden`.

    Args:
        hidden: the hidden states of the batch, or what a head makes of them.
        unembedding: the output layer of the model, or of the head.
        batch: the batch; `v` is as `look_through` has it.
    """
    transparent = _transparent(batch)
    # Zero-weight tokens are read too, because the reward of the token before needs their value.
    needed = (batch.weights != 0) | (jnp.roll(batch.discounts, 1, axis=-1) != 0)
    out = from_hidden(
        hidden,
        unembedding.kernel,
        batch.tokens,
        weights=(needed & ~transparent).astype(jnp.float32),
        scale=unembedding.scale,
        soft_cap=unembedding.soft_cap,
        temperature=temperature,
        with_entropy=with_entropy,
        with_sum=with_sum,
        with_max=with_max,
        block_size=block_size,
    )
    return dataclasses.replace(out, v=look_through(out.v, batch))


def look_through(values: Float[Array, "batch length"], batch: Batch) -> Float[Array, "batch length"]:
    """The values of states, at transparent places that of the next place which is not transparent.

    The text between two assistant turns of one episode is transparent (`rows.mark_turns`): its value is that of the next turn's
    first token, because what others say is the move of the environment, of which the policy's values know nothing.
    """
    transparent = _transparent(batch)
    length = transparent.shape[-1]
    places = jnp.where(transparent, length, jnp.arange(length))
    following = jax.lax.cummin(places, axis=places.ndim - 1, reverse=True)
    return jnp.take_along_axis(values, jnp.minimum(following, length - 1), axis=-1)


def _transparent(batch: Batch) -> Bool[Array, "batch length"]:
    return (batch.weights == 0) & (batch.td_weights == 0) & (batch.discounts != 0)
