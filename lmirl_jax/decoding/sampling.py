"""Samples answers with a cache, in one loop for every model, which ends when every answer has ended."""

import dataclasses
import functools
import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from lmirl_jax import soft_q
from lmirl_jax.decoding.filters import Filters
from lmirl_jax.models import guidance
from lmirl_jax.rows import answer_rows
from lmirl_jax.types import AnswerBatch, Model, PromptBatch


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Samples:
    """Answers to prompts, with their log-probabilities under the policy at temperature 1 without filters.

    Args:
        answers: [batch, samples, length].
        log_probs: log pi of each token, in nats; 0 after the end.
        entropies: the entropy of the policy before each token, in nats; 0 after the end.
    """

    answers: AnswerBatch
    log_probs: Float[Array, "batch samples length"]
    entropies: Float[Array, "batch samples length"]


def sample_keys(
    key: Key[Array, ""], example_ids: Int[Array, " batch"], num_samples: int
) -> Key[Array, "batch samples"]:
    """A key for each sample, which depends only on the numbers of example and sample, not on the batch or the mesh."""
    by_example = jax.vmap(jax.random.fold_in, (None, 0))(key, example_ids)
    return jax.vmap(lambda k: jax.vmap(jax.random.fold_in, (None, 0))(k, jnp.arange(num_samples)))(by_example)


def sample(
    model: Model,
    prompts: PromptBatch,
    keys: Key[Array, "batch samples"],
    temperature: Float[Array, ""] | float,
    filters: Filters = Filters(),
    *,
    max_length: int,
    eos_ids: Sequence[int],
    beginnings: AnswerBatch | None = None,
) -> Samples:
    """Draws answers token by token from the tempered policy, among the tokens that the filters leave.

        pi(a|s) proportional to exp(Q(s, a) / temperature)

    Args:
        model: the policy.
        prompts: [batch, inputs]; each is read once for all of its samples.
        keys: a key for each sample, [batch, samples].
        temperature: the temperature; 0 takes the likeliest token. It may be traced, so that one compilation serves a sweep.
        filters: top-k, top-p and min-p, after the temperature; they may be traced too.
        max_length: the maximum number of tokens; an answer that has not ended by then is truncated.
        eos_ids: the tokens that end an answer.
        beginnings: what each answer begins with, [batch, length] with length at most `max_length`; None for nothing.

    Returns:
        The answers, with their log-probabilities and entropies at temperature 1 without filters, in nats.
    """
    count, num_samples = keys.shape
    rows = count * num_samples
    keys = jnp.reshape(keys, (rows,))
    temperature = jnp.asarray(temperature, jnp.float32)

    given = jax.tree.map(lambda x: jnp.repeat(x, num_samples, axis=0), beginnings)

    def unfinished(carry: tuple[Any, ...]):
        t, done = carry[0], carry[1]
        return (t < max_length) & ~jnp.all(done)

    def step(carry: tuple[Any, ...]):
        t, done, lengths, token, cache, columns = carry
        cache, hidden = model.decode(cache, token)
        logits = logits_of(model, hidden)
        token = jnp.where(done, 0, _choose(logits, t, keys, temperature, filters, given))
        out = soft_q.from_logits(logits, token, with_entropy=True)
        log_probs, entropies = (jnp.where(done, 0.0, x) for x in (out.q - out.v, out.entropy))
        new = (token, log_probs, entropies)
        columns = [x.at[:, t].set(column) for x, column in zip(columns, new, strict=True)]
        lengths = lengths + (~done).astype(jnp.int32)
        return t + 1, done | (~done & is_any_of(token, eos_ids)), lengths, token, cache, columns

    cache, first = model.start_decoding(prompts, max_length, num_samples)
    empty = jnp.zeros((rows, max_length))
    columns = [empty.astype(jnp.int32), empty, empty]
    none_yet = jnp.zeros((rows,), jnp.int32)
    start = (jnp.zeros((), jnp.int32), jnp.zeros((rows,), bool), none_yet, first, cache, columns)
    _, terminal, lengths, _, _, columns = jax.lax.while_loop(unfinished, step, start)
    tokens, log_probs, entropies = (jnp.reshape(x, (count, num_samples, max_length)) for x in columns)
    lengths, terminal = (jnp.reshape(x, (count, num_samples)) for x in (lengths, terminal))
    return Samples(AnswerBatch(tokens, lengths, terminal), log_probs, entropies)


