"""Adafactor against T5X's on T5X's own tree: one parameter a layer, the heads of an attention as one axis."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from lmirl_jax import training
from lmirl_jax.models import CriticConfig, T5Config
from lmirl_jax.models.abstract import build
from lmirl_jax.training.state import init_params, state_shardings
from lmirl_jax.types import UserError
from tests.training.fakes import TINY, mesh_of

KEY = jax.random.key(0)
LAYERS = dataclasses.replace(TINY, num_encoder_layers=3)
XXL = T5Config(32128, 4096, 64, 64, 10240, num_encoder_layers=24, num_decoder_layers=24)


def as_t5x(params) -> dict[str, np.ndarray]:
    """Our parameters on T5X's unscanned tree: layers apart, (embed, heads * width) and (heads * width, embed)."""
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name, leaf = jax.tree_util.keystr(path, simple=True, separator="/"), np.asarray(leaf)
        stacked = "/layers/" in name
        for number, layer in enumerate(leaf if stacked else [leaf]):
            if name.endswith(("query/kernel", "key/kernel", "value/kernel")):
                layer = layer.reshape(layer.shape[0], -1)
            elif name.endswith("out/kernel"):
                layer = layer.reshape(-1, layer.shape[-1])
            assert layer.ndim <= 2
            found[name.replace("/layers/", f"/layers_{number}/")] = layer
    return found


class T5XAdafactor:
    """T5X's apply_param_gradient for vectors and matrices with its defaults, in float64."""

    def __init__(self, shape, smallest):
        self.factored = len(shape) == 2 and min(shape) >= smallest
        self.row, self.column, self.whole = np.zeros(shape[:1]), np.zeros(shape[1:]), np.zeros(shape)

    def step(self, number, parameter, gradient, rate, decay_rate=0.8):
        decay = 1 - float(number + 1) ** -decay_rate
        squared = gradient.astype(np.float64) ** 2 + 1e-30
        if self.factored:
            self.row = decay * self.row + (1 - decay) * squared.mean(1)
            self.column = decay * self.column + (1 - decay) * squared.mean(0)
            root = np.sqrt(np.outer(self.row / self.row.mean(), self.column))
        else:
            self.whole = decay * self.whole + (1 - decay) * squared
            root = np.sqrt(self.whole)
        update = gradient / root
        update /= max(1.0, np.sqrt(np.mean(update**2)))
        return -rate * max(1e-3, np.sqrt(np.mean(parameter.astype(np.float64) ** 2))) * update


def first_params(config):
    """Layers of unlike size, of which one is below the least scale."""
    sizes = jnp.array([1e-5, 2.0, 4.0])

    def scaled(path, leaf):
        stacked = any(part.key == "layers" for part in path)
        return leaf * jnp.reshape(sizes[: leaf.shape[0]], (-1, *[1] * (leaf.ndim - 1))) if stacked else leaf

    return jax.tree_util.tree_map_with_path(scaled, init_params(config, KEY))


def gradients_of(step: int, params):
    """Of unlike size from layer to layer and step to step, some so small that a product of two squares is 0."""
    leaves, tree = jax.tree.flatten(params)
    random = np.random.default_rng(step)

    def one(leaf):
        sizes = 10.0 ** random.integers(-12, 3, (leaf.shape[0], *[1] * (leaf.ndim - 1)))
        return jnp.asarray(sizes * random.normal(size=leaf.shape) * random.choice([0.1, 1, 10]), jnp.float32)

    return tree.unflatten([one(leaf) for leaf in leaves])


@pytest.mark.parametrize("config", [LAYERS, CriticConfig(LAYERS, ("value", "discriminator"))])
def test_twenty_updates_are_those_of_t5x_and_of_optax_layer_by_layer(config):
    # The width of a head, 4, is below what is factored; 4 heads of 4 are not.
    rate, smallest = 1e-2, 16
    variables = build(config)[1]
    ours = training.for_model(training.adafactor(rate, min_dim_size_to_factor=smallest), variables)
    params = first_params(config)
    state, update = ours.init(params), jax.jit(ours.update)
    oracle = {name: T5XAdafactor(leaf.shape, smallest) for name, leaf in as_t5x(params).items()}
    other = optax.adafactor(rate, min_dim_size_to_factor=smallest)
    other_state, other_update = other.init(as_t5x(params)), jax.jit(other.update)
    for step in range(20):
        gradients = gradients_of(step, params)
        updates, state = update(gradients, state, params)
        theirs, parts = as_t5x(params), as_t5x(gradients)
        of_optax, other_state = other_update(parts, other_state, theirs)
        for name, found in as_t5x(updates).items():
            expected = oracle[name].step(step, theirs[name], parts[name], rate)
            size = np.sqrt(np.mean(expected**2))
            assert size > 0
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * size, err_msg=name)
            np.testing.assert_allclose(found, of_optax[name], rtol=1e-5, atol=1e-5 * size, err_msg=name)
        params = optax.apply_updates(params, updates)


