"""Soft Q-values of hidden states without their logits: a tile of tokens by words at a time, with its own derivative.

The forward pass walks over the vocabulary and keeps running sums for each token. The backward pass makes each tile of
logits again and turns it at once into its share of the two gradients. Under a mesh each device does its own tokens by its
own words: between devices go numbers per token, a slice of the unembedding at a time where its rows are split, and the
gradients.
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

from lmirl_jax.tiles import Axes, Blocks, Tile, Words, axes_in_force, on_each_device
from lmirl_jax.types import SoftQ


@dataclasses.dataclass(frozen=True)
class Form:
    """How logits are made and what is read off them; known when the program is compiled. Names as in `soft_q`."""

    tile: Tile
    scale: float
    soft_cap: float | None
    temperature: float | None
    with_entropy: bool
    with_sum: bool
    with_max: bool

    @property
    def sums(self) -> list[str]:
        """What is added up over the vocabulary."""
        optional = {
            "entropy": self.with_entropy,
            "tempered": self.temperature is not None,
            "total": self.with_sum,
        }
        return ["sum", "q", *(name for name, wanted in optional.items() if wanted)]


class Read(NamedTuple):
    """What the forward pass reads off each token's logits; sums over the vocabulary are centred on the maximum."""

    q: Any
    maximum: Any
    log_sum: Any  # log sum_a exp(logit_a - maximum)
    entropy: Any = None
    log_tempered: Any = None  # log sum_a exp((logit_a - maximum) / temperature)
    total: Any = None  # sum_a logit_a


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def from_hidden(
    form: Form,
    hidden: Float[Array, "*batch embed"],
    kernel: Float[Array, "embed vocab"],
    targets: Int[Array, "*batch"],
    real: Bool[Array, "*batch"] | None,
) -> SoftQ:
    """`soft_q.from_hidden` in tiles: 0 where `real` is False, `q` nan where a target is not in the vocabulary."""
    return _soft_q(form, _read(form, hidden, kernel, targets, real))


def _forward(form: Form, hidden, kernel, targets, real) -> tuple[SoftQ, tuple]:
    hidden, kernel, targets = hidden.value, kernel.value, targets.value
    real = None if real is None else real.value
    read = _read(form, hidden, kernel, targets, real)
    return _soft_q(form, read), (hidden, kernel, targets, real, read)


def _backward(form: Form, residuals: tuple, cotangents: SoftQ) -> tuple:
    # What no loss depends on is known to be zero: an entropy that is only a metric costs nothing here.
    given = {
        name: cotangent
        for name, cotangent in vars(cotangents).items()
        if name != "max_logit" and cotangent is not None and not isinstance(cotangent, SymbolicZero)
    }
    if not given:
        return None, None, None, None
    hidden, kernel, targets, real, read = residuals
    d_hidden, d_kernel = _gradients(form, hidden, kernel, targets, real, read, given)
    return d_hidden, d_kernel, None, None


from_hidden.defvjp(_forward, _backward, symbolic_zeros=True)


def _soft_q(form: Form, read: Read) -> SoftQ:
    return SoftQ(
        q=read.q,
        v=read.maximum + read.log_sum,
        entropy=read.entropy,
        tempered=None if form.temperature is None else read.maximum + form.temperature * read.log_tempered,
        sum_logits=read.total,
        max_logit=read.maximum if form.with_max else None,
    )


def _read(form: Form, hidden, kernel, targets, real) -> Read:
    axes = axes_in_force(targets.shape, kernel.shape)
    local = functools.partial(_read_here, form, axes)
    read = on_each_device(axes, local, hidden, kernel, targets, real, out=PartitionSpec(axes.tokens))
    # A target that is no word was found on no device.
    wrong = (targets < 0) | (targets >= kernel.shape[1])
    return read._replace(q=jnp.where(wrong if real is None else wrong & real, jnp.nan, read.q))


def _gradients(form: Form, hidden, kernel, targets, real, read: Read, cotangents: dict[str, Any]):
    axes = axes_in_force(targets.shape, kernel.shape)
    local = functools.partial(_gradients_here, form, axes)
    out = (PartitionSpec(axes.tokens), PartitionSpec(axes.embed, axes.words))
    return on_each_device(axes, local, hidden, kernel, targets, real, read, cotangents, out=out)


def _read_here(form: Form, axes: Axes, hidden, kernel, targets, real) -> Read:
    """The forward pass over this device's tokens and words, and its sums over the other devices' words."""
    blocks = Blocks(targets.size, form.tile.tokens, real)
    words = Words(kernel, form.tile.words, hidden.dtype, axes)
    hidden_blocks = blocks.cut(jnp.reshape(hidden, (targets.size, -1)))
    target_blocks = blocks.cut(jnp.ravel(targets))
    zeros = jnp.zeros(target_blocks.shape, _wide(hidden))

    def over_words(start, step, carry):
        kernel_slice = words.slice(start, step)

        def over_tokens(i, carry):
            maximum, sums = carry
            logits = _logits(form, hidden_blocks[i], kernel_slice)
            higher = jnp.maximum(maximum[i], jnp.max(logits, axis=-1))
            before = _moved(form, jax.tree.map(lambda x: x[i], sums), maximum[i] - higher)
            more = _tile_sums(form, logits, higher, words.taken(target_blocks[i], start, step))
            sums = jax.tree.map(lambda x, a, b: x.at[i].set(a + b), sums, before, more)
            return maximum.at[i].set(higher), sums

        return jax.lax.fori_loop(0, blocks.count, over_tokens, carry)

    lowest = zeros + np.finfo(zeros.dtype).min / 4  # Finite: 0 * (lowest - maximum) is to be 0.
    maximum, sums = words.walk(over_words, (lowest, dict.fromkeys(form.sums, zeros)))
    if axes.words:
        highest = jax.lax.pmax(maximum, axes.words)
        sums = jax.lax.psum(_moved(form, sums, maximum - highest), axes.words)
        maximum = highest
    read = _finished(form, maximum, sums)
    return jax.tree.map(lambda x: jnp.reshape(blocks.join(x), targets.shape), read)


