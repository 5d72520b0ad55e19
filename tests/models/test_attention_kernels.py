"""Kernels of attention: which is chosen, that they are equal on a mesh, and that the TPU's equals ours."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from lmirl_jax import compilation
from lmirl_jax.models import DecoderOnlyConfig, T5Config, attention_kernels
from lmirl_jax.models.attention import AttentionConfig
from lmirl_jax.models.attention_kernels import attend_rows, choose
from lmirl_jax.models.blocked_attention import attend_in_blocks
from lmirl_jax.models.masks import RowMask
from lmirl_jax.models.splash import attend_by_splash
from lmirl_jax.types import UserError
from tests.models.families import DECODER_ONLY, T5_1_1
from tests.tpus import compiled_for

OPTIONS = AttentionConfig(4, 2, 8, dropout_rate=0.0, query_scale=0.3, soft_cap=1.5)
SPLASH = dataclasses.replace(OPTIONS, kernel="splash")
RULES = {"batch": ("data",), "length": "sequence", "heads": "tensor", "kv_heads": "tensor"}


def row(length, **options):
    return RowMask(jnp.ones((2, length), jnp.int32), **options)


def test_short_rows_are_dense_and_long_ones_blocked():
    """A CPU: up to 128 tokens, or as many scores."""
    assert choose(OPTIONS, row(128), biased=True) == "dense"
    assert choose(OPTIONS, row(129), biased=True) == "blocked"
    cross = row(1024, queries=jnp.ones((2, 16), jnp.int32), causal=False)
    assert choose(OPTIONS, cross, biased=False) == "dense"
    for kernel in ("dense", "blocked"):
        assert choose(dataclasses.replace(OPTIONS, kernel=kernel), row(4096), biased=True) == kernel


def test_a_tpu_has_its_kernel_where_it_computes_what_the_model_needs(monkeypatch):
    monkeypatch.setattr(attention_kernels, "platform", lambda: "tpu")
    assert choose(OPTIONS, row(4096), biased=False) == "splash"
    assert choose(OPTIONS, row(4096), biased=True) == "blocked"
    assert choose(OPTIONS, row(4096, prompts=jnp.ones((2, 4096), bool)), biased=False) == "blocked"
    cross = row(4096, queries=jnp.ones((2, 4096), jnp.int32), causal=False)
    assert choose(SPLASH, cross, biased=False) == "blocked"
    assert choose(SPLASH, row(16), biased=False) == "splash"


def test_kernels_that_cannot_compute_a_model_are_refused():
    with pytest.raises(UserError, match="is a TPU's kernel, and this is a cpu: set attention='auto'"):
        choose(SPLASH, row(16), biased=False)
    with pytest.raises(UserError, match=r"T5Config.attention='splash': .* no relative positions; set 'auto'"):
        T5Config(**{**vars(T5_1_1), "attention": "splash"})
    with pytest.raises(UserError, match="knows no bidirectional_prompts; set 'auto' or 'blocked'"):
        DecoderOnlyConfig(**{**vars(DECODER_ONLY["prefix"]), "attention": "splash"})


def arrays(length, head_dim=8):
    keys = jax.random.split(jax.random.key(0), 4)
    shapes = [(2, heads, length, head_dim) for heads in (4, 2, 2)]
    arrays = [jax.random.normal(key, shape) for key, shape in zip(keys, shapes)]
    return [*arrays, jax.random.normal(keys[3], (4, 2 * length - 1))]


def outputs_and_gradients(attend, mask, *arrays):
    """The outputs at real tokens, and the gradients of their sum of sines by all arrays."""
    real = (mask.segment_ids > 0)[:, None, :, None]

    def loss(*arrays):
        means = jnp.where(real, attend(*arrays), 0)
        return jnp.sum(jnp.sin(means)), means

    return jax.jit(jax.grad(loss, argnums=tuple(range(len(arrays))), has_aux=True))(*arrays)


def check_equal(found, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5, rtol=2e-5), found, expected)


@pytest.mark.parametrize("kind", ["causal", "both ways", "prompts"])
@pytest.mark.parametrize("window", [None, 9])
def test_parts_of_rows_on_devices_of_their_own_attend_as_whole_rows(kind, window, monkeypatch):
    """Rows of 32 tokens over two devices, heads over two, rows over two; segments and windows cross the parts."""
    monkeypatch.setitem(attention_kernels.BLOCK, "cpu", 8)
    segments = jnp.array([[1] * 13 + [2] * 19, [1] * 25 + [0] * 7])
    prompts = (jnp.arange(32)[None] % 13 < jnp.array([[9], [5]])) if kind == "prompts" else None
    mask = RowMask(segments, prompts, causal=kind != "both ways")
    queries, keys, values, bias = arrays(32)

    def attend(queries, keys, values, bias):
        return attend_rows(OPTIONS, queries, (keys, values), mask, window, bias)

    whole = outputs_and_gradients(attend, mask, queries, keys, values, bias)
    mesh = Mesh(
        np.reshape(jax.devices(), (2, 2, 2)), ("data", "sequence", "tensor"), axis_types=(AxisType.Auto,) * 3
    )
    with jax.set_mesh(mesh), nnx.logical_axis_rules(tuple(RULES.items())):
        placed = NamedSharding(mesh, PartitionSpec("data", "tensor", "sequence"))
        parts = [jax.device_put(x, placed) for x in (queries, keys, values)]
        found = outputs_and_gradients(attend, mask, *parts, bias)
    assert found[1].sharding.spec[2] == "sequence"
    check_equal(found, whole)


@pytest.mark.parametrize(
    ("causal", "window", "soft_cap"),
    [(True, None, None), (True, 50, 1.5), (False, None, 1.5), (False, 30, None)],
)
def test_the_kernel_of_tpus_equals_blocks(causal, window, soft_cap):
    """Emulated, in rows of 200 tokens, which no block of it divides."""
    options = dataclasses.replace(OPTIONS, soft_cap=soft_cap)
    mask = RowMask(jnp.array([[1] * 200, [1] * 70 + [2] * 90 + [0] * 40]), causal=causal)
    queries, keys, values, _ = arrays(200, head_dim=16)

    def by_splash(queries, keys, values):
        return attend_by_splash(options, queries, (keys, values), mask, window, interpret=True)

    def in_blocks(queries, keys, values):
        return attend_in_blocks(options, queries, (keys, values), mask, window, None, 64)

    found, expected = (
        outputs_and_gradients(attend, mask, queries, keys, values) for attend in (by_splash, in_blocks)
    )
    check_equal(found, expected)


def test_the_tpu_compiler_takes_the_kernel_on_a_mesh(monkeypatch):
    """Rows of 4,096 tokens over two of four chips, and head dimensions that fill no vector."""
    chips = compiled_for("v5e:2x2", monkeypatch)
    mesh = Mesh(np.reshape(chips, (1, 2, 2)), ("data", "sequence", "tensor"), axis_types=(AxisType.Auto,) * 3)
    split = NamedSharding(mesh, PartitionSpec("data", "tensor", "sequence"))
    queries, keys = (
        jax.ShapeDtypeStruct((2, heads, 4096, 80), jnp.bfloat16, sharding=split) for heads in (4, 2)
    )
    segments = jax.ShapeDtypeStruct(
        (2, 4096), jnp.int32, sharding=NamedSharding(mesh, PartitionSpec("data", "sequence"))
    )

    def loss(queries, keys, values, segments):
        return jnp.sum(
            attend_rows(OPTIONS, queries, (keys, values), RowMask(segments), 512).astype(jnp.float32)
        )

    with jax.set_mesh(mesh), nnx.logical_axis_rules(tuple(RULES.items())):
        lowered = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(queries, keys, keys, segments)
        with compilation.uncached():
            compiled = lowered.compile()
    assert "splash" in compiled.as_text()
    # The scores of one head alone would have 67 MB.
    assert compiled.memory_analysis().temp_size_in_bytes < 4096 * 4096 * 4