def test_each_layer_moves_by_the_same_share_of_its_size():
    """Sizes 1, 2 and 4 and a gradient of one size: a thousandth of each, in place of 2.6, 1.3 and .66 thousandths."""
    names = ("layers", "embed", "mlp")
    kernel = jnp.stack([jnp.full((4, 6), size) for size in (1.0, 2.0, 4.0)])
    variables = nnx.state(nnx.Dict(kernel=nnx.Param(kernel, out_sharding=names, eager_sharding=False)))
    optimizer = training.for_model(training.adafactor(1e-3), variables)
    params = {"kernel": kernel}
    updates, _ = optimizer.update({"kernel": jnp.ones_like(kernel)}, optimizer.init(params), params)
    np.testing.assert_allclose(updates["kernel"][:, 0, 0], [-1e-3, -2e-3, -4e-3], rtol=1e-5)


def test_xxl_keeps_five_million_floats():
    """By hand, of 24 + 24 layers: 24 + 24 * 2 attentions of four kernels of 4096 + 4096 means, ..."""
    attentions = (24 + 2 * 24) * 4 * (4096 + 4096)
    feed_forwards = (24 + 24) * 3 * (4096 + 10240)
    embeddings = 2 * (32128 + 4096)
    norms = (2 * 24 + 3 * 24 + 2) * 4096
    relative_biases = 2 * 64 * 32
    expected = attentions + feed_forwards + embeddings + norms + relative_biases
    shapes, _ = state_shardings(mesh_of(1, 1, 1, 1), XXL, training.adafactor(1e-3))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes.params)) == 11_135_332_352
    moments = sum(leaf.size for leaf in jax.tree.leaves(shapes.opt_state) if leaf.ndim > 0 and leaf.size > 1)
    assert moments == expected
    assert 4.5e6 < moments < 5.5e6


def test_moments_are_sharded_along_the_axes_that_they_keep():
    mesh = mesh_of(8, 1, 4, 2)
    optimizer = training.adafactor(1e-2, min_dim_size_to_factor=16)
    _, shardings = state_shardings(mesh, TINY, optimizer)
    specs = {
        jax.tree_util.keystr(path, simple=True, separator="/"): place.spec
        for path, place in jax.tree_util.tree_leaves_with_path(shardings.opt_state)
    }
    spec = jax.sharding.PartitionSpec
    queries = {
        name.split("/encoder/")[0].split("/")[-1]: s
        for name, s in specs.items()
        if name.endswith("encoder/layers/attention/query/kernel")
    }
    assert queries == {
        "v_row": spec(None, "fsdp", None, None),
        "v_col": spec(None, None, "tensor", None),
        "v": spec(None, None, None, None),
    }


def test_a_stack_without_the_names_of_its_axes_is_refused():
    optimizer = training.adafactor(1e-3)
    with pytest.raises(UserError, match=r"which of the 4 axes of decoder/.*/kernel are layers and heads"):
        optimizer.init(init_params(TINY, KEY))
    matrix = {"kernel": jnp.ones((4, 6))}
    plain, _ = optimizer.update(matrix, optimizer.init(matrix), matrix)
    np.testing.assert_allclose(plain["kernel"], -1e-3, rtol=1e-5)


def test_weight_decay_can_leave_out_norms_and_biases():
    """As Hugging Face's get_decay_parameter_names: nothing whose name has a bias in it, relative ones too, and no norm."""
    config = CriticConfig(LAYERS, ("value",))
    variables = build(config)[1]
    params = jax.tree.map(jnp.ones_like, init_params(config, KEY))
    still = jax.tree.map(jnp.zeros_like, params)

    def decayed(**options):
        optimizer = training.for_model(training.adamw(0.1, weight_decay=0.5, **options), variables)
        updates, _ = optimizer.update(still, optimizer.init(params), params)
        found = {}
        for path, leaf in jax.tree_util.tree_leaves_with_path(updates):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            np.testing.assert_allclose(leaf, -0.05 if np.any(leaf) else 0.0, rtol=1e-5, err_msg=name)
            found[name] = bool(np.any(leaf))
        return found

    assert all(decayed().values())
    some = decayed(decay_norms_and_biases=False)
    left_out = {name for name, moved in some.items() if not moved}
    assert left_out == {name for name in some if any(part in name for part in ("norm", "bias"))}
    assert {"heads/value/bias", "trunk/encoder/relpos_bias/rel_embedding"} < left_out
    assert {
        "trunk/token_embedder",
        "trunk/decoder/layers/self_attention/out/kernel",
    } <= some.keys() - left_out
