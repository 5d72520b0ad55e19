"""Prepared data that are damaged are never read: they are made again from their source, and a warning names the file."""

import os

import numpy as np
import pytest

from lmirl_jax import content_hashes, data
from lmirl_jax.data import records as records_module
from lmirl_jax.data.records import tokenized_records

LINES = [{"inputs": str(i), "targets": str(i * i)} for i in range(40)]
FILES = ("tokens.bin", "features.bin", "places.npy", "lengths.npy", "info.json", content_hashes.NAME)


def flip_a_bit(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def truncate(file):
    os.truncate(file, file.stat().st_size - 1)


def delete(file):
    file.unlink()


def empty(file):
    for each in file.parent.iterdir():
        each.unlink()


def add(file):
    file.with_name("copy").write_bytes(file.read_bytes())


def content(found):
    return [
        (e.inputs.tolist(), e.targets.tolist(), e.features)
        for e in map(found.source.__getitem__, range(len(found)))
    ]


@pytest.fixture
def task(write_jsonl):
    return data.get_task(data=write_jsonl(LINES)).tasks[0]


def test_any_damage_to_any_file_is_told_and_made_good(task, tmp_path, caplog):
    first = tokenized_records(task, "train", str(tmp_path / "cache"))
    whole = content(first)
    assert sorted(os.listdir(first.folder)) == sorted(FILES)
    for damage in (flip_a_bit, truncate, delete, add, empty):
        for name in FILES:
            damage(first.folder / name)
            caplog.clear()
            again = tokenized_records(task, "train", str(tmp_path / "cache"))
            told = {add: "copy does not belong there", empty: f"{content_hashes.NAME} is missing"}.get(
                damage, name
            )
            assert content(again) == whole and again.content == first.content
            (warning,) = [line for line in caplog.messages if "damaged" in line]
            assert warning.startswith(f"the examples in {first.folder} are damaged ({told}")
            assert warning.endswith("): writing them again")
            assert content_hashes.problems(first.folder) == []


def test_what_has_not_changed_is_compared_once_in_a_process(task, tmp_path, monkeypatch):
    first = tokenized_records(task, "train", str(tmp_path))
    compared = []
    problems = content_hashes.problems
    monkeypatch.setattr(
        content_hashes, "problems", lambda folder: compared.append(folder) or problems(folder)
    )
    tokenized_records(task, "train", str(tmp_path))
    assert compared == []
    np.testing.assert_array_equal(tokenized_records(task, "train", str(tmp_path)).lengths, first.lengths)
    monkeypatch.setattr(records_module, "_compared", {})
    tokenized_records(task, "train", str(tmp_path))
    assert compared == [first.folder]
