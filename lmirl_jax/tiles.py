"""How `hidden @ unembedding` is worked through in tiles: real tokens in blocks, words in slices, on a device or a mesh."""

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

# Without a mesh in force the compiler alone knows how an unembedding is sharded: each slice takes an equal part of each of
# so many stretches of the vocabulary, so that devices which hold one or several of them keep their words.
STRETCHES = 8
LANES = 128 * STRETCHES  # Slices start and end where an accelerator's vectors do.

# Up to so many logits a device (64 MiB in float32) memory is no matter, and dense has one product of matrices fewer. On
# CPUs tiles are faster well below this already: benchmarks/results/soft_q_cpu.json.
DENSE_LOGITS = 2**24
# Tokens and logits of a tile (16 MiB in float32): enough for each of the three products to be bound by arithmetic.
BLOCK_SIZE = 2048
TILE_LOGITS = 2**22


class Tile(NamedTuple):
    """How many logits exist at a time."""

    tokens: int
    words: int

    def __str__(self) -> str:
        return f"blocked, {self.tokens:,} x {self.words:,} at a time"


def choose_tile(tokens: int, words: int, block_size: Any = None) -> Tile | None:
    """The tile in which one device works through its tokens and words.

    Args:
        tokens: target tokens of one device.
        words: words of one device.
        block_size: tokens of a tile; None: by size; 0: dense.

    Returns:
        The tile, or None for dense: all logits at once.

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
        block_size = -(-tokens // blocks)  # Equal blocks, so that the last is not mostly padding.
    block = max(min(block_size, tokens), 1)
    width = max(TILE_LOGITS // block // LANES, 1) * LANES
    return Tile(block, min(width, words))


def description(shape: Sequence[int], kernel: Sequence[int], block_size: Any = None) -> str:
    """How soft Q-values of targets of that shape would be read off, for people."""
    tokens, words = local_sizes(shape, kernel)
    tile = choose_tile(tokens, words, block_size)
    return f"{'dense' if tile is None else tile} ({tokens:,} tokens x {words:,} words a device)"


def local_sizes(shape: Sequence[int], kernel: Sequence[int]) -> tuple[int, int]:
    """Tokens and words of one device, of targets of a shape and an `[embed, words]` kernel."""
    axes = axes_in_force(shape, kernel)
    return math.prod(shape) // parts(axes.tokens), kernel[1] // parts(axes.words)


class Axes(NamedTuple):
    """The mesh axes over which tokens, words and the unembedding's rows are split.

    `known` is False where no mesh is in force but there are devices over which arrays may lie all the same.
    """

    tokens: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    embed: tuple[str, ...] = ()
    known: bool = True

    @property
    def split(self) -> bool:
        return bool(self.tokens or self.words or self.embed)


def axes_in_force(shape: Sequence[int], kernel: Sequence[int]) -> Axes:
    """What the mesh and the logical-axis rules in force split of targets of a shape and an `[embed, words]` kernel."""
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
        split("batch", shape[0] if shape else 1), split("vocab", kernel[1]), split("embed", kernel[0])
    )
    # A kernel's rows are gathered, and their gradients scattered, among devices with different tokens.
    return axes if set(axes.embed) <= set(axes.tokens) else axes._replace(embed=())


def parts(axes: tuple[str, ...]) -> int:
    """Into how many the mesh in force splits over these axes."""
    mesh = jax.sharding.get_abstract_mesh()
    return math.prod(mesh.shape[axis] for axis in axes)


def on_each_device(axes: Axes, local: Callable, hidden: Any, kernel: Any, *per_token: Any, out: Any) -> Any:
    """Runs `local` on each device's tokens and words; `out` says of which axes its results are made."""
    if not axes.split:
        return local(hidden, kernel, *per_token)
    tokens = PartitionSpec(axes.tokens)
    specs = (tokens, PartitionSpec(axes.embed, axes.words), *(tokens,) * len(per_token))
    return jax.shard_map(local, in_specs=specs, out_specs=out, check_vma=False)(hidden, kernel, *per_token)


