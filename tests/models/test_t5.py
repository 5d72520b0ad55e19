"""T5 against T5X's own numbers, and its parts against numbers worked out by hand; test_families.py has its behaviour."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorstore as ts
from flax import nnx

from lmirl_jax import soft_q
from lmirl_jax.models import T5Config
from lmirl_jax.models.layers import dropout
from lmirl_jax.models.relative_positions import relative_position_bucket
from lmirl_jax.types import UserError
from tests.batches import batch_of

TINY = T5Config(
    vocab_size=128, emb_dim=8, num_heads=2, head_dim=4, mlp_dim=16, num_encoder_layers=2, num_decoder_layers=2
)


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


def test_a_start_token_that_is_none_is_refused():
    with pytest.raises(UserError, match=r"decoder_start_id=128 is no token: it must be below vocab_size=128"):
        dataclasses.replace(TINY, decoder_start_id=128)


def test_dropout_keeps_the_mean():
    x = jnp.ones((4, 1, 4096))
    dropped = dropout(x, 0.25, jax.random.split(jax.random.key(0), 4), place=0)
    assert set(np.unique(dropped)) == {0.0, np.float32(1 / 0.75)}
    np.testing.assert_allclose(dropped.mean(), 1.0, atol=0.02)
