"""One table of formats: content decides, names that are not understood are refused, and every mistake is one line."""

import gzip
import json
import pathlib
import random
import tracemalloc

import pyarrow
import pytest
from pyarrow import ipc, parquet

from lmirl_jax import data
from lmirl_jax.data.formats import check_output_name, read_rows
from lmirl_jax.data.split_checks import warn_once
from lmirl_jax.types import UserError

LENGTHS = {"inputs": 8, "targets": 8}


def zipped(content: bytes) -> bytes:
    """The same bytes at any time: they are in the names of tests."""
    return gzip.compress(content, mtime=0)


ROWS = [{"inputs": "one", "targets": "1", "weight": 2.0}, {"inputs": "zwei", "targets": "2"}]


def write(tmp_path, name, content):
    path = tmp_path / name
    if name.endswith("parquet"):
        parquet.write_table(pyarrow.Table.from_pylist(content), path)
    elif name.endswith("arrow"):
        table = pyarrow.Table.from_pylist(content)
        make = ipc.new_file if name.startswith("file") else ipc.new_stream
        with make(path, table.schema) as writer:
            writer.write_table(table)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, str):
        path.write_text(content)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in content))
    return str(path)


def read_all(path, tmp_path):
    """The inputs of a file as DATA of training, as PROMPTS and as DATA of `lmirl score`."""
    task = data.get_task(data=path)
    held_out = data.EvalDataset(task, LENGTHS, "train", cache_dir=str(tmp_path / "cache"))
    prompts = data.PromptFile(path, task, LENGTHS).examples
    pairs = list(data.PairFile(path, task, LENGTHS))
    return (
        [example["inputs_pretokenized"] for example in held_out.examples],
        [example["inputs_pretokenized"] for example in prompts],
        [pair.inputs for pair in pairs],
    )


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("lines.jsonl", ROWS),
        ("lines.json", ROWS),
        ("lines.txt", ROWS),
        ("lines", ROWS),
        ("marked.jsonl", ("\ufeff" + "\n".join(json.dumps(row) for row in ROWS)).encode()),
        ("array.json", json.dumps(ROWS)),
        ("array.jsonl", " \n" + json.dumps(ROWS, indent=2)),
        ("table.parquet", ROWS),
        ("stream.arrow", ROWS),
        ("file.arrow", ROWS),
        ("table.csv", "inputs,targets\none,1\nzwei,2\n"),
        ("table.tsv", "inputs\ttargets\none\t1\n\nzwei\t2\n"),
        ("semicolons.csv", "inputs;targets\none;1\nzwei;2\n"),
        ("marked.csv", b"\xef\xbb\xbfinputs,targets\r\none,1\r\nzwei,2\r\n"),
        ("lines.jsonl.gz", zipped("\n".join(json.dumps(row) for row in ROWS).encode())),
        ("array.json.gz", zipped(json.dumps(ROWS).encode())),
        ("table.csv.gz", zipped(b"inputs,targets\none,1\nzwei,2\n")),
        ("packed", zipped("\n".join(json.dumps(row) for row in ROWS).encode())),
    ],
)
def test_content_decides_and_all_settings_agree(tmp_path, name, content):
    path = write(tmp_path, name, content)
    assert read_all(path, tmp_path) == (["one", "zwei"],) * 3


