"""Several files as one: patterns, and folders as Hugging Face `datasets` saves them, whose layout is written here by pyarrow."""

import json

import pyarrow
import pytest
from pyarrow import ipc

from lmirl_jax import data
from lmirl_jax.data.data_files import data_files, name_of
from lmirl_jax.types import UserError

LENGTHS = {"inputs": 8, "targets": 8}


def rows(*texts):
    return [{"inputs": text, "targets": text.upper()} for text in texts]


def save(folder, *shards, listed=None):
    """Writes what `Dataset.save_to_disk` writes: streams of Arrow, and two files that describe them."""
    folder.mkdir(parents=True)
    names = [f"data-{number:05}-of-{len(shards):05}.arrow" for number in range(len(shards))]
    for name, shard in zip(names, shards, strict=True):
        table = pyarrow.Table.from_pylist(shard)
        with ipc.new_stream(folder / name, table.schema) as writer:
            writer.write_table(table, max_chunksize=1)
    described = [{"filename": name} for name in (names if listed is None else listed)]
    (folder / "state.json").write_text(json.dumps({"_data_files": described, "_split": "train"}))
    (folder / "dataset_info.json").write_text("{}")
    return folder


def save_splits(folder, **splits):
    for name, shard in splits.items():
        save(folder / name, shard)
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": list(splits)}))
    return folder


def inputs(task, split, tmp_path):
    dataset = data.EvalDataset(task, LENGTHS, split, cache_dir=str(tmp_path / "cache"))
    return [example["inputs_pretokenized"] for example in dataset.examples]


def test_a_saved_data_set_is_read_in_the_order_of_its_list(tmp_path):
    folder = save(tmp_path / "saved", rows("a", "b"), rows("c"))
    assert inputs(data.get_task(data=str(folder)), "train", tmp_path) == ["a", "b", "c"]
    state = json.loads((folder / "state.json").read_text())
    state["_data_files"].reverse()
    (folder / "state.json").write_text(json.dumps(state))
    task = data.get_task(data=str(folder))
    assert inputs(task, "train", tmp_path) == ["c", "a", "b"]
    assert [
        example["inputs_pretokenized"] for example in data.PromptFile(str(folder), task, LENGTHS).examples
    ] == [
        "c",
        "a",
        "b",
    ]
    assert [pair.targets for pair in data.PairFile(str(folder), task, LENGTHS)] == ["C", "A", "B"]


def test_a_saved_dictionary_brings_its_splits(tmp_path):
    folder = save_splits(tmp_path / "saved", train=rows("a", "b"), validation=rows("c"), test=rows("d"))
    task = data.get_task(data=str(folder))
    assert task.name == "saved" and task.tasks[0].splits == ("train", "validation")
    assert inputs(task, "train", tmp_path) == ["a", "b"] and inputs(task, "validation", tmp_path) == ["c"]
    (tmp_path / "other.jsonl").write_text(json.dumps(rows("e")[0]))
    other = data.get_task(data=str(folder), validation_data=str(tmp_path / "other.jsonl"))
    assert inputs(other, "validation", tmp_path) == ["e"]
    by_split = data.get_task(data=str(folder / "test"), validation_data=str(folder))
    assert inputs(by_split, "train", tmp_path) == ["d"] and inputs(by_split, "validation", tmp_path) == ["c"]
    with pytest.raises(
        UserError, match=r"saved holds the splits train, validation, test: name the folder of one, such as"
    ):
        data.PromptFile(str(folder), task, LENGTHS)


