"""T5 against T5X's own numbers, and its behaviour: causality, padding, packing, cache, dropout."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorstore as ts
from flax import nnx

from lmirl_jax import soft_q
from lmirl_jax.models import T5Config
from lmirl_jax.models.relative_positions import relative_position_bucket
from lmirl_jax.rows import empty_row, prompts_of, put_example, stack_rows
from lmirl_jax.types import UserError
from tests.batches import batch_of

TINY = T5Config(
    vocab_size=128, emb_dim=8, num_heads=2, head_dim=4, mlp_dim=16, num_encoder_layers=2, num_decoder_layers=2
)


@pytest.fixture(scope="module")
def model():
    return TINY.build(jax.random.key(0))


INPUTS = [[5, 6, 7, 8, 1, 0], [9, 3, 1, 0, 0, 0]]
TARGETS = [[11, 12, 13, 1], [21, 22, 1, 0]]


def test_relative_position_buckets():
    """8 buckets, distances up to 16. One way: 0..3 exact, then logarithmic. Both ways: 4 for each direction."""
    past = -jnp.array([0, 1, 2, 3, 4, 6, 8, 12, 16, 100])
    one_way = relative_position_bucket(past, bidirectional=False, buckets=8, max_distance=16)
    np.testing.assert_array_equal(one_way, [0, 1, 2, 3, 4, 5, 6, 7, 7, 7])
    ahead = relative_position_bucket(-past, bidirectional=False, buckets=8, max_distance=16)
    np.testing.assert_array_equal(ahead, 0)
    both = relative_position_bucket(
        jnp.array([-3, -1, 0, 1, 3]), bidirectional=True, buckets=8, max_distance=16
    )
    np.testing.assert_array_equal(both, [2, 1, 0, 5, 6])


def t5x_parameters(folder):
    """The arrays of a checkpoint that T5X saved, by their name there."""
    for path in folder.glob("target.*"):
        spec = {"driver": "zarr", "kvstore": {"driver": "file", "path": str(path)}}
        yield path.name.removeprefix("target.").split("."), np.asarray(ts.open(spec).result().read().result())


def load_t5x(config: T5Config, folder):
    model = config.build(jax.random.key(0))
    flat = {"/".join(map(str, path)): value for path, value in nnx.to_flat_state(nnx.state(model))}
    layers: dict = {}
    for name, value in t5x_parameters(folder):
        where = "/".join(name)
        where = where.replace("token_embedder/embedding", "token_embedder").replace(
            "decoder/logits", "logits"
        )
        where = where.replace("encoder/encoder_norm", "encoder/norm").replace(
            "decoder/decoder_norm", "decoder/norm"
        )
        number = next((int(part[7:]) for part in name if part.startswith("layers_")), None)
        where = where.replace(f"layers_{number}", "layers")
        layers.setdefault(where, {})[number or 0] = value
    for where, values in layers.items():
        together = np.stack([values[i] for i in sorted(values)])
        flat[where].set_value(jnp.asarray(together.reshape(flat[where].shape)))
        del flat[where]
    assert not flat, f"no value for {list(flat)}"
    return model


def test_agrees_with_t5x(shared_data):
    """T5X's own network on its own checkpoint, in float32: every number equal to rounding."""
    folder = shared_data / "checkpoints" / "t5x_tiny_trained"
    expected = np.load(folder / "expected.npz")
    config = dataclasses.replace(TINY, vocab_size=32128, num_heads=4, head_dim=3)
    model = load_t5x(config, folder / "checkpoint_2")
    targets = jnp.asarray(expected["decoder_target_tokens"])
    batch = batch_of(expected["encoder_input_tokens"], targets)
    fed = np.pad(targets, ((0, 0), (1, 0)))[:, :-1]
    np.testing.assert_array_equal(fed, expected["decoder_input_tokens"])
    logits = soft_q.logits_from_hidden(model.hidden(batch), model.unembedding().kernel)
    out = soft_q.from_logits(logits, targets)
    real = np.asarray(targets) > 0
    np.testing.assert_allclose(logits[real][:, :200], expected["logits_first_200_words"][real], atol=2e-5)
    np.testing.assert_allclose(out.v[real], expected["logsumexp"][real], atol=2e-5)
    np.testing.assert_allclose((out.q - out.v)[real], expected["target_log_probs"][real], atol=2e-5)


def test_causality_by_gradient(model):
    """The hidden state at position 1 depends on the tokens fed at 0 and 1 alone: every later gradient is exactly zero."""

    graph, state = nnx.split(model)

    def at_1(state):
        return jnp.sum(nnx.merge(graph, state).hidden(batch_of(INPUTS[:1], [[31, 32, 33, 34]]))[0, 1])

    slope = jax.grad(at_1)(state)["token_embedder"][...]
    assert np.abs(slope[31]).max() > 0 and np.abs(slope[0]).max() > 0
    np.testing.assert_array_equal(slope[jnp.array([32, 33])], 0.0)


def test_padding_changes_nothing(model):
    short = model.hidden(batch_of(INPUTS, TARGETS))
    longer = batch_of(np.pad(INPUTS, ((0, 0), (0, 3))), np.pad(TARGETS, ((0, 0), (0, 2))))
    real = np.asarray(longer.weights[:, :4] > 0)
    np.testing.assert_allclose(model.hidden(longer)[:, :4][real], short[real], atol=1e-5)


