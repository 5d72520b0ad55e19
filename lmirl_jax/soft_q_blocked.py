"""Computes soft Q-values from hidden states, with the logits of one tile of tokens by words in memory at a time.

"Words" are the entries of the vocabulary. The forward pass goes over the vocabulary and keeps running sums for each token. The
backward pass, a custom derivative, computes each tile of logits again and adds its share to the two gradients. Under a mesh
each device works on its tokens and its words. Devices exchange some numbers per token, the gradients, and, where the rows of
the unembedding are split, one slice of it at a time.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from lmirl_jax.tiles import Axes, Blocks, Tile, WordSlices, axes_in_force, on_each_device
from lmirl_jax.types import SoftQ


@dataclasses.dataclass(frozen=True)
class Form:
    """Static settings: how logits are computed, and which statistics of them. The names are those of `soft_q`."""

    tile: Tile
    scale: float
    soft_cap: float | None
    temperature: float | None
    with_entropy: bool
    with_sum: bool
    with_max: bool

    @property
    def sums(self) -> list[str]:
        """The names of the sums over the vocabulary."""
        optional = {
            "entropy": self.with_entropy,
            "tempered": self.temperature is not None,
            "total": self.with_sum,
        }
        return ["sum", "q", *(name for name, is_needed in optional.items() if is_needed)]


class Statistics(NamedTuple):
    """The statistics of each token's logits that the forward pass computes.

    Args:
        q: the logit of the target.
        maximum: the largest logit.
        log_sum: log sum_a exp(logit_a - maximum).
        entropy: the entropy of the policy.
        log_tempered: log sum_a exp((logit_a - maximum) / temperature).
        total: sum_a logit_a.
    """

    q: Any
    maximum: Any
    log_sum: Any
    entropy: Any = None
    log_tempered: Any = None
    total: Any = None


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def from_hidden(
    form: Form,
    hidden: Float[Array, "*batch embed"],
    kernel: Float[Array, "embed vocab"],
    targets: Int[Array, "*batch"],
    real: Bool[Array, "*batch"] | None,
) -> SoftQ:
    """Computes `soft_q.from_hidden` in tiles: 0 where `real` is False; `q` is nan where a target is not in the vocabulary."""
    return _soft_q(form, _statistics(form, hidden, kernel, targets, real))


def _forward(form: Form, hidden, kernel, targets, real) -> tuple[SoftQ, tuple]:
    hidden, kernel, targets = hidden.value, kernel.value, targets.value
    real = None if real is None else real.value
    statistics = _statistics(form, hidden, kernel, targets, real)
    return _soft_q(form, statistics), (hidden, kernel, targets, real, statistics)


def _backward(form: Form, residuals: tuple, cotangents: SoftQ) -> tuple:
    # The cotangents of outputs on which no loss depends are symbolic zeros. They are left out here, so that an entropy that is
    # only a metric has no cost in the backward pass.
    nonzero = {
        name: cotangent
        for name, cotangent in vars(cotangents).items()
        if name != "max_logit" and cotangent is not None and not isinstance(cotangent, SymbolicZero)
    }
    if not nonzero:
        return None, None, None, None
    hidden, kernel, targets, real, statistics = residuals
    d_hidden, d_kernel = _gradients(form, hidden, kernel, targets, real, statistics, nonzero)
    return d_hidden, d_kernel, None, None


from_hidden.defvjp(_forward, _backward, symbolic_zeros=True)


def _soft_q(form: Form, stats: Statistics) -> SoftQ:
    return SoftQ(
        q=stats.q,
        v=stats.maximum + stats.log_sum,
        entropy=stats.entropy,
        tempered=None if form.temperature is None else stats.maximum + form.temperature * stats.log_tempered,
        sum_logits=stats.total,
        max_logit=stats.maximum if form.with_max else None,
    )


def _statistics(form: Form, hidden, kernel, targets, real) -> Statistics:
    axes = axes_in_force(targets.shape, kernel.shape)
    local = functools.partial(_local_statistics, form, axes)
    stats = on_each_device(axes, local, hidden, kernel, targets, real, out=axes.per_token)
    # No device has the logit of a target that is not in the vocabulary.
    wrong = (targets < 0) | (targets >= kernel.shape[1])
    return stats._replace(q=jnp.where(wrong if real is None else wrong & real, jnp.nan, stats.q))


def _gradients(form: Form, hidden, kernel, targets, real, stats: Statistics, cotangents: dict[str, Any]):
    axes = axes_in_force(targets.shape, kernel.shape)
    local = functools.partial(_local_gradients, form, axes)
    out = (axes.per_token, PartitionSpec(axes.embed, axes.words))
    return on_each_device(axes, local, hidden, kernel, targets, real, stats, cotangents, out=out)


def _local_statistics(form: Form, axes: Axes, hidden, kernel, targets, real) -> Statistics:
    """The forward pass over this device's tokens and words; the sums then include the words of the other devices."""
    blocks = Blocks(targets.size, form.tile.tokens, real)
    words = WordSlices(kernel, form.tile.words, hidden.dtype, axes)
    hidden_blocks = blocks.cut(jnp.reshape(hidden, (targets.size, -1)))
    target_blocks = blocks.cut(jnp.ravel(targets))
    zeros = jnp.zeros(target_blocks.shape, _wide(hidden))

    def over_words(start, step, carry):
        kernel_slice = words.slice(start, step)

        def over_tokens(i, carry):
            maximum, sums = carry
            logits = _logits(form, hidden_blocks[i], kernel_slice)
            higher = jnp.maximum(maximum[i], jnp.max(logits, axis=-1))
            before = _recentre(form, jax.tree.map(lambda x: x[i], sums), maximum[i] - higher)
            more = _tile_sums(form, logits, higher, words.target_mask(target_blocks[i], start, step))
            sums = jax.tree.map(lambda x, a, b: x.at[i].set(a + b), sums, before, more)
            return maximum.at[i].set(higher), sums

        return jax.lax.fori_loop(0, blocks.count, over_tokens, carry)

    # The value is finite, because 0 * (lowest - maximum) must be 0.
    lowest = zeros + np.finfo(zeros.dtype).min / 4
    maximum, sums = words.fold(over_words, (lowest, dict.fromkeys(form.sums, zeros)))
    if axes.words:
        highest = jax.lax.pmax(maximum, axes.words)
        sums = jax.lax.psum(_recentre(form, sums, maximum - highest), axes.words)
        maximum = highest
    stats = _from_sums(form, maximum, sums)
    return jax.tree.map(lambda x: jnp.reshape(blocks.join(x), targets.shape), stats)


