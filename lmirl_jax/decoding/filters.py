"""Filters of sampling (top-k, top-p and min-p): pure functions on logits, which set the logits of other tokens to -inf.

No filter sorts. A token's rank matters only as the weight of the tokens before it (their number for top-k, their
probability for top-p), so that it is enough to find the logit at which that weight reaches its budget, by bisection over
the bits of a float32: 32 sums over the vocabulary, which devices that share a vocabulary take together.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt32

Scalar = Float[Array, ""] | float
Count = Int[Array, ""] | int


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Filters:
    """The settings of all three filters; traced scalars too, so that one compilation serves a sweep.

    Applied to the logits after they are divided by the temperature, in the order of the field: top-k, then top-p on the
    probabilities renormalised over what top-k left, then min-p. At least one token always stays.

    Args:
        top_k: the number of tokens that stay; 0, or the vocabulary's size and more, is off.
        top_p: the probability that those which stay hold at least; 1 is off.
        min_p: the least probability that stays, as a share of the likeliest token's; 0 is off.
    """

    top_k: Any = 0
    top_p: Any = 1.0
    min_p: Any = 0.0

    def __call__(self, logits: Float[Array, "*batch vocab"]) -> Float[Array, "*batch vocab"]:
        return min_p(top_p(top_k(logits, self.top_k), self.top_p), self.min_p)


def top_k(logits: Float[Array, "*batch vocab"], k: Count) -> Float[Array, "*batch vocab"]:
    """Keeps the k largest logits, of equal ones those with the lower token number.

    Args:
        logits: the logits of the tokens, in nats.
        k: the exact number of tokens that are kept; 0, or at least the size of the vocabulary, keeps all.

    Returns:
        The logits, -inf at tokens that are not kept.
    """
    k = jnp.asarray(k, jnp.int32)

    def keep(x):
        return _fits_budget(x, jnp.ones_like(x), jnp.maximum(k, 1).astype(x.dtype))

    return _apply_if((k > 0) & (k < logits.shape[-1]), keep, logits)


def top_p(logits: Float[Array, "*batch vocab"], p: Scalar) -> Float[Array, "*batch vocab"]:
    """Keeps the nucleus: the smallest number of the likeliest tokens whose total probability reaches p.

    Args:
        logits: the logits of the tokens, in nats; the probabilities are their softmax.
        p: a share above 0; 1 keeps all. Among tokens of equal probability at the edge, those with lower ids are kept.

    Returns:
        The logits, -inf at tokens that are not kept.

    Source: Holtzman et al., https://arxiv.org/abs/1904.09751.
    """
    p = jnp.asarray(p, logits.dtype)
    return _apply_if(p < 1, lambda x: _fits_budget(x, jax.nn.softmax(x, axis=-1), p), logits)


def min_p(logits: Float[Array, "*batch vocab"], p: Scalar) -> Float[Array, "*batch vocab"]:
    """Keeps every token at least p times as likely as the likeliest.

    Args:
        logits: the logits of the tokens, in nats.
        p: a share from 0, which keeps all, to 1, which keeps only the likeliest token and those of equal probability.

    Returns:
        The logits, -inf at tokens that are not kept.

    Source: Nguyen et al., https://arxiv.org/abs/2407.01082.
    """
    p = jnp.asarray(p, logits.dtype)
    floor = jnp.max(logits, axis=-1, keepdims=True) + jnp.log(p)
    return jnp.where((p <= 0) | (logits >= floor), logits, -jnp.inf)


def _apply_if(on: Bool[Array, ""], keep, logits: Array) -> Array:
    """Applies a filter if it is on. Only one branch of a `cond` runs, so that a filter that is off has no cost."""
    return jax.lax.cond(on, lambda x: jnp.where(keep(x), x, -jnp.inf), lambda x: x, logits)


def _fits_budget(
    logits: Float[Array, "*batch vocab"], weights: Float[Array, "*batch vocab"], budget: Float[Array, ""]
) -> Bool[Array, "*batch vocab"]:
    """Marks the tokens before which the sum of weights is below `budget`, in the order of decreasing logits.

    Tokens of equal logits keep their order, and must have equal weights.
    """
    ordered = _ordered_bits(logits)

    def heavier(least: UInt32[Array, "*batch"]) -> Float[Array, "*batch"]:
        return jnp.sum(jnp.where(ordered >= least[..., None], weights, 0.0), axis=-1)

    def bit(number, edge):
        raised = edge | (jnp.uint32(1 << 31) >> number.astype(jnp.uint32))
        return jnp.where(heavier(raised) >= budget, raised, edge)

    # The greatest edge at and above which the weight reaches the budget: the logit of the last token to stay.
    edge = jax.lax.fori_loop(0, 32, bit, jnp.zeros(logits.shape[:-1], jnp.uint32))[..., None]
    above, level = ordered > edge, ordered == edge
    before = jnp.sum(jnp.where(above, weights, 0.0), axis=-1, keepdims=True)
    level_weights = level.astype(weights.dtype)
    earlier = jnp.cumsum(level_weights, axis=-1) - level_weights
    return above | (level & (before + earlier * weights < budget))


def _ordered_bits(x: Float[Array, "*shape"]) -> UInt32[Array, "*shape"]:
    """Numbers of 32 bits in the order of the floats, with both zeros equal."""
    bits = jax.lax.bitcast_convert_type(jnp.where(x == 0, 0.0, x).astype(jnp.float32), jnp.uint32)
    return jnp.where(bits >> 31 == 1, ~bits, bits | jnp.uint32(1 << 31))
