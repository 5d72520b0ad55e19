"""Which program computes the attention of whole rows: all scores at once, blocks of them, or a kernel of the accelerator."""

from typing import Literal, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Key

from lmirl_jax.models.blocked_attention import attend_in_blocks, attend_planned, make_plan
from lmirl_jax.models.dot_products import KeysValues, Options
from lmirl_jax.models.layers import dropout, mesh_axes
from lmirl_jax.models.masks import RowMask, Sees, Side
from lmirl_jax.models.splash import attend_by_splash
from lmirl_jax.types import UserError

Kernel = Literal["auto", "dense", "blocked", "splash"]

# Rows of up to this many tokens have all scores at once. From there on a CPU is faster with blocks that stay in its caches; an
# accelerator wants larger products.
DENSE = {"cpu": 128, "gpu": 1024, "tpu": 1024}
BLOCK = {"cpu": 128, "gpu": 512, "tpu": 512}


@runtime_checkable
class KernelOptions(Options, Protocol):
    """What of an `AttentionConfig` decides about the kernel, and the kernel needs."""

    @property
    def kernel(self) -> Kernel: ...


def choose(options: KernelOptions, mask: RowMask, *, biased: bool) -> Kernel:
    """Chooses how the scores of whole rows are computed.

    'dense' holds all scores at once, 'blocked' those of a block of queries and a block of keys. 'splash' is the TPU's own
    kernel: self-attention from left to right or both ways, with segments, windows and bounded scores; it knows no bias of
    positions and no prompts that see each other. 'auto' is 'dense' for short rows; for long ones 'splash' on a TPU where
    it computes what the model needs, else 'blocked'. cuDNN's kernel is not among them: it takes segments, and T5's bias, only
    as an array of all pairs of tokens.

    Args:
        options: the options of the attention.
        mask: the mask between whole rows.
        biased: whether the scores have a bias of positions.

    Returns:
        'dense', 'blocked' or 'splash'.

    Raises:
        UserError: 'splash' was asked for where there is no TPU.
    """
    queries, keys = mask.shape
    splash = not biased and mask.prompts is None and mask.queries is None
    if options.kernel == "splash" and platform() != "tpu":
        raise UserError(
            f"attention='splash' is a TPU's kernel, and this is a {platform()}: set attention='auto' in the model"
        )
    if options.kernel in ("dense", "blocked") or (options.kernel == "splash" and splash):
        return options.kernel
    if options.kernel == "auto" and queries * keys <= DENSE[platform()] ** 2:
        return "dense"
    return "splash" if splash and platform() == "tpu" else "blocked"


def platform() -> str:
    """'cpu', 'gpu' or 'tpu': that of the mesh in force, which may be of devices that are not here, or of this machine."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    name = jax.default_backend() if device is None else device.device_kind.lower()
    return next((known for known in ("tpu", "cpu") if known in name), "gpu")


def attend_rows(
    options: KernelOptions,
    queries: Float[Array, "batch heads queries head_dim"],
    keys_values: KeysValues,
    mask: RowMask,
    window: int | None,
    bias: Float[Array, "heads distances"] | None = None,
    dropout_keys: Key[Array, " batch"] | None = None,
) -> Float[Array, "batch heads queries head_dim"]:
    """Attends within rows without holding the scores of all pairs of tokens.

    Args:
        options: see `choose`.
        queries: the queries.
        keys_values: keys and values.
        mask: which keys each query sees.
        window: how far it sees; None for no window.
        bias: what is added to the scores by distance, as in `attend_in_blocks`.
        dropout_keys: one key for each row; None for no dropout.
    """
    keys, values = keys_values
    if dropout_keys is not None and options.dropout_rate > 0:
        # All queries share the mask of the weights, as in T5: dropping a weight is dropping its value, for that head.
        of_heads = jnp.repeat(values, queries.shape[1] // values.shape[1], axis=1)
        keys = jnp.repeat(keys, queries.shape[1] // keys.shape[1], axis=1)
        of_heads = dropout(jnp.swapaxes(of_heads, 2, 3), options.dropout_rate, dropout_keys, place=0)
        values = jnp.swapaxes(of_heads, 2, 3)
    if choose(options, mask, biased=bias is not None) == "splash":
        return attend_by_splash(options, queries, (keys, values), mask, window)
    axes = mesh_axes("length", queries.shape[2])
    if not axes:
        return attend_in_blocks(options, queries, (keys, values), mask, window, bias, BLOCK[platform()])
    return _on_parts_of_rows(options, queries, (keys, values), mask, window, bias, axes)


def _on_parts_of_rows(
    options: Options,
    queries: Array,
    keys_values: KeysValues,
    mask: RowMask,
    window: int | None,
    bias: Array | None,
    length: tuple[str, ...],
) -> Array:
    """Each device attends from its part of the queries to the keys of whole rows, which it gathers."""
    shape, parts = queries.shape, PartitionSpec
    rows, heads = mesh_axes("batch", shape[0]) or None, mesh_axes("heads", shape[1]) or None
    kv_heads = (
        heads if keys_values[0].shape[1] == shape[1] else mesh_axes("kv_heads", keys_values[0].shape[1])
    )
    sees = Sees(mask.causal, window)

    def local(
        queries: Array, keys: Array, values: Array, asking: Side, asked: Side, bias: Array | None
    ) -> Array:
        here, there = queries.shape[2], keys.shape[2]
        plan = make_plan(options, sees, here, there, BLOCK[platform()], all_pairs=True)
        if bias is not None:
            # That of the first key and of the last query of this part.
            begin = shape[2] - here - asking.places[0]
            bias = jax.lax.dynamic_slice_in_dim(bias, begin, here + there - 1, axis=1)
        return attend_planned(plan, queries, (keys, values), (asking, asked), bias)

    of_queries, of_keys = parts(rows, heads, length), parts(rows, kv_heads)
    asking = jax.tree.map(lambda x: parts(rows, length) if x.ndim == 2 else parts(length), mask.asking)
    asked = jax.tree.map(lambda x: parts(rows) if x.ndim == 2 else parts(), mask.asked)
    specs = (of_queries, of_keys, of_keys, asking, asked, None if bias is None else parts(heads))
    shared = jax.shard_map(local, in_specs=specs, out_specs=of_queries, check_vma=False)
    return shared(queries, *keys_values, mask.asking, mask.asked, bias)
