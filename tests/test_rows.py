import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from lmirl_jax.rows import answers_of, empty_row, example_row, mark_turns, prompts_of, put_example, stack_rows
from lmirl_jax.types import PromptBatch

EOS = 1
LENGTHS = {"inputs": 4, "targets": 5}


def row(inputs, targets, discount=0.9):
    return example_row(
        np.array(inputs, np.int32),
        np.array(targets, np.int32),
        lengths=LENGTHS,
        discount=discount,
        eos_ids=(EOS,),
    )


def test_a_row_with_room_to_spare():
    found = row([7, 8, EOS], [5, 6, EOS])
    np.testing.assert_array_equal(found.prompt_tokens, [7, 8, 1, 0])
    np.testing.assert_array_equal(found.tokens, [5, 6, 1, 0, 0])
    np.testing.assert_array_equal(found.weights, [1, 1, 1, 0, 0])
    np.testing.assert_array_equal(found.discounts, np.float32([0.9, 0.9, 0, 0, 0]))
    np.testing.assert_array_equal(found.td_weights, [1, 1, 1, 0, 0])
    np.testing.assert_array_equal(found.segment_ids, [1, 1, 1, 0, 0])
    np.testing.assert_array_equal(found.positions, [0, 1, 2, 0, 0])
    np.testing.assert_array_equal(found.prompt_segment_ids, [1, 1, 1, 0])
    assert found.rewards is None


def test_a_target_that_just_fits_is_terminal():
    found = row([7, EOS], [5, 6, 7, 8, EOS])
    np.testing.assert_array_equal(found.tokens, [5, 6, 7, 8, 1])
    np.testing.assert_array_equal(found.td_weights, [1, 1, 1, 1, 1])


def test_a_truncated_target_keeps_its_weights_and_loses_its_last_reward():
    found = row([7, 8, 9, 10, 11, EOS], [5, 6, 7, 8, 9, EOS])
    np.testing.assert_array_equal(found.prompt_tokens, [7, 8, 9, 10])
    np.testing.assert_array_equal(found.tokens, [5, 6, 7, 8, 9])
    np.testing.assert_array_equal(found.weights, [1, 1, 1, 1, 1])
    np.testing.assert_array_equal(found.discounts, np.float32([0.9, 0.9, 0.9, 0.9, 0]))
    np.testing.assert_array_equal(found.td_weights, [1, 1, 1, 1, 0])


def test_a_target_that_never_had_an_eos_is_truncated_too():
    np.testing.assert_array_equal(row([7], [5, 6]).td_weights, [1, 0, 0, 0, 0])
    np.testing.assert_array_equal(row([7], []).weights, [0, 0, 0, 0, 0])


def test_the_weight_of_an_example_is_that_of_its_tokens():
    arguments = {"lengths": LENGTHS, "discount": 0.9, "eos_ids": (EOS,)}
    found = example_row(np.array([7]), np.array([5, 6]), **arguments, weight=2.5)
    np.testing.assert_array_equal(found.weights, np.float32([2.5, 2.5, 0, 0, 0]))
    np.testing.assert_array_equal(
        found.td_weights, [1, 0, 0, 0, 0]
    )  # a mask, so that nothing is weighted twice


def test_a_batch_is_filled_up_with_rows_of_weight_zero():
    batch = stack_rows([row([7, EOS], [5, EOS])], size=3)
    np.testing.assert_array_equal(batch.weights, [[1, 1, 0, 0, 0], [0] * 5, [0] * 5])
    np.testing.assert_array_equal(batch.prompt_tokens, [[7, 1, 0, 0], [0] * 4, [0] * 4])
    assert batch.prompt_tokens.dtype == np.int32 and batch.discounts.dtype == np.float32


def test_given_rewards_are_trimmed_with_their_answer():
    arguments = {"lengths": LENGTHS, "discount": 0.9, "eos_ids": (EOS,), "with_rewards": True}
    rewards = np.array([1, 2, 3, 4, 5, 6], np.float32)
    whole = example_row(np.array([7]), np.array([5, 6, EOS]), **arguments, rewards=rewards[:3])
    np.testing.assert_array_equal(whole.rewards, np.float32([1, 2, 3, 0, 0]))
    trimmed = example_row(np.array([7]), np.array([5, 6, 7, 8, 9, EOS]), **arguments, rewards=rewards)
    np.testing.assert_array_equal(trimmed.rewards, np.float32([1, 2, 3, 4, 5]))
    none = example_row(np.array([7]), np.array([5, EOS]), **arguments)
    np.testing.assert_array_equal(none.rewards, np.zeros(5, np.float32))


def test_any_of_several_ids_ends_an_answer_and_id_0_is_a_word():
    arguments = {"lengths": LENGTHS, "discount": 0.9, "eos_ids": (9, 3)}
    for end, last in ((9, 1), (3, 1), (0, 0)):
        found = example_row(np.array([0, 0]), np.array([0, end]), **arguments)
        np.testing.assert_array_equal(found.td_weights, [1, last, 0, 0, 0])
        np.testing.assert_array_equal(found.segment_ids, [1, 1, 0, 0, 0])
        np.testing.assert_array_equal(found.prompt_segment_ids, [1, 1, 0, 0])


