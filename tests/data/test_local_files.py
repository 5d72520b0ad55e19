"""Files of a data set in the layout of its authors: what is read, and what is refused."""

import gzip

import pytest
from etils import epath

from lmirl_jax.data.local_files import LocalFiles, SplitSources, read_aligned, read_jsonl
from lmirl_jax.data.records import tokenized_records
from lmirl_jax.data.seqio_library import seqio
from lmirl_jax.types import UserError


def test_texts_of_different_lengths_are_refused(tmp_path):
    (tmp_path / "a.en").write_text("one\ntwo\n")
    (tmp_path / "a.de").write_text("eins\n")
    paths = [epath.Path(tmp_path / name) for name in ("a.en", "a.de")]
    with pytest.raises(UserError, match=r"differ in their lines: .*a\.en has 2, .*a\.de has 1; download"):
        read_aligned(paths, "en", "de")


def test_an_empty_line_stays_a_line(tmp_path):
    for name, text in {"a.en": "\none\n", "a.de": "null\neins"}.items():
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
    rows = read_aligned([epath.Path(tmp_path / f"a.{code}.gz") for code in ("en", "de")], "en", "de")
    assert rows == [{"en": "", "de": ["null"]}, {"en": "one", "de": ["eins"]}]


@pytest.mark.parametrize("line", ['{"source": ["a"]}', "{", "[1]"])
def test_a_line_that_is_no_row(tmp_path, line):
    path = epath.Path(tmp_path / "x.jsonl")
    path.write_text('{"source": ["a"], "target": ["b"], "more": 1}\n' + line)
    with pytest.raises(UserError, match=r"x\.jsonl, line 2: it is no JSON object with source, target"):
        read_jsonl([path], ["source", "target"])


@pytest.fixture
def source(tmp_path):
    def read(paths):
        return [{"inputs": line, "targets": line} for line in paths[0].read_text().split()]

    return LocalFiles(lambda split: [epath.Path(tmp_path / f"{split}.txt")], read, ["train", "test"])


def test_a_changed_file_is_read_again(make_task, tmp_path, source):
    task = make_task({}, source=SplitSources({"train": source, "validation": source}))
    task = task.replace(source=SplitSources({"train": source}))
    (tmp_path / "train.txt").write_text("a b")
    assert len(tokenized_records(task, "train", str(tmp_path / "cache"))) == 2
    (tmp_path / "train.txt").write_text("a b c")
    assert len(tokenized_records(task, "train", str(tmp_path / "cache"))) == 3


def test_as_a_source_of_seqio(tmp_path, source):
    (tmp_path / "train.txt").write_text("a b c d e")
    assert source.list_shards("train") == [str(tmp_path / "train.txt")]
    in_order = [row["inputs"] for row in source.get_dataset("train", shuffle=False).as_numpy_iterator()]
    shuffled = [row["inputs"] for row in source.get_dataset("train", seed=1).as_numpy_iterator()]
    assert in_order == [b"a", b"b", b"c", b"d", b"e"]
    assert shuffled != in_order and sorted(shuffled) == in_order
    with pytest.raises(ValueError, match="read whole"):
        source.get_dataset("train", shard_info=seqio.ShardInfo(0, 2))
