"""Sampling from a cache: one loop for every model, which ends when every row has ended."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from lmirl_jax import soft_q
from lmirl_jax.types import Batch, Model

EOS = 1


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Samples:
    """Sampled answers, [batch, samples, length]: tokens up to and with EOS, then 0, and log pi of each at temperature 1."""

    tokens: Int[Array, "batch samples length"]
    log_probs: Float[Array, "batch samples length"]


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
    *,
    max_length: int,
) -> Samples:
    """Draws answers token by token from pi(a|s) proportional to exp(Q(s, a) / temperature).

    Args:
        model: the policy.
        batch: prompts, [batch, inputs]; its targets are not read.
        keys: one for each sample, [batch, samples]; each prompt is read once for all of its samples.
        temperature: 0 takes the likeliest token. It may be traced: one compilation serves a sweep.
        max_length: tokens to draw at most; an answer without EOS by then is cut off.

    Returns:
        The answers and their log-probabilities at temperature 1, in nats.
    """
    prompts, num_samples = keys.shape
    rows = prompts * num_samples
    keys = jnp.reshape(keys, (rows,))
    temperature = jnp.asarray(temperature, jnp.float32)
    unembedding = model.unembedding()

    def logits_of(hidden: Float[Array, "rows embed"]) -> Float[Array, "rows vocab"]:
        kernel = unembedding.kernel
        return soft_q.logits_from_hidden(
            hidden, kernel, scale=unembedding.scale, soft_cap=unembedding.soft_cap
        )

    def draw(logits: Float[Array, "rows vocab"], t: Int[Array, ""]) -> Int[Array, " rows"]:
        step_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, t)
        warmed = logits / jnp.where(temperature > 0, temperature, 1.0)
        drawn = jax.vmap(jax.random.categorical)(step_keys, warmed)
        return jnp.where(temperature > 0, drawn, jnp.argmax(logits, axis=-1)).astype(jnp.int32)

    def unfinished(carry: tuple[Any, ...]):
        t, done = carry[0], carry[1]
        return (t < max_length) & ~jnp.all(done)

    def step(carry: tuple[Any, ...]):
        t, done, token, cache, tokens, log_probs = carry
        cache, hidden = model.decode(cache, token)
        logits = logits_of(hidden)
        token = jnp.where(done, 0, draw(logits, t))
        out = soft_q.from_logits(logits, token)
        tokens = jax.lax.dynamic_update_slice_in_dim(tokens, token[:, None], t, axis=1)
        log_prob = jnp.where(done, 0.0, out.q - out.v)
        log_probs = jax.lax.dynamic_update_slice_in_dim(log_probs, log_prob[:, None], t, axis=1)
        return t + 1, done | (token == EOS), token, cache, tokens, log_probs

    cache, first = model.start_decoding(batch, max_length, num_samples)
    zero = jnp.zeros((), jnp.int32)
    empty = jnp.zeros((rows, max_length))
    start = (zero, jnp.zeros((rows,), bool), first, cache, empty.astype(jnp.int32), empty)
    *_, tokens, log_probs = jax.lax.while_loop(unfinished, step, start)
    shape = (prompts, num_samples, max_length)
    return Samples(jnp.reshape(tokens, shape), jnp.reshape(log_probs, shape))
