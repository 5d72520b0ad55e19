"""Preparation: over processes as in one, and after an interruption as without one."""

import dataclasses
import errno
import json
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pyarrow as pa
import pytest
from pyarrow import parquet

from lmirl_jax import data
from lmirl_jax.data import preparation, preparation_workers, row_counts, shards
from lmirl_jax.data.jsonl import READ
from lmirl_jax.data.preparation_progress import PreparationProgress
from lmirl_jax.data.seqio_library import seqio
from lmirl_jax.data.unread_keys import UnreadKeys
from lmirl_jax.types import UserError


@pytest.fixture
def prepare(monkeypatch, tmp_path):
    """Prepares a file with shards of 20 rows, with this number of processes from the start."""

    def run(path: str, cache: str, processes: int = 1):
        monkeypatch.setattr(shards, "ROWS", 20)
        monkeypatch.setattr(preparation, "ALONE_SECONDS", 0.0)
        monkeypatch.setenv("LMIRL_PREPARATION_PROCESSES", str(processes))
        return data.tokenized_records(data.get_task(data=path).tasks[0], "train", str(tmp_path / cache))

    return run


def rows(count: int) -> list[dict]:
    return [
        {"inputs": f"say {n}", "targets": "x" * (n % 7), "weight": n % 3, "reward": n / 2}
        for n in range(count)
    ]


def writer_of(task, folder):
    vocabularies = dict.fromkeys(("inputs", "targets"), task.vocabulary)
    return shards.ShardWriter(f"task {task.name}, train", task.name, task, vocabularies, folder)


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_several_processes_write_what_one_writes(prepare, write_jsonl):
    path = write_jsonl(rows(150))
    one, two = prepare(path, "one"), prepare(path, "two", processes=2)
    assert contents(one.folder) == contents(two.folder) and len(one) == 150
    assert one.folder.name == two.folder.name and len(list(two.folder.parent.iterdir())) == 1
    assert [one.source[n].features["reward"] for n in range(150)] == [n / 2 for n in range(150)]


BROKEN = [
    ({70: {"rewards": [1]}, 130: {"rewards": "a"}}, "line 71: both 'reward' and 'rewards'"),
    ({70: {"rewards": [1]}, 71: {"targets": 3}}, "line 71: both 'reward' and 'rewards'"),
    ({70: {"targets": 3}, 90: {"rewards": [1]}}, "line 71: targets is int"),
]


@pytest.mark.parametrize(("changes", "message"), BROKEN)
@pytest.mark.parametrize("processes", [1, 2])
def test_the_first_row_that_cannot_be_used_is_named(
    prepare, write_jsonl, tmp_path, processes, changes, message
):
    path = write_jsonl([row | changes.get(n, {}) for n, row in enumerate(rows(150))])
    with pytest.raises(UserError, match=message):
        prepare(path, "cache", processes)
    assert not list((tmp_path / "cache").iterdir())


def test_small_files_and_objects_of_a_script_stay_in_this_process(prepare, write_jsonl, monkeypatch):
    monkeypatch.setattr(preparation_workers, "pool", None)
    path = write_jsonl(rows(150))
    task = data.get_task(data=path).tasks[0]
    writer = writer_of(task, pathlib.Path("here"))
    assert preparation._travels(writer)
    of_a_script = type("OfAScript", (type(task),), {"__module__": "__main__"})
    theirs = of_a_script(task.name, task.source, task.vocabulary)
    assert not preparation._travels(dataclasses.replace(writer, reader=theirs))
    monkeypatch.setattr(preparation, "_travels", lambda writer: False)
    assert len(prepare(path, "cache", processes=2)) == 150