def test_a_dictionary_without_a_validation_split_has_none(tmp_path):
    folder = save_splits(tmp_path / "saved", test=rows("d"))
    task = data.get_task(data=str(folder))
    assert task.tasks[0].splits == ("train",)
    with pytest.raises(
        UserError, match=r"saved holds the splits test: name .* '.*saved/test'; DATA must name a file"
    ):
        inputs(task, "train", tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda folder: (folder / "data-00000-of-00001.arrow").unlink(),
            r"saved lacks data-00000-of-00001\.arrow",
        ),
        (lambda folder: (folder / "state.json").write_text("{"), r"state\.json: not JSON"),
        (lambda folder: (folder / "state.json").write_text("[]"), r"state\.json: not a JSON object"),
        (lambda folder: (folder / "state.json").write_text("{}"), r"state\.json lists no files"),
        (
            lambda folder: (folder / "state.json").write_text('{"_indices_data_files": [{"filename": "a"}]}'),
            r"holds a selection of rows: save it again, after flatten_indices",
        ),
        (
            lambda folder: (folder / "state.json").unlink(),
            r"saved is a folder: .* a pattern such as '.*saved/\*\.jsonl'",
        ),
        (
            lambda folder: (folder / "data-00000-of-00001.arrow").write_bytes(
                (folder / "data-00000-of-00001.arrow").read_bytes()[:-300]
            ),
            r"data-00000-of-00001\.arrow, after row .: not Arrow \(",
        ),
    ],
)
def test_a_damaged_folder_is_one_line(tmp_path, change, message):
    folder = save(tmp_path / "saved", rows("a", "b"))
    change(folder)
    with pytest.raises(UserError, match=message) as raised:
        inputs(data.get_task(data=str(folder)), "train", tmp_path)
    assert "\n" not in str(raised.value)


def test_a_pattern_reads_its_files_sorted_by_name(tmp_path):
    (tmp_path / "part-2.jsonl").write_text(json.dumps(rows("c")[0]))
    (tmp_path / "part-1.csv").write_text("inputs,targets\na,A\nb,B\n")
    save(tmp_path / "part-3", rows("d"))
    (tmp_path / "part-0").mkdir()
    task = data.get_task(data=str(tmp_path / "part-*"))
    assert task.name == "part" and inputs(task, "train", tmp_path) == ["a", "b", "c", "d"]
    # A file's content identifies it, not its name; and their order counts.
    (tmp_path / "part-2.jsonl").rename(tmp_path / "part-1a.jsonl")
    assert task.tasks[0].source.content_hash("train") == data.get_task(data=str(tmp_path / "*[0-9]*")).tasks[
        0
    ].source.content_hash("train")
    (tmp_path / "part-1a.jsonl").rename(tmp_path / "part-0.jsonl")
    assert inputs(task, "train", tmp_path) == ["c", "a", "b", "d"]


def test_a_pattern_of_one_file_is_that_file(tmp_path):
    path = tmp_path / "one.jsonl"
    path.write_text(json.dumps(rows("a")[0]))
    hashes = {
        data.get_task(data=str(name)).tasks[0].source.content_hash("train")
        for name in (path, tmp_path / "o*")
    }
    assert len(hashes) == 1
    # A name that looks like a pattern is a file where one has it.
    odd = tmp_path / "odd[1].jsonl"
    odd.write_text("{}")
    assert data_files(str(odd), "") == [odd]


def test_a_shard_may_be_empty_and_not_all_of_them(tmp_path):
    schema = pyarrow.Table.from_pylist(rows("a")).schema
    folder = save(tmp_path / "saved", rows("a"), rows("b"))
    for shards, expected in (((0,), ["b"]), ((0, 1), None)):
        for shard in shards:
            with ipc.new_stream(folder / f"data-{shard:05}-of-00002.arrow", schema):
                pass
        if expected is not None:
            assert inputs(data.get_task(data=str(folder)), "train", tmp_path) == expected
    with pytest.raises(UserError, match=r"data-00000-of-00002\.arrow and 1 more files are empty: write one"):
        inputs(data.get_task(data=str(folder)), "train", tmp_path)


def test_a_row_of_a_later_file_is_named(tmp_path):
    (tmp_path / "1.jsonl").write_text(json.dumps(rows("a")[0]))
    (tmp_path / "2.jsonl").write_text("\n" + json.dumps({"inputs": "b"}))
    with pytest.raises(UserError, match=r"2\.jsonl, line 2: no key 'targets'"):
        inputs(data.get_task(data=str(tmp_path / "*.jsonl")), "train", tmp_path)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a/examples.jsonl", "examples"),
        ("a/my data-1.jsonl.gz", "my_data_1"),
        ("a/part-*.jsonl.gz", "part"),
        ("b/*.csv", "b"),
        ("b/**/*.csv", "b"),
        ("*", "data"),
        ("saved/train", "train"),
    ],
)
def test_names(path, name):
    assert name_of(path) == name