def _tile_sums(form: Form, logits, maximum, is_target) -> dict[str, Any]:
    """A tile's share of the sums over the vocabulary, centred on `maximum`, and of the target's logit: 0 in other tiles."""
    centred = logits - maximum[:, None]
    weights = jnp.exp(centred)
    sums = {"sum": jnp.sum(weights, axis=-1), "q": jnp.sum(jnp.where(is_target, logits, 0.0), axis=-1)}
    if form.with_entropy:
        sums["entropy"] = jnp.sum(weights * centred, axis=-1)
    if form.temperature is not None:
        sums["tempered"] = jnp.sum(jnp.exp(centred / form.temperature), axis=-1)
    if form.with_sum:
        sums["total"] = jnp.sum(logits, axis=-1)
    return sums


def _recentre(form: Form, sums: dict[str, Any], by) -> dict[str, Any]:
    """Centres sums on another maximum; `by` is the old maximum minus the new one."""
    new_sums = sums | {"sum": sums["sum"] * jnp.exp(by)}
    if form.with_entropy:
        new_sums["entropy"] = (sums["entropy"] + by * sums["sum"]) * jnp.exp(by)
    if form.temperature is not None:
        new_sums["tempered"] = sums["tempered"] * jnp.exp(by / form.temperature)
    return new_sums


