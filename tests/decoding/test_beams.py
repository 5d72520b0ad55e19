"""Beam search against an exhaustive one on a policy with a memory; its penalty, its end, one beam, a network's cache."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmirl_jax import decoding
from lmirl_jax.models import T5Config
from lmirl_jax.rows import length_mask
from lmirl_jax.types import PromptBatch, Unembedding
from tests.batches import EOS, prompt_batch

LENGTH, VOCAB = 3, 3
ALL = 15  # 7 sequences of 3 words that end with EOS within 3 tokens, and 8 that are truncated.


def prompts(count: int) -> PromptBatch:
    return prompt_batch(jnp.arange(3, 3 + 3 * count).reshape(count, 3))


class Chain:
    """Logits by prompt, by the number of tokens read and by their sum: beams that mix up their memories are found out."""

    def __init__(self, seed: int, count: int, sharpness: float = 2.0):
        self.table = sharpness * jax.random.normal(jax.random.key(seed), (count, LENGTH, 2 * LENGTH, VOCAB))

    def hidden(self, batch, dropout_keys=None):
        raise AssertionError("search goes through the cache")

    def unembedding(self):
        return Unembedding(jnp.eye(VOCAB))

    def start_decoding(self, prompts, max_length, num_samples=1):
        rows = prompts.tokens.shape[0] * num_samples
        return (jnp.zeros((), jnp.int32), jnp.zeros((rows,), jnp.int32)), jnp.zeros((rows,), jnp.int32)

    def decode(self, cache, tokens):
        t, total = cache
        total = total + tokens
        prompt = jnp.arange(len(tokens)) // (len(tokens) // len(self.table))
        return (t + 1, total), self.table[prompt, t, total]

    def reorder(self, cache, parents):
        t, total = cache
        return t, jnp.take_along_axis(total.reshape(parents.shape), parents, axis=1).reshape(-1)


def exhaustive(table, alpha: float, eos_ids=(EOS,)) -> list[tuple[int, ...]]:
    """Every answer to one prompt, padded: those that end, best first; then those that are truncated."""
    log_policy = np.asarray(jax.nn.log_softmax(table))
    ended, cut = [], []
    for length in range(1, LENGTH + 1):
        for tokens in itertools.product(range(VOCAB), repeat=length):
            ends = tokens[-1] in eos_ids
            if set(eos_ids) & set(tokens[:-1]) or (not ends and length < LENGTH):
                continue
            total = sum(log_policy[t, sum(tokens[:t]), tokens[t]] for t in range(length))
            found = (total / ((5 + length) / 6) ** alpha, tokens + (0,) * (LENGTH - length))
            (ended if ends else cut).append(found)
    return [tokens for part in (ended, cut) for _, tokens in sorted(part, reverse=True)]


@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
def test_enough_beams_find_all_in_order(alpha):
    model = Chain(0, 3)
    search = jax.jit(
        functools.partial(decoding.search, model, num_beams=ALL, max_length=LENGTH, eos_ids=(EOS,))
    )
    out = search(prompts(3), alpha=alpha)
    for tokens, table in zip(np.asarray(out.answers.tokens), model.table, strict=True):
        assert [tuple(row) for row in tokens.tolist()] == exhaustive(table, alpha)


@pytest.mark.parametrize("eos_ids", [(2,), (0,), (0, 2)])
def test_beams_end_with_any_of_the_given_tokens(eos_ids):
    """Token 0 may be a word or end an answer: by lengths, answers of the same array differ."""
    model = Chain(3, 2)
    out = decoding.search(model, prompts(2), 40, 0.6, max_length=LENGTH, eos_ids=eos_ids)
    for answers, table in zip(np.asarray(out.answers.tokens), model.table, strict=True):
        expected = exhaustive(table, 0.6, eos_ids)
        assert [tuple(row) for row in answers[: len(expected)].tolist()] == expected
    ends = jnp.isin(out.answers.tokens, jnp.array(eos_ids)) & length_mask(out.answers.lengths, LENGTH)
    count = len(exhaustive(model.table[0], 0.6, eos_ids))
    np.testing.assert_array_equal(ends.any(axis=-1)[:, :count], out.answers.terminal[:, :count])


def test_a_few_beams_find_the_best_of_an_easy_policy():
    model = Chain(1, 3)
    out = decoding.search(model, prompts(3), 4, 0.6, max_length=LENGTH, eos_ids=(EOS,))
    for tokens, table in zip(np.asarray(out.answers.tokens), model.table, strict=True):
        assert tuple(tokens[0].tolist()) == exhaustive(table, 0.6)[0]


def test_length_penalty():
    """T5X's and GNMT's: 1 at one token, (11/6)^0.6 = 1.43862 at six; none at alpha 0."""
    lengths = jnp.array([1, 6])
    np.testing.assert_allclose(decoding.length_penalty(lengths, 0.6), [1.0, 1.43862], rtol=1e-5)
    np.testing.assert_array_equal(decoding.length_penalty(lengths, 0.0), 1.0)


def test_a_longer_answer_wins_by_alpha():
    """EOS at once has log 0.5; 2 and then a sure EOS log 0.4999: (7/6)^1 turns the order."""
    logits = jnp.log(jnp.array([[1e-4, 0.5, 0.4999], [1e-30, 1.0, 1e-30], [1e-30, 1.0, 1e-30]]))
    model = Chain(0, 1)
    model.table = jnp.broadcast_to(logits[None, :, None], model.table.shape)
    first = [
        decoding.search(model, prompts(1), 2, alpha, max_length=LENGTH, eos_ids=(EOS,)).answers.tokens[0, 0]
        for alpha in (0.0, 1.0)
    ]
    np.testing.assert_array_equal(first, [[1, 0, 0], [2, 1, 0]])


@pytest.fixture(scope="module")
def model():
    config = T5Config(
        16, emb_dim=8, num_heads=2, head_dim=4, mlp_dim=16, num_encoder_layers=1, num_decoder_layers=2
    )
    return config.build(jax.random.key(2))


def test_one_beam_is_greedy(model):
    keys = decoding.sample_keys(jax.random.key(0), jnp.arange(2), 1)
    greedy = decoding.sample(model, prompts(2), keys, 0.0, max_length=5, eos_ids=(EOS,))
    beam = decoding.search(model, prompts(2), 1, max_length=5, eos_ids=(EOS,))
    np.testing.assert_array_equal(beam.answers.tokens, greedy.answers.tokens)


def test_beams_of_a_network_have_the_log_probs_of_teacher_forcing(model):
    """So the cache followed every change of beams; the answers of a prompt differ, and are in order."""
    batch = prompts(2)
    out = jax.jit(lambda batch: decoding.search(model, batch, 4, 0.6, max_length=5, eos_ids=(EOS,)))(batch)
    assert np.max(decoding.log_prob_gaps(model, batch, out)) < 1e-4
    real = np.asarray(length_mask(out.answers.lengths, 5))
    scores = out.log_probs.sum(-1) / decoding.length_penalty(jnp.asarray(real.sum(-1)), 0.6)
    for tokens, of_prompt, ended in zip(
        np.asarray(out.answers.tokens), np.asarray(scores), np.asarray(out.answers.terminal), strict=True
    ):
        assert len({tuple(row) for row in tokens.tolist()}) == 4
        assert (np.diff(of_prompt[ended]) <= 0).all() and (np.diff(of_prompt[~ended]) <= 0).all()
