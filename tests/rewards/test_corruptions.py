"""Damaged answers: what each kind of damage may do, and where it says that it shows."""

import random
import re

import pytest

from lmirl_jax.rewards.corruptions import (
    CORRUPTIONS,
    Corruption,
    corrupt,
    dropped_step,
    repeated_step,
    shuffled_steps,
    truncation,
    wrong_digit,
)
from lmirl_jax.tasks import number_paths
from lmirl_jax.types import UserError

ANSWER = "3+8=11 5+9=14 11+14=25"
STEPS = ANSWER.split(" ")


def drawn(damage, targets=ANSWER, **arguments):
    """All that a hundred draws find, each once, in the order of their texts."""
    found = {damage("", targets, random.Random(seed), **arguments) for seed in range(100)}
    return sorted(found, key=lambda corruption: corruption.targets)


def words(text, span):
    return text[slice(*span)]


def test_a_wrong_digit_is_another_one_and_no_leading_zero():
    found = drawn(wrong_digit, "10+5=15 .")
    assert {corruption.span for corruption in found} == {(0, 1), (1, 2), (3, 4), (5, 6), (6, 7)}
    for corruption in found:
        begin = corruption.span[0]
        assert corruption.original_span == corruption.span
        assert corruption.targets[begin] != "10+5=15 ."[begin]
        assert (
            corruption.targets[:begin] + "10+5=15 ."[begin] + corruption.targets[begin + 1 :] == "10+5=15 ."
        )
        assert not re.search(r"\b0[0-9]", corruption.targets)
    assert any("0=" in corruption.targets for corruption in found)  # a number of one digit may be 0


def test_a_dropped_step_is_any_but_the_last_and_shows_in_the_next():
    assert drawn(dropped_step) == [
        Corruption("3+8=11 11+14=25", (7, 15), (14, 22)),
        Corruption("5+9=14 11+14=25", (0, 6), (7, 13)),
    ]


def test_shuffled_steps_are_all_there_and_the_first_that_moved_is_the_place():
    found = drawn(shuffled_steps, "A is. B is?  C is!")
    assert [corruption.targets for corruption in found] == [
        "A is. C is!  B is?",
        "B is? A is.  C is!",
        "B is? C is!  A is.",
        "C is! A is.  B is?",
        "C is! B is?  A is.",
    ]
    assert found[0] == Corruption("A is. C is!  B is?", (6, 11), (13, 18))
    assert found[3].span == (0, 5)


def test_a_repeated_step_follows_itself():
    assert drawn(repeated_step) == [
        Corruption("3+8=11 3+8=11 5+9=14 11+14=25", (7, 13), (0, 6)),
        Corruption("3+8=11 5+9=14 11+14=25 11+14=25", (22, 31), (13, 22)),  # where EOS was due
        Corruption("3+8=11 5+9=14 5+9=14 11+14=25", (14, 20), (7, 13)),
    ]


def test_a_truncated_answer_ends_after_a_step_and_its_place_is_eos():
    assert drawn(truncation) == [
        Corruption("3+8=11", (6, 6), (22, 22)),
        Corruption("3+8=11 5+9=14", (13, 13), (22, 22)),
    ]


@pytest.mark.parametrize("damage", [dropped_step, shuffled_steps, repeated_step, truncation])
def test_one_step_has_no_place_unless_a_separator_makes_two(damage):
    assert damage("", "x, y.", random.Random(0)) is None
    assert damage("", "x, y.", random.Random(0), separator=", ") is not None


def test_places_hold_the_same_words_in_both_texts():
    for prompt, answer in number_paths.examples("validation")[:40]:
        for corruption in corrupt(prompt, answer):
            if corruption.kind != "wrong digit":
                assert words(corruption.targets, corruption.span) == words(answer, corruption.original_span)


def test_a_draw_depends_on_seed_and_texts_alone():
    found = corrupt("3+8+5+9", ANSWER)
    assert [corruption.kind for corruption in found] == list(CORRUPTIONS)
    corrupt("other", "1+1=2 2+2=4")
    assert corrupt("3+8+5+9", ANSWER) == found
    assert corrupt("3+8+5+9", ANSWER, {"truncation": truncation}) == found[-1:]
    assert any(corrupt("3+8+5+9", ANSWER, seed=seed) != found for seed in range(1, 4))
    assert corrupt("3+8+5+9", "no digit") == []


def test_a_damage_that_is_still_right_is_drawn_again():
    # Its first two steps may stand in either order, and no other order is right.
    for seed in range(10):
        (found,) = corrupt(
            "3+8+5+9", ANSWER, {"shuffled": shuffled_steps}, seed=seed, is_right=number_paths.reward
        )
        assert not number_paths.reward("3+8+5+9", found.targets)
    swap = {"swap": lambda inputs, targets, random: "5+9=14 3+8=11 11+14=25"}
    assert corrupt("3+8+5+9", ANSWER, swap, is_right=number_paths.reward) == []


def test_a_task_may_define_its_corruption():
    kinds = {"wrong sum": number_paths.wrong_step}
    found = {corrupt("3+8+5+9", ANSWER, kinds, seed=seed)[0] for seed in range(20)}
    assert found == {
        Corruption("3+8=12 5+9=14 12+14=26", (5, 6), (5, 6), "wrong sum"),
        Corruption("3+8=11 5+9=15 11+15=26", (12, 13), (12, 13), "wrong sum"),
        Corruption("3+8=11 5+9=14 11+14=26", (21, 22), (21, 22), "wrong sum"),
    }
    assert corrupt("3+8+5+9", "3+8=12", kinds) == []  # wrong already


def test_the_place_of_a_damaged_text_is_the_first_difference():
    longer = {"longer": lambda inputs, targets, random: "a bcd e"}
    assert corrupt("", "a b e", longer) == [Corruption("a bcd e", (3, 5), (3, 5), "longer")]
    shorter = {"shorter": lambda inputs, targets, random: "a"}
    assert corrupt("", "a b e", shorter) == [Corruption("a", (1, 1), (1, 3), "shorter")]
    with pytest.raises(UserError, match="'same' left 'a' as it was: let its function return None"):
        corrupt("", "a", {"same": lambda inputs, targets, random: targets})
