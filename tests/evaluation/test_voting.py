import math

import numpy as np
import pytest

from lmirl_jax import evaluation
from lmirl_jax.evaluation import (
    maj_at_k,
    maj_at_k_per_prompt,
    pass_at_k,
    pass_at_k_per_prompt,
    votes,
    weighted_maj_at_k,
    weighted_maj_at_k_per_prompt,
)
from lmirl_jax.types import UserError


def test_pass_at_k_by_hand():
    assert pass_at_k(1, 2, 1) == 0.5
    assert pass_at_k(1, 2, 2) == 1.0
    assert pass_at_k(0, 5, 3) == 0.0
    assert pass_at_k(2, 5, 2) == pytest.approx(1 - 3 / 10)  # C(3, 2) = 3 of C(5, 2) = 10 pairs are wrong.
    assert pass_at_k([1, 2], [2, 5], 2) == pytest.approx((1.0 + 0.7) / 2)
    assert pass_at_k_per_prompt(np.array([0, 1, 2]), 2, 1) == [0.0, 0.5, 1.0]
    assert pass_at_k(1, 10000, 100) == pytest.approx(0.01)


def test_pass_at_k_is_the_share_of_subsets():
    import itertools

    for right in range(5):
        samples = [True] * right + [False] * (4 - right)
        for k in range(1, 5):
            subsets = [any(subset) for subset in itertools.combinations(samples, k)]
            assert pass_at_k(right, 4, k) == pytest.approx(sum(subsets) / math.comb(4, k))


@pytest.mark.parametrize(
    "correct, total, k, message",
    [
        (1, 2, 3, "k is 3, but prompt 0 has 2 sample"),
        (1, 2, 0, "k is 0; give a whole number of 1 or more"),
        (1, 2, True, "k is True; give a whole number"),
        (3, 2, 1, "prompt 0 has 3 right of 2"),
        ([0, -1], 2, 1, "prompt 1 has -1 right of 2"),
        ([], 2, 1, "no prompts"),
        ([1, 1], [2, 2, 2], 1, "2 counts of right samples for 3 prompts"),
        (0.5, 2, 1, "correct is 0.5; give whole numbers"),
        (0, 0, 1, "k is 1, but prompt 0 has 0 sample"),
    ],
)
def test_counts_that_do_not_fit(correct, total, k, message):
    with pytest.raises(UserError, match=message) as error:
        pass_at_k(correct, total, k)
    assert "\n" not in str(error.value)


def test_maj_at_k_by_hand():
    answers = [["24", "24", "3"], ["1", "2", "2"], [None, None, "7"]]
    assert maj_at_k_per_prompt(answers, ["24", "1", "7"]) == [1.0, 0.0, 1.0]
    assert maj_at_k(answers, ["24", "1", "7"]) == pytest.approx(2 / 3)
    assert maj_at_k(answers, ["24", "1", "7"], k=1) == pytest.approx(2 / 3)  # 24, 1, none
    # Ties: one of the winners is drawn, in thought.
    assert maj_at_k([["1", "2"]], ["1"]) == 0.5
    assert maj_at_k([["1", "2", "3", "3", "2", "1", "4"]], ["2"]) == pytest.approx(1 / 3)
    assert maj_at_k([[None, None]], [None]) == 0.0


def test_weighted_majorities_by_hand():
    """Weights 4 against 1 + 2, then 1 + 4 against 2: the scores are their logarithms."""
    scores = [[math.log(w) for w in (1, 4, 2)], [math.log(w) for w in (1, 2, 4)]]
    answers = [["a", "b", "a"], ["a", "b", "a"]]
    assert weighted_maj_at_k_per_prompt(answers, ["b", "b"], scores) == [1.0, 0.0]
    assert weighted_maj_at_k(answers, ["b", "b"], scores) == 0.5
    assert weighted_maj_at_k_per_prompt(answers, ["b", "b"], scores, k=1) == [0.0, 0.0]
    # Weights 3 and 1 + 2: a tie is shared out.
    tied = [[math.log(w) for w in (1, 3, 2)]]
    assert weighted_maj_at_k([["a", "b", "a"]], ["b"], tied) == 0.5
    # None has no vote, whatever its score.
    assert weighted_maj_at_k([[None, "a"]], ["a"], [[1000.0, -1000.0]]) == 1.0
    assert weighted_maj_at_k([[None, None]], [None], [[0.0, 0.0]]) == 0.0