def _choose(
    logits: Float[Array, "rows vocab"],
    t: Int[Array, ""],
    keys: Key[Array, " rows"],
    temperature: Float[Array, ""],
    filters: Filters,
    given: AnswerBatch | None,
) -> Int[Array, " rows"]:
    """The next tokens: drawn, the likeliest at temperature 0, or those that the answers begin with."""

    def draw(logits: Float[Array, "rows vocab"], t: Int[Array, ""]) -> Int[Array, " rows"]:
        return _likeliest(filters(logits / temperature) + _gumbel_noise(keys, t, logits))

    token = jax.lax.cond(temperature > 0, draw, lambda x, _: _likeliest(x), logits, t)
    return token if given is None else jnp.where(t < given.lengths, given.tokens[:, t], token)


def _gumbel_noise(
    keys: Key[Array, " rows"], t: Int[Array, ""], logits: Float[Array, "rows vocab"]
) -> Float[Array, "rows vocab"]:
    """Gumbel noise, keyed by row and position: the argmax of logits plus noise is a sample of their softmax."""
    step_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, t)
    return jax.vmap(lambda key: jax.random.gumbel(key, logits.shape[1:], logits.dtype))(step_keys)


def is_any_of(tokens: Int[Array, "*shape"], ids: Sequence[int]) -> Bool[Array, "*shape"]:
    return functools.reduce(operator.or_, (tokens == token for token in ids))


def _likeliest(logits: Float[Array, "rows vocab"]) -> Int[Array, " rows"]:
    """The argmax, the first of equal ones, by two plain reductions, which are vectorised on a CPU; argmax is not."""
    vocab = logits.shape[-1]
    best = jnp.max(logits, axis=-1, keepdims=True)
    places = jnp.where(logits == best, jnp.arange(vocab, dtype=jnp.int32), vocab - 1)
    return jnp.min(places, axis=-1)


def logits_of(model: Model, hidden: Float[Array, "*rows embed"]) -> Float[Array, "*rows vocab"]:
    """The logits that are sampled from: those of the policy, and what its heads add to them."""
    out = model.unembedding()
    logits = soft_q.logits_from_hidden(hidden, out.kernel, scale=out.scale, soft_cap=out.soft_cap)
    guide = guidance(model, hidden)
    return logits if guide is None else logits + guide


def log_prob_gaps(model: Model, prompts: PromptBatch, samples: Samples) -> Float[Array, " batch"]:
    """The largest difference between the log-probabilities of sampling and those of the same tokens under teacher forcing.

        max_t |log pi_t from the cache - log pi_t at once|   over the samples of each prompt

    It tests the cache: in float32, rounding explains about 1e-5, and a larger difference is a fault in decoding.

    Args:
        model: the policy that the samples come from.
        prompts: the prompts of the samples.
        samples: the result of `sample` or `search` for `prompts`.

    Returns:
        The difference for each prompt, in nats.
    """
    count, num_samples, _ = samples.log_probs.shape
    answers = jax.tree.map(lambda x: jnp.reshape(x, (-1, *x.shape[2:])), samples.answers)
    prompts_by_sample = jax.tree.map(lambda x: jnp.repeat(x, num_samples, axis=0), prompts)
    batch = answer_rows(prompts_by_sample, answers, discount=0.0)
    hidden = model.hidden(batch)
    if guidance(model, hidden) is None:
        teacher_forced = soft_q.from_states(hidden, model.unembedding(), batch)
    else:
        # A guided policy has no single output layer: all of its logits are made.
        teacher_forced = soft_q.from_logits(logits_of(model, hidden), batch.tokens)
    gaps = jnp.abs(jnp.reshape(samples.log_probs, batch.tokens.shape) - (teacher_forced.q - teacher_forced.v))
    return jnp.max(jnp.reshape(jnp.where(batch.weights > 0, gaps, 0.0), (count, -1)), axis=-1)