def _tile_sums(form: Form, logits, maximum, taken) -> dict[str, Any]:
    """A tile's share of the sums over the vocabulary, centred on `maximum`, and the target's logit if it is there."""
    centred = logits - maximum[:, None]
    weights = jnp.exp(centred)
    sums = {"sum": jnp.sum(weights, axis=-1), "q": jnp.sum(jnp.where(taken, logits, 0.0), axis=-1)}
    if form.with_entropy:
        sums["entropy"] = jnp.sum(weights * centred, axis=-1)
    if form.temperature is not None:
        sums["tempered"] = jnp.sum(jnp.exp(centred / form.temperature), axis=-1)
    if form.with_sum:
        sums["total"] = jnp.sum(logits, axis=-1)
    return sums


def _moved(form: Form, sums: dict[str, Any], by) -> dict[str, Any]:
    """Sums that are centred on a maximum, centred on another; `by` is the first minus the second."""
    moved = sums | {"sum": sums["sum"] * jnp.exp(by)}
    if form.with_entropy:
        moved["entropy"] = (sums["entropy"] + by * sums["sum"]) * jnp.exp(by)
    if form.temperature is not None:
        moved["tempered"] = sums["tempered"] * jnp.exp(by / form.temperature)
    return moved


def _finished(form: Form, maximum, sums: dict[str, Any]) -> Read:
    log_sum = jnp.log(sums["sum"])
    return Read(
        q=sums["q"],
        maximum=maximum,
        log_sum=log_sum,
        entropy=log_sum - sums["entropy"] / sums["sum"] if form.with_entropy else None,
        log_tempered=None if form.temperature is None else jnp.log(sums["tempered"]),
        total=sums.get("total"),
    )


def _gradients_here(form: Form, axes: Axes, hidden, kernel, targets, real, read: Read, cotangents):
    """The backward pass over this device's tokens and words, added up over the devices that share either."""
    blocks = Blocks(targets.size, form.tile.tokens, real)
    words = Words(kernel, form.tile.words, hidden.dtype, axes)
    hidden_blocks = blocks.cut(jnp.reshape(hidden, (targets.size, -1)))
    target_blocks, read, cotangents = jax.tree.map(
        lambda x: blocks.cut(jnp.ravel(x)), (targets, read, cotangents)
    )

    def over_words(start, step, carry):
        kernel_slice = words.slice(start, step)

        def over_tokens(i, carry):
            d_hidden, d_slice = carry
            per_token = jax.tree.map(lambda x: x[i][:, None], (read, cotangents))
            logits = _logits(form, hidden_blocks[i], kernel_slice)
            d_product = _d_product(form, logits, words.taken(target_blocks[i], start, step), *per_token)
            d_product = d_product.astype(hidden.dtype)
            d_hidden = d_hidden.at[i].add(_product(d_product, kernel_slice.T))
            return d_hidden, d_slice + _product(hidden_blocks[i].T, d_product)

        d_hidden, d_kernel = carry
        nothing = jnp.zeros(kernel_slice.shape, _wide(hidden))
        d_hidden, d_slice = jax.lax.fori_loop(0, blocks.count, over_tokens, (d_hidden, nothing))
        return d_hidden, words.put(d_kernel, d_slice, start)

    nothing = jnp.zeros(hidden_blocks.shape, _wide(hidden)), words.zeros(_wide(hidden))
    d_hidden, d_kernel = words.walk(over_words, nothing)
    if axes.words:
        d_hidden = jax.lax.psum(d_hidden, axes.words)
    others = tuple(axis for axis in axes.tokens if axis not in axes.embed)
    if others:
        d_kernel = jax.lax.psum(d_kernel, others)
    d_hidden = jnp.reshape(blocks.join(d_hidden), hidden.shape)
    return d_hidden.astype(hidden.dtype), jnp.reshape(d_kernel, kernel.shape).astype(kernel.dtype)


def _d_product(form: Form, logits, taken, read: Read, cotangents: dict[str, Any]):
    """The gradient at a tile of `hidden @ kernel`, from the gradients at what was read off its logits.

    dq = 1[a],   dv = pi,   dH = -pi (log pi + H),   dtempered = softmax(logits / temperature),   dsum = 1
    """
    log_pi = (logits - read.maximum) - read.log_sum
    slope = jnp.exp(log_pi) * cotangents["v"] if "v" in cotangents else jnp.zeros_like(logits)
    if "entropy" in cotangents:
        slope = slope - jnp.exp(log_pi) * (log_pi + read.entropy) * cotangents["entropy"]
    if "tempered" in cotangents:
        tempered = jnp.exp((logits - read.maximum) / form.temperature - read.log_tempered)
        slope = slope + tempered * cotangents["tempered"]
    if "sum_logits" in cotangents:
        slope = slope + cotangents["sum_logits"]
    if "q" in cotangents:
        slope = slope + jnp.where(taken, cotangents["q"], 0.0)
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