def test_what_is_added_to_all_scores_of_a_prompt_cancels():
    """So a return, the log-likelihood and the prompt's value, votes as the log-likelihood does; without overflow."""
    answers, scores = [["a", "b", "a", "c"]], [-3.0, -2.0, -4.0, -2.5]
    for shift in (0.0, 7.25, -900.0, 900.0):
        own = [[score + shift for score in scores]]
        assert [weighted_maj_at_k(answers, [answer], own) for answer in "abc"] == [0.0, 1.0, 0.0]


def test_equal_scores_are_a_plain_majority():
    random = np.random.default_rng(0)
    answers = random.integers(0, 4, (50, 6)).tolist()
    equal = [[float(prompt) / 7] * 6 for prompt in range(50)]
    targets = random.integers(0, 4, 50).tolist()
    assert weighted_maj_at_k_per_prompt(answers, targets, equal) == maj_at_k_per_prompt(answers, targets)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([[0.0]], r"prompt 0 has 2 samples and the scores \[0.0\]; give each a finite number"),
        ([[0.0, math.nan]], "give each a finite number"),
        ([], "prompt 0 has 2 samples and the scores"),
    ],
)
def test_scores_that_do_not_fit(scores, message):
    with pytest.raises(UserError, match=message):
        weighted_maj_at_k([["a", "b"]], ["a"], scores)


def test_votes_with_scores():
    found = votes([[1, 1, 2], [3, 4, 5]], [2, 5], {"return": [[0.0, 0.0, 1.0], [0.0, 1.0, 0.5]]})
    assert found == {
        "pass_at_3": 1.0,
        "maj_at_3": pytest.approx(1 / 6),
        "weighted_maj_at_3_by_return": 0.5,  # e against 2 in the first, e against sqrt(e) and 1 in the second.
    }
    assert votes([[1], [2]], [1, 2], {"return": [[0.0], [0.0]]}) == {}


def test_votes_of_two_prompts():
    assert votes([[1, 1, 2], [3, 4, 5]], [1, 5]) == {"pass_at_3": 1.0, "maj_at_3": pytest.approx(2 / 3)}
    assert votes([[1], [2]], [1, 2]) == {}


@pytest.mark.parametrize(
    "answers, targets, k, message",
    [
        ([], [], None, "no prompts"),
        ([["1"]], [], None, "answers to 1 prompts for 0 targets"),
        ([["1"], []], ["1", "2"], None, "prompt 1 has no samples"),
        ([["1"]], ["1"], 2, "k is 2, but prompt 0 has 1 sample"),
        ([["1"]], ["1"], 0, "k is 0"),
    ],
)
def test_votes_that_do_not_fit(answers, targets, k, message):
    with pytest.raises(UserError, match=message) as error:
        maj_at_k(answers, targets, k)
    assert "\n" not in str(error.value)


def test_the_answer_with_the_most_votes():
    assert evaluation.majority(["3", "4", None, "4"]) == "4"
    assert evaluation.majority(["4", "3"]) == "4"  # A tie: the first.
    assert evaluation.majority([None, None]) is None
    # Two votes of exp(0) against one of exp(1) = 2.72.
    assert evaluation.majority(["3", "4", "4"], [1.0, 0.0, 0.0]) == "3"
    assert evaluation.majority(["3", "4", "4"], [1.0, 0.5, 0.5]) == "4"  # 2.72 against 3.30.
