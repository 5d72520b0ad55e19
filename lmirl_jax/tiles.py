"""Splits the product `hidden @ unembedding` into tiles: tokens into blocks, words into slices, on one device or a mesh.

"Words" are the entries of the vocabulary, the columns of the unembedding.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax.core import spmd
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool

from lmirl_jax.argument_rules import fits
from lmirl_jax.arguments import Whole
from lmirl_jax.types import UserError

# Without a mesh in force only the compiler knows how an unembedding is sharded. So the vocabulary is divided into this many
# stretches, and each slice takes an equal part of each stretch: devices that hold whole stretches then need no words of others.
STRETCHES = 8
# Slices start and end at multiples of an accelerator's vector length.
LANES = 128 * STRETCHES

# Up to this many logits on a device (64 MiB in float32), the logits are computed at once: memory suffices, and the dense form
# has one matrix product fewer. On CPUs tiles are faster well below this size: see benchmarks/results/soft_q_cpu.json.
DENSE_LOGITS = 2**24
# The tokens and the logits of a tile (16 MiB in float32). Each of the three matrix products is large enough to be limited by
# arithmetic, not by memory bandwidth.
BLOCK_SIZE = 2048
TILE_LOGITS = 2**22


class Tile(NamedTuple):
    """The numbers of tokens and words whose logits are in memory at a time."""

    tokens: int
    words: int

    def __str__(self) -> str:
        return f"blocked, {self.tokens:,} x {self.words:,} at a time"


def choose_tile(tokens: int, words: int, block_size: Any = None) -> Tile | None:
    """Chooses the size of the tiles of one device.

    Args:
        tokens: the number of target tokens of one device.
        words: the number of words of one device.
        block_size: the tokens of a tile; None chooses by the number of logits, 0 is dense.

    Returns:
        The tile, or None for dense, which computes all logits at once.

    Raises:
        UserError: the block size is no whole number of 0 or more.
    """
    if not fits(block_size, Whole | None):
        raise UserError(
            f"SOFT_Q_BLOCK_SIZE={block_size!r} must be a whole number: tokens a block, 0 for dense, None for automatic"
        )
    if block_size == 0 or (block_size is None and tokens * words <= DENSE_LOGITS):
        return None
    if block_size is None:
        blocks = -(-tokens // BLOCK_SIZE)
        # The blocks have equal sizes, so that the last one is not mostly padding.
        block_size = -(-tokens // blocks)
    block = max(min(block_size, tokens), 1)
    width = max(TILE_LOGITS // block // LANES, 1) * LANES
    return Tile(block, min(width, words))


def describe(shape: Sequence[int], kernel: Sequence[int], block_size: Any = None) -> str:
    """Says in words how soft Q-values of targets of this shape would be computed, dense or in tiles."""
    tokens, words = local_sizes(shape, kernel)
    tile = choose_tile(tokens, words, block_size)
    return f"{'dense' if tile is None else tile} ({tokens:,} tokens x {words:,} words a device)"


def local_sizes(shape: Sequence[int], kernel: Sequence[int]) -> tuple[int, int]:
    """The numbers of tokens and words of one device, from the shapes of the targets and of the `[embed, words]` kernel."""
    axes = axes_in_force(shape, kernel)
    return math.prod(shape) // parts(axes.tokens), kernel[1] // parts(axes.words)


class Axes(NamedTuple):
    """The mesh axes over which tokens, words and the unembedding's rows are split: tokens by rows and by their places in them.

    `known` is False where no mesh is in force, but there are several devices over which the arrays may be sharded.
    """

    rows: tuple[str, ...] = ()
    places: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    embed: tuple[str, ...] = ()
    known: bool = True

    @property
    def tokens(self) -> tuple[str, ...]:
        return self.rows + self.places

    @property
    def split(self) -> bool:
        return bool(self.tokens or self.words or self.embed)

    @property
    def per_token(self) -> PartitionSpec:
        """The partition of arrays with an entry for each token."""
        return PartitionSpec(self.rows, self.places) if self.places else PartitionSpec(self.rows)


def axes_in_force(shape: Sequence[int], kernel: Sequence[int]) -> Axes:
    """The axes by which the mesh and the logical-axis rules in force split targets and an `[embed, words]` kernel."""
    rules = dict(spmd.get_logical_axis_rules() or ())
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.manual_axes:
        return Axes()
    if not rules or mesh.empty:
        return Axes(known=jax.device_count() == 1)

    def split(logical: str, size: int) -> tuple[str, ...]:
        axes = rules.get(logical) or ()
        axes = (axes,) if isinstance(axes, str) else tuple(axes)
        axes = tuple(axis for axis in axes if mesh.shape[axis] > 1)
        return axes if size % parts(axes) == 0 else ()

    axes = Axes(
        rows=split("batch", shape[0] if shape else 1),
        places=split("length", shape[1]) if len(shape) > 1 else (),
        words=split("vocab", kernel[1]),
        embed=split("embed", kernel[0]),
    )
    # A kernel's rows are gathered, and their gradients scattered, among devices with different tokens.
    return axes if set(axes.embed) <= set(axes.tokens) else axes._replace(embed=())


def parts(axes: tuple[str, ...]) -> int:
    """The number of parts into which the mesh in force splits an array over these axes."""
    mesh = jax.sharding.get_abstract_mesh()
    return math.prod(mesh.shape[axis] for axis in axes)


def on_each_device(axes: Axes, local: Callable, hidden: Any, kernel: Any, *per_token: Any, out: Any) -> Any:
    """Runs `local` on each device's tokens and words; `out` is the partition of its results."""
    if not axes.split:
        return local(hidden, kernel, *per_token)
    tokens = axes.per_token
    specs = (tokens, PartitionSpec(axes.embed, axes.words), *(tokens,) * len(per_token))
    return jax.shard_map(local, in_specs=specs, out_specs=out, check_vma=False)(hidden, kernel, *per_token)


