"""Prepares the tokenised examples of a split: over all cores, a shard at a time, and again from where it was interrupted.

The shards lie in a folder beside the one that they become, under a name made from it. Whoever prepares it holds a lock on it;
another process waits. An interruption leaves the shards that are finished, and the next preparation uses them.
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import fcntl
import logging
import os
import pathlib
import pickle
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures.process import BrokenProcessPool

from lmirl_jax.data import preparation_workers as workers
from lmirl_jax.data.facts import parse_facts
from lmirl_jax.data.file_task import FileTask
from lmirl_jax.data.jsonl import READ, demonstration_files
from lmirl_jax.data.preparation_progress import PreparationProgress
from lmirl_jax.data.record_writing import join_shards
from lmirl_jax.data.row_counts import expected_rows
from lmirl_jax.data.shards import Part, RowReader, ShardWriter, parts, read_shard
from lmirl_jax.data.task_parts import FEATURES, TaskPart, vocabulary_of
from lmirl_jax.data.unread_keys import UnreadKeys
from lmirl_jax.types import UserError

# More processes than these wait for the one that reads the rows.
MOST_PROCESSES = 16
# Other processes are started after this many seconds of work, because they take about a second to start.
ALONE_SECONDS = 2.0

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Made:
    """The shards of a split are there: their number, and for each key that is not read, the number of rows that have it."""

    shards: int
    unread: Mapping[str, int]


# Makes all shards of a split in the folder of the writer.
MakesShards = Callable[[ShardWriter, str], Made]


def prepare(
    task: TaskPart,
    reader: RowReader,
    split: str,
    folder: pathlib.Path,
    is_there: Callable[[], bool],
    make_shards: MakesShards,
) -> None:
    """Writes a split to its folder, which is complete or absent, unless another process writes it first.

    Args:
        task: the task.
        reader: its reader.
        split: the split.
        folder: the folder to make.
        is_there: whether the folder is complete.
        make_shards: makes the shards.

    Raises:
        UserError: a row that cannot be used, an empty split, a folder that cannot be written, or a process that was killed.
    """
    processes()  # If the setting cannot be used, nothing that is finished is lost.
    with _held_folder(folder) as held:
        try:
            if not is_there():
                vocabularies = {feature: vocabulary_of(task, feature) for feature in FEATURES}
                writer = ShardWriter(f"task {task.name}, {split}", task.name, reader, vocabularies, held)
                _finish(writer, split, make_shards(writer, split), folder)
        except UserError as error:
            # The data must change, and with them the name of the folder. A killed process says nothing against them.
            if not isinstance(error.__cause__, BrokenProcessPool):
                shutil.rmtree(held, ignore_errors=True)
            raise
        shutil.rmtree(held, ignore_errors=True)


def make_shards(writer: ShardWriter, split: str) -> Made:
    """Makes the shards on this machine, over all cores."""
    unread = UnreadKeys(READ)
    with PreparationProgress(writer.name, _expected(writer.reader, split)) as progress:
        count = _make_parts(writer, parts(writer.reader.rows(split, unread)), progress)
    return Made(count, unread.counts)


def _finish(writer: ShardWriter, split: str, made: Made, folder: pathlib.Path) -> None:
    """Joins the shards in a folder of their own and gives it its name at the end."""
    whole = writer.folder / f"whole-{uuid.uuid4().hex}"
    whole.mkdir()
    shards = [writer.file(number) for number in range(made.shards)]
    join_shards(writer.task, split, shards, made.unread, whole)
    try:
        os.rename(whole, folder)
    except OSError:
        # If the folder exists, another process has written the same tokens first.
        if not folder.is_dir():
            raise


def _expected(reader: RowReader, split: str) -> int | None:
    """The number of rows of a split, where it is known; about, where it is a share of those of its files."""
    if not isinstance(reader, FileTask):
        count = getattr(reader, "num_examples", None)
        return None if count is None else count(split)
    source, share = reader.source, reader.source.held_out
    files = demonstration_files(source.paths[split], source.settings[split], "train" if share else split)
    count = expected_rows(files)
    return None if count is None else round(count * (share if share and split == "validation" else 1 - share))


def kept_examples(writer: ShardWriter, number: int) -> int | None:
    """The number of examples of a shard that an earlier preparation has finished; None if there is none that can be read."""
    try:
        return parse_facts(read_shard(writer.file(number))["facts"]).examples
    except FileNotFoundError:
        return None
    except Exception as error:
        # Of a file that a crash of the machine has cut off, each layer raises its own.
        _log.warning("%s is damaged (%s): writing it again", writer.file(number), error)
        return None


def _make_parts(writer: ShardWriter, split_parts: Iterator[Part], progress: PreparationProgress) -> int:
    """Makes the shards that are not there, in this process at first and by others if it takes long; returns their number."""
    count, alone, pool = 0, 0.0, None
    limit = processes() if isinstance(writer.reader, FileTask) and _travels(writer) else 1
    running: collections.deque[concurrent.futures.Future[int]] = collections.deque()
    unreadable: list[UserError] = []
    try:
        for part in _until_error(split_parts, unreadable):
            count += 1
            kept = kept_examples(writer, part.number)
            if kept is not None:
                progress.add(kept, kept=True)
            elif limit == 1 or alone < ALONE_SECONDS:
                began = time.monotonic()
                progress.add(writer.write(part))
                alone += time.monotonic() - began
            else:
                pool = pool or workers.pool(writer, limit)
                running.append(workers.submit(pool, part))
                if len(running) > 2 * limit:
                    progress.add(running.popleft().result())
        while running:
            progress.add(running.popleft().result())
    except BrokenProcessPool as error:
        raise UserError(
            f"{writer.name}: a process that prepares examples was killed, perhaps for want of memory; what is finished stays: "
            "run the same command again, with LMIRL_PREPARATION_PROCESSES=1 to use this process alone"
        ) from error
    finally:
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)
    for error in unreadable:
        raise error
    return count


def _until_error(split_parts: Iterator[Part], errors: list[UserError]) -> Iterator[Part]:
    """The parts before a row that cannot be read, whose error is held back: rows before it may have an error of their own."""
    try:
        yield from split_parts
    except UserError as error:
        errors.append(error)


def processes() -> int:
    """The number of processes that prepare: `$LMIRL_PREPARATION_PROCESSES`, else one for each core that this process may use."""
    given = os.environ.get("LMIRL_PREPARATION_PROCESSES")
    if given is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        return min(cores or 1, MOST_PROCESSES)
    if not given.isdecimal() or int(given) < 1:
        raise UserError(f"LMIRL_PREPARATION_PROCESSES={given!r}: set it to a whole number of 1 or more")
    return int(given)


def _travels(writer: ShardWriter) -> bool:
    """Whether another process can use this one's objects: what a script or a notebook defines is known only there."""
    try:
        return b"__main__" not in pickle.dumps(writer)
    except Exception:  # Whatever a user's object raises.
        return False


