import numpy as np

from lmirl_jax.rows import example_row, stack_rows

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
