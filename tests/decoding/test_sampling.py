"""Sampling: greedy equals teacher forcing, keys belong to examples, EOS ends, temperature does what it says."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmirl_jax import decoding, soft_q
from lmirl_jax.models import T5Config
from lmirl_jax.types import Batch, Unembedding

LENGTH = 6
INPUTS = jnp.array([[5, 6, 7, 8, 1, 0], [9, 3, 1, 0, 0, 0], [4, 4, 4, 1, 0, 0]])


def prompts(inputs) -> Batch:
    empty = jnp.zeros((len(inputs), LENGTH), jnp.int32)
    return Batch(inputs, empty, empty, *[jnp.zeros((len(inputs), LENGTH))] * 3)


@pytest.fixture(scope="module")
def model():
    config = T5Config(
        128, emb_dim=8, num_heads=2, head_dim=4, mlp_dim=16, num_encoder_layers=1, num_decoder_layers=2
    )
    return config.build(jax.random.key(0))


@pytest.fixture(scope="module")
def sampler(model):
    return jax.jit(functools.partial(decoding.sample, model, max_length=LENGTH))


def teacher_forced(model, inputs, tokens):
    fed = jnp.pad(tokens, ((0, 0), (1, 0)))[:, :-1]
    batch = Batch(inputs, fed, tokens, *[jnp.ones(tokens.shape)] * 3)
    logits = soft_q.logits_from_hidden(model.hidden(batch), model.unembedding().kernel)
    return logits, soft_q.from_logits(logits, tokens)


def test_greedy_takes_the_likeliest_token(model, sampler):
    keys = decoding.sample_keys(jax.random.key(1), jnp.arange(3), 1)
    out = sampler(prompts(INPUTS), keys, 0.0)
    logits, _ = teacher_forced(model, INPUTS, out.tokens[:, 0])
    for row in range(3):
        for t, token in enumerate(out.tokens[row, 0]):
            if token == 0:
                break
            assert token == jnp.argmax(logits[row, t])


def test_log_probs_equal_teacher_forced_ones(model, sampler):
    keys = decoding.sample_keys(jax.random.key(1), jnp.arange(3), 2)
    out = sampler(prompts(INPUTS), keys, 1.3)
    for number in range(2):
        _, forced = teacher_forced(model, INPUTS, out.tokens[:, number])
        real = np.asarray(out.tokens[:, number]) > 0
        np.testing.assert_allclose(out.log_probs[:, number][real], (forced.q - forced.v)[real], atol=1e-4)


def test_the_same_answers_in_any_order_and_batch(sampler):
    key, ids = jax.random.key(1), jnp.array([10, 20, 30])
    together = sampler(prompts(INPUTS), decoding.sample_keys(key, ids, 2), 1.0)
    order = jnp.array([2, 0, 1])
    shuffled = sampler(prompts(INPUTS[order]), decoding.sample_keys(key, ids[order], 2), 1.0)
    np.testing.assert_array_equal(shuffled.tokens, together.tokens[order])
    alone = sampler(prompts(INPUTS[1:2]), decoding.sample_keys(key, ids[1:2], 2), 1.0)
    np.testing.assert_array_equal(alone.tokens[0], together.tokens[1])
    assert (together.tokens[:, 0] != together.tokens[:, 1]).any()


class Coin:
    """A policy without memory: EOS with probability 1/4, token 2 with probability 3/4."""

    def hidden(self, batch, dropout_keys=None):
        raise AssertionError("sampling goes through the cache")

    def unembedding(self):
        return Unembedding(jnp.log(jnp.array([[1e-30, 1.0, 3.0]])))

    def start_decoding(self, batch, max_length, num_samples=1):
        rows = batch.encoder_input_tokens.shape[0] * num_samples
        return jnp.zeros((rows,)), jnp.zeros((rows,), jnp.int32)

    def decode(self, cache, tokens):
        return cache, jnp.ones((*tokens.shape, 1))


def test_the_distribution_at_a_temperature_and_the_end_at_eos():
    """At temperature 1/2 the probabilities are squared: 9/10 for token 2."""
    keys = decoding.sample_keys(jax.random.key(0), jnp.arange(1), 4000)
    out = decoding.sample(Coin(), prompts(INPUTS[:1]), keys, 0.5, max_length=LENGTH)
    tokens = np.asarray(out.tokens[0])
    np.testing.assert_allclose((tokens[:, 0] == 2).mean(), 0.9, atol=0.02)
    for row in tokens:
        end = np.flatnonzero(row == 1)
        if len(end):
            assert (row[: end[0]] == 2).all() and (row[end[0] + 1 :] == 0).all()
        else:
            assert (row == 2).all()
    np.testing.assert_allclose(out.log_probs[0][tokens == 2], np.log(0.75), atol=1e-5)
    np.testing.assert_array_equal(out.log_probs[0][tokens == 0], 0.0)
