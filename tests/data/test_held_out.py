"""VALIDATION_SHARE cuts a validation split off DATA by a hash of each prompt; and several files are a mixture with rates."""

import collections
import hashlib
import json
import random

import pytest

from lmirl_jax import data
from lmirl_jax.data.file_source import is_held_out
from lmirl_jax.types import UserError

LENGTHS = {"inputs": 8, "targets": 8}
ROWS = [{"inputs": f"q{n % 200}", "targets": f"a{n}"} for n in range(400)]


def write(tmp_path, rows, name="rows.jsonl"):
    (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
    (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(tmp_path / name)


def pairs(task, split, tmp_path):
    dataset = data.EvalDataset(task, LENGTHS, split, cache_dir=str(tmp_path / "cache"))
    return [(example["inputs_pretokenized"], example["targets_pretokenized"]) for example in dataset.examples]


def expected(share):
    """The prompts of the validation split, by the rule that the documentation states."""
    hashes = {row["inputs"]: hashlib.sha256(row["inputs"].encode()).hexdigest() for row in ROWS}
    return {prompt for prompt, digest in hashes.items() if int(digest[:16], 16) / 2**64 < share}


def test_no_prompt_is_in_both_splits_and_each_row_in_one(tmp_path):
    task = data.get_task(data=write(tmp_path, ROWS), validation_share=0.2)
    train, validation = (pairs(task, split, tmp_path) for split in ("train", "validation"))
    assert {prompt for prompt, _ in validation} == expected(0.2)
    assert sorted(train + validation) == sorted((row["inputs"], row["targets"]) for row in ROWS)
    assert not {prompt for prompt, _ in validation} & {prompt for prompt, _ in train}
    assert 0.1 < len(validation) / len(ROWS) < 0.3


def test_the_split_depends_on_neither_order_nor_other_rows(tmp_path):
    shuffled = random.Random(0).sample(ROWS, 300)
    task = data.get_task(data=write(tmp_path, shuffled), validation_share=0.2)
    validation = pairs(task, "validation", tmp_path)
    assert validation == [
        (row["inputs"], row["targets"]) for row in shuffled if row["inputs"] in expected(0.2)
    ]
    # A larger share holds out the same prompts, and more.
    assert expected(0.2) < expected(0.3)


def test_a_conversation_is_split_by_what_comes_before_its_last_answer():
    user, answer = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
    for share in (0.1, 0.5, 0.9):
        plain = is_held_out({"inputs": "q", "targets": "b"}, share)
        assert is_held_out({"messages": [user, answer]}, share) == plain
        # Parquet has the columns of all messages in each.
        assert is_held_out({"messages": [user | {"name": None}, answer, user]}, share) == plain
    several = [
        is_held_out({"messages": [user, answer | {"content": str(n)}, user, answer | {"content": last}]}, 0.5)
        for n in range(50)
        for last in "xy"
    ]
    assert several[::2] == several[1::2] and 10 < sum(several[::2]) < 40


def test_a_share_is_part_of_the_identity(tmp_path):
    path = write(tmp_path, ROWS)
    parts = [data.get_task(data=path, validation_share=share).tasks[0] for share in (0.0, 0.2, 0.3)]
    assert len({part.fingerprint("train", 1) for part in parts}) == 3
    assert parts[0].fingerprint("train", 1) == data.get_task(data=path).tasks[0].fingerprint("train", 1)
    assert parts[0].splits == ("train",)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"validation_data": "other.jsonl", "validation_share": 0.1},
            "VALIDATION_SHARE=0.1 and VALIDATION_DATA are both set",
        ),
        ({"validation_share": 1.0}, "validation_share=1.0 must be a number from 0 to below 1"),
        ({"validation_share": -0.1}, "validation_share=-0.1 must be a number from 0 to below 1"),
        (
            {"data": None, "mixture_or_task_name": "number_paths", "validation_share": 0.1},
            "VALIDATION_SHARE goes with DATA",
        ),
    ],
)
def test_what_cannot_be_is_one_line(settings, message):
    with pytest.raises(UserError, match=message):
        data.get_task(**{"data": "rows.jsonl"} | settings)


def test_a_part_without_rows_is_one_line(tmp_path):
    path = write(tmp_path, ROWS[:2])
    for share, split in ((1e-9, "validation"), (0.999999, "train")):
        with pytest.raises(
            UserError, match=f"VALIDATION_SHARE=.* leaves no prompt of .*rows.jsonl in the {split} split"
        ):
            pairs(data.get_task(data=path, validation_share=share), split, tmp_path)