class Blocks:
    """Tokens in blocks of equal size, the real ones first; only the first `count` blocks hold any.

    Args:
        tokens: how many there are.
        block: how many a block holds.
        real: which of them are real, in any shape; None for all.
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
        """[tokens, ...] to [blocks, block, ...], with 0 for what is not real."""
        if self.real is not None:
            x = _kept(self.real[self._order], x[self._order])
        room = -self.tokens % self.block
        x = jnp.pad(x, ((0, room), *((0, 0),) * (x.ndim - 1)))
        return jnp.reshape(x, (-1, self.block, *x.shape[1:]))

    def join(self, x: Array) -> Array:
        """[blocks, block, ...] to [tokens, ...], with 0 for what is not real."""
        x = jnp.reshape(x, (-1, *x.shape[2:]))
        return x[: self.tokens] if self.real is None else _kept(self.real, x[self._place])


def _kept(mask: Bool[Array, " tokens"], x: Array) -> Array:
    return jnp.where(jnp.reshape(mask, (-1,) + (1,) * (x.ndim - 1)), x, jnp.zeros((), x.dtype))


class Words:
    """This device's words, a slice of the unembedding at a time.

    Args:
        kernel: this device's part of the unembedding, [embed, vocab].
        width: words of a slice.
        dtype: of the products; slices are cast to it.
        axes: what the mesh splits.
    """

    def __init__(self, kernel: Array, width: int, dtype: Any, axes: Axes):
        self.axes, self.dtype, self.shape = axes, dtype, kernel.shape
        vocab = kernel.shape[1]
        self.stretches = 1 if axes.known or width >= vocab or vocab % STRETCHES else STRETCHES
        self.stretch = vocab // self.stretches
        self.step = min(max(width // self.stretches, 1), self.stretch)
        self.kernel = jnp.reshape(kernel, (kernel.shape[0], self.stretches, self.stretch))
        self.first = vocab * jax.lax.axis_index(axes.words) if axes.words else 0

    def walk(self, body: Callable, carry: Any) -> Any:
        """`body(start, step, carry)` for every slice; the last may be narrower."""
        whole, rest = divmod(self.stretch, self.step)
        carry = jax.lax.fori_loop(0, whole, lambda j, carry: body(j * self.step, self.step, carry), carry)
        return body(whole * self.step, rest, carry) if rest else carry

    def slice(self, start: Any, step: int) -> Array:
        """[embed, words of the slice], whole in its rows."""
        part = jax.lax.dynamic_slice_in_dim(self.kernel, start, step, axis=2).astype(self.dtype)
        part = jnp.reshape(part, (part.shape[0], -1))
        if self.axes.embed:
            part = jax.lax.all_gather(part, self.axes.embed, axis=0, tiled=True)
        return part

    def taken(self, targets: Array, start: Any, step: int) -> Array:
        """Where in a slice each target is, as a mask [tokens, words of the slice]."""
        own = targets.astype(jnp.int32) - self.first
        stretch, place = jnp.divmod(own, self.stretch)
        place = place - jnp.asarray(start, jnp.int32)
        inside = (place >= 0) & (place < step) & (stretch >= 0) & (stretch < self.stretches)
        column = jnp.where(inside, stretch * step + place, -1)
        return jnp.arange(self.stretches * step, dtype=jnp.int32)[None] == column[:, None]

    def zeros(self, dtype: Any) -> Array:
        return jnp.zeros(self.kernel.shape, dtype)

    def put(self, gradient: Array, part: Array, start: Any) -> Array:
        """Writes a slice's gradient, [embed, words of the slice], added up over the devices that share its rows."""
        if self.axes.embed:
            part = jax.lax.psum_scatter(part, self.axes.embed, scatter_dimension=0, tiled=True)
        part = jnp.reshape(part, (part.shape[0], self.stretches, -1))
        return jax.lax.dynamic_update_slice_in_dim(gradient, part, start, axis=2)
