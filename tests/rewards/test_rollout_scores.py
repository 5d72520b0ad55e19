"""Scores of steps by rollouts, with the shipped policy, which adds small numbers nearly always right."""

import json

import numpy as np
import pytest

from lmirl_jax import evaluation, labelled, rewards, runs
from lmirl_jax.cli import main
from lmirl_jax.tasks import number_paths
from lmirl_jax.types import UserError

PROMPT, RIGHT, WRONG = "3+8+5+9", "3+8=11 5+9=14 11+14=25", "3+8=11 5+9=13 11+13=24"


@pytest.fixture(scope="module")
def policy():
    return runs.load(number_paths.model())


def right(prompt, answer):
    return float(number_paths.check(prompt, answer).correct)


def test_after_a_wrong_step_no_rollout_ends_right(policy):
    score = rewards.RolloutScores(policy, right, rollouts=16)
    good, bad = (np.array(score(PROMPT, answer)) for answer in (RIGHT, WRONG))
    assert good.shape == bad.shape == (3,)
    # From the right answer and its first two steps most end right; from the second step of the wrong one on, hardly any.
    assert good.min() > 0.5 and bad[0] > 0.5 > 0.2 > bad[1:].max()
    assert labelled.first_pit(bad.tolist()) == 1
    np.testing.assert_array_equal(score(PROMPT, WRONG), bad)
    # The last beginning is the whole answer: what it ends with is drawn once more, and it is EOS.
    assert bad[2] == 0 and good[2] == 1


def test_the_policy_that_keeps_a_right_one_of_several(policy):
    """One of four right: 1 - (3 / 4) ** 2 of two."""
    score = rewards.RolloutScores(policy, right, best_of=2)
    assert score._score([True, False, False, False]) == pytest.approx(0.4375)
    assert score._score([True] * 4) == 1 and score._score([False] * 4) == 0


def test_references_are_for_the_checker(policy):
    score = rewards.RolloutScores(policy, "exact_match", rollouts=1, temperature=1e-3)
    assert score(PROMPT, RIGHT, [RIGHT])[-1] == 1.0
    assert score(PROMPT, RIGHT, ["another"])[-1] == 0.0


def test_step_preferences_of_a_file(tmp_path, capfd):
    """`lmirl label` from samples to pairs; without a policy it is one line."""
    samples, out = tmp_path / "samples.jsonl", tmp_path / "pairs.jsonl"
    samples.write_text(json.dumps({"inputs": PROMPT, "targets": RIGHT, "samples": [RIGHT, WRONG]}) + "\n")
    words = [f"--gin.ANSWERS='{samples}'", f"--gin.OUTPUT_PATH='{out}'", "--gin.FORM='step_preferences'"]
    words += ["--gin.STEP_SCORES=@rewards.RolloutScores()", "--gin.ROLLOUTS=16"]
    assert main(["label", "--gin_file=gin/runs/label.gin", *words]) == 1
    assert "set ROLLOUT_CHECKPOINT_PATH" in capfd.readouterr().err.splitlines()[-1] and not out.exists()
    more = f"--gin.ROLLOUT_CHECKPOINT_PATH='{number_paths.model()}'"
    assert main(["label", "--gin_file=gin/runs/label.gin", *words, more]) == 0
    without = [word for word in words if "STEP_SCORES" not in word]
    assert main(["label", "--gin_file=gin/runs/label.gin", *without, "--gin.STEP_SCORES='value'", more]) == 1
    assert "ROLLOUT_CHECKPOINT_PATH is of rollouts" in capfd.readouterr().err.splitlines()[-1]
    bare = "--gin.STEP_SCORES=@rewards.RolloutScores"
    assert main(["label", "--gin_file=gin/runs/label.gin", *without, bare, more]) == 1
    assert "write it with brackets, @rewards.RolloutScores()" in capfd.readouterr().err.splitlines()[-1]
    (row,) = map(json.loads, out.read_text().splitlines())
    assert row["targets"] == RIGHT and WRONG.startswith(row["rejected"]) and row["rejected"].count("=") >= 2


def test_it_is_given_what_the_answers_are_compared_with_and_the_conversation(tmp_path):
    seen = []

    def steps(prompt, answer, references=(), messages=None):
        seen.append((prompt, references, messages))
        return [0.0]

    path = tmp_path / "samples.jsonl"
    path.write_text(json.dumps({"inputs": "1+1", "targets": "2", "samples": ["2", "3"]}) + "\n")
    (answers,) = labelled.read_answer_sets(str(path))
    labels = labelled.Labels("step_preferences", "exact_match", step_scores=steps)
    assert labels.rows(answers, 0)[0]["rejected"] == "3" and seen == [("1+1", ["2"], None)]
    assert labelled.Labels(
        "step_preferences", "exact_match", step_scores=max
    )  # It does not say what it takes.


def test_beams_do_not_go_on():
    with pytest.raises(UserError, match="NUM_BEAMS=2: beams do not go on from beginnings"):
        evaluation.Generator(num_beams=2, continues=True)


def test_an_answer_has_room_in_the_run_that_goes_on(policy):
    with pytest.raises(UserError, match=r"has 28 tokens, and the run that goes on answers with at most 23"):
        rewards.RolloutScores(policy, right)(PROMPT, f"{RIGHT} 1+1=2")


def test_a_policy_is_needed():
    with pytest.raises(UserError, match="ROLLOUT_CHECKPOINT_PATH"):
        rewards.RolloutScores(None, right)
