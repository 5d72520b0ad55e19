"""Own answers as a batch: which tokens count, which have a reward, what each leads to."""

import jax.numpy as jnp
import numpy as np

from lmirl_jax.online.experience import (
    Experience,
    as_batch,
    demonstrations_batch,
    flat,
    grouped,
    joined,
    truncated,
)
from tests.training.fakes import make_batch

INPUTS = jnp.array([[7, 1, 0]] * 3)
TOKENS = jnp.array(
    [[5, 6, 1, 0], [5, 0, 6, 7], [1, 0, 0, 0]]
)  # whole; cut off, with a pad drawn; EOS at once


def test_literals():
    batch = as_batch(Experience(INPUTS, TOKENS, None), 0.5)
    np.testing.assert_array_equal(batch.weights, [[1, 1, 1, 0], [1, 1, 1, 1], [1, 0, 0, 0]])
    np.testing.assert_array_equal(batch.decoder_input_tokens, [[0, 5, 6, 1], [0, 5, 0, 6], [0, 1, 0, 0]])
    np.testing.assert_array_equal(batch.discounts, [[0.5, 0.5, 0, 0], [0.5, 0.5, 0.5, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(batch.td_weights, [[1, 1, 1, 0], [1, 1, 1, 0], [1, 0, 0, 0]])
    np.testing.assert_array_equal(truncated(batch), [0, 1, 0])


def test_demonstrations_are_what_the_data_made_of_them():
    data = make_batch(0, 9)
    batch = demonstrations_batch(
        Experience(data.encoder_input_tokens, None, None, jnp.asarray(data.decoder_target_tokens)), 1.0
    )
    for name in ("decoder_input_tokens", "decoder_target_tokens", "weights", "discounts", "td_weights"):
        ours, theirs = np.asarray(getattr(batch, name)), getattr(data, name)
        # What is fed after the last token is looked at by nothing.
        np.testing.assert_array_equal(ours * data.weights, theirs * data.weights, err_msg=name)


def test_joined_pads_to_the_longer():
    short = as_batch(Experience(INPUTS[:1], TOKENS[:1, :3], None), 1.0)
    long = as_batch(Experience(INPUTS[:1], TOKENS[1:2], None), 1.0)
    both = joined(short, long)
    np.testing.assert_array_equal(both.decoder_target_tokens, [[5, 6, 1, 0], [5, 0, 6, 7]])
    np.testing.assert_array_equal(both.weights, [[1, 1, 1, 0], [1, 1, 1, 1]])


def test_grouped_keeps_a_prompts_answers_together():
    rows = jnp.arange(12).reshape(6, 2)
    np.testing.assert_array_equal(grouped(rows, 3)[1], rows[3:])
    np.testing.assert_array_equal(flat(grouped(rows, 3)), rows)
