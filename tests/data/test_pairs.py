"""Pairs to score: from a JSONL file in its three forms, and from a task's split."""

import json

import numpy as np
import pytest

from lmirl_jax import data
from lmirl_jax.types import UserError

LENGTHS = {"inputs": 8, "targets": 23}


@pytest.fixture(scope="module")
def task():
    from lmirl_jax.tasks import number_paths  # noqa: F401

    return data.get_task("number_paths")


def write(path, *lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def test_the_three_forms_of_a_line(tmp_path, task):
    path = write(
        tmp_path / "pairs.jsonl",
        {"inputs": "1+2", "targets": "3"},
        {"inputs": "1+2", "candidates": ["3", "4"], "targets": "3", "id": 7},
        {"inputs": "1+2", "samples": ["3", "é"], "tokens": [[54], [198, 172, 1]], "targets": ""},
        {"inputs": "1+2", "targets": "4", "reference": "3", "id": "x"},
    )
    pairs = data.pairs(task, LENGTHS, path)
    found = list(pairs)
    assert len(pairs) == len(found) == 6
    assert [(p.example, p.candidate, p.candidates) for p in found] == [
        (0, 0, 1), (1, 0, 2), (1, 1, 2), (2, 0, 2), (2, 1, 2), (3, 0, 1),
    ]  # fmt: skip
    assert [p.targets for p in found] == ["3", "3", "4", "3", "é", "4"]
    assert [p.reference for p in found] == [None, "3", "3", None, None, "3"]
    assert [p.id for p in found] == [None, "7", "7", None, None, "x"]
    np.testing.assert_array_equal(found[0].input_tokens, [52, 46, 53, 1])
    np.testing.assert_array_equal(found[0].target_tokens, [54, 1])
    np.testing.assert_array_equal(found[3].target_tokens, [54])  # As it was drawn: cut off before its EOS.
    np.testing.assert_array_equal(found[4].target_tokens, [198, 172, 1])
    assert found[4].offsets == ((0, 0), (0, 1), (1, 1))


def test_tokens_of_another_vocabulary_are_not_believed(tmp_path, task):
    path = write(tmp_path / "pairs.jsonl", {"inputs": "1+2", "samples": ["3"], "tokens": [[9, 9, 9]]})
    np.testing.assert_array_equal(next(iter(data.PairFile(path, task, LENGTHS))).target_tokens, [54, 1])


def test_it_is_read_as_it_goes_and_so_far_as_asked(tmp_path, task):
    path = write(tmp_path / "pairs.jsonl", *({"inputs": str(n), "targets": str(n)} for n in range(50)))
    pairs = data.pairs(task, LENGTHS, path, num_examples=3)
    assert [p.targets for p in pairs] == ["0", "1", "2"] and len(pairs) == 3
    assert pairs.fingerprint() != data.pairs(task, LENGTHS, path).fingerprint()


def test_prompts_that_do_not_fit_are_reported(tmp_path, task, caplog):
    path = write(tmp_path / "pairs.jsonl", {"inputs": "1+2+3+4+5", "candidates": ["3", "4"]})
    assert len(list(data.PairFile(path, task, LENGTHS))) == 2
    assert "the prompts of 2 answers are longer than 8 tokens and are truncated; " in caplog.text
    assert "TASK_FEATURE_LENGTHS with 'inputs': 10 takes all of them" in caplog.text


@pytest.mark.parametrize(
    "line, message",
    [
        (
            {"targets": "3"},
            r"line 2: no key 'inputs' \(found: targets\); write inputs or messages, and targets",
        ),
        ({"inputs": "1"}, "line 2: neither targets, candidates nor samples; write"),
        ({"inputs": "1", "candidates": ["a"], "samples": ["a"]}, "line 2: candidates and samples; write"),
        ({"inputs": "1", "candidates": []}, "line 2: candidates is no list of one string or more"),
        ({"inputs": "1", "candidates": "ab"}, "line 2: candidates is no list of one string or more"),
        ({"inputs": "1", "candidates": ["a", 3]}, "line 2: candidates is int, not a string"),
        ({"inputs": 1, "targets": "3"}, "line 2: inputs is int, not a string"),
        ({"inputs": "1", "targets": "3", "reference": 3}, "line 2: the reference is int, not a string"),
        ({"inputs": "1", "samples": ["a"], "tokens": [1]}, "line 2: tokens are no lists of whole numbers"),
        ({"inputs": "1", "targets": "3", "id": [1]}, "line 2: id is list; give a string or a whole number"),
        ([1], "line 2: not a JSON object; write"),
    ],
)
def test_lines_that_cannot_be_read(tmp_path, task, line, message):
    path = write(tmp_path / "pairs.jsonl", {"inputs": "1", "targets": "3"}, line)
    with pytest.raises(UserError, match=message):
        data.pairs(task, LENGTHS, path)


def test_files_and_counts_that_there_are_not(tmp_path, task):
    with pytest.raises(UserError, match=r"no file at nowhere\.jsonl: DATA must name a file"):
        data.pairs(task, LENGTHS, "nowhere.jsonl")
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(UserError, match="is empty"):
        data.pairs(task, LENGTHS, str(tmp_path / "empty.jsonl"))
    with pytest.raises(UserError, match="num_examples=0 must be a whole number of 1 or more"):
        data.pairs(task, LENGTHS, num_examples=0)
    with pytest.raises(UserError, match="number_paths has no split 'dev'; it has test, train, validation"):
        data.pairs(task, LENGTHS, split="dev")


def test_a_split_has_its_own_tokens_and_texts(task):
    pairs = data.pairs(task, LENGTHS, num_examples=2)
    first, second = pairs
    assert (first.example, second.example, len(pairs), pairs.name) == (0, 1, 2, "number_paths-validation")
    assert first.target_tokens.tolist() == [*task.output_vocabulary.encode(first.targets), 1]
    assert "".join(first.targets[b:e] for b, e in first.offsets) == first.targets
    assert first.reference is None


def test_metrics_of_one_answer(task):
    found = data.answer_metrics(task.tasks[0], "1+2+3+4", "1+2=3 3+3=6 6+4=10", "1+2=3 3+3=6 6+5=11")
    assert found == {"accuracy": 0.0, "valid": 0.0, "step_validity": 2 / 3}
    with pytest.raises(
        UserError, match=r"the metrics of task number_paths raised ValueError: .* set SCORE_METRICS=False"
    ):
        data.answer_metrics(task.tasks[0], "one and two", "3", "3")