def test_a_weight_that_parquet_leaves_empty_is_1(tmp_path):
    task = data.get_task(data=write(tmp_path, "table.parquet", ROWS))
    held_out = data.EvalDataset(task, LENGTHS, "train", cache_dir=str(tmp_path / "cache"))
    assert [example["weight"] for example in held_out.examples] == [2.0, 1.0]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "table.xls",
            "inputs,targets\na,b\n",
            r"table\.xls: neither what it holds nor its ending '\.xls' is understood",
        ),
        ("table", "a,b\n", "nor its name without an ending is understood: give JSON lines or a JSON array"),
        ("rows.jsonl.zst", b"\x28\xb5\x2f\xfd", r"rows\.jsonl\.zst is compressed: unpack it first"),
        ("rows.zip", b"PK\x03\x04", r"rows\.zip is compressed: unpack it first"),
        ("twice.gz", zipped(zipped(b"{}")), r"twice\.gz is compressed: unpack it first"),
        ("rows.parquet.gz", zipped(b"PAR1"), r"rows\.parquet\.gz is compressed: unpack it first"),
        (
            "cut.jsonl.gz",
            zipped(b'{"inputs": "a", "targets": "b"}\n')[:-9],
            r"cut\.jsonl\.gz, after row .: damaged gzip \(Compressed file ended .*; copy the file again",
        ),
        ("empty.arrow", b"", r"empty\.arrow, after row 0: not Arrow \("),
        ("rows.parquet", b"PAR1 and no more", r"rows\.parquet, after row 0: not Parquet \("),
        (
            "deep.jsonl",
            '{"inputs": "a", "targets": ' + "[" * 100_000,
            r"deep\.jsonl, line 1: brackets are nested too deeply",
        ),
        ("deep.json", '[{"inputs": ' + "[" * 100_000, r"deep\.json, item 1: brackets are nested too deeply"),
        (
            "digits.jsonl",
            '{"inputs": ' + "1" * 5000 + "}",
            r"digits\.jsonl, line 1: not JSON \(Exceeds the limit",
        ),
        ("array.json", '[{"inputs": "a", "targets": "b"}, 3]', r"array\.json, item 2: not a JSON object"),
        (
            "array.json",
            '[{"inputs": "a", "targets": "b"}',
            r"array\.json, item 1: not JSON \(',' is missing\)",
        ),
        ("array.json", '[{"inputs": "a", "tar', r"array\.json, item 1: not JSON \(Unterminated string"),
        (
            "array.json",
            '[{"inputs": "a", "targets": "b"}] x',
            r"array\.json: not JSON \(text after the array's end",
        ),
        ("array.json", "[ ]", r"array\.json is empty"),
        (
            "twice.jsonl",
            '{"inputs": "a", "targets": "b"}\n{"inputs": "a", "targets": "b", "inputs": "c"}\n',
            r"twice\.jsonl, line 2: the key 'inputs' is there twice; keep one",
        ),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path, name, content, message):
    path = write(tmp_path, name, content) if not name.endswith("parquet") else str(tmp_path / name)
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    task = data.get_task(data=path)
    readers = (
        lambda: data.EvalDataset(task, LENGTHS, "train", cache_dir=str(tmp_path / "cache")),
        lambda: data.PromptFile(path, task, LENGTHS),
        lambda: data.PairFile(path, task, LENGTHS),
    )
    for read in readers:
        with pytest.raises(UserError, match=message) as raised:
            read()
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([], "targets is an empty list; write an answer, or leave the row out"),
        (["b", 3], "targets, answer 2 is int, not a string; put it in quotes"),
        (["b", None], "targets, answer 2 is null, not a string; write its text"),
        ([["b"]], "targets, answer 1 is a list, not a string; write one string"),
        (None, "targets is null, not a string; write its text"),
        ({"text": "b"}, "targets is an object, not a string; write its text"),
        (2, "targets is int, not a string; put it in quotes"),
    ],
)
def test_advice_suits_what_is_there(tmp_path, targets, message):
    path = write(tmp_path, "rows.jsonl", [{"inputs": "a", "targets": targets}])
    with pytest.raises(UserError, match=message) as raised:
        data.EvalDataset(data.get_task(data=path), LENGTHS, "train", cache_dir=str(tmp_path / "cache"))
    assert ("quotes" in str(raised.value)) == ("int" in message)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("gs://bucket/x.jsonl", "^gs://bucket/x.jsonl is not on this machine: copy it to a disk here"),
        ("s3://bucket/x.jsonl", "^s3://bucket/x.jsonl is not on this machine"),
        (".", "is a folder: .*; name a file in it, or a pattern such as"),
        ("none.jsonl", r"^no file at none\.jsonl: "),
        ("part-*.jsonl", r"^no file matches part-\*\.jsonl: "),
    ],
)
def test_what_is_no_file_here(tmp_path, monkeypatch, path, message):
    monkeypatch.chdir(tmp_path)
    task = data.get_task(data=path)
    with pytest.raises(UserError, match=message):
        data.EvalDataset(task, LENGTHS, "train", cache_dir=str(tmp_path / "cache"))
    with pytest.raises(UserError, match=message):
        data.PromptFile(path, task, LENGTHS)
    with pytest.raises(UserError, match=message):
        data.PairFile(path, task, LENGTHS)