class Blocks:
    """Arranges tokens in blocks of equal size, real tokens first; only the first `count` blocks have real tokens.

    Args:
        tokens: the number of tokens.
        block: the number of tokens in a block.
        real: whether each token is real, in any shape; None where all are.
    """

    def __init__(self, tokens: int, block: int, real: Bool[Array, "*batch"] | None):
        self.tokens, self.block = tokens, block
        self.real = None if real is None else jnp.ravel(real)
        if self.real is None:
            self.count = -(-tokens // block)
        else:
            self.count = -(-jnp.sum(self.real) // block)
            self._order = jnp.argsort(~self.real, stable=True)
            self._place = jnp.maximum(jnp.cumsum(self.real) - 1, 0)

    def cut(self, x: Array) -> Array:
        """Cuts [tokens, ...] into [blocks, block, ...], with 0 in place of tokens that are not real."""
        if self.real is not None:
            x = _apply_mask(self.real[self._order], x[self._order])
        room = -self.tokens % self.block
        x = jnp.pad(x, ((0, room), *((0, 0),) * (x.ndim - 1)))
        return jnp.reshape(x, (-1, self.block, *x.shape[1:]))

    def join(self, x: Array) -> Array:
        """Joins [blocks, block, ...] into [tokens, ...], with 0 for tokens that are not real."""
        x = jnp.reshape(x, (-1, *x.shape[2:]))
        return x[: self.tokens] if self.real is None else _apply_mask(self.real, x[self._place])


def _apply_mask(mask: Bool[Array, " tokens"], x: Array) -> Array:
    """Sets the rows of `x` to 0 where the mask is False."""
    return jnp.where(jnp.reshape(mask, (-1,) + (1,) * (x.ndim - 1)), x, jnp.zeros((), x.dtype))


class WordSlices:
    """Takes this device's part of the unembedding one slice of words at a time.

    Args:
        kernel: this device's part of the unembedding, [embed, vocab].
        width: the number of words in a slice.
        dtype: the type of the products, to which slices are cast.
        axes: the mesh axes that split the arrays.
    """

    def __init__(self, kernel: Array, width: int, dtype: Any, axes: Axes):
        self.axes, self.dtype, self.shape = axes, dtype, kernel.shape
        vocab = kernel.shape[1]
        self.stretches = 1 if axes.known or width >= vocab or vocab % STRETCHES else STRETCHES
        self.stretch = vocab // self.stretches
        self.step = min(max(width // self.stretches, 1), self.stretch)
        self.kernel = jnp.reshape(kernel, (kernel.shape[0], self.stretches, self.stretch))
        self.first = vocab * jax.lax.axis_index(axes.words) if axes.words else 0

    def fold(self, body: Callable, carry: Any) -> Any:
        """Calls `carry = body(start, step, carry)` for every slice; the last one may be narrower."""
        whole, rest = divmod(self.stretch, self.step)
        carry = jax.lax.fori_loop(0, whole, lambda j, carry: body(j * self.step, self.step, carry), carry)
        return body(whole * self.step, rest, carry) if rest else carry

    def slice(self, start: Any, step: int) -> Array:
        """The slice [embed, words of the slice], with the rows of all devices."""
        part = jax.lax.dynamic_slice_in_dim(self.kernel, start, step, axis=2).astype(self.dtype)
        part = jnp.reshape(part, (part.shape[0], -1))
        if self.axes.embed:
            part = jax.lax.all_gather(part, self.axes.embed, axis=0, tiled=True)
        return part

    def target_mask(self, targets: Array, start: Any, step: int) -> Array:
        """Marks the target of each token in a slice, as a mask [tokens, words of the slice]."""
        local_targets = targets.astype(jnp.int32) - self.first
        stretch, place = jnp.divmod(local_targets, self.stretch)
        place = place - jnp.asarray(start, jnp.int32)
        inside = (place >= 0) & (place < step) & (stretch >= 0) & (stretch < self.stretches)
        column = jnp.where(inside, stretch * step + place, -1)
        return jnp.arange(self.stretches * step, dtype=jnp.int32)[None] == column[:, None]

    def zeros(self, dtype: Any) -> Array:
        return jnp.zeros(self.kernel.shape, dtype)

    def put(self, gradient: Array, part: Array, start: Any) -> Array:
        """Writes a slice's gradient [embed, words of the slice], summed over the devices that share its rows."""
        if self.axes.embed:
            part = jax.lax.psum_scatter(part, self.axes.embed, scatter_dimension=0, tiled=True)
        part = jnp.reshape(part, (part.shape[0], self.stretches, -1))
        return jax.lax.dynamic_update_slice_in_dim(gradient, part, start, axis=2)