# Two turns of an assistant, `5 1` and `6 7 1`, with the text `8 9` between them.
CHAT, TURNS = [5, EOS, 8, 9, 6, 7, EOS], [[0, 2], [4, 7]]
# The last place of a row of eight is padding.
CHAT_ROWS = {
    # Nothing is cut off.
    ("turns", 8): ([1, 1, 0, 0, 1, 1, 1, 0], [1, 0, 0, 0, 1, 1, 0, 0], [1, 1, 0, 0, 1, 1, 1, 0]),
    ("conversation", 8): ([1, 1, 0, 0, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 1, 1, 1, 0]),
    # The row ends within the second turn, which is truncated.
    ("turns", 6): ([1, 1, 0, 0, 1, 1], [1, 0, 0, 0, 1, 0], [1, 1, 0, 0, 1, 0]),
    ("conversation", 6): ([1, 1, 0, 0, 1, 1], [1, 1, 1, 1, 1, 0], [1, 1, 0, 0, 1, 0]),
    # It ends within the text between. The first episode is whole; one that goes on behind the row is not.
    ("turns", 3): ([1, 1, 0], [1, 0, 0], [1, 1, 0]),
    ("conversation", 3): ([1, 1, 0], [1, 0, 0], [1, 0, 0]),
    # It ends with the first turn, or within it.
    ("turns", 2): ([1, 1], [1, 0], [1, 1]),
    ("conversation", 2): ([1, 1], [1, 0], [1, 0]),
    ("turns", 1): ([1], [0], [0]),
    ("conversation", 1): ([1], [0], [0]),
}


@pytest.mark.parametrize(("episodes", "size"), CHAT_ROWS)
def test_the_turns_of_a_conversation(episodes, size):
    weights, discounts, td_weights = CHAT_ROWS[episodes, size]
    arguments = {"lengths": {"inputs": 2, "targets": size}, "discount": 0.9, "eos_ids": (EOS,), "weight": 2.0}
    found = example_row(np.array([7]), np.array(CHAT), **arguments, turns=TURNS, episodes=episodes)
    np.testing.assert_array_equal(found.tokens[:7], CHAT[:size])
    np.testing.assert_array_equal(found.positions[:7], np.arange(min(size, 7)))
    np.testing.assert_array_equal(found.segment_ids[:7], np.ones(min(size, 7)))
    np.testing.assert_array_equal(found.weights, 2 * np.float32(weights))
    np.testing.assert_array_equal(found.discounts, np.float32(0.9) * np.float32(discounts))
    np.testing.assert_array_equal(found.td_weights, td_weights)


@pytest.mark.parametrize("episodes", ["turns", "conversation"])
def test_one_turn_is_one_answer(episodes):
    arguments = {"lengths": LENGTHS, "discount": 0.9, "eos_ids": (EOS,)}
    for answer in ([5, EOS], [5, 6, 7, 8, 9, EOS], [5, 6]):
        plain = example_row(np.array([7]), np.array(answer), **arguments)
        turn = example_row(
            np.array([7]), np.array(answer), **arguments, turns=[[0, len(answer)]], episodes=episodes
        )
        for name in ("weights", "discounts", "td_weights", "segment_ids"):
            np.testing.assert_array_equal(getattr(turn, name), getattr(plain, name))


def test_a_turn_that_does_not_end_itself_is_truncated():
    arguments = {"lengths": {"inputs": 2, "targets": 6}, "discount": 0.9, "eos_ids": (EOS,)}
    found = example_row(np.array([7]), np.array([5, 6, 8, 6, EOS]), **arguments, turns=[[0, 2], [3, 5]])
    np.testing.assert_array_equal(found.td_weights, [1, 0, 0, 1, 1, 0])
    np.testing.assert_array_equal(found.discounts, np.float32([0.9, 0, 0, 0.9, 0, 0]))


def test_a_conversation_beside_others_in_a_row():
    row, settings = empty_row({"inputs": 6, "targets": 10}), {"discount": 0.5, "eos_ids": (EOS,)}
    put_example(row, np.array([7]), np.array([6, EOS]), **settings)
    put_example(row, np.array([8]), np.array(CHAT), **settings, place=(1, 2, 2))
    mark_turns(row, TURNS, **settings, episodes="conversation", start=2)
    np.testing.assert_array_equal(row.discounts, [0.5, 0, *[0.5] * 6, 0, 0])
    np.testing.assert_array_equal(row.td_weights, [1, 1, 1, 1, 0, 0, 1, 1, 1, 0])
    np.testing.assert_array_equal(row.weights, row.td_weights)


@pytest.mark.parametrize("library", [np, jnp])
def test_prompts_do_not_depend_on_the_side_of_their_padding(library):
    rows = [row([7, 8], [5]), row([], [5]), row([7, 8, 9, 2], [5]), row([0, 0], [5])]
    right = stack_rows(rows)
    left = {}
    for name in ("prompt_tokens", "prompt_segment_ids"):
        values = getattr(right, name)
        shifts = (right.prompt_segment_ids == 0).sum(axis=1)
        left[name] = library.asarray(
            [np.roll(line, shift) for line, shift in zip(values, shifts, strict=True)]
        )
    found = prompts_of(dataclasses.replace(right, **left))
    assert isinstance(found, PromptBatch)
    np.testing.assert_array_equal(found.lengths, [2, 0, 4, 2])
    np.testing.assert_array_equal(found.tokens, right.prompt_tokens)
    np.testing.assert_array_equal(prompts_of(right).tokens, right.prompt_tokens)
    assert found.tokens.dtype == np.int32


def test_the_last_turn_alone_is_an_answer():
    batch = stack_rows([row([7, 5, EOS, 8], [6, 7, EOS]), row([7], [5, 6])])
    found = answers_of(batch)
    np.testing.assert_array_equal(found.lengths, [3, 2])
    np.testing.assert_array_equal(found.terminal, [True, False])