def test_a_saved_dictionary_with_a_validation_split_needs_no_share(tmp_path):
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "dataset_dict.json").write_text('{"splits": ["train", "validation"]}')
    with pytest.raises(UserError, match=r"VALIDATION_SHARE=0\.1, and .*saved has a validation split"):
        data.get_task(data=str(tmp_path / "saved"), validation_share=0.1)


def test_keys_that_are_not_read_are_counted_in_their_own_split(tmp_path):
    rows = [row | {"note": 1} for row in ROWS]
    task = data.get_task(data=write(tmp_path, rows), validation_share=0.2)
    for split in ("train", "validation"):
        records = data.tokenized_records(task.tasks[0], split, str(tmp_path / "cache"))
        assert records.unread == {"note": len(records)}


def mixture(tmp_path, rates=(3, 1), **settings):
    first = write(tmp_path, [{"inputs": f"a{n}", "targets": "x"} for n in range(20)], "one/rows.jsonl")
    write(tmp_path, [{"question": f"b{n}", "answer": "y"} for n in range(10)], "two/part-1.jsonl")
    write(tmp_path, [{"question": f"c{n}", "answer": "y"} for n in range(10)], "two/part-2.jsonl")
    paths = dict(zip((first, str(tmp_path / "two/*.jsonl")), rates, strict=True))
    return data.get_task(data=paths, **settings)


def test_files_are_mixed_by_their_rates(tmp_path):
    task = mixture(tmp_path)
    assert (task.name, [part.name for part in task.tasks], task.rates) == (
        "mixture",
        ["rows", "two"],
        (3.0, 1.0),
    )
    train = data.TrainDataset(task, 40, LENGTHS, cache_dir=str(tmp_path / "cache"))
    batch = next(train.iterator(slice(0, 40)))
    seen = collections.Counter(task.decode(row) for row in batch.tokens)
    assert seen == {"x": 30, "y": 10}
    other = data.TrainDataset(mixture(tmp_path, (1, 1)), 40, LENGTHS, cache_dir=str(tmp_path / "cache"))
    assert other.fingerprint != train.fingerprint


def test_each_file_of_a_mixture_has_its_own_share_and_metrics(tmp_path):
    task = mixture(tmp_path, validation_share=0.5)
    dataset = data.EvalDataset(task, LENGTHS, cache_dir=str(tmp_path / "cache"))
    by_part = collections.Counter(example["task_name"] for example in dataset.examples)
    assert set(by_part) == {"rows", "two"}
    assert dataset.metrics(["x"] * len(dataset)) == {"rows/exact_match": 1.0, "two/exact_match": 0.0}


def test_a_mixture_with_a_file_for_validation(tmp_path):
    path = write(tmp_path, [{"prompt": "a", "completion": "x"}], "one/held.jsonl")
    task = mixture(tmp_path, validation_data=path)
    assert [(part.name, part.splits) for part in task.tasks] == [
        ("rows", ("train",)),
        ("two", ("train",)),
        ("held", ("validation",)),
    ]
    dataset = data.EvalDataset(task, LENGTHS, cache_dir=str(tmp_path / "cache"))
    assert dataset.metrics(["x"]) == {"exact_match": 1.0}
    assert data.TrainDataset(task, 2, LENGTHS, cache_dir=str(tmp_path / "cache")).num_examples == 40
    # The same file may be for both.
    (first, *_) = (part.source.paths["train"] for part in task.tasks[:2])
    again = mixture(tmp_path, validation_data=first)
    assert [part.name for part in again.tasks] == ["rows", "two", "rows_2"] and again.rates == (3.0, 1.0, 0.0)


def test_names_of_parts_are_their_own(tmp_path):
    paths = {f"{folder}/train.jsonl": 1 for folder in "abc"}
    assert [part.name for part in data.get_task(data=paths).tasks] == ["train", "train_2", "train_3"]
    assert data.get_task(data={"a/train.jsonl": 2}).name == "train"


@pytest.mark.parametrize("rates", [{}, {"a": 0}, {"a": -1}, {"a": "b"}, {"": 1}, {"a": True}, {1: 1}])
def test_rates_that_cannot_be_are_refused(rates):
    with pytest.raises(
        UserError, match=r"data=.* must be a path in quotes, .*each path with a rate above 0, or None"
    ):
        data.get_task(data=rates)
