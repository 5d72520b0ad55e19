"""LoRA on every family: literals by hand, a zero B is the base, a merged model is the unmerged one, decoding carries adapters."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lmirl_jax import decoding, sharding
from lmirl_jax.models import LoRAConfig, critic_params, merge_adapters
from lmirl_jax.models.abstract import build
from lmirl_jax.models.adapters import MATRICES, Adapter, linear_maps
from lmirl_jax.models.attention import OutputProjection, Projection
from lmirl_jax.models.critic import CriticConfig
from lmirl_jax.models.layers import Dense
from lmirl_jax.models.trainable import frozen, has_adapters, join, split, trainable
from lmirl_jax.rows import prompts_of
from lmirl_jax.types import Model, ModelConfig, UserError
from tests.batches import batch_of
from tests.models.families import FAMILIES, T5_1_1, initial

BATCH = batch_of(
    [[5, 6, 7, 8, 9, 10, 11, 1], [9, 3, 1, 0, 0, 0, 0, 0]], [[11, 12, 13, 14, 1], [21, 22, 1, 0, 0]]
)
KEY = jax.random.key(0)
LORA = {"rank": 3, "alpha": 6.0}


# One of each kind: a plain MLP, biases by layer, two sizes of stacks, biases of queries, norms of queries and windows.
KINDS = ("t5_1_0", "t5_1_1", "umt5", "t5gemma", "qwen2", "gemma3")


@pytest.fixture(scope="module", params=KINDS)
def config(request):
    return LoRAConfig(FAMILIES[request.param], **LORA)


def parameters(config: LoRAConfig, moved: bool = False):
    """The network's graph and its parameters; with `moved`, as training leaves them: no B is 0."""
    adapters, base = split(initial(config))
    if moved:
        random = np.random.default_rng(0)
        adapters = jax.tree.map(
            lambda x: jnp.asarray(x + 0.2 * random.normal(size=x.shape).astype(np.float32)), adapters
        )
    return build(config)[0], join(adapters, base)


def base_graph(config: LoRAConfig) -> nnx.GraphDef:
    return nnx.graphdef(nnx.eval_shape(lambda: config.build_base(KEY)))


@functools.partial(jax.jit, static_argnums=0)
def hidden(graph, params, keys=None):
    return nnx.merge(graph, params).hidden(BATCH, keys)


def tiny_config(**options) -> LoRAConfig:
    return LoRAConfig(T5_1_1, **{"rank": 1, "alpha": 4.0, **options})


def test_a_dense_adapter_adds_a_product_of_low_rank():
    """x = (1, 2, 3), W = 0, A = (1, 0, -1)^T, B = (10, 1): 4 / 1 * (1 - 3) * (10, 1)."""
    dense = Dense((3, 2), ("embed", "mlp"), key=KEY)
    dense.kernel[...] = jnp.zeros((3, 2))
    dense.adapter = Adapter(dense, tiny_config(), 0, key=KEY)
    x = jnp.array([[[1.0, 2.0, 3.0]]])
    np.testing.assert_array_equal(dense(x), [[[0.0, 0.0]]])
    dense.adapter.lora_a[...] = jnp.array([[1.0], [0.0], [-1.0]])
    dense.adapter.lora_b[...] = jnp.array([[10.0, 1.0]])
    np.testing.assert_array_equal(dense(x), [[[-80.0, -8.0]]])
    merged = merge_adapters(nnx.to_pure_dict(nnx.state(dense)), 4.0)
    np.testing.assert_array_equal(merged["kernel"], [[40.0, 4.0], [0.0, 0.0], [-40.0, -4.0]])
    assert list(merged) == ["kernel"]


