"""Prompts and answers in one row: places by hand, empty and left-padded prompts, packed rows."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from lmirl_jax.models.prompted_rows import lay_out
from lmirl_jax.rows import empty_row, put_example, stack_rows
from tests.batches import batch_of
from tests.models.families import FAMILIES, build, call

START = 7


def rows_of(*examples, inputs, targets):
    """One row that holds these examples, each its prompt and its answer."""
    row, i, t = empty_row({"inputs": inputs, "targets": targets}), 0, 0
    for segment, (prompt, answer) in enumerate(examples, 1):
        prompt, answer = np.array(prompt, np.int32), np.array(answer, np.int32)
        put_example(row, prompt, answer, eos_ids=(1,), discount=1.0, place=(i, t, segment))
        i, t = i + len(prompt), t + len(answer)
    return jax.tree.map(jnp.asarray, stack_rows([row]))


def test_a_prompt_and_its_answer():
    rows = lay_out(rows_of(([11, 12], [21, 22, 1]), inputs=4, targets=4), START)
    np.testing.assert_array_equal(rows.tokens, [[11, 12, 21, 22, 1, 0, 0, 0]])
    np.testing.assert_array_equal(rows.segment_ids, [[1, 1, 1, 1, 1, 0, 0, 0]])
    np.testing.assert_array_equal(rows.positions, [[0, 1, 2, 3, 4, 0, 0, 0]])
    np.testing.assert_array_equal(rows.is_prompt, [[True, True, *[False] * 6]])
    np.testing.assert_array_equal(rows.answers, [[2, 3, 4, 8]])


def test_packed_examples_follow_one_another():
    rows = lay_out(rows_of(([11, 12], [21, 1]), ([13], [22, 1]), inputs=4, targets=4), START)
    np.testing.assert_array_equal(rows.tokens, [[11, 12, 21, 1, 13, 22, 1, 0]])
    np.testing.assert_array_equal(rows.segment_ids, [[1, 1, 1, 1, 2, 2, 2, 0]])
    np.testing.assert_array_equal(rows.positions, [[0, 1, 2, 3, 0, 1, 2, 0]])
    np.testing.assert_array_equal(rows.answers, [[2, 3, 5, 6]])


def test_the_start_token_stands_for_an_empty_prompt():
    rows = lay_out(rows_of(([], [21, 1]), inputs=2, targets=3), START)
    np.testing.assert_array_equal(rows.tokens, [[START, 21, 1, 0, 0]])
    np.testing.assert_array_equal(rows.is_prompt, [[True, *[False] * 4]])
    np.testing.assert_array_equal(rows.answers, [[1, 2, 5]])


def test_a_prompt_without_an_answer_and_a_row_of_padding():
    batch = rows_of(([11, 12], []), inputs=2, targets=2)
    both = jax.tree.map(lambda x: jnp.concatenate([x, jnp.zeros_like(x)]), batch)
    rows = lay_out(both, START)
    np.testing.assert_array_equal(rows.tokens, [[11, 12, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(rows.segment_ids, [[1, 1, 0, 0], [0, 0, 0, 0]])


def test_the_padding_side_of_a_prompt_changes_nothing():
    model = build(FAMILIES["gemma3"])
    right = batch_of([[5, 6, 7, 0, 0, 0], [8, 9, 10, 11, 12, 13]], [[21, 22, 1, 0], [23, 24, 25, 1]])
    left = dataclasses.replace(
        right,
        prompt_tokens=jnp.array([[0, 0, 0, 5, 6, 7], [8, 9, 10, 11, 12, 13]]),
        prompt_segment_ids=jnp.array([[0, 0, 0, 1, 1, 1], [1] * 6]),
    )
    hidden = [call(model, lambda model, batch=batch: model.hidden(batch)) for batch in (right, left)]
    np.testing.assert_array_equal(hidden[0], hidden[1])


def test_only_a_bidirectional_prompt_sees_its_end_from_its_beginning():
    """The hidden state at the first answer token, by the prompt's embeddings: both depend on all of them.

    The keys of the first prompt token depend on the last one only where prompts are bidirectional.
    """
    batch = batch_of([[5, 6, 7, 8]], [[21, 22, 1]])
    changed = dataclasses.replace(batch, prompt_tokens=jnp.array([[5, 6, 7, 9]]))

    def first_keys(model, batch):
        rows = lay_out(batch, 0)
        mask = model._mask(rows.segment_ids, rows.is_prompt)
        keys = model.decoder.keys_values(
            model._embed(rows.tokens), model.decoder.row_context(mask, rows.positions)
        )
        return keys[1][0][:, :, 0]

    for name, is_equal in (("qwen3", True), ("prefix", False)):
        model = build(FAMILIES[name])
        one, other = (call(model, first_keys, x) for x in (batch, changed))
        assert np.array_equal(one, other) == is_equal, name
