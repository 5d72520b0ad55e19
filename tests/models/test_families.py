"""What holds for every family: causality, padding, packing, the cache, beams, meshes, types, rematerialisation."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lmirl_jax import sharding, soft_q
from lmirl_jax.models import DecoderOnlyConfig, T5Config
from lmirl_jax.models.abstract import build as build_state
from lmirl_jax.rows import empty_row, prompts_of, put_example, stack_rows
from lmirl_jax.types import Model, ModelConfig, UserError
from tests.batches import batch_of
from tests.models.families import FAMILIES, T5_1_1, build, call, stack
from tests.training.fakes import mesh_of

INPUTS = [[5, 6, 7, 8, 9, 10, 11, 12, 13, 1], [9, 3, 1, 0, 0, 0, 0, 0, 0, 0]]
TARGETS = [[11, 12, 13, 14, 15, 16, 17, 1], [21, 22, 23, 24, 1, 0, 0, 0]]
BATCH = batch_of(INPUTS, TARGETS)
REAL = np.asarray(BATCH.segment_ids) > 0
KEY = jax.random.key(1)
# The sum over a norm's output hardly depends on its input; this weighted sum does.
WAVE = jnp.sin(jnp.arange(16.0))


# One family of each network, for what does not differ by family: the layers of a stack are run in one place alone.
every_network = pytest.mark.parametrize(
    "config", ["t5_1_1", "t5gemma", "gemma3"], indirect=True, scope="module"
)


@pytest.fixture(scope="module", params=FAMILIES)
def config(request):
    return FAMILIES[request.param]


@pytest.fixture(scope="module")
def model(config):
    return build(config)


@pytest.fixture(scope="module")
def forced(model):
    """The hidden states of the answers, all at once."""
    return call(model, lambda model: model.hidden(BATCH))


def is_decoder_only(config):
    return isinstance(config, DecoderOnlyConfig)


def fed(config):
    """What is read one by one: a start token or the end of the prompt, then the answer without its end."""
    first = [1, 1] if is_decoder_only(config) else [config.decoder_start_id] * 2
    return jnp.concatenate([jnp.array(first)[:, None], BATCH.tokens[:, :-1]], axis=1)


def read(model, prompts, tokens):
    """The hidden states [rows, length, embed] after each of the tokens [rows, length], which a cache is fed one by one."""
    cache, _ = model.start_decoding(prompts, tokens.shape[1], num_samples=2)
    return jnp.swapaxes(jax.lax.scan(model.decode, cache, tokens.T)[1], 0, 1)


def test_the_protocols(config, model):
    assert isinstance(config, ModelConfig) and isinstance(model, Model)
    assert config.emb_dim == 16


def test_cached_decoding_equals_teacher_forcing(config, model, forced):
    """Two samples a prompt, prompts of different lengths, answers longer than the window and the farthest bucket."""
    _, first = model.start_decoding(prompts_of(BATCH), 8, num_samples=2)
    np.testing.assert_array_equal(first, jnp.repeat(fed(config)[:, 0], 2))
    hidden = call(model, read, prompts_of(BATCH), jnp.repeat(fed(config), 2, axis=0))
    for sample in range(2):
        np.testing.assert_allclose(hidden[sample::2][REAL], forced[REAL], atol=1e-5)


def test_eight_devices_equal_one(config, model, forced):
    """Data 2 x fsdp 2 x tensor 2: one key-value head of the two on each part."""
    mesh = mesh_of(8, 2, 2, 2)
    graph, state = nnx.split(model)
    batch = batch_of(INPUTS * 2, TARGETS * 2)
    tokens = jnp.repeat(jnp.tile(fed(config), (2, 1)), 2, axis=0)
    with sharding.use(mesh):
        params = jax.device_put(
            nnx.to_pure_dict(state), sharding.parameter_shardings(mesh, build_state(config)[1])
        )
        batch = sharding.to_global(mesh, jax.tree.map(np.asarray, batch), 4)

        @jax.jit
        def run(params, batch):
            model = nnx.merge(graph, params)
            return model.hidden(batch), read(model, prompts_of(batch), tokens)

        hidden, cached = jax.device_get(run(params, batch))
    twice = np.tile(forced, (2, 1, 1))
    np.testing.assert_allclose(hidden[np.tile(REAL, (2, 1))], twice[np.tile(REAL, (2, 1))], atol=1e-5)
    rows = np.tile(np.repeat(REAL, 2, axis=0), (2, 1))
    np.testing.assert_allclose(cached[rows], np.repeat(twice, 2, axis=0)[rows], atol=1e-5)


def test_causality_by_gradient(model):
    """The hidden state at 5 depends on the tokens that are read by then, y_1 .. y_5: every other gradient is exactly 0."""

    def slope(model, offsets):
        return jax.grad(lambda offsets: jnp.sum(model.hidden(BATCH, None, offsets)[0, 5] * WAVE))(offsets)

    gradient = call(model, slope, jnp.zeros((2, 8, 16)))
    assert np.all(np.any(gradient[0, :5] != 0, axis=-1))
    np.testing.assert_array_equal(gradient[0, 5:], 0.0)
    np.testing.assert_array_equal(gradient[1], 0.0)


def test_padding_changes_nothing(model, forced):
    longer = batch_of(np.pad(INPUTS, ((0, 0), (0, 3))), np.pad(TARGETS, ((0, 0), (0, 2))))
    hidden = call(model, lambda model: model.hidden(longer))
    np.testing.assert_allclose(hidden[:, :8][REAL], forced[REAL], atol=1e-5)


def test_packed_rows_equal_unpacked(model, forced):
    row = empty_row({"inputs": 14, "targets": 14})
    for number, place in enumerate([(0, 0, 1), (10, 8, 2)]):
        inputs, targets = (np.trim_zeros(rows[number], "b") for rows in (INPUTS, TARGETS))
        put_example(row, np.array(inputs), np.array(targets), eos_ids=(1,), discount=1.0, place=place)
    batch = jax.tree.map(jnp.asarray, stack_rows([row]))
    together = call(model, lambda model: model.hidden(batch))
    np.testing.assert_allclose(together[0, :8], forced[0], atol=1e-5)
    np.testing.assert_allclose(together[0, 8:13], forced[1, :5], atol=1e-5)


def test_explicit_decoder_ids(config, model, forced):
    """Hidden state t is the one after `decoder_ids[:, : t + 1]`, for any ids; padding at their end changes nothing."""

    if is_decoder_only(config):
        pytest.skip("the prompt is in the row: its ids are those of the batch")

    def run(model, decoder_ids):
        encoded = model.encode(BATCH.prompt_tokens, BATCH.prompt_segment_ids)
        return model.decoder_hidden(decoder_ids, encoded, BATCH.prompt_segment_ids)

    np.testing.assert_allclose(call(model, run, fed(config))[REAL], forced[REAL], atol=1e-5)


def test_a_reordered_cache_goes_on_from_its_parent(config, model, forced):
    """Two rows a prompt, fed different tokens; then both go on from the second one, and the prompts stay apart."""
    tokens = fed(config)

    def run(model, parents):
        cache, _ = model.start_decoding(prompts_of(BATCH), 8, num_samples=2)
        # The keys and values of a prompt are there once.
        of_prompts = cache.prompts if is_decoder_only(config) else cache.cross
        of_answers = cache.answers if is_decoder_only(config) else cache.self_attention
        assert of_prompts[0][0].shape[0] == 2 and of_answers[0][0].shape[0] == 4
        for t in range(4):
            cache, _ = model.decode(cache, jnp.stack([tokens[:, t] + 7, tokens[:, t]], axis=1).reshape(-1))
        cache = model.reorder(cache, parents)
        return model.decode(cache, jnp.repeat(tokens[:, 4], 2))[1]

    hidden = call(model, run, jnp.array([[1, 1], [1, 0]]))
    np.testing.assert_allclose(hidden[jnp.array([0, 1, 2])], forced[jnp.array([0, 0, 1]), 4], atol=1e-5)
    assert np.abs(hidden[3] - forced[1, 4]).max() > 1e-3


def gradient(config):
    """Of something that depends on every hidden state, with dropout."""

    def run(model, keys):
        graph, state = nnx.split(model)
        return jax.grad(lambda state: jnp.sum(nnx.merge(graph, state).hidden(BATCH, keys) ** 3))(state)

    return call(build(dataclasses.replace(config, dropout_rate=0.2)), run, jax.random.split(KEY, 2))


@pytest.fixture(scope="module")
def plain_gradient(config):
    return gradient(config)


@every_network
@pytest.mark.parametrize(
    "options",
    [{"remat": "minimal"}, {"remat": "full", "scan_unroll": 2}, {"remat": "minimal_offloaded"}],
)
def test_remat_and_unrolling_change_no_gradient(config, plain_gradient, options):
    again = gradient(dataclasses.replace(config, **options))

    def compare(a, b):
        # Gradients are sums whose terms cancel: rounding is relative to the largest, some 300 of T5Gemma's embeddings.
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6 * np.abs(a).max())

    jax.tree.map(compare, plain_gradient, again)


@pytest.mark.parametrize("remat", ["minimal", "minimal_offloaded"])
def test_offloaded_products_wait_in_the_memory_of_the_host(remat):
    """In the program before it is lowered: a CPU has one memory."""
    graph, state = nnx.split(build(dataclasses.replace(T5_1_1, remat=remat)))
    compute = jax.grad(lambda state: jnp.sum(nnx.merge(graph, state).hidden(BATCH)))
    assert ("<host>" in str(jax.make_jaxpr(compute)(state))) == (remat == "minimal_offloaded")


@every_network
def test_dropout_belongs_to_the_row_not_to_its_neighbours(config, forced):
    model = build(dataclasses.replace(config, dropout_rate=0.2))
    keys = jax.random.split(KEY, 2)
    both = call(model, lambda model, keys: model.hidden(BATCH, keys), keys)
    second = call(
        model, lambda model, keys: model.hidden(jax.tree.map(lambda x: x[1:], BATCH), keys), keys[1:]
    )
    np.testing.assert_allclose(second[0], both[1], atol=1e-5)
    assert np.abs(both - forced).max() > 1e-2


def test_bfloat16_activations_float32_parameters(config, forced):
    model = build(dataclasses.replace(config, dtype="bfloat16"))
    hidden = call(model, lambda model: model.hidden(BATCH))
    assert hidden.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(model))} == {jnp.dtype("float32")}
    np.testing.assert_allclose(hidden.astype(jnp.float32)[REAL], forced[REAL], atol=0.15)
    cached = call(model, read, prompts_of(BATCH), jnp.repeat(fed(config), 2, axis=0))
    assert cached.dtype == jnp.bfloat16


def test_the_output_layer(config, model):
    """Tied: the embeddings that the decoder reads, scaled by 1/sqrt(16) in T5, not in T5Gemma, which bounds its logits."""
    out, params = model.unembedding(), nnx.to_pure_dict(nnx.state(model))
    tied = config.logits_via_embedding
    assert ("logits_dense" in params) != tied
    np.testing.assert_array_equal(
        out.kernel, params["token_embedder"].T if tied else params["logits_dense"]["kernel"]
    )
    is_scaled = tied and isinstance(config, T5Config)
    has_cap = config in (FAMILIES["t5gemma"], FAMILIES["gemma2"])
    assert (out.scale, out.soft_cap) == (0.25 if is_scaled else 1.0, 30.0 if has_cap else None)
    assert ("encoder_token_embedder" in params) == (config is FAMILIES["t5gemma"])
    hidden = jax.random.normal(KEY, (3, 16))
    found = soft_q.logits_from_hidden(hidden, out.kernel, scale=out.scale, soft_cap=out.soft_cap)
    product = out.scale * np.asarray(hidden) @ np.asarray(out.kernel)
    np.testing.assert_allclose(
        found, product if out.soft_cap is None else 30 * np.tanh(product / 30), atol=1e-5
    )


def test_every_parameter_has_a_logical_name_for_each_axis(model):
    for path, variable in nnx.to_flat_state(nnx.state(model)):
        axes = variable.get_metadata("out_sharding")
        assert len(axes) == variable.ndim and set(axes) <= set(sharding.LOGICAL_AXIS_RULES), path
        assert ("layers" in path) == (axes[0] == "layers"), path


def test_a_mesh_with_more_parts_than_key_value_heads_is_refused():
    config = dataclasses.replace(FAMILIES["t5gemma"], decoder=stack(16, 2, num_kv_heads=1))
    _, state = build_state(config)
    with pytest.raises(
        UserError, match=r"tensor=2 does not divide kv_heads=1 of decoder\S*: set .*make_mesh"
    ):
        sharding.parameter_shardings(mesh_of(8, 2, 2, 2), state)