def _from_sums(form: Form, maximum, sums: dict[str, Any]) -> Statistics:
    """The statistics that follow from the sums over the whole vocabulary."""
    log_sum = jnp.log(sums["sum"])
    return Statistics(
        q=sums["q"],
        maximum=maximum,
        log_sum=log_sum,
        entropy=log_sum - sums["entropy"] / sums["sum"] if form.with_entropy else None,
        log_tempered=None if form.temperature is None else jnp.log(sums["tempered"]),
        total=sums.get("total"),
    )


def _local_gradients(form: Form, axes: Axes, hidden, kernel, targets, real, stats: Statistics, cotangents):
    """The backward pass over this device's tokens and words; the gradients are summed over devices that share either."""
    blocks = Blocks(targets.size, form.tile.tokens, real)
    words = WordSlices(kernel, form.tile.words, hidden.dtype, axes)
    hidden_blocks = blocks.cut(jnp.reshape(hidden, (targets.size, -1)))
    target_blocks, stats, cotangents = jax.tree.map(
        lambda x: blocks.cut(jnp.ravel(x)), (targets, stats, cotangents)
    )

    def over_words(start, step, carry):
        kernel_slice = words.slice(start, step)

        def over_tokens(i, carry):
            d_hidden, d_slice = carry
            per_token = jax.tree.map(lambda x: x[i][:, None], (stats, cotangents))
            logits = _logits(form, hidden_blocks[i], kernel_slice)
            is_target = words.target_mask(target_blocks[i], start, step)
            d_product = _d_product(form, logits, is_target, *per_token)
            d_product = d_product.astype(hidden.dtype)
            d_hidden = d_hidden.at[i].add(_product(d_product, kernel_slice.T))
            return d_hidden, d_slice + _product(hidden_blocks[i].T, d_product)

        d_hidden, d_kernel = carry
        zeros = jnp.zeros(kernel_slice.shape, _wide(hidden))
        d_hidden, d_slice = jax.lax.fori_loop(0, blocks.count, over_tokens, (d_hidden, zeros))
        return d_hidden, words.put(d_kernel, d_slice, start)

    zeros = jnp.zeros(hidden_blocks.shape, _wide(hidden)), words.zeros(_wide(hidden))
    d_hidden, d_kernel = words.fold(over_words, zeros)
    if axes.words:
        d_hidden = jax.lax.psum(d_hidden, axes.words)
    others = tuple(axis for axis in axes.tokens if axis not in axes.embed)
    if others:
        d_kernel = jax.lax.psum(d_kernel, others)
    d_hidden = jnp.reshape(blocks.join(d_hidden), hidden.shape)
    return d_hidden.astype(hidden.dtype), jnp.reshape(d_kernel, kernel.shape).astype(kernel.dtype)


def _d_product(form: Form, logits, is_target, stats: Statistics, cotangents: dict[str, Any]):
    """The gradient of the loss by a tile of `hidden @ kernel`, from the cotangents of the soft Q-values.

    dq = 1[a],   dv = pi,   dH = -pi (log pi + H),   dtempered = softmax(logits / temperature),   dsum = 1
    """
    log_pi = (logits - stats.maximum) - stats.log_sum
    slope = jnp.exp(log_pi) * cotangents["v"] if "v" in cotangents else jnp.zeros_like(logits)
    if "entropy" in cotangents:
        slope = slope - jnp.exp(log_pi) * (log_pi + stats.entropy) * cotangents["entropy"]
    if "tempered" in cotangents:
        tempered = jnp.exp((logits - stats.maximum) / form.temperature - stats.log_tempered)
        slope = slope + tempered * cotangents["tempered"]
    if "sum_logits" in cotangents:
        slope = slope + cotangents["sum_logits"]
    if "q" in cotangents:
        slope = slope + jnp.where(is_target, cotangents["q"], 0.0)
    if form.soft_cap is not None:
        slope = slope * (1.0 - jnp.square(logits / form.soft_cap))
    return slope * form.scale


def _logits(form: Form, hidden, kernel):
    logits = _product(hidden, kernel) * form.scale
    return logits if form.soft_cap is None else form.soft_cap * jnp.tanh(logits / form.soft_cap)


def _product(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, preferred_element_type=_wide(a))


def _wide(x: Array) -> np.dtype:
    return np.promote_types(x.dtype, jnp.float32)
