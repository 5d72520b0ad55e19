"""Heads beside a language model: the model is as it is without them, and they guide what is sampled."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lmirl_jax import decoding
from lmirl_jax.models import HeadsConfig
from lmirl_jax.types import PromptBatch, UserError
from tests.models.families import FAMILIES
from tests.training.fakes import TINY, make_batch

KEY = jax.random.key(0)
STILL = dataclasses.replace(TINY, dropout_rate=0.0)
MODELS = {"t5": STILL, "qwen3": dataclasses.replace(FAMILIES["qwen3"], vocab_size=128)}


def with_heads(base, guide_weight=0.0):
    return HeadsConfig(base, states=("value",), actions=("q_1", "q_2"), guide_weight=guide_weight)


def prompts(vocab, count=3, length=4):
    tokens = jax.random.randint(jax.random.key(3), (count, length), 3, vocab)
    return PromptBatch(tokens, jnp.full((count,), length, jnp.int32))


def greedy(model, given):
    keys = decoding.sample_keys(KEY, jnp.arange(len(given.lengths)), 1)
    return decoding.sample(model, given, keys, 0.0, max_length=5, eos_ids=(1,))


@pytest.mark.parametrize("name", MODELS)
def test_the_model_is_as_without_heads(name):
    base, headed = MODELS[name].build(KEY), with_heads(MODELS[name]).build(KEY)
    plain, more = (nnx.to_pure_dict(nnx.state(model)) for model in (base, headed))
    heads = more.pop("heads")
    jax.tree.map(np.testing.assert_array_equal, plain, more)
    assert set(heads) == {"value", "q_1", "q_2"}
    batch = jax.tree.map(jnp.asarray, make_batch(0, 4))
    np.testing.assert_array_equal(base.hidden(batch), headed.hidden(batch))
    # The heads differ, so that the lesser of two is not one of them.
    layers = [heads[name]["layer"]["kernel"] for name in heads]
    assert all(np.abs(one - layers[0]).max() > 0.01 for one in layers[1:])


@pytest.mark.parametrize("name", MODELS)
def test_heads_say_nothing_at_the_start(name):
    headed, given = with_heads(MODELS[name], 5.0).build(KEY), prompts(60)
    batch = jax.tree.map(jnp.asarray, make_batch(0, 4))
    np.testing.assert_array_equal(headed.heads["value"](headed.hidden(batch)), 0.0)
    plain, guided = (greedy(model, given) for model in (MODELS[name].build(KEY), headed))
    np.testing.assert_array_equal(plain.answers.tokens, guided.answers.tokens)


@pytest.mark.parametrize("name", MODELS)
def test_the_lesser_of_two_heads_guides_what_is_sampled(name):
    """The logits of each step are those of the policy plus the weight times the lesser Q, by the network without a cache."""
    model, given = with_heads(MODELS[name], 1.5).build(KEY), prompts(60)
    for number, head in enumerate(("q_1", "q_2")):
        shape = model.heads[head].kernel.shape
        model.heads[head].kernel.set_value(jax.random.normal(jax.random.key(number), shape))
    out = greedy(model, given)
    assert np.max(decoding.log_prob_gaps(model, given, out)) < 1e-4
    hidden = model.hidden(jax.tree.map(jnp.asarray, make_batch(0, 4)))
    each = [model.heads[head].layer(hidden) @ model.heads[head].kernel[...] for head in ("q_1", "q_2")]
    assert np.any(each[0] < each[1]) and np.any(each[1] < each[0])
    added = decoding.logits_of(model, hidden) - decoding.logits_of(MODELS[name].build(KEY), hidden)
    np.testing.assert_allclose(added, 1.5 * np.minimum(*each), rtol=1e-4, atol=1e-4)
    plain = greedy(MODELS[name].build(KEY), given)
    assert np.any(np.asarray(plain.answers.tokens) != np.asarray(out.answers.tokens))


@pytest.mark.parametrize(
    "settings, message",
    [
        ({}, "must be one or more different names"),
        ({"states": ("a",), "actions": ("a",)}, "must be one or more different names"),
        ({"states": ("a",), "guide_weight": 1.0}, "no head values tokens"),
    ],
)
def test_heads_that_are_none(settings, message):
    with pytest.raises(UserError, match=message):
        HeadsConfig(TINY, **settings)
