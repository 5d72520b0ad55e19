"""How well scores of steps find first wrong steps: shares and AUC by hand."""

import dataclasses

import pytest

from lmirl_jax import rewards
from lmirl_jax.rewards.scored import ScoredAnswer
from lmirl_jax.types import UserError

# Two steps, then EOS: "a", "\n", "b", EOS.
OFFSETS = ((0, 1), (1, 2), (2, 3), (3, 3))


def answer(example, scores, text="a\nb", candidate=0):
    """An answer of two steps with these scores by reward; those by log-probability are the other way round."""
    zeros, rewarded = (0.0,) * 4, (scores[0], 0.0, scores[1], 0.0)
    return ScoredAnswer(
        example, candidate, f"prompt {example}", text, None, None, False, (1, 2, 3, 4), ("a", "\n", "b", ""), OFFSETS,
        zeros, zeros, rewarded, tuple(-x for x in rewarded), zeros, None, 0.0, 0.0, None, 0.0, 0.0, {},
    )  # fmt: skip


def gold(prompt, text):
    """A small letter is right, a capital one is wrong."""
    return [float(step.islower()) for step in text.split("\n")]


def test_shares_and_auc_by_hand():
    answers = [
        answer(0, (2.0, -1.0), "a\nB"),  # Found.
        answer(0, (1.0, 3.0), "a\nB", 1),  # Not found.
        answer(1, (0.0, 5.0), "A\nb"),  # Found: the first.
        answer(2, (0.0, 0.0), "A\nB"),  # Equal scores: the first is taken, which is right.
        answer(3, (9.0, -9.0), "a\nb"),  # Nothing is wrong.
        answer(4, (-9.0, 0.0), "A"),  # A single step.
    ]
    found = {one.scores: one for one in rewards.step_findings({"run": [answers]}, gold)}
    assert set(found) == {"reward", "log_prob", "value"}
    reward = found["reward"]
    assert (reward.run, reward.prompts, reward.answers, reward.by_chance) == ("run", 3, 4, 0.5)
    assert reward.found == pytest.approx((0.5 + 1 + 1) / 3)
    low, high = reward.found_interval
    assert low is not None and high is not None and low < reward.found < high
    # Right steps 2, 1, 5; first wrong ones -1, 3, 0, 0.
    assert reward.auc == pytest.approx((3 + 3 + 4) / 12) and reward.auc_interval == (None, None)
    assert found["log_prob"].found == pytest.approx((0.5 + 0 + 1) / 3)
    assert found["log_prob"].auc == pytest.approx(2 / 12)


def test_ratios_need_a_reference_in_all_answers():
    one, two = answer(0, (0.0, 1.0), "a\nB"), answer(1, (0.0, 1.0), "a\nB")
    compared = dataclasses.replace(one, reference_log_prob=(0.0, 0.0, -2.0, 0.0))
    assert "log_ratio" not in {f.scores for f in rewards.step_findings({"run": [[compared, two]]}, gold)}
    found = {f.scores: f for f in rewards.step_findings({"run": [[compared]]}, gold)}
    # log pi - log pi_ref: 0 and -1 + 2.
    assert found["log_ratio"].found == 0 and found["log_prob"].found == 1


def test_functions_see_each_answer_once():
    seen = []

    def scorer(prompt, text):
        seen.append((prompt, text))
        return [1.0, 0.0]

    answers = [answer(0, (0.0, 1.0), "a\nB"), answer(1, (0.0, 1.0), "a\nb")]
    findings = rewards.step_findings({"one": [answers], "two": [answers]}, gold, {"mine": scorer})
    assert [one.found for one in findings if one.scores == "mine"] == [1.0, 1.0]
    assert seen == [("prompt 0", "a\nB")]


def test_answers_of_several_seeds_to_a_prompt_are_of_one_prompt():
    first, second = answer(0, (0.0, 1.0), "a\nB"), answer(0, (1.0, 0.0), "a\nB")
    found = rewards.step_findings({"run": [[first], [second]]}, gold)[0]
    assert (found.prompts, found.answers, found.found) == (1, 2, 0.5)


def test_nothing_wrong_has_no_finding():
    assert rewards.step_findings({"run": [[answer(0, (0.0, 0.0))]]}, gold) == []


def test_first_wrong_steps_alone_have_no_auc():
    found = rewards.step_findings({"run": [[answer(0, (0.0, 1.0), "A\nB")]]}, gold)[0]
    assert found.auc is None and found.found == 1


@pytest.mark.parametrize("given", [[1.0], [1.0, float("nan")]])
def test_a_score_a_step(given):
    with pytest.raises(UserError, match=r"GOLD_STEPS gave .* which has 2 steps: return a finite number"):
        rewards.step_findings({"run": [[answer(0, (0.0, 0.0))]]}, lambda prompt, text: given)
    with pytest.raises(UserError, match=r"STEP_SCORES\['mine'\] gave"):
        wrong = {"run": [[answer(0, (0.0, 0.0), "a\nB")]]}
        rewards.step_findings(wrong, gold, {"mine": lambda prompt, text: given})