def test_a_vocabulary_in_a_bucket():
    with pytest.raises(UserError, match=r"VOCABULARY_PATH='gs://b/x.model' is not on this machine"):
        data.vocabulary("gs://b/x.model")


def test_names_of_outputs():
    for name in ("a.jsonl", "a.json", "a"):
        check_output_name(pathlib.Path(name), "OUTPUT_PATH")
    check_output_name(pathlib.Path("a.parquet"), "OUTPUT_PATH", parquet=True)
    with pytest.raises(
        UserError, match=r"OUTPUT_PATH='a.parquet' has the ending '.parquet': name it .jsonl or .json"
    ):
        check_output_name(pathlib.Path("a.parquet"), "OUTPUT_PATH")
    with pytest.raises(UserError, match=r"has the ending '.csv': name it .jsonl or .json or .parquet"):
        check_output_name(pathlib.Path("a.csv"), "OUTPUT_PATH", parquet=True)


@pytest.mark.parametrize("key", ["Weight", "WEIGHT", " weight", "we_ight"])
def test_a_key_that_is_meant_for_another_is_refused(tmp_path, key):
    path = write(tmp_path, "rows.jsonl", [ROWS[1], {"inputs": "a", "targets": "b", key: 2}])
    with pytest.raises(
        UserError, match=rf"rows\.jsonl, line 2: the key '{key}' is not read: write 'weight', or leave it out"
    ):
        data.EvalDataset(data.get_task(data=path), LENGTHS, "train", cache_dir=str(tmp_path / "cache"))


def test_keys_that_are_not_read_are_reported_in_every_run(tmp_path, caplog):
    rows = [
        {"inputs": "a", "targets": "b", "label": 1},
        {"inputs": "c", "targets": "d", "label": 2, "target": "e", "id": 1},
    ]
    path = write(tmp_path, "rows.jsonl", rows)
    told = "keys that are not read, and have no effect: 'label' (2 of 2), 'target' (1 of 2, did you mean 'targets'?)"
    for _ in range(2):  # The second reads the tokens that the first has written.
        caplog.clear()
        warn_once.cache_clear()
        task = data.get_task(data=path)
        data.EvalDataset(task, LENGTHS, "train", cache_dir=str(tmp_path / "cache"))
        assert [line for line in caplog.messages if "not read" in line] == [f"rows, train: {told}"]
    caplog.clear()
    data.PairFile(path, task, LENGTHS)
    assert caplog.messages == [f"{path}: {told}"]
    warn_once.cache_clear()
    data.PromptFile(path, task, LENGTHS)
    assert caplog.messages == [f"{path}: {told}"] * 2


@pytest.mark.parametrize("ending", ["json", "jsonl", "csv", "parquet", "arrow"])
def test_memory_does_not_grow_with_the_file(tmp_path, ending):
    """Each file has 16 MB in one piece: an array, or a single group of rows."""
    path, count = tmp_path / f"long.{ending}", 4000
    rows = [{"inputs": random.Random(n).randbytes(2000).hex()} for n in range(count)]
    if ending == "json":
        path.write_text(json.dumps(rows))
    elif ending == "csv":
        path.write_text("\n".join(["inputs", *(row["inputs"] for row in rows)]))
    else:
        write(tmp_path, path.name, rows)
    del rows
    tracemalloc.start()
    try:
        found = sum(1 for _ in read_rows(path, "", ""))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found == count and peak < 10e6 < 15e6 < path.stat().st_size
