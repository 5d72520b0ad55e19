"""Self-attention of long rows by the TPU's splash kernel, one device or a mesh."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from lmirl_jax.models.dot_products import KeysValues, Options
from lmirl_jax.models.layers import mesh_axes
from lmirl_jax.models.masks import RowMask

# The kernel's rows and blocks are multiples of the width of a TPU's vector.
LANES = 128
BLOCKS = (512, 384, 256, 128)


def attend_by_splash(
    options: Options,
    queries: Float[Array, "batch heads length head_dim"],
    keys_values: KeysValues,
    mask: RowMask,
    window: int | None,
    *,
    interpret: bool = False,
) -> Float[Array, "batch heads length head_dim"]:
    """Attends within rows; see `blocked_attention.attend_in_blocks`, which it equals but for padding.

    Args:
        options: the scale and the bound of the scores.
        queries: the queries.
        keys_values: the keys and values of the same tokens.
        mask: which keys each query sees; without prompts that see each other.
        window: how far it sees; None for no window.
        interpret: whether the kernel is emulated, for tests on a machine without a TPU.
    """
    from jax.experimental.pallas.ops.tpu.splash_attention import SegmentIds  # Slow to import.

    length, mesh = queries.shape[2], jax.sharding.get_abstract_mesh()
    rows, heads = mesh_axes("batch", queries.shape[0]), mesh_axes("heads", queries.shape[1])
    kv_heads = (
        heads
        if keys_values[0].shape[1] == queries.shape[1]
        else mesh_axes("kv_heads", keys_values[0].shape[1])
    )
    stretches = mesh_axes("length", length)
    parts = math.prod(mesh.shape[axis] for axis in stretches)
    filler = -length % (LANES * parts)
    if options.query_scale is not None:
        queries = queries * jnp.asarray(options.query_scale, queries.dtype)
    queries, keys, values = (
        jnp.pad(x, ((0, 0), (0, 0), (0, filler), (0, 0))) for x in (queries, *keys_values)
    )
    segments = jnp.pad(mask.segment_ids, ((0, 0), (0, filler)), constant_values=-1)
    here = queries.shape[1] // math.prod(mesh.shape[axis] for axis in heads)
    kernel = _kernel(options, queries.shape[2], here, parts, mask.causal, window, interpret)

    def attend(kernel: Any, queries: Array, keys: Array, values: Array, asking: Array, asked: Array) -> Array:
        one = jax.vmap(lambda q, k, v, *segments: kernel(q, k, v, segment_ids=SegmentIds(*segments)))
        return one(queries, keys, values, asking, asked)

    arguments = (kernel, queries, keys, values, segments, segments)
    if not (rows or heads or stretches):
        return attend(*arguments)[:, :, :length]
    spec = PartitionSpec
    of_kernel = kernel.manual_sharding_spec(NamedSharding(mesh, spec(None, stretches or None)))
    of_queries, of_keys = spec(rows, heads, stretches), spec(rows, kv_heads)
    specs = (of_kernel, of_queries, of_keys, of_keys, spec(rows, stretches), spec(rows))
    shared = jax.shard_map(attend, in_specs=specs, out_specs=of_queries, check_vma=False)
    return shared(*arguments)[:, :, :length]


def _kernel(
    options: Options, length: int, heads: int, parts: int, causal: bool, window: int | None, interpret: bool
) -> Any:
    """The kernel for rows of one length, `parts` of which are on devices of their own, and for the heads of a device."""
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    if window is None and not causal:
        mask: Any = splash.FullMask((length, length))
    elif window is None:
        mask = splash.CausalMask((length, length), shard_count=parts)
    else:
        reach = (window - 1, 0) if causal else (window, window)
        mask = splash.LocalMask((length, length), reach, offset=0, shard_count=parts)
    block = next(size for size in BLOCKS if length // parts % size == 0)
    sizes = splash.BlockSizes(
        block_q=block,
        block_kv=block,
        block_q_dkv=block,
        block_kv_dkv=block,
        block_q_dq=block,
        block_kv_dq=block,
    )
    return splash.make_splash_mha(
        splash.MultiHeadMask([mask] * heads),
        head_shards=1,
        q_seq_shards=parts,
        block_sizes=sizes,
        attn_logits_soft_cap=options.soft_cap,
        interpret=interpret,
    )
