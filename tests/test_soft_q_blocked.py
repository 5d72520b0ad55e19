"""The blocked form against its dense twin: values and every gradient, ragged, masked, extreme, transformed and sharded."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from jax.test_util import check_grads

from lmirl_jax import sharding, soft_q, tiles
from lmirl_jax.types import UserError

EVERYTHING = {"temperature": 0.7, "with_entropy": True, "with_sum": True, "with_max": True}
DIFFERENTIABLE = ("q", "v", "entropy", "tempered", "sum_logits")


@pytest.fixture(autouse=True)
def small_slices(monkeypatch):
    """Slices of 16 words, so that small vocabularies take several and a narrower last one."""
    monkeypatch.setattr(tiles, "TILE_LOGITS", 1)
    monkeypatch.setattr(tiles, "LANES", 16)


def case(shape, embed=6, words=37, dtype=jnp.float64, size=1.0):
    keys = jax.random.split(jax.random.key(0), 4)
    hidden = size * jax.random.normal(keys[0], (*shape, embed), dtype)
    kernel = jax.random.normal(keys[1], (embed, words), dtype)
    targets = jax.random.randint(keys[2], shape, 0, words)
    return hidden, kernel, targets, jax.random.bernoulli(keys[3], 0.6, shape).astype(dtype)


def weighed(out, seed=5):
    """A scalar in which every differentiable output of every token has its own weight."""
    total = 0.0
    for i, name in enumerate(DIFFERENTIABLE):
        x = getattr(out, name)
        if x is not None:
            total += jnp.sum(x * jax.random.normal(jax.random.key(seed + i), x.shape, x.dtype))
    return total


def compare(shape, block_size, embed=6, words=37, masked=False, size=1.0, transform=jax.jit, **options):
    """Values and gradients in float64, blocked against `from_logits` of the dense logits."""
    with jax.enable_x64(True):
        hidden, kernel, targets, weights = case(shape, embed, words, size=size)
        weights = weights if masked else None

        def blocked(hidden, kernel):
            out = soft_q.from_hidden(
                hidden, kernel, targets, weights=weights, block_size=block_size, **options
            )
            return weighed(out), out

        def dense(hidden, kernel):
            how = {name: options[name] for name in ("scale", "soft_cap") if name in options}
            what = {name: value for name, value in options.items() if name not in how}
            out = soft_q.from_logits(soft_q.logits_from_hidden(hidden, kernel, **how), targets, **what)
            if weights is not None:
                out = jax.tree.map(lambda x: jnp.where(weights > 0, x, 0.0), out)
            return weighed(out), out

        return [transform(jax.grad(f, (0, 1), has_aux=True))(hidden, kernel) for f in (blocked, dense)]


def assert_same(results, rtol=1e-10, atol=1e-10):
    (ours, ours_out), (theirs, theirs_out) = results
    for a, b in zip(jax.tree.leaves((ours, ours_out)), jax.tree.leaves((theirs, theirs_out)), strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    ("shape", "block_size", "words"),
    [
        ((2, 5), 3, 37),  # neither tokens nor words are a multiple of anything
        ((2, 5), 5, 32),  # both are
        ((7,), 100, 37),  # one block, larger than the tokens
        ((1,), 1, 37),
        ((), 1, 37),
        ((2, 3, 2), 1, 5),  # words fewer than a slice
        ((3, 4), 4, 160),  # eight stretches of the vocabulary
    ],
)
def test_values_and_gradients(shape, block_size, words, masked):
    assert_same(compare(shape, block_size, words=words, masked=masked, **EVERYTHING))


def test_without_jit():
    assert_same(compare((2, 5), 3, masked=True, transform=lambda f: f, **EVERYTHING))


@pytest.mark.parametrize("name", ["temperature", "with_entropy", "with_sum", "with_max"])
def test_each_option_alone(name):
    results = compare((2, 5), 3, **{name: EVERYTHING[name]})
    assert_same(results)
    absent = {"temperature": "tempered", "with_entropy": "entropy", "with_sum": "sum_logits"} | {
        "with_max": "max_logit"
    }
    for option, field in absent.items():
        assert (getattr(results[0][1], field) is None) == (option != name)


def test_scale_and_soft_cap():
    assert_same(compare((2, 5), 3, scale=0.3, soft_cap=2.5, **EVERYTHING))


@pytest.mark.parametrize("size", [1e3, 1e4])
def test_extreme_logits(size):
    """Logits of up to 1e4 and beyond: the policy is one word, and nothing overflows."""
    assert_same(compare((2, 5), 3, size=size, **EVERYTHING), rtol=1e-9, atol=1e-6)


def test_extreme_logits_stay_finite_in_float32():
    hidden = jnp.array([[1e4], [-1e4], [0.0]])
    kernel = jnp.concatenate([jnp.ones((1, 1)), jnp.zeros((1, 30)), -jnp.ones((1, 6))], axis=1)
    targets = jnp.array([36, 3, 0])

    def f(hidden, kernel, block_size):
        out = soft_q.from_hidden(hidden, kernel, targets, block_size=block_size, **EVERYTHING)
        return weighed(out), out

    gradient = jax.jit(jax.grad(f, (0, 1), has_aux=True), static_argnums=2)
    slopes, out = gradient(hidden, kernel, 2)
    expected_slopes, expected = gradient(hidden, kernel, 0)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((slopes, out)))
    for a, b in zip(
        jax.tree.leaves((slopes, out)), jax.tree.leaves((expected_slopes, expected)), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-3)


def test_all_tokens_masked():
    with jax.enable_x64(True):
        hidden, kernel, targets, weights = case((2, 5))

        def f(hidden, kernel):
            out = soft_q.from_hidden(hidden, kernel, targets, weights=0 * weights, block_size=3, **EVERYTHING)
            return weighed(out), out

        slopes, out = jax.jit(jax.grad(f, (0, 1), has_aux=True))(hidden, kernel)
        for x in jax.tree.leaves((slopes, out)):
            np.testing.assert_array_equal(x, 0.0)


def test_masked_tokens_may_hold_anything():
    """Neither a hidden state that is not finite nor a target that is no word reaches the others."""
    hidden, kernel, targets, _ = case((2, 5), dtype=jnp.float32)
    weights = jnp.ones((2, 5)).at[0, 2].set(0.0)
    garbage, nowhere = hidden.at[0, 2].set(jnp.nan), targets.at[0, 2].set(-100)

    def f(hidden, targets):
        out = soft_q.from_hidden(hidden, kernel, targets, weights=weights, block_size=3, **EVERYTHING)
        return weighed(out)

    gradient = jax.jit(jax.value_and_grad(f))
    value, slope = gradient(garbage, nowhere)
    expected_value, expected_slope = gradient(hidden, targets)
    np.testing.assert_allclose(value, expected_value, rtol=1e-6)
    np.testing.assert_allclose(slope, expected_slope, rtol=1e-5)
    np.testing.assert_array_equal(slope[0, 2], 0.0)


def test_blocks_without_a_real_token_are_skipped():
    """As many blocks are worked through as the real tokens fill, wherever they lie."""
    weights = jnp.zeros((4, 6)).at[:, ::3].set(1.0)
    assert tiles.Blocks(24, 4, weights > 0).count == 2
    assert tiles.Blocks(24, 4, None).count == 6


def test_a_target_outside_the_vocabulary_shows():
    hidden, kernel, targets, _ = case((4,), dtype=jnp.float32)
    for block_size in (0, 2):
        out = soft_q.from_hidden(hidden, kernel, targets.at[1].set(37), block_size=block_size)
        np.testing.assert_array_equal(np.isnan(out.q), [False, True, False, False])


def test_finite_differences():
    with jax.enable_x64(True):
        hidden, kernel, targets, weights = case((2, 3), words=21)

        @jax.jit
        def f(hidden, kernel):
            return weighed(
                soft_q.from_hidden(
                    jnp.asarray(hidden),
                    jnp.asarray(kernel),
                    targets,
                    weights=weights,
                    block_size=2,
                    soft_cap=5.0,
                    **EVERYTHING,
                )
            )

        check_grads(f, (hidden, kernel), order=1, modes=["rev"], atol=1e-6, rtol=1e-6)


def test_no_gradient_through_the_maximum():
    hidden, kernel, targets, _ = case((2, 3), dtype=jnp.float32)

    def f(hidden, kernel):
        return jnp.sum(soft_q.from_hidden(hidden, kernel, targets, block_size=2, with_max=True).max_logit)

    for slope in jax.grad(f, (0, 1))(hidden, kernel):
        np.testing.assert_array_equal(slope, 0.0)


def test_tied_embeddings():
    """The gradient of a table that is both read from and multiplied by is the sum of both."""
    with jax.enable_x64(True):
        _, kernel, targets, _ = case((2, 5))

        def loss(table, block_size):
            hidden = jnp.tanh(table[jnp.roll(targets, 1, axis=1)])
            return weighed(
                soft_q.from_hidden(hidden, table.T, targets, scale=0.4, block_size=block_size, **EVERYTHING)
            )

        gradient = jax.jit(jax.grad(loss), static_argnums=1)
        ours, theirs = (gradient(kernel.T, block_size) for block_size in (3, 0))
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("shared", [True, False])
def test_vmap_over_microbatches(shared):
    with jax.enable_x64(True):
        hidden, kernel, targets, weights = case((3, 2, 5))
        kernels = kernel if shared else jnp.stack([kernel, 2 * kernel, -kernel])

        def loss(hidden, kernel, targets, weights, block_size):
            return weighed(
                soft_q.from_hidden(
                    hidden, kernel, targets, weights=weights, block_size=block_size, **EVERYTHING
                )
            )

        def total(hidden, kernels, block_size):
            mapped = jax.vmap(loss, (0, None if shared else 0, 0, 0, None))
            return jnp.sum(mapped(hidden, kernels, targets, weights, block_size))

        gradient = jax.jit(jax.grad(total, (0, 1)), static_argnums=2)
        ours, theirs = (gradient(hidden, kernels, block_size) for block_size in (3, 0))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12), ours, theirs)


def test_remat_and_scan():
    with jax.enable_x64(True):
        hidden, kernel, targets, weights = case((3, 2, 5))

        def total(kernel, block_size):
            @jax.checkpoint
            def one(carry, part):
                hidden, targets, weights = part
                out = soft_q.from_hidden(
                    hidden, kernel, targets, weights=weights, block_size=block_size, **EVERYTHING
                )
                return carry + weighed(out), None

            return jax.lax.scan(one, jnp.zeros(()), (hidden, targets, weights))[0]

        ours, theirs = (jax.jit(jax.grad(total), static_argnums=1)(kernel, size) for size in (3, 0))
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)


def test_bfloat16_products_are_summed_in_float32():
    """Against float32 on the same rounded numbers: the gradient at the logits alone is rounded once more."""
    hidden, kernel, targets, _ = case((4, 9), embed=16, dtype=jnp.float32)
    rounded = hidden.astype(jnp.bfloat16)
    kernel = kernel.astype(jnp.bfloat16).astype(jnp.float32)

    def f(hidden, kernel):
        out = soft_q.from_hidden(hidden, kernel, targets, block_size=5, **EVERYTHING)
        return weighed(out), out

    gradient = jax.jit(jax.grad(f, (0, 1), has_aux=True))
    slopes, out = gradient(rounded, kernel)
    exact_slopes, exact = gradient(rounded.astype(jnp.float32), kernel)
    for a, b in zip(jax.tree.leaves(out), jax.tree.leaves(exact), strict=True):
        assert a.dtype == jnp.float32
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    assert (slopes[0].dtype, slopes[1].dtype) == (jnp.bfloat16, jnp.float32)
    scale = max(np.abs(exact_slopes[0]).max(), np.abs(exact_slopes[1]).max())
    for a, b in zip(slopes, exact_slopes, strict=True):
        np.testing.assert_allclose(a.astype(jnp.float32), b, atol=2**-7 * scale)


MESHES = {
    "data": {"data": 8},
    "fsdp": {"data": 2, "fsdp": 4},
    "tensor": {"data": 2, "tensor": 4},
    "all": {"data": 2, "fsdp": 2, "tensor": 2},
}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", MESHES)
def test_eight_devices_equal_one_and_gather_no_unembedding(name, masked):
    with jax.enable_x64(True):
        mesh = sharding.make_mesh(**MESHES[name])
        hidden, kernel, targets, weights = case((8, 6), embed=8, words=96)
        weights = weights if masked else None

        def f(hidden, kernel, targets, weights, block_size=7):
            out = soft_q.from_hidden(
                hidden, kernel, targets, weights=weights, block_size=block_size, **EVERYTHING
            )
            return weighed(out), out

        rows = NamedSharding(mesh, PartitionSpec(sharding.BATCH_AXES))
        split = NamedSharding(mesh, PartitionSpec("fsdp", "tensor"))
        with sharding.use(mesh):
            gradient = jax.jit(
                jax.grad(f, (0, 1), has_aux=True),
                in_shardings=(rows, split, rows, rows),
                out_shardings=((rows, split), rows),
            )
            program = gradient.lower(hidden, kernel, targets, weights).compile().as_text()
            ours = gradient(hidden, kernel, targets, weights)
        theirs = jax.grad(f, (0, 1), has_aux=True)(hidden, kernel, targets, weights, 0)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10), ours, theirs)
        gathered = re.findall(r"f64\[(\d+),(\d+)\]\S* all-gather", program)
        for embed, words in gathered:
            # At most a slice of a device's words, whole in its rows.
            assert int(embed) * int(words) <= 8 * 16 < 8 * 96 // mesh.shape["tensor"]
        assert bool(gathered) == (mesh.shape["fsdp"] > 1)


def test_vmap_over_microbatches_on_eight_devices():
    with jax.enable_x64(True):
        mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2)
        hidden, kernel, targets, weights = case((3, 4, 6), embed=8, words=96)

        def loss(hidden, kernel, targets, weights, block_size):
            return weighed(
                soft_q.from_hidden(
                    hidden, kernel, targets, weights=weights, block_size=block_size, **EVERYTHING
                )
            )

        def total(hidden, kernel, block_size):
            mapped = jax.vmap(loss, (0, None, 0, 0, None))
            return jnp.sum(mapped(hidden, kernel, targets, weights, block_size))

        gradient = jax.jit(jax.grad(total, (0, 1)), static_argnums=2)
        theirs = gradient(hidden, kernel, 0)
        with sharding.use(mesh):
            ours = gradient(hidden, kernel, 5)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12), ours, theirs)


def test_sharded_arguments_without_a_mesh_in_force():
    """The compiler places everything by itself; words stay on their devices all the same."""
    with jax.enable_x64(True):
        mesh = sharding.make_mesh(data=2, tensor=4)
        hidden, kernel, targets, _ = case((8, 6), embed=8, words=768)
        rows = NamedSharding(mesh, PartitionSpec(sharding.BATCH_AXES))
        split = NamedSharding(mesh, PartitionSpec(None, "tensor"))

        def f(hidden, kernel, block_size=8):
            out = soft_q.from_hidden(hidden, kernel, targets, block_size=block_size, **EVERYTHING)
            return weighed(out), out

        gradient = jax.jit(
            jax.grad(f, (0, 1), has_aux=True), in_shardings=(rows, split), out_shardings=((rows, split), rows)
        )
        program = gradient.lower(hidden, kernel).compile().as_text()
        ours = gradient(hidden, kernel)
        theirs = jax.grad(f, (0, 1), has_aux=True)(hidden, kernel, 0)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10), ours, theirs)
        assert not re.search(r"f64\[8,(768|8,96|1,768)\]\S* all-gather", program)


def test_tiles_are_chosen_by_size():
    assert tiles.choose_tile(1024, 384) is None
    assert tiles.choose_tile(2**24 // 32_128, 32_128) is None
    assert tiles.choose_tile(8192, 32_128) == (2048, 16)
    assert tiles.choose_tile(8192, 32_128, 0) is None
    assert tiles.choose_tile(10, 384, 4).tokens == 4
    assert tiles.choose_tile(10, 384, 400).tokens == 10
    assert tiles.choose_tile(3000, 2**20).tokens == 1500  # equal blocks rather than 2048 and a rest


@pytest.mark.parametrize("wrong", [-1, 2.5, True, "all"])
def test_a_wrong_block_size_is_one_line(wrong):
    with pytest.raises(UserError, match=r"SOFT_Q_BLOCK_SIZE=.* must be a whole number"):
        tiles.choose_tile(10, 10, wrong)
