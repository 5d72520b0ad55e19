"""Examples are read back from the disk by their number, in any process."""

import errno
import os
import pickle

import grain
import numpy as np
import pytest

from lmirl_jax.data import shards
from lmirl_jax.data.example_source import ExampleSource
from lmirl_jax.data.record_writing import join_shards
from lmirl_jax.data.task_parts import Example
from lmirl_jax.data.vocabularies import ByteVocabulary
from lmirl_jax.types import UserError


class Given:
    """A reader whose rows are examples."""

    def fingerprint(self, split, format_version):
        return "given"

    def rows(self, split, unread):
        yield from ()

    def encode(self, where, row):
        return row


def example(inputs, targets, **features):
    return Example(np.array(inputs, np.int32), np.array(targets, np.int32), features)


@pytest.fixture
def written(tmp_path):
    """Writes lists of examples, a shard each, and returns the folder of the joined files."""

    def write(*groups):
        vocabularies = {"inputs": ByteVocabulary(), "targets": ByteVocabulary()}
        writer = shards.ShardWriter("given, train", "given", Given(), vocabularies, tmp_path)
        first = 0
        for number, group in enumerate(groups):
            writer.write(shards.Part(number, first, [("", row) for row in group]))
            first += len(group)
        folder = tmp_path / "joined"
        folder.mkdir()
        join_shards("given", "train", [writer.file(n) for n in range(len(groups))], {}, folder)
        return folder

    return write


GROUPS = (
    [example([], [1], text="a"), example([5, 6], [7, 8, 1], text="ä漢\ud800")],
    [example([9], [], names=["b", 2.5])],
)


def test_files_by_hand(written):
    folder = written(*GROUPS)
    assert np.fromfile(folder / "tokens.bin", "<u2").tolist() == [1, 5, 6, 7, 8, 1, 9]
    # '{"text": "a"}' has 13 bytes; the letters of the second take 2, 3 and 3; the third has 21.
    assert np.load(folder / "places.npy").tolist() == [[0, 0, 0], [1, 3, 13], [6, 7, 33], [7, 7, 54]]
    assert np.load(folder / "lengths.npy")[0].tolist() == [[0, 1], [2, 3], [1, 0]]


def test_examples_come_back_in_every_process(written):
    source = ExampleSource(written(*GROUPS), "<u2")
    source[0]
    for read in (source, pickle.loads(pickle.dumps(source))):
        assert isinstance(read, grain.sources.RandomAccessDataSource) and len(read) == 3
        for number, expected in enumerate([*GROUPS[0], *GROUPS[1]]):
            found = read[number]
            assert found.inputs.tolist() == expected.inputs.tolist() and found.inputs.dtype == np.int32
            assert found.targets.tolist() == expected.targets.tolist()
            assert found.features == expected.features
            assert read.without_features()[number].features == {}
    with pytest.raises(IndexError):
        source[3]
    with pytest.raises(IndexError):
        source[-1]


def test_ids_that_two_bytes_cannot_hold_take_four(written):
    folder = written([example([65_536], [3])])
    assert ExampleSource(folder, "<i4")[0].inputs.tolist() == [65_536]
    with pytest.raises(ValueError, match=r"have .* bytes, not"):
        ExampleSource(folder, "<u2")


def test_the_largest_id_of_two_bytes(written):
    assert ExampleSource(written([example([65_535], [0])]), "<u2")[0].inputs.tolist() == [65_535]


def test_examples_without_any_token(written):
    assert len(ExampleSource(written([example([], [])]), "<u2")[0].targets) == 0


@pytest.fixture
def waits(monkeypatch):
    """The seconds that are waited, without waiting."""
    waited = []
    monkeypatch.setattr("lmirl_jax.data.retries.time.sleep", waited.append)
    return waited


def test_a_file_system_that_fails_for_a_while_is_read_again(written, monkeypatch, waits, caplog):
    source = ExampleSource(written(*GROUPS), "<u2")
    failures, pread = [errno.EIO, errno.ESTALE], os.pread

    def fail(*given):
        if failures:
            raise OSError(failures[0], os.strerror(failures.pop(0)))
        return pread(*given)

    monkeypatch.setattr("lmirl_jax.data.example_source.os.pread", fail)
    assert source[1].targets.tolist() == [7, 8, 1]
    assert waits == [1.0, 2.0]
    assert "Stale file handle): attempt 2 of 15, the next in 2 s" in caplog.text


def test_reading_again_has_a_limit(written, waits):
    """A file that was cut off while it is read, and one that is not there."""
    folder = written(*GROUPS)
    source = ExampleSource(folder, "<u2")
    (folder / "tokens.bin").write_bytes(b"\0\0")
    with pytest.raises(
        UserError, match=r"joined cannot be read \(a file ends too early\).* for 300 s: see to"
    ):
        source[1]
    (folder / "features.bin").unlink()
    with pytest.raises(UserError, match="No such file or directory"):
        ExampleSource.__getitem__(pickle.loads(pickle.dumps(source)), 1)
    assert sum(waits) == 600