INTERRUPTED = """
    import sys
    from lmirl_jax import data
    from lmirl_jax.data import preparation, shards
    shards.ROWS, preparation.ALONE_SECONDS = 20, 0.0
    try:
        data.tokenized_records(data.get_task(data=sys.argv[1]).tasks[0], "train", sys.argv[2])
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.mark.e2e
def test_a_script_that_does_not_guard_itself_runs_once(write_jsonl, tmp_path, repository):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(INTERRUPTED) + "print('ran')\n")
    command = [sys.executable, str(script), write_jsonl(rows(150)), str(tmp_path / "cache")]
    environment = os.environ | {"LMIRL_PREPARATION_PROCESSES": "2", "PYTHONPATH": str(repository)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ran\n", "")


def living(group: int) -> list[str]:
    """The processes of a group, without those that have ended and wait for their parent."""
    stats = []
    for file in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, of_group = file.read_text().rpartition(")")[2].split()[:3]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(of_group) == group and state != "Z":
            stats.append(file.parent.name)
    return stats


@pytest.mark.e2e
@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="it looks for processes in /proc")
@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGINT])
def test_an_interruption_leaves_shards_that_the_next_preparation_uses(
    prepare, write_jsonl, tmp_path, repository, monkeypatch, by
):
    path, cache = write_jsonl(rows(4000)), tmp_path / "cache"
    command = [sys.executable, "-c", textwrap.dedent(INTERRUPTED), path, str(cache)]
    environment = os.environ | {"LMIRL_PREPARATION_PROCESSES": "2"}
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, cwd=repository, env=environment, start_new_session=True
    )
    while len(list(cache.glob("*/[0-9]*.npz"))) < 5:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    # A terminal sends Ctrl-C to all processes; the kernel kills the one that has the memory.
    (os.kill if by == signal.SIGKILL else os.killpg)(process.pid, by)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == (-by if by == signal.SIGKILL else 130)
    assert "Traceback" not in errors
    deadline = time.monotonic() + 30
    while living(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not living(process.pid)
    (folder,) = cache.iterdir()
    kept = {file.name: file.stat().st_mtime_ns for file in folder.glob("[0-9]*.npz")}
    assert 5 <= len(kept) < 200
    if by == signal.SIGINT:
        assert {file.name for file in folder.iterdir()} == {*kept, "lock"}

    written, write = [], shards.ShardWriter.write
    monkeypatch.setattr(
        shards.ShardWriter, "write", lambda self, part: written.append(part.number) or write(self, part)
    )
    resumed = prepare(path, "cache")
    assert not {f"{number:08}.npz" for number in written} & kept.keys()
    assert len(written) + len(kept) == 200
    assert contents(resumed.folder) == contents(prepare(path, "another").folder)
    assert list(cache.iterdir()) == [resumed.folder]


def test_a_damaged_shard_is_written_again(prepare, write_jsonl, tmp_path, monkeypatch, caplog):
    path = write_jsonl(rows(60))
    whole = prepare(path, "whole")
    held = tmp_path / "cache" / f".{whole.folder.name}.shards"
    held.mkdir(parents=True)
    (held / "00000001.npz").write_bytes(b"PK\x03\x04 cut off")
    write, task = shards.ShardWriter.write, data.get_task(data=path).tasks[0]
    part = list(shards.parts(task.rows("train", UnreadKeys(READ))))[2]
    write(writer_of(task, held), part)
    flipped = bytearray((held / "00000002.npz").read_bytes())
    flipped[flipped.index(b"say 45")] ^= 1
    (held / "00000002.npz").write_bytes(flipped)
    assert contents(prepare(path, "cache").folder) == contents(whole.folder)
    assert "00000001.npz is damaged" in caplog.text and "00000002.npz is damaged" in caplog.text


def test_a_killed_process_is_told_and_its_shards_stay(prepare, write_jsonl, tmp_path, monkeypatch):
    def killed(pool, part):
        return pool.submit(os._exit, 9)

    path = write_jsonl(rows(60))
    monkeypatch.setattr(preparation_workers, "submit", killed)
    with pytest.raises(UserError, match=r"was killed, .* LMIRL_PREPARATION_PROCESSES=1"):
        prepare(path, "cache", processes=2)
    assert [file.suffix for file in (tmp_path / "cache").iterdir()] == [".shards"]


def test_a_second_preparation_waits_for_the_first(prepare, write_jsonl, tmp_path, caplog):
    caplog.set_level("INFO")
    path = write_jsonl(rows(60))
    folder = prepare(path, "one").folder
    found = []
    with preparation._held_folder(tmp_path / "two" / folder.name):
        other = threading.Thread(target=lambda: found.append(prepare(path, "two")))
        other.start()
        while "waiting for another process" not in caplog.text:
            time.sleep(0.01)
        assert not found
    other.join(timeout=60)
    assert contents(found[0].folder) == contents(folder) and len(list((tmp_path / "two").iterdir())) == 1


def test_without_locks_each_process_prepares(prepare, write_jsonl, tmp_path, monkeypatch):
    def refuse(descriptor, operation):
        raise OSError(errno.ENOLCK, "no locks")

    path = write_jsonl(rows(60))
    folder = prepare(path, "one").folder
    monkeypatch.setattr(preparation.fcntl, "flock", refuse)
    with preparation._held_folder(tmp_path / "two" / folder.name) as held:
        assert contents(prepare(path, "two").folder) == contents(folder)
        assert list((tmp_path / "two").iterdir()) != [held] and held.is_dir()


def test_the_number_of_processes(monkeypatch):
    monkeypatch.setenv("LMIRL_PREPARATION_PROCESSES", "none")
    with pytest.raises(UserError, match="LMIRL_PREPARATION_PROCESSES='none': set it to a whole number"):
        preparation.processes()
    monkeypatch.delenv("LMIRL_PREPARATION_PROCESSES")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(100)), raising=False)
    assert preparation.processes() == preparation.MOST_PROCESSES


def test_the_line_of_progress_has_a_rate_and_the_time_left(monkeypatch, caplog):
    # It begins, says nothing after 3 and 4 seconds, and a line after 10 and at the end.
    clock = iter([100.0, 103.0, 104.0, 110.0, 110.0, 110.0])
    monkeypatch.setattr("lmirl_jax.data.preparation_progress.time.monotonic", lambda: next(clock))
    caplog.set_level("INFO")
    with PreparationProgress("gsm8k, train", 10_000) as progress:
        progress.add(1000, kept=True)
        progress.add(1000)
        assert not caplog.text
        progress.add(2000)
    # 3,000 in 10 seconds; 6,000 are left.
    line = "gsm8k, train: 4,000 of 10,000 examples prepared, 300 a second, 20 s left"
    assert caplog.messages == [line, line]


def test_rows_are_counted_where_they_are_many(write_jsonl, tmp_path, monkeypatch):
    lines = pathlib.Path(write_jsonl(rows(7)))
    parquet.write_table(pa.Table.from_pylist(rows(5)), tmp_path / "five.parquet")
    array = tmp_path / "array.json"
    array.write_text(json.dumps(rows(3)))
    assert row_counts.expected_rows([lines]) is None
    monkeypatch.setattr(row_counts, "LARGE", 1)
    assert row_counts.expected_rows([lines, tmp_path / "five.parquet"]) == 12
    assert row_counts.expected_rows([lines, array]) is None


def test_a_source_of_seqio_tells_how_many_there_are(make_task, tmp_path, monkeypatch):
    totals, task = [], make_task({"train": [("a", "b"), ("c", "d")]})
    source = seqio.FunctionDataSource(
        task.source._dataset_fn, splits=("train",), num_input_examples={"train": 2}
    )
    monkeypatch.setattr(
        preparation, "expected_rows", lambda files: pytest.fail("a SeqIO task has no files here")
    )
    start = PreparationProgress.__init__
    monkeypatch.setattr(
        PreparationProgress, "__init__", lambda *given: totals.append(given[-1]) or start(*given)
    )
    for each in (task, make_task({"train": [("a", "b")]}, "told", source=source)):
        data.tokenized_records(each, "train", str(tmp_path))
    assert totals == [None, 2]


def test_parts_are_cut_by_characters_too(monkeypatch):
    monkeypatch.setattr(shards, "CHARACTERS", 10)
    found = list(shards.parts((str(n), {"inputs": "x" * n}) for n in (4, 6, 30, 1)))
    assert [(part.number, part.first, len(part.rows)) for part in found] == [(0, 0, 2), (1, 2, 1), (2, 3, 1)]
