"""Several answers to a prompt: the first is learnt, all of them count where an answer is measured."""

import json
import logging

import pyarrow
import pytest
from pyarrow import parquet

from lmirl_jax import data
from lmirl_jax.data.file_task import exact_match
from lmirl_jax.evaluation.evaluator import answer_row
from lmirl_jax.evaluation.generation import Answers

LENGTHS = {"inputs": 16, "targets": 16}
ROWS = [
    {"inputs": "a", "targets": ["one", "two"]},
    {"inputs": "b", "targets": "three"},
    {"inputs": "c", "targets": ["four"]},
]


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return str(file)


@pytest.fixture
def held_out(path, tmp_path):
    return data.EvalDataset(data.get_task(data=path), LENGTHS, "train", cache_dir=str(tmp_path / "cache"))


def test_the_first_is_learnt_and_the_log_says_so_once(path, tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="lmirl_jax"):
        for _ in range(2):
            task = data.get_task(data=path)
            train = data.TrainDataset(task, 3, LENGTHS, shuffle=False, cache_dir=str(tmp_path / "cache"))
    batch = next(train.iterator(slice(0, 3)))
    assert [task.decode(row) for row in batch.tokens] == ["one", "three", "four"]
    told = [line for line in caplog.messages if "several targets" in line]
    assert told == [
        f"{path}, train: 1 of 3 rows have several targets: the first is learnt, and answers are compared with all"
    ]


def test_all_are_references(held_out):
    assert [held_out.target(example) for example in held_out.examples] == [["one", "two"], "three", "four"]
    assert held_out.reference(held_out.examples[0]) == "one"
    assert held_out.metrics(["two ", "three", "five"]) == {"exact_match": pytest.approx(2 / 3)}
    assert held_out.metrics(["three", "one", "four"]) == {"exact_match": pytest.approx(1 / 3)}
    assert held_out.prompt_metrics(held_out.examples[0], ["one", "two", "one two", "three"]) == {
        "exact_match": 0.5
    }


def test_exact_match_takes_any_reference():
    assert exact_match([["a", " b"], "ab", []], ["b", "a", ""]) == {"exact_match": pytest.approx(1 / 3)}


def test_an_unknown_token_equals_no_reference(tmp_path, words_model):
    file = tmp_path / "unknown.jsonl"
    file.write_text(json.dumps({"inputs": "compare 1", "targets": ["yes", "\u2047"]}))
    task = data.get_task(data=str(file), vocabulary_path=str(words_model))
    dataset = data.EvalDataset(task, LENGTHS, "train", cache_dir=str(tmp_path / "cache"))
    surface = str(task.output_vocabulary.decode([task.output_vocabulary.unk_id])).strip()
    assert surface == "\u2047" and dataset.metrics([surface]) == {"exact_match": 0.0}


def test_prompts_keep_all_and_scores_take_the_first(path, caplog):
    task = data.get_task(data=path)
    prompts = data.PromptFile(path, task, LENGTHS)
    assert [example["targets_pretokenized"] for example in prompts.examples] == ["one", "three", "four"]
    assert prompts.examples[0]["references"] == ["one", "two"]
    pairs = list(data.PairFile(path, task, LENGTHS))
    assert [pair.targets for pair in pairs] == ["one", "three", "four"]
    assert f"{path}: 1 of 3 rows have several targets: the first is scored" in caplog.messages


def test_candidates_are_compared_with_all(path, tmp_path, caplog):
    task = data.get_task(data=path)
    file = tmp_path / "pairs.jsonl"
    file.write_text(json.dumps({"inputs": "a", "candidates": ["x", "two"], "targets": ["one", "two"]}))
    pairs = list(data.PairFile(str(file), task, LENGTHS))
    assert [(pair.targets, pair.reference, pair.references) for pair in pairs] == [
        ("x", "one", ("one", "two")),
        ("two", "one", ("one", "two")),
    ]
    assert not [line for line in caplog.messages if "several targets" in line]
    metrics = [
        data.answer_metrics(task.tasks[0], pair.inputs, "one", pair.targets, pair.references)
        for pair in pairs
    ]
    assert metrics == [{"exact_match": 0.0}, {"exact_match": 1.0}]


def test_the_lines_of_answers_have_all(path, tmp_path):
    """What `lmirl infer` writes is what `lmirl score` reads."""
    task = data.get_task(data=path)
    prompts = data.PromptFile(path, task, LENGTHS)
    lines = [answer_row(Answers(example, ("two",), (), ())) for example in prompts.examples]
    assert [line["targets"] for line in lines] == [["one", "two"], "three", "four"]
    file = tmp_path / "answers.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    pairs = list(data.PairFile(str(file), task, LENGTHS))
    assert [pair.references for pair in pairs] == [("one", "two"), (), ()]
    assert [pair.reference for pair in pairs] == ["one", "three", "four"]


def test_references_of_parquet_are_lists(path, tmp_path):
    # A column of Parquet has one type.
    lists = [[row["targets"]] if isinstance(row["targets"], str) else row["targets"] for row in ROWS]
    rows = [row | {"targets": targets} for row, targets in zip(ROWS, lists, strict=True)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    task = data.get_task(data=str(tmp_path / "rows.parquet"))
    dataset = data.EvalDataset(task, LENGTHS, "train", cache_dir=str(tmp_path / "cache"))
    assert [dataset.target(example) for example in dataset.examples] == [["one", "two"], "three", "four"]