@contextlib.contextmanager
def _held_folder(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """The folder of the shards, locked: nobody else has it until the end of the context or of this process."""
    shards = folder.with_name(f".{folder.name}.shards")
    while True:
        try:
            shards.mkdir(parents=True, exist_ok=True)
            lock = os.open(shards / "lock", os.O_CREAT | os.O_RDWR)
        except FileNotFoundError:
            continue  # Another process has just finished and removed it.
        except OSError as error:
            raise UserError(
                f"cannot write tokenised examples under {folder.parent} ({error.strerror}): set LMIRL_CACHE_DIR to a "
                "folder that can be written"
            ) from error
        try:
            if not _lock(lock, folder):
                # Without locks, each process has shards of its own.
                shutil.rmtree(shards, ignore_errors=True)
                shards = shards.with_name(f"{shards.name}-{uuid.uuid4().hex}")
                shards.mkdir()
            elif not _is_same_file(lock, shards / "lock"):
                continue
            yield shards
            return
        finally:
            os.close(lock)


def _lock(descriptor: int, folder: pathlib.Path) -> bool:
    """Waits for the lock of a file; returns False on a file system that has no locks."""
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log.info("waiting for another process that prepares %s", folder)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError:
        return False
    return True


def _is_same_file(descriptor: int, file: pathlib.Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), file.stat())
    return False
