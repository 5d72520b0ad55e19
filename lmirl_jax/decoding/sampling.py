"""Sampling from a cache: one loop for every model, which ends when every row has ended."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from lmirl_jax import soft_q
from lmirl_jax.decoding.filters import Filters
from lmirl_jax.types import Batch, Model

EOS = 1
Tokens = Int[Array | np.ndarray, "*rows length"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Samples:
    """Answers, [batch, samples, length]: tokens up to and with EOS, then 0.

    Of each token log pi and, of the policy that it was drawn from, the entropy: in nats, of pi itself, that is at
    temperature 1 and unfiltered, however the token was chosen; 0 after EOS.
    """

    tokens: Int[Array, "batch samples length"]
    log_probs: Float[Array, "batch samples length"]
    entropies: Float[Array, "batch samples length"]


def sample_keys(
    key: Key[Array, ""], example_ids: Int[Array, " batch"], num_samples: int
) -> Key[Array, "batch samples"]:
    """A key for each sample of each example, which depends on nothing else: not on its batch, nor on the mesh."""
    by_example = jax.vmap(jax.random.fold_in, (None, 0))(key, example_ids)
    return jax.vmap(lambda k: jax.vmap(jax.random.fold_in, (None, 0))(k, jnp.arange(num_samples)))(by_example)


def sample(
    model: Model,
    batch: Batch,
    keys: Key[Array, "batch samples"],
    temperature: Float[Array, ""] | float,
    filters: Filters = Filters(),
    *,
    max_length: int,
) -> Samples:
    """Draws answers token by token from pi(a|s) proportional to exp(Q(s, a) / temperature), of the tokens that filters leave.

    Args:
        model: the policy.
        batch: prompts, [batch, inputs]; its targets are not read.
        keys: one for each sample, [batch, samples]; each prompt is read once for all of its samples.
        temperature: 0 takes the likeliest token, whatever the filters. It may be traced: one compilation serves a sweep.
        filters: top-k, top-p and min-p, after the temperature; they may be traced too.
        max_length: tokens to draw at most; an answer without EOS by then is cut off.

    Returns:
        The answers, with their log-probabilities and entropies at temperature 1 without filters, in nats.
    """
    prompts, num_samples = keys.shape
    rows = prompts * num_samples
    keys = jnp.reshape(keys, (rows,))
    temperature = jnp.asarray(temperature, jnp.float32)

    def drawn(logits: Float[Array, "rows vocab"], t: Int[Array, ""]) -> Int[Array, " rows"]:
        step_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, t)
        noise = jax.vmap(lambda key: jax.random.gumbel(key, logits.shape[1:], logits.dtype))(step_keys)
        return _likeliest(filters(logits / temperature) + noise)

    def unfinished(carry: tuple[Any, ...]):
        t, done = carry[0], carry[1]
        return (t < max_length) & ~jnp.all(done)

    def step(carry: tuple[Any, ...]):
        t, done, token, cache, samples = carry
        cache, hidden = model.decode(cache, token)
        logits = logits_of(model, hidden)
        token = jnp.where(
            done, 0, jax.lax.cond(temperature > 0, drawn, lambda x, _: _likeliest(x), logits, t)
        )
        out = soft_q.from_logits(logits, token, with_entropy=True)
        log_probs, entropies = (jnp.where(done, 0.0, x) for x in (out.q - out.v, out.entropy))
        new = (token, log_probs, entropies)
        samples = [x.at[:, t].set(column) for x, column in zip(samples, new, strict=True)]
        return t + 1, done | (token == EOS), token, cache, samples

    cache, first = model.start_decoding(batch, max_length, num_samples)
    empty = jnp.zeros((rows, max_length))
    samples = [empty.astype(jnp.int32), empty, empty]
    start = (jnp.zeros((), jnp.int32), jnp.zeros((rows,), bool), first, cache, samples)
    *_, samples = jax.lax.while_loop(unfinished, step, start)
    return Samples(*(jnp.reshape(x, (prompts, num_samples, max_length)) for x in samples))


def _likeliest(logits: Float[Array, "rows vocab"]) -> Int[Array, " rows"]:
    """argmax, the first of equals, in two plain reductions: on a CPU these are vectorised, and argmax is not."""
    vocab = logits.shape[-1]
    best = jnp.max(logits, axis=-1, keepdims=True)
    places = jnp.where(logits == best, jnp.arange(vocab, dtype=jnp.int32), vocab - 1)
    return jnp.min(places, axis=-1)


def logits_of(model: Model, hidden: Float[Array, "rows embed"]) -> Float[Array, "rows vocab"]:
    out = model.unembedding()
    return soft_q.logits_from_hidden(hidden, out.kernel, scale=out.scale, soft_cap=out.soft_cap)


def real_tokens(tokens: Tokens) -> Bool[Array | np.ndarray, "*rows length"]:
    """Where an answer has tokens: up to and with its first EOS; of numpy or JAX arrays."""
    ended = (tokens == EOS).cumsum(axis=-1)
    return (ended == 0) | ((ended == 1) & (tokens == EOS))


def log_prob_gaps(model: Model, batch: Batch, samples: Samples) -> Float[Array, " batch"]:
    """The largest difference of each prompt's log-probabilities to those of the same tokens under teacher forcing.

    A gauge of the cache: what is left is rounding (some 1e-5 in float32), or decoding has a fault.

    Args:
        model: the policy that the samples come from.
        batch: their prompts.
        samples: as `sample` or `search` returned them for `batch`.

    Returns:
        max_t |log pi_t from the cache - log pi_t at once|, over a prompt's samples, in nats.
    """
    prompts, num_samples, length = samples.tokens.shape
    tokens = jnp.reshape(samples.tokens, (-1, length))
    real = real_tokens(tokens)
    weights = real.astype(jnp.float32)
    fed = jnp.pad(tokens, ((0, 0), (1, 0)))[:, :-1]
    inputs = jnp.repeat(batch.encoder_input_tokens, num_samples, axis=0)
    forced = soft_q.of_model(model, Batch(inputs, fed, tokens, weights, weights, weights))
    gaps = jnp.abs(jnp.reshape(samples.log_probs, tokens.shape) - (forced.q - forced.v))
    return jnp.max(jnp.reshape(jnp.where(real, gaps, 0.0), (prompts, -1)), axis=-1)