def test_projections_have_adapters_over_all_their_heads():
    """One feature, two heads of one: x = 2, A = 3, B = (5, 7); and back, x = (2, 4), A = (1, 10)^T, B = 3."""
    scale = tiny_config(alpha=1.0)
    project = Projection(nnx.initializers.zeros, (1, 2, 1), "heads", key=KEY)
    project.adapter = Adapter(project, scale, 0, key=KEY)
    project.adapter.lora_a[...], project.adapter.lora_b[...] = (
        jnp.full((1, 1), 3.0),
        jnp.array([[[5.0], [7.0]]]),
    )
    np.testing.assert_array_equal(project(jnp.full((1, 1, 1), 2.0)), [[[[30.0]], [[42.0]]]])
    back = OutputProjection(1, 2, 1, key=KEY)
    back.kernel[...] = jnp.zeros((2, 1, 1))
    back.adapter = Adapter(back, scale, 0, key=KEY)
    back.adapter.lora_a[...], back.adapter.lora_b[...] = (
        jnp.array([[[1.0]], [[10.0]]]),
        jnp.full((1, 1), 3.0),
    )
    np.testing.assert_array_equal(back(jnp.array([[[[2.0]], [[4.0]]]])), [[[126.0]]])


def test_it_is_a_recipe_of_a_language_model(config):
    assert isinstance(config, ModelConfig)
    assert isinstance(nnx.eval_shape(lambda: config.build(KEY)), Model)
    assert (config.vocab_size, config.emb_dim) == (config.base.vocab_size, config.base.emb_dim)


def test_a_new_adapter_is_the_base_exactly(config):
    graph, params = parameters(config)
    np.testing.assert_array_equal(hidden(graph, params), hidden(base_graph(config), frozen(params)))
    moved = parameters(config, moved=True)[1]
    assert np.abs(hidden(graph, moved) - hidden(graph, params)).max() > 0.05


def test_the_base_has_the_parameters_that_it_has_without_adapters(config):
    _, params = parameters(config)
    jax.tree.map(np.testing.assert_array_equal, frozen(params), initial(config.base))


def test_a_merged_model_is_the_unmerged_one(config):
    graph, params = parameters(config, moved=True)
    merged = jax.jit(lambda params: merge_adapters(params, config.scale))(params)
    assert not has_adapters(merged)
    np.testing.assert_allclose(
        hidden(base_graph(config), merged), hidden(graph, params), atol=2e-5, rtol=1e-5
    )


def test_decoding_carries_the_adapters(config):
    """The answers' log-probabilities of a sampler are those of the teacher-forced model."""
    graph, params = parameters(config, moved=True)
    base = base_graph(config)

    def sample(graph, params):
        keys = decoding.sample_keys(KEY, jnp.arange(2), 1)
        return decoding.sample(
            nnx.merge(graph, params), prompts_of(BATCH), keys, 1.0, max_length=5, eos_ids=(1,)
        )

    adapted = jax.jit(lambda params: sample(graph, params))(params)
    merged = jax.jit(lambda params: sample(base, merge_adapters(params, config.scale)))(params)
    np.testing.assert_array_equal(adapted.answers.tokens, merged.answers.tokens)
    np.testing.assert_allclose(adapted.log_probs, merged.log_probs, atol=1e-4)


def test_a_base_in_bfloat16_is_the_same_function_of_its_values(config):
    stored = dataclasses.replace(config, base_dtype="bfloat16")
    graph, params = parameters(stored, moved=True)
    flat = jax.tree_util.tree_leaves_with_path(frozen(params))
    kinds = {jax.tree_util.keystr(path[-1:]): leaf.dtype.name for path, leaf in flat}
    assert kinds["['kernel']"] == "bfloat16" and kinds["['scale']"] == "float32"
    assert frozen(params)["token_embedder"].dtype == jnp.bfloat16
    assert {leaf.dtype.name for leaf in jax.tree.leaves(trainable(params))} == {"float32"}
    wide = jax.tree.map(lambda x: x.astype(jnp.float32), params)
    np.testing.assert_array_equal(hidden(graph, params), hidden(graph, wide))


def test_dropout_of_adapters_depends_on_the_row_alone():
    config = LoRAConfig(dataclasses.replace(T5_1_1, dropout_rate=0.0), dropout_rate=0.5, **LORA)
    graph, params = parameters(config, moved=True)
    keys = jax.random.split(KEY, 2)
    dropped = hidden(graph, params, keys)
    assert np.abs(dropped - hidden(graph, params)).max() > 0.05
    other = jnp.stack([keys[0], jax.random.key(9)])
    changed = hidden(graph, params, other)
    np.testing.assert_array_equal(changed[0], dropped[0])
    assert np.abs(changed[1] - dropped[1]).max() > 0.01


