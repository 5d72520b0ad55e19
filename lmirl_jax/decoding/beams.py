"""Beam search with a length penalty, over the same caches as sampling; its rules are T5X's."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from lmirl_jax import soft_q
from lmirl_jax.decoding.sampling import Samples, is_any_of, logits_of, sample, sample_keys
from lmirl_jax.types import AnswerBatch, Model, PromptBatch


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Hypotheses:
    """Partial or whole answers to each prompt, best first; a score of -inf marks an empty place."""

    scores: Float[Array, "batch places"]
    samples: Samples

    def best(self, count: int) -> "_Hypotheses":
        scores, places = jax.lax.top_k(self.scores, count)
        return _Hypotheses(scores, _take(self.samples, places))


def length_penalty(
    length: Int[Array, "*shape"] | int, alpha: Float[Array, ""] | float
) -> Float[Array, "*shape"]:
    """The length penalty, ((5 + length) / 6) ** alpha, by which the log-probability of an answer is divided.

    Args:
        length: the number of tokens of the answer, EOS included.
        alpha: the exponent; 0 for no penalty.

    Source: GNMT, https://arxiv.org/abs/1609.08144, section 7.
    """
    return ((5.0 + jnp.asarray(length, jnp.float32)) / 6.0) ** alpha


def search(
    model: Model,
    prompts: PromptBatch,
    num_beams: int,
    alpha: Float[Array, ""] | float = 0.6,
    *,
    max_length: int,
    eos_ids: Sequence[int],
) -> Samples:
    """Searches for the answers of the highest log pi(y|x) / ((5 + length) / 6) ** alpha.

    In each step every beam of a prompt is continued with every token. Of the 2 x num_beams most likely continuations, those that
    end compete by score with the complete answers so far for num_beams places, and the best of the others live on. A prompt
    is done when its places are full and no living beam can reach the worst of them. Where too few answers have ended
    by `max_length`, living beams take the remaining places as truncated answers. One beam is greedy decoding, which T5X's is
    not (docs/t5x.md).

    Args:
        model: the policy, read at temperature 1.
        prompts: [batch, inputs]; each is read once for all of its beams.
        num_beams: the number of beams, and of answers that are returned.
        alpha: the exponent of the length penalty, 0 or more; it may be traced.
        max_length: the maximum number of tokens of an answer.
        eos_ids: the tokens that end an answer.

    Returns:
        The answers, [batch, num_beams, length], best first, with log-probabilities and entropies as `sample` has them.
    """
    count = prompts.tokens.shape[0]
    if num_beams == 1:
        keys = sample_keys(jax.random.key(0), jnp.arange(count), 1)
        return sample(model, prompts, keys, 0.0, max_length=max_length, eos_ids=eos_ids)
    alpha = jnp.asarray(alpha, jnp.float32)

    def unfinished(carry: tuple[Any, ...]):
        t, _, _, live, done = carry
        reachable = live.scores[:, 0] / length_penalty(max_length, alpha)
        return (t < max_length) & jnp.any(reachable > done.scores[:, -1])

    def step(carry: tuple[Any, ...]):
        t, token, cache, live, done = carry
        cache, hidden = model.decode(cache, jnp.reshape(token, (-1,)))
        candidates, parents = _continuations(logits_of(model, hidden), live, t, eos_ids)
        tokens, ended = candidates.samples.answers.tokens[:, :, t], candidates.samples.answers.terminal
        scores = jnp.where(ended, candidates.scores / length_penalty(t + 1, alpha), -jnp.inf)
        done = _concatenate(done, _Hypotheses(scores, candidates.samples)).best(num_beams)
        scores, places = jax.lax.top_k(jnp.where(ended, -jnp.inf, candidates.scores), num_beams)
        live = _Hypotheses(scores, _take(candidates.samples, places))
        cache = model.reorder(cache, jnp.take_along_axis(parents, places, axis=1))
        return t + 1, jnp.take_along_axis(tokens, places, axis=1), cache, live, done

    cache, first = model.start_decoding(prompts, max_length, num_beams)
    nothing = _no_hypotheses(count, num_beams, max_length)
    # At first all beams of a prompt are equal, so that only one of them is continued.
    live = dataclasses.replace(nothing, scores=nothing.scores.at[:, 0].set(0.0))
    start = (jnp.zeros((), jnp.int32), jnp.reshape(first, (count, num_beams)), cache, live, nothing)
    *_, live, done = jax.lax.while_loop(unfinished, step, start)
    return _fill_up(done, live)


def _continuations(
    logits: Float[Array, "rows vocab"], live: _Hypotheses, t: Int[Array, ""], eos_ids: Sequence[int]
) -> tuple[_Hypotheses, Int[Array, "batch places"]]:
    """The most likely continuations of each prompt's beams, twice as many as there are beams, and the beam of each."""
    prompts, beams = live.scores.shape
    vocab = logits.shape[-1]
    # Choose within each beam first, so that a vocabulary that is split over devices is not moved.
    best, tokens = jax.lax.top_k(logits, min(2 * beams, vocab))
    out = soft_q.from_logits(logits, tokens[:, 0], with_entropy=True)
    log_probs = jnp.reshape(best - out.v[:, None], (prompts, -1))
    each = log_probs.shape[1] // beams
    totals = jnp.repeat(live.scores, each, axis=1) + log_probs
    scores, chosen = jax.lax.top_k(totals, min(2 * beams, totals.shape[1]))
    parents = chosen // each
    samples = _take(live.samples, parents)
    new = (
        jnp.take_along_axis(jnp.reshape(tokens, (prompts, -1)), chosen, axis=1).astype(jnp.int32),
        jnp.take_along_axis(log_probs, chosen, axis=1),
        jnp.take_along_axis(jnp.reshape(out.entropy, (prompts, beams)), parents, axis=1),
    )
    old = (samples.answers.tokens, samples.log_probs, samples.entropies)
    grown, log_probs, entropies = (x.at[:, :, t].set(column) for x, column in zip(old, new, strict=True))
    lengths = jnp.full(new[0].shape, t + 1, jnp.int32)
    answers = AnswerBatch(grown, lengths, is_any_of(new[0], eos_ids))
    return _Hypotheses(scores, Samples(answers, log_probs, entropies)), parents


