import dataclasses

from lmirl_jax.reports.scored_rows import scored_row


def test_bytes_of_a_character_are_merged_and_their_rewards_added(scored_answer):
    row = scored_row(scored_answer("aé€", reward=[1.0, 2, 3, 4, 5, 6, 7]), "x")
    assert (row.tokens, row.rewards) == (["a", "é", "€", "EOS"], [1, 5, 15, 7])


def test_a_truncated_answer_ends_without_reward_and_without_eos(scored_answer):
    row = scored_row(scored_answer("ab", truncated=True), "x")
    assert (row.tokens, row.rewards) == (["a", "b"], [1.0, None])


def test_bytes_that_form_no_character_have_a_token(scored_answer):
    whole = scored_answer("aé", reward=[1.0, 2, 3, 4])
    cut = {
        "pieces": ("a", ""),
        "offsets": ((0, 1), (1, 1)),
        "reward": (1.0, None),
        "targets": "a",
        "tokens": (97, 195),
    }
    row = scored_row(dataclasses.replace(whole, truncated=True, **cut), "x")
    assert (row.tokens, row.rewards) == (["a", "�"], [1.0, None])
    ended = cut | {"pieces": ("a", "", ""), "offsets": ((0, 1), (1, 1), (1, 1)), "reward": (1.0, 2.0, 4.0)}
    row = scored_row(dataclasses.replace(whole, **ended), "x")
    assert (row.tokens, row.rewards) == (["a", "�", "EOS"], [1.0, 2.0, 4.0])


def test_an_answer_of_eos_alone(scored_answer):
    row = scored_row(scored_answer(""), "x", note="n")
    assert (row.tokens, row.rewards, row.note) == (["EOS"], [1.0], "n")


def test_tokens_of_a_span_are_marked(scored_answer):
    answer = scored_answer("aébc")
    assert scored_row(answer, "x", marked=(1, 3)).marked == {1, 2}
    assert scored_row(answer, "x", marked=(2, 2)).marked == {2}  # What was dropped before b.
    assert scored_row(answer, "x", marked=(4, 4)).marked == {4}  # Before EOS.


def test_a_long_answer_is_cut_around_what_is_marked(scored_answer):
    answer = scored_answer("abcdefghij" * 20)
    first = scored_row(answer, "x", most=5)
    assert first.tokens == [*"abcde", "…"] and first.rewards[-1] is None
    row = scored_row(answer, "x", most=60, marked=(105, 106))
    assert len(row.tokens) == 62 and row.tokens[0] == row.tokens[-1] == "…"
    assert [row.tokens[i] for i in row.marked] == ["f"]