def test_rematerialisation_changes_no_gradient():
    def gradients(remat):
        config = LoRAConfig(dataclasses.replace(T5_1_1, remat=remat), dropout_rate=0.5, **LORA)
        graph, params = parameters(config, moved=True)
        adapters, base = split(params)
        keys = jax.random.split(KEY, 2)

        def loss(adapters):
            return jnp.sum(jnp.sin(nnx.merge(graph, join(adapters, base)).hidden(BATCH, keys)))

        return jax.jit(jax.grad(loss))(adapters)

    def compare(a, b):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6 * np.abs(b).max())

    expected = gradients("none")
    for remat in ("minimal", "full"):
        jax.tree.map(compare, gradients(remat), expected)


def test_chosen_matrices_have_adapters_and_no_others():
    config = LoRAConfig(T5_1_1, matrices=["query", "wi_1"])
    model = nnx.eval_shape(lambda: config.build(KEY))
    adapted = {path[-1] for path, module in linear_maps(model).items() if hasattr(module, "adapter")}
    assert adapted == {"query", "wi_1"}
    everything = nnx.eval_shape(lambda: LoRAConfig(T5_1_1).build(KEY))
    adapted = {path[-1] for path, module in linear_maps(everything).items() if hasattr(module, "adapter")}
    assert adapted == set(MATRICES) - {"wi"}


def test_matrices_that_the_base_lacks_are_an_error():
    with pytest.raises(UserError, match="'wi', and the base has none of this name: choose from key, out"):
        nnx.eval_shape(lambda: LoRAConfig(T5_1_1, matrices=("wi",)).build(KEY))
    with pytest.raises(UserError, match="give it the base model"):
        LoRAConfig(LoRAConfig(T5_1_1))


def test_axes_of_adapters_have_names_with_rules():
    variables = nnx.state(nnx.eval_shape(lambda: LoRAConfig(T5_1_1, rank=2).build(KEY)))
    axes, names = sharding.logical_axes(variables), "decoder/layers/self_attention"
    assert axes[f"{names}/query/adapter/lora_a"] == ("layers", "embed", "adapter_rank")
    assert axes[f"{names}/query/adapter/lora_b"] == ("layers", "adapter_rank", "heads", "kv")
    assert axes[f"{names}/out/adapter/lora_a"] == ("layers", "heads", "kv", "adapter_rank")
    assert axes[f"{names}/out/adapter/lora_b"] == ("layers", "adapter_rank", "embed")
    assert {name for each in axes.values() for name in each} <= set(sharding.LOGICAL_AXIS_RULES)


def test_split_and_join_are_inverse_and_leave_whole_models_alone():
    params = {
        "trunk": {"a": {"kernel": 1, "adapter": {"lora_a": 2, "lora_b": 3}}, "b": {"kernel": 4}},
        "heads": {"value": {"kernel": 5}},
    }
    learnt, kept = split(params)
    assert learnt == {
        "trunk": {"a": {"adapter": {"lora_a": 2, "lora_b": 3}}},
        "heads": {"value": {"kernel": 5}},
    }
    assert kept == {"trunk": {"a": {"kernel": 1}, "b": {"kernel": 4}}}
    assert join(learnt, kept) == params
    whole = {"a": {"kernel": 1}}
    assert split(whole)[0] is whole and split(whole)[1] == {} and join(whole, {}) is whole


def test_a_critic_starts_as_the_adapted_policy():
    config = LoRAConfig(T5_1_1, **LORA)
    _, params = parameters(config, moved=True)
    fresh = initial(CriticConfig(config, ("value",)))
    made = critic_params(params, fresh)
    learnt, kept = split(made)
    assert set(learnt) == {"trunk", "heads"} and set(kept) == {"trunk"}
    np.testing.assert_array_equal(
        made["trunk"]["decoder"]["layers"]["mlp"]["wo"]["adapter"]["lora_b"],
        params["decoder"]["layers"]["mlp"]["wo"]["adapter"]["lora_b"],
    )