def _fill_up(done: _Hypotheses, live: _Hypotheses) -> Samples:
    """The complete answers and, in the remaining places, the best truncated ones."""
    empty = jnp.isneginf(done.scores)
    # The first empty place takes the best living beam, and so on.
    behind = jnp.cumsum(empty, axis=1) - 1
    return jax.tree.map(
        lambda mine, theirs: jnp.where(_like(empty, mine), theirs, mine),
        done.samples,
        _take(live.samples, jnp.maximum(behind, 0)),
    )


def _no_hypotheses(prompts: int, places: int, length: int) -> _Hypotheses:
    zeros = jnp.zeros((prompts, places, length))
    lengths = jnp.zeros((prompts, places), jnp.int32)
    answers = AnswerBatch(zeros.astype(jnp.int32), lengths, lengths > 0)
    return _Hypotheses(jnp.full((prompts, places), -jnp.inf), Samples(answers, zeros, zeros))


def _concatenate(first: _Hypotheses, second: _Hypotheses) -> _Hypotheses:
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=1), first, second)


def _take(samples: Samples, places: Int[Array, "batch places"]) -> Samples:
    return jax.tree.map(lambda x: jnp.take_along_axis(x, _like(places, x), axis=1), samples)


def _like(places: Array, other: Array) -> Array:
    """Gives an array [batch, places] as many axes as the other one has."""
    return jnp.reshape(places, places.shape + (1,) * (other.ndim - 2))
