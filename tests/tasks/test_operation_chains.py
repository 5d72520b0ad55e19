"""The checker of operation chains, by hand; the data, and their views."""

import random

import pytest
import seqio

from lmirl_jax import data
from lmirl_jax.tasks import operation_chains as chains
from lmirl_jax.tasks.operation_chains import check

PROMPT = "7*3+8-5*2"
RIGHT = "7*3=21\n21+8=29\n29-5=24\n24*2=48"


@pytest.mark.parametrize(
    ("answer", "steps", "correct", "valid"),
    [
        (RIGHT, "1111", True, True),
        ("7*3=21\n21+8=30\n30-5=25\n25*2=50", "1011", False, False),  # One slip, carried on.
        ("7*3=20\n20+8=28\n28-5=23\n23*2=48", "0110", True, False),  # The right number by two wrongs.
        ("7*3=21\n21+8=29\n24*2=48", "110", True, False),  # A line is missing.
        ("7*3=21\n21*4=84\n21+8=29\n29-5=24\n24*2=48", "10111", True, False),  # One is of no use.
        (f"{RIGHT}\n48+1=49", "11110", False, False),
        ("7*3=021\n21+8=29", "00", False, False),
        ("48", "0", True, False),
        ("", "", False, False),
        ("7*3=21\n\n21+8=29\n29-5=24\n24*2=48", "1111", True, True),
    ],
)
def test_the_checker(answer, steps, correct, valid):
    expected = tuple(step == "1" for step in steps)
    assert check(PROMPT, answer) == (expected, correct, valid)
    assert chains.step_scores(PROMPT, answer) == [float(step) for step in expected]
    assert chains.reward(PROMPT, answer) == correct


def test_views_of_an_answer():
    assert chains.solve(PROMPT) == RIGHT
    assert chains.values_only(RIGHT) == "21\n29\n24\n48"


def test_a_line_of_no_use_is_the_only_wrong_one_and_the_result_stays():
    for seed in range(50):
        answer = chains.with_spurious_line(RIGHT, random.Random(seed))
        judgement = check(PROMPT, answer)
        assert judgement.correct and not judgement.valid
        assert sorted(judgement.steps) == [False, True, True, True, True]


def test_the_problems_are_as_said():
    splits = {split: chains.prompts(split) for split in ("train", "validation", "test")}
    assert [len(prompts) for prompts in splits.values()] == [16_000, 500, 500]
    every = [prompt for prompts in splits.values() for prompt in prompts]
    assert len(set(every)) == len(every)
    for prompt in every[::20]:
        answer = chains.solve(prompt)
        assert all(0 <= int(value) <= 99 for value in chains.values_only(answer).split("\n"))
        assert 4 <= answer.count("\n") + 1 <= 6
    assert max(map(len, every)) < 14
    spurious = chains.spurious_examples("train")
    assert max(len(answer) for _, answer in spurious) < 64
    # A share of 0.3 of 1,000, within four standard errors.
    assert abs(sum(not check(*pair).valid for pair in spurious[:1000]) / 1000 - 0.3) < 0.058


@pytest.mark.parametrize("name", ["", "_values", "_answers", "_spurious"])
def test_the_tasks_are_registered_with_views_of_the_same_prompts(name):
    task = data.get_task(f"operation_chains{name}")
    found = seqio.get_mixture_or_task(f"operation_chains{name}")
    example = next(iter(found.get_dataset(None, "validation", shuffle=False)))
    assert example["inputs_pretokenized"].numpy().decode() == chains.prompts("validation")[0]
    target = example["targets_pretokenized"].numpy().decode()
    assert check(chains.prompts("validation")[0], target).correct or name == "_values"
    assert task.name == f"operation_chains{name}"


def test_metrics():
    targets = [{"inputs": PROMPT, "targets": RIGHT}] * 2
    found = chains.judgements(targets, [RIGHT, "7*3=20\n20+8=28\n28-5=23\n23*2=48"])
    assert found == {"accuracy": 1.0, "valid": 0.5, "step_validity": 6 / 8}
