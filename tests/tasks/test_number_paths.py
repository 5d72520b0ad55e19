import runpy

import pytest
import seqio

from lmirl_jax import data
from lmirl_jax.tasks import number_paths
from lmirl_jax.tasks.number_paths import check


@pytest.mark.parametrize(
    ("answer", "judgement"),
    [
        ("3+8=11 5+9=14 11+14=25", (3, 3, True, True)),
        ("8+3=11 11+9=20 5+20=25", (3, 3, True, True)),
        ("3+8=12 5+9=14 12+14=26", (2, 3, False, False)),  # One slip, carried on.
        ("3+8=12 5+9=14 12+14=25", (1, 3, False, True)),  # The right number by two wrongs.
        ("3+7=10 5+9=14 10+14=24", (1, 3, False, False)),  # There is no 7, so no 10 either.
        ("3+3=6 5+9=14 6+14=20", (1, 3, False, False)),  # There is only one 3.
        ("3+8=11 5+9=14", (2, 3, False, False)),
        ("3+8=11 5+9=14 11+14=25 25+1=26", (3, 4, False, False)),
        ("3+8=11  5+9=14 11+14=25", (3, 4, False, True)),  # A second space is one more text of the same.
        ("03+8=11 5+9=14 11+14=25", (1, 3, False, True)),
        ("3+8+5=16 16+9=25", (0, 3, False, True)),
        ("25", (0, 3, False, False)),
        ("", (0, 3, False, False)),
    ],
)
def test_the_checker(answer, judgement):
    assert check("3+8+5+9", answer) == judgement


def test_all_derivations():
    assert number_paths.derivations((1, 2)) == ("1+2=3", "2+1=3")
    assert number_paths.derivations((1, 1, 1)) == ("1+1=2 1+2=3", "1+1=2 2+1=3")
    answers = number_paths.derivations((1, 3, 7, 9))
    # 6 x 3 x 1 choices of a pair, in 2 orders each: fewer texts where equal sums come about, as 1 + 9 and 3 + 7.
    assert len(answers) == len(set(answers)) <= 18 * 8
    assert len(number_paths.derivations((1, 2, 4, 8))) == 18 * 8
    assert all(check("9+1+7+3", answer).valid for answer in answers)


def test_splits_share_no_prompt():
    prompts = {split: {prompt for prompt, _ in number_paths.examples(split)} for split in number_paths.SPLITS}
    assert [len(prompts[split]) for split in number_paths.SPLITS] == [9**4 - 480, 240, 240]
    assert len(set.union(*prompts.values())) == 9**4


def test_training_prompts_have_several_answers_and_all_are_right():
    answers = {}
    for prompt, answer in number_paths.examples("train"):
        assert check(prompt, answer) == (3, 3, True, True)
        answers.setdefault(prompt, []).append(answer)
    assert all(len(set(found)) == len(found) for found in answers.values())
    assert len(answers.pop("2+2+2+2")) == 5  # There are no more: in all others as many as asked for.
    assert all(len(answers[prompt]) == 8 for prompt in answers if len(set(prompt.split("+"))) > 1)


def test_a_held_out_prompt_comes_once():
    assert len(number_paths.examples("validation")) == len(number_paths.examples("test")) == 240


def test_everything_is_determined_by_the_seed(monkeypatch):
    first = number_paths.examples("train")
    assert first == number_paths.examples("train")
    assert first[:2] == [("3+2+5+6", "2+5=7 3+7=10 6+10=16"), ("9+5+3+2", "3+9=12 12+2=14 5+14=19")]
    monkeypatch.setattr(number_paths, "SEED", 1)
    assert first != number_paths.examples("train")


def test_as_a_seqio_task(tmp_path, monkeypatch):
    monkeypatch.setattr(
        number_paths, "DERIVATIONS", 1
    )  # With all 8 of a prompt, the preparation takes most of a minute.
    task = data.get_task("number_paths")
    lengths = {"inputs": 8, "targets": 23}
    train = data.TrainDataset(task, 4, lengths, truncate=False, cache_dir=str(tmp_path))
    assert train.num_examples == len(number_paths.examples("train"))
    held_out = data.EvalDataset(task, lengths, num_examples=2, truncate=False, cache_dir=str(tmp_path))
    right = [held_out.decode(example["targets"]) for example in held_out.examples]
    samples = [[right[0], right[0], "1"], [right[1], number_paths.derivations((2, 4, 5, 6))[0], "x"]]
    assert held_out.metrics([right[0], "6+5=11"], samples) == {
        "accuracy": 0.5,
        "valid": 0.5,
        "step_validity": pytest.approx(4 / 6),
        "distinct_valid": 1.5,
        "pass_at_3": 1.0,
        "maj_at_3": 1.0,
    }


def test_votes_weighted_by_scores(tmp_path):
    """By return the second sample of both prompts counts most: it is wrong in the one, and right in the other."""
    task, lengths = data.get_task("number_paths"), {"inputs": 8, "targets": 23}
    held_out = data.EvalDataset(task, lengths, num_examples=2, cache_dir=str(tmp_path))
    first, second = held_out.examples
    right = [held_out.decode(example["targets"]) for example in (first, second)]
    scores = {"return": (0.0, 2.0, 0.0)}
    found = held_out.prompt_metrics(first, [right[0], "1+1=2", right[0]], scores)
    assert (found["maj_at_3"], found["weighted_maj_at_3_by_return"]) == (1.0, 0.0)
    found = held_out.prompt_metrics(second, ["1+1=2", right[1], "1+1=2"], scores)
    assert (found["maj_at_3"], found["weighted_maj_at_3_by_return"]) == (0.0, 1.0)
    assert not [name for name in held_out.prompt_metrics(second, ["1", "2"]) if "weighted" in name]


def test_a_wrong_sum_is_carried_through():
    right = "3+8=11 5+9=14 11+14=25"
    wrong = number_paths.with_wrong_sum(right)
    assert wrong == "3+8=12 5+9=14 12+14=26"
    assert check("3+8+5+9", wrong) == (2, 3, False, False)
    assert number_paths.with_wrong_sum("1+2=3 3+3=6 6+9=15") == "1+2=4 4+3=7 7+9=16"


def test_running_the_file_twice_is_safe():  # Not by importlib.reload: gin would know two of everything in it from then on.
    before = seqio.TaskRegistry.names()
    runpy.run_path(number_paths.__file__)
    assert seqio.TaskRegistry.names() == before