def test_packed_rows_equal_unpacked(model):
    apart = model.hidden(batch_of(INPUTS, TARGETS))
    row = empty_row({"inputs": 9, "targets": 8})
    for number, place in enumerate([(0, 0, 1), (5, 4, 2)]):
        inputs, targets = (np.trim_zeros(rows[number], "b") for rows in (INPUTS, TARGETS))
        put_example(row, np.array(inputs), np.array(targets), eos_ids=(1,), discount=1.0, place=place)
    together = model.hidden(jax.tree.map(jnp.asarray, stack_rows([row])))
    np.testing.assert_allclose(together[0, :4], apart[0], atol=1e-5)
    np.testing.assert_allclose(together[0, 4:7], apart[1, :3], atol=1e-5)


@pytest.mark.parametrize(("remat", "start_id"), [("none", 0), ("full", 9)])
def test_cached_decoding_equals_teacher_forcing(remat, start_id):
    model = dataclasses.replace(TINY, remat=remat, decoder_start_id=start_id).build(jax.random.key(0))
    batch = batch_of(INPUTS, TARGETS)
    forced = model.hidden(batch)
    cache, first = model.start_decoding(prompts_of(batch), 4)
    np.testing.assert_array_equal(first, start_id)
    fed = jnp.pad(batch.tokens, ((0, 0), (1, 0)), constant_values=start_id)
    for t in range(4):
        cache, hidden = model.decode(cache, fed[:, t])
        real = np.asarray(batch.segment_ids[:, t] > 0)
        np.testing.assert_allclose(hidden[real], forced[:, t][real], atol=1e-5)


def test_a_start_token_that_is_none_is_refused():
    with pytest.raises(UserError, match=r"decoder_start_id=128 is no token: it must be below vocab_size=128"):
        dataclasses.replace(TINY, decoder_start_id=128)


def test_a_reordered_cache_goes_on_from_its_parent(model):
    """Two rows a prompt, fed different tokens; then both go on from the second one, and the prompts stay apart."""
    batch = batch_of(INPUTS, TARGETS)
    forced = model.hidden(batch)
    cache, first = model.start_decoding(prompts_of(batch), 4, num_samples=2)
    assert (
        cache.cross[0][0].shape[0] == 2 and cache.self_attention[0][0].shape[0] == 4
    )  # Prompts are there once.
    np.testing.assert_array_equal(first, 0)
    fed = jnp.pad(batch.tokens, ((0, 0), (1, 0)))
    for t in range(2):
        true = fed[:, t]
        cache, _ = model.decode(cache, jnp.stack([true + 7, true], axis=1).reshape(-1))
    cache = model.reorder(cache, jnp.array([[1, 1], [1, 0]]))
    _, hidden = model.decode(cache, jnp.repeat(fed[:, 2], 2))
    np.testing.assert_allclose(hidden[jnp.array([0, 1, 2])], forced[jnp.array([0, 0, 1]), 2], atol=1e-5)
    assert np.abs(hidden[3] - forced[1, 2]).max() > 1e-3


@pytest.mark.parametrize("remat", ["minimal", "full"])
def test_remat_changes_no_gradient(model, remat):
    batch = batch_of(INPUTS, TARGETS)
    keys = jax.random.split(jax.random.key(1), 2)

    def gradient(config):
        graph, state = nnx.split(config.build(jax.random.key(0)))
        return jax.grad(lambda s: jnp.sum(nnx.merge(graph, s).hidden(batch, keys) ** 2))(state)

    plain, again = gradient(TINY), gradient(dataclasses.replace(TINY, remat=remat))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), plain, again)


def test_dropout_belongs_to_the_row_not_to_its_neighbours(model):
    batch = batch_of(INPUTS, TARGETS)
    keys = jax.random.split(jax.random.key(1), 2)
    both = model.hidden(batch, keys)
    second = model.hidden(jax.tree.map(lambda x: x[1:], batch), keys[1:])
    np.testing.assert_allclose(second[0], both[1], atol=1e-5)
    assert np.abs(both - model.hidden(batch)).max() > 1e-2
    assert np.abs(both - model.hidden(batch, keys[::-1])).max() > 1e-2


def test_dropout_keeps_the_mean():
    from lmirl_jax.models.layers import dropout

    x = jnp.ones((4, 1, 4096))
    dropped = dropout(x, 0.25, jax.random.split(jax.random.key(0), 4), place=0)
    assert set(np.unique(dropped)) == {0.0, np.float32(1 / 0.75)}
    np.testing.assert_allclose(dropped.mean(), 1.0, atol=0.02)


def test_bfloat16_activations_float32_parameters():
    model = dataclasses.replace(TINY, dtype="bfloat16").build(jax.random.key(0))
    hidden = model.hidden(batch_of(INPUTS, TARGETS))
    assert hidden.dtype == jnp.bfloat16
    assert {v.dtype for v in jax.tree.leaves(nnx.state(model))} == {jnp.dtype("float32")}
    np.testing.assert_allclose(
        hidden.astype(jnp.float32), TINY.build(jax.random.key(0)).hidden(batch_of(INPUTS, TARGETS)), atol=0.1
    )


def test_every_parameter_has_a_logical_name_for_each_axis(model):
    for path, variable in nnx.to_flat_state(nnx.state(model)):
        axes = variable.get_metadata("out_sharding")
        assert len(axes) == variable.ndim, path
        assert ("layers" in path) == (axes[0] == "layers"), path
