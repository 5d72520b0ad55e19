"""Sampling: greedy equals teacher forcing, keys belong to examples, EOS ends, temperature and filters do what they say."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmirl_jax import decoding, soft_q
from lmirl_jax.decoding import Filters
from lmirl_jax.models import T5Config
from lmirl_jax.rows import length_mask
from lmirl_jax.types import AnswerBatch, PromptBatch, Unembedding
from tests.batches import batch_of, prompt_batch

LENGTH = 6
EOS = 1
INPUTS = jnp.array([[5, 6, 7, 8, 1, 0], [9, 3, 1, 0, 0, 0], [4, 4, 4, 1, 0, 0]])


@pytest.fixture(scope="module")
def model():
    config = T5Config(
        128, emb_dim=8, num_heads=2, head_dim=4, mlp_dim=16, num_encoder_layers=1, num_decoder_layers=2
    )
    return config.build(jax.random.key(0))


@pytest.fixture(scope="module")
def sampler(model):
    return jax.jit(functools.partial(decoding.sample, model, max_length=LENGTH, eos_ids=(EOS,)))


def teacher_forced(model, inputs, tokens):
    batch = batch_of(inputs, tokens)
    logits = soft_q.logits_from_hidden(model.hidden(batch), model.unembedding().kernel)
    return logits, soft_q.from_logits(logits, tokens)


def test_greedy_takes_the_likeliest_token(model, sampler):
    keys = decoding.sample_keys(jax.random.key(1), jnp.arange(3), 1)
    out = sampler(prompt_batch(INPUTS), keys, 0.0)
    logits, _ = teacher_forced(model, INPUTS, out.answers.tokens[:, 0])
    for row in range(3):
        for t, token in enumerate(out.answers.tokens[row, 0][: out.answers.lengths[row, 0]]):
            assert token == jnp.argmax(logits[row, t])


def test_temperature_0_takes_the_likeliest_token_whatever_the_filters(sampler):
    keys = decoding.sample_keys(jax.random.key(1), jnp.arange(3), 1)
    plain = sampler(prompt_batch(INPUTS), keys, 0.0)
    filtered = sampler(prompt_batch(INPUTS), keys, 0.0, Filters(top_k=3, top_p=0.5, min_p=0.1))
    np.testing.assert_array_equal(filtered.answers.tokens, plain.answers.tokens)


def test_log_probs_and_entropies_equal_teacher_forced_ones(model, sampler):
    """Those of the policy itself, whatever temperature and filters chose the tokens."""
    keys = decoding.sample_keys(jax.random.key(1), jnp.arange(3), 2)
    out = sampler(prompt_batch(INPUTS), keys, 1.3, Filters(top_p=0.8))
    for number in range(2):
        logits, forced = teacher_forced(model, INPUTS, out.answers.tokens[:, number])
        real = np.asarray(length_mask(out.answers.lengths[:, number], LENGTH))
        np.testing.assert_allclose(out.log_probs[:, number][real], (forced.q - forced.v)[real], atol=1e-4)
        log_policy = jax.nn.log_softmax(logits)
        entropy = -jnp.sum(jnp.exp(log_policy) * log_policy, axis=-1)
        np.testing.assert_allclose(out.entropies[:, number][real], entropy[real], atol=1e-4)


def test_the_gauge_finds_the_token_whose_log_prob_is_wrong(model, sampler):
    keys = decoding.sample_keys(jax.random.key(1), jnp.arange(3), 2)
    out = sampler(prompt_batch(INPUTS), keys, 1.0)
    gaps = jax.jit(functools.partial(decoding.log_prob_gaps, model))
    assert np.max(gaps(prompt_batch(INPUTS), out)) < 1e-5
    wrong = dataclasses.replace(out, log_probs=out.log_probs.at[1, 0, 0].add(-0.25))
    np.testing.assert_allclose(gaps(prompt_batch(INPUTS), wrong), [0, 0.25, 0], atol=1e-5)


def test_the_same_answers_in_any_order_and_batch(sampler):
    key, ids = jax.random.key(1), jnp.array([10, 20, 30])
    together = sampler(prompt_batch(INPUTS), decoding.sample_keys(key, ids, 2), 1.0)
    order = jnp.array([2, 0, 1])
    shuffled = sampler(prompt_batch(INPUTS[order]), decoding.sample_keys(key, ids[order], 2), 1.0)
    np.testing.assert_array_equal(shuffled.answers.tokens, together.answers.tokens[order])
    alone = sampler(prompt_batch(INPUTS[1:2]), decoding.sample_keys(key, ids[1:2], 2), 1.0)
    np.testing.assert_array_equal(alone.answers.tokens[0], together.answers.tokens[1])
    assert (together.answers.tokens[:, 0] != together.answers.tokens[:, 1]).any()


def test_answers_go_on_from_what_they_begin_with(model, sampler):
    """The first two tokens of the greedy answers, of one of them none: the rest follows, and log pi is that of the whole."""
    keys = decoding.sample_keys(jax.random.key(1), jnp.arange(3), 1)
    prompts = prompt_batch(INPUTS)
    whole = sampler(prompts, keys, 0.0)
    lengths = jnp.array([2, 0, 2])
    begin = AnswerBatch(whole.answers.tokens[:, 0], lengths, jnp.zeros(3, bool))
    on = functools.partial(decoding.sample, model, max_length=LENGTH, eos_ids=(EOS,))
    again = jax.jit(lambda begin: on(prompts, keys, 0.0, beginnings=begin))(begin)
    np.testing.assert_array_equal(again.answers.tokens, whole.answers.tokens)
    np.testing.assert_allclose(again.log_probs, whole.log_probs, atol=1e-6)
    # Tokens that the policy would not have drawn, for two samples of each prompt.
    other = AnswerBatch(jnp.full((3, LENGTH), 77), lengths, jnp.zeros(3, bool))
    keys = decoding.sample_keys(jax.random.key(2), jnp.arange(3), 2)
    found = jax.jit(lambda begin: on(prompts, keys, 1.0, beginnings=begin))(other)
    tokens = np.asarray(found.answers.tokens)
    assert (tokens[[0, 2], :, :2] == 77).all() and (tokens[:, :, 2:] != 77).any() and (tokens[1] != 77).any()
    gaps = jax.jit(functools.partial(decoding.log_prob_gaps, model))
    assert np.max(gaps(prompts, found)) < 1e-5


class Coin:
    """A policy without memory: EOS with probability 1/4, token 2 with probability 3/4."""

    def hidden(self, batch, dropout_keys=None):
        raise AssertionError("sampling goes through the cache")

    def unembedding(self):
        return Unembedding(jnp.log(jnp.array([[1e-30, 1.0, 3.0]])))

    def start_decoding(self, prompts, max_length, num_samples=1):
        rows = prompts.tokens.shape[0] * num_samples
        return jnp.zeros((rows,)), jnp.zeros((rows,), jnp.int32)

    def decode(self, cache, tokens):
        return cache, jnp.ones((*tokens.shape, 1))

    def reorder(self, cache, parents):
        raise AssertionError("sampling has no beams")


def test_the_distribution_at_a_temperature_and_the_end_at_eos():
    """At temperature 1/2 the probabilities are squared: 9/10 for token 2."""
    keys = decoding.sample_keys(jax.random.key(0), jnp.arange(1), 4000)
    out = decoding.sample(Coin(), prompt_batch(INPUTS[:1]), keys, 0.5, max_length=LENGTH, eos_ids=(EOS,))
    tokens = np.asarray(out.answers.tokens[0])
    np.testing.assert_allclose((tokens[:, 0] == 2).mean(), 0.9, atol=0.02)
    for row in tokens:
        end = np.flatnonzero(row == 1)
        if len(end):
            assert (row[: end[0]] == 2).all() and (row[end[0] + 1 :] == 0).all()
        else:
            assert (row == 2).all()
    np.testing.assert_allclose(out.log_probs[0][tokens == 2], np.log(0.75), atol=1e-5)
    np.testing.assert_array_equal(out.log_probs[0][tokens == 0], 0.0)
    np.testing.assert_array_equal(out.entropies[0][tokens == 0], 0.0)
    np.testing.assert_allclose(out.entropies[0][tokens == 2], 0.562335, atol=1e-5)  # of 1/4 and 3/4


@pytest.mark.parametrize(
    ("temperature", "filters", "share"),
    [
        (1.0, Filters(), 0.75),
        (1.0, Filters(top_k=1), 1.0),
        (1.0, Filters(top_p=0.75), 1.0),
        (1.0, Filters(top_p=0.76), 0.75),
        (2.0, Filters(top_p=0.75), 0.634),  # The temperature comes first: its nucleus of 0.75 needs both.
        (1.0, Filters(min_p=0.3), 0.75),
        (0.5, Filters(min_p=0.3), 1.0),  # 1/9 of the likeliest.
    ],
)
def test_tokens_that_filters_keep_are_sampled_in_proportion(temperature, filters, share):
    keys = decoding.sample_keys(jax.random.key(0), jnp.arange(1), 4000)
    out = decoding.sample(
        Coin(), prompt_batch(INPUTS[:1]), keys, temperature, filters, max_length=1, eos_ids=(EOS,)
    )
    np.testing.assert_allclose((out.answers.tokens == 2).mean(), share, atol=0.02)
    np.testing.assert_allclose(out.log_probs[out.answers.tokens == 2], np.log(0.75), atol=1e-5)


class Words(Coin):
    """A policy without memory over 4 tokens, of probabilities 1/2 (token 0, a word), 1/4, 1/8 and 1/8."""

    def unembedding(self):
        return Unembedding(jnp.log(jnp.array([[0.5, 0.25, 0.125, 0.125]])))


@pytest.mark.parametrize(("eos_ids", "rate"), [((2,), 1 / 8), ((3,), 1 / 8), ((1, 3), 3 / 8)])
def test_an_answer_ends_with_any_of_the_given_tokens_and_holds_token_0(eos_ids, rate):
    """Lengths are geometric: an answer goes on past its t-th token with probability (1 - rate) ** t."""
    keys = decoding.sample_keys(jax.random.key(0), jnp.arange(1), 4000)
    prompts = prompt_batch(INPUTS[:1])
    answers = decoding.sample(Words(), prompts, keys, 1.0, max_length=LENGTH, eos_ids=eos_ids).answers
    tokens, lengths, terminal = (
        np.asarray(x)[0] for x in (answers.tokens, answers.lengths, answers.terminal)
    )
    for t in range(1, LENGTH):
        np.testing.assert_allclose((lengths > t).mean(), (1 - rate) ** t, atol=0.03)
    np.testing.assert_allclose(terminal.mean(), 1 - (1 - rate) ** LENGTH, atol=0.03)
    ends = np.isin(tokens, eos_ids)
    for row, length, ended in zip(ends, lengths, terminal, strict=True):
        assert not row[: length - 1].any() and row[length - 1] == ended
        assert ended or length == LENGTH
    real = np.arange(LENGTH) < lengths[:, None]
    np.testing.assert_allclose((tokens[real] == 0).mean(), 0.5, atol=0.02)


def test_padding_is_told_from_token_0_by_the_lengths_of_the_prompts(model):
    """The same tokens are other prompts where the zeros at the end are words."""
    tokens = jnp.array([[5, 6, 0, 0]])
    keys = decoding.sample_keys(jax.random.key(1), jnp.arange(1), 8)

    def log_probs(tokens, length):
        prompts = PromptBatch(tokens, jnp.array([length]))
        out = decoding.sample(model, prompts, keys, 1.0, max_length=LENGTH, eos_ids=(EOS,))
        assert np.max(decoding.log_prob_gaps(model, prompts, out)) < 1e-5
        return np.asarray(out.log_probs)

    np.testing.assert_allclose(log_probs(tokens, 2), log_probs(jnp.array([[5, 6]]), 2), atol=1e-5)
    assert np.abs(log_probs(tokens, 4) - log_probs(tokens, 2)).max() > 1e-3
