"""Labelled data of answers: rows that training reads, what is random, and what a checker or a labeller cannot be."""

import importlib
import json

import numpy as np
import pytest

from lmirl_jax.cli import main
from lmirl_jax.labelled import Labels, make_checker, read_answer_sets
from lmirl_jax.types import UserError

SAMPLES = [
    {"inputs": "2+3", "targets": "5", "samples": ["5", "6", "5", " 5"]},
    {"inputs": "1+1", "targets": "2", "samples": ["3", "4"], "log_probs": [-1.0, -2.0]},
]


@pytest.fixture
def write(tmp_path):
    def write(rows, name="samples.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    return write


def label(answers, output, *bindings):
    flags = [f"--gin.ANSWERS={answers!r}", f"--gin.OUTPUT_PATH={str(output)!r}", *bindings]
    return main(["label", "--gin_file=gin/runs/label.gin", *flags])


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_right_and_wrong_answers_and_their_table(write, tmp_path, capfd):
    out = tmp_path / "out" / "labelled.jsonl"
    assert label(write(SAMPLES), out) == 0
    assert rows_of(out) == [
        {"inputs": "2+3", "targets": "5", "label": True, "id": "0-0"},
        {"inputs": "2+3", "targets": "6", "label": False, "id": "0-1"},
        {"inputs": "2+3", "targets": " 5", "label": True, "id": "0-2"},
        {"inputs": "1+1", "targets": "3", "label": False, "id": "1-0"},
        {"inputs": "1+1", "targets": "4", "label": False, "id": "1-1"},
    ]
    table = dict(line.split("  ", 1) for line in capfd.readouterr().out.splitlines())
    assert {name: value.strip() for name, value in table.items()} == {
        "prompts": "2",
        "answers": "6",
        "rows": "5",
        "right": "2 (40.0% of rows)",
        "wrong": "3 (60.0% of rows)",
        "prompts both right and wrong": "1",
        "prompts only wrong": "1",
    }
    assert [path.name for path in out.parent.iterdir()] == ["labelled.jsonl"]


@pytest.mark.parametrize("number, arguments", [(3, "prompt, answer, reference"), (2, "prompt, answer")])
def test_rewards_of_a_function(write, tmp_path, monkeypatch, number, arguments):
    (tmp_path / f"of_mine_{number}.py").write_text(f"def length({arguments}):\n    return len(answer) / 2\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    bindings = (
        "--gin.FORM='rewards'",
        f"--gin.CHECKER='of_mine_{number}.length'",
        "--gin.DROP_DUPLICATES=False",
    )
    assert label(write(SAMPLES), tmp_path / "out.jsonl", *bindings) == 0
    assert [row["reward"] for row in rows_of(tmp_path / "out.jsonl")] == [0.5, 0.5, 0.5, 1.0, 0.5, 0.5]


def test_preferences_are_of_answers_with_other_scores(write, tmp_path):
    assert (
        label(write(SAMPLES), tmp_path / "out.jsonl", "--gin.FORM='preferences'", "--gin.PAIRS_PER_PROMPT=9")
        == 0
    )
    rows = rows_of(tmp_path / "out.jsonl")
    assert {(row["targets"], row["rejected"]) for row in rows} == {("5", "6"), (" 5", "6")}
    assert len({row["id"] for row in rows}) == 2


def test_conversations_stay_conversations(write, tmp_path):
    ask = [{"role": "user", "content": "2+3"}]
    answers = write([{"messages": ask, "samples": ["5", "6"], "targets": "5"}])
    assert label(answers, tmp_path / "out.jsonl", "--gin.FORM='preferences'") == 0
    (row,) = rows_of(tmp_path / "out.jsonl")
    assert row["messages"] == [*ask, {"role": "assistant", "content": "5"}]
    assert row["rejected"] == [{"role": "assistant", "content": "6"}]


def answer_set(count=2):
    """A prompt with so many answers, of which the first half is right."""

    def check(prompt, answer):
        return float(answer) < count / 2

    rows = {"inputs": "a", "samples": [str(n) for n in range(count)]}
    return check, rows


def test_a_labeller_that_errs_and_abstains(write):
    """Shares of 2,000 answers within four standard errors; every seed and prompt by itself, whatever was labelled before."""
    check, row = answer_set(2000)
    (answers,) = read_answer_sets(write([row]))
    noisy = Labels(checker=check, flip_rate=0.2, abstain_rate=0.3)
    rows = noisy.rows(answers, 0)
    right = np.array([check("", row["targets"]) for row in rows])
    wrong = np.array([row["label"] for row in rows]) != right
    assert abs(len(rows) / 2000 - 0.7) < 0.042 and abs(wrong.mean() - 0.2) < 0.043
    assert noisy.rows(answers, 0) == rows != noisy.rows(answers, 1)
    assert Labels(checker=check, flip_rate=0.2, abstain_rate=0.3, seed=1).rows(answers, 0) != rows


def test_a_labeller_reads_pairs_in_either_order(write):
    """It abstains on some; the chosen answer is the one that it names."""
    _, row = answer_set(12)
    (answers,) = read_answer_sets(write([row]))
    seen = []

    def compare(prompt, first, second):
        seen.append((int(first), int(second)))
        return None if int(first) + int(second) > 12 else int(int(second) > int(first))

    rows = Labels("preferences", None, labeller=compare, pairs_per_prompt=20).rows(answers, 0)
    assert len(rows) == 20 and all(int(row["targets"]) > int(row["rejected"]) for row in rows)
    assert all(int(row["targets"]) + int(row["rejected"]) <= 12 for row in rows)
    assert 0 < sum(first < second for first, second in seen) < len(seen)


def test_a_killed_command_goes_on(write, tmp_path, monkeypatch):
    """The prompts before the kill are not judged again, and the file is the one of a run that was not killed."""
    answers, calls = write([{"inputs": str(n), "samples": ["0", "1"]} for n in range(6)]), []
    (tmp_path / "judge.py").write_text(
        "calls = []\nstop_at = None\n\ndef compare(prompt, first, second):\n    if prompt == stop_at:\n"
        "        raise KeyboardInterrupt\n    calls.append(prompt)\n    return int(second > first)\n"
    )
    (tmp_path / "mine.gin").write_text(
        "from __gin__ import dynamic_registration\nimport judge\nLABELLER = @judge.compare\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    judge = importlib.import_module("judge")
    bindings = f"--gin_file={tmp_path / 'mine.gin'}", "--gin.FORM='preferences'"
    assert label(answers, tmp_path / "whole.jsonl", *bindings) == 0
    calls, judge.calls, judge.stop_at = judge.calls, [], "4"
    assert label(answers, tmp_path / "parts.jsonl", *bindings) != 0
    judge.stop_at = None
    assert label(answers, tmp_path / "parts.jsonl", *bindings) == 0
    assert judge.calls == calls
    assert rows_of(tmp_path / "parts.jsonl") == rows_of(tmp_path / "whole.jsonl")


def test_checkers():
    assert make_checker("number")("", "so it is 5.0", ["#### 5"]) == 1.0
    assert make_checker("exact_match")("", "b", ["a", "b"]) == 1.0
    assert make_checker(lambda prompt, answer: len(prompt + answer))("ab", "c", []) == 3.0


@pytest.mark.parametrize(
    ("bindings", "words"),
    [
        (["--gin.CHECKER='numbr'"], "CHECKER='numbr' must be one of exact_match, "),
        (["--gin.CHECKER='rouge'"], "CHECKER=rouge gives"),
        (["--gin.CHECKER=None"], "CHECKER=None: name what scores answers"),
        (["--gin.FORM='rewards'", "--gin.FLIP_RATE=0.1"], "FLIP_RATE=0.1: FORM='rewards' has no opposite"),
        (["--gin.FORM='pairs'"], "FORM='pairs'"),
        (["--gin.ANSWERS='/no/such.jsonl'"], "no file at /no/such.jsonl"),
        (["--gin.OUTPUT_PATH='/proc/no/kept.jsonl'"], "cannot write to the folder of OUTPUT_PATH /proc/no"),
        (["--gin.FORM='preferences'", "--gin.ABSTAIN_RATE=1.0"], "no row is left"),
    ],
)
def test_an_error_is_one_line_and_leaves_nothing(write, tmp_path, capfd, bindings, words):
    assert label(write(SAMPLES), tmp_path / "out.jsonl", *bindings) == 1
    err = capfd.readouterr().err
    assert words in err and err.strip().splitlines()[-1].startswith("lmirl: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["samples.jsonl"]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"samples": ["a"]}, "line 1: no key 'inputs'"),
        ({"inputs": "a"}, "line 1: neither samples, candidates nor targets"),
        ({"inputs": "a", "samples": ["b"], "candidates": ["c"]}, "line 1: samples and candidates"),
        ({"inputs": "a", "samples": []}, "line 1: samples is no list of one string or more"),
        ({"inputs": "a", "samples": [3]}, "line 1: samples is int, not a string"),
        (
            {"inputs": "a", "samples": ["b"]},
            "line 1: CHECKER=exact_match compares with a reference, and there is none",
        ),
        ({"messages": [], "samples": ["b"]}, "line 1: messages asks nothing"),
    ],
)
def test_a_row_that_cannot_be_labelled_is_named(write, tmp_path, row, words):
    with pytest.raises(UserError) as caught:
        [Labels().rows(answers, 0) for answers in read_answer_sets(write([row]))]
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_checker_that_is_not_there():
    with pytest.raises(UserError, match="CHECKER: there is no 'numbr'; write 'number'"):
        make_checker("numbr")
    with pytest.raises(UserError, match="CHECKER: there is no module 'no_such'"):
        make_checker("no_such.function")


STEPS = [
    {"inputs": "2+3+4", "targets": "9", "samples": ["2+3=5\n5+4=9", "2+3=6\n6+4=10", "2+3=5\n5+4=8", "9"]},
    {"inputs": "1+1", "targets": "2", "samples": ["1+1=3", "3"]},
]


def scores_of_lines(prompt, answer):
    """0 for a line with a wrong sum."""
    wrong = {"2+3=6", "5+4=8", "1+1=3"}
    return [float(line not in wrong) for line in answer.split("\n")]


def last(prompt, answer):
    return float(answer.rpartition("=")[2] == {"2+3+4": "9", "1+1": "2"}[prompt])


def test_the_beginning_of_a_wrong_answer_up_to_its_pit_is_rejected(write):
    labels = Labels("step_preferences", last, step_scores=scores_of_lines, pairs_per_prompt=5)
    first, second = (labels.rows(each, n) for n, each in enumerate(read_answer_sets(write(STEPS))))
    assert {row["rejected"] for row in first} == {"2+3=6", "2+3=5\n5+4=8"}
    assert all(row["targets"] in ("2+3=5\n5+4=9", "9") for row in first) and len(first) == 2
    assert second == []  # No answer is right.


def test_a_beginning_of_the_right_answer_is_not_rejected(write):
    """Where the scores are wrong: the lowest is that of a right step, with which the right answer begins too."""
    labels = Labels(
        "step_preferences", last, step_scores=lambda prompt, answer: range(answer.count("\n") + 1)
    )
    rows = [{**STEPS[0], "samples": ["2+3=5\n5+4=9", "2+3=5\n5+4=8"]}]
    assert labels.rows(next(read_answer_sets(write(rows))), 0) == []


@pytest.mark.parametrize(
    "settings, message",
    [
        ({}, "needs a score of each step"),
        (
            {"step_scores": lambda prompt, answer: [1.0]},
            r"STEP_SCORES gave \[1.0\] .* has 2 steps: return a finite",
        ),
        ({"step_scores": lambda prompt, answer: [1.0, np.nan]}, "return a finite number for each"),
        ({"step_scores": lambda prompt, answer: 1.0}, "STEP_SCORES gave 1.0 for"),
        ({"step_scores": scores_of_lines, "flip_rate": 0.1}, "has no opposite"),
        ({"step_scores": scores_of_lines, "form": "labels"}, "STEP_SCORES are of pits"),
    ],
)
def test_step_preferences_that_cannot_be_made(settings, message, write):
    with pytest.raises(UserError, match=message):
        labels = Labels(**{"form": "step_preferences", "checker": last, **settings})
        labels.rows(next(read_answer_sets(write(STEPS))), 0)
