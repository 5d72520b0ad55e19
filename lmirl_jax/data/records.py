"""The tokens of a split on disk: written once as ArrayRecord, in a folder named after a hash of all that determines them.

A folder of the cache holds one split of one task:

    examples.array_record   one record for each example: its tokens, then its other features as JSON
    lengths.npy             [2, n, 2] token counts of inputs and targets, EOS included, which show what would be truncated; then
                            the same where the last assistant turn of a conversation is the target
    info.json               how many examples, how many targets lack a final EOS, what the vocabulary cannot hold of the texts,
                            which keys of a file's rows are not read, whether examples have weights, how many have rewards,
                            how many are conversations of several assistant turns, or of fewer than their file has, and a
                            hash of all tokens, weights, rewards and turns
"""

import dataclasses
import json
import logging
import os
import pathlib
import shutil
import tempfile
from typing import Any

import grain
import numpy as np
from jaxtyping import Int64

from lmirl_jax.data.file_task import FileTask
from lmirl_jax.data.record_writing import ExampleReader, write_records
from lmirl_jax.data.task_parts import Example, TaskPart
from lmirl_jax.data.vocabulary_losses import Losses
from lmirl_jax.types import UserError

FORMAT_VERSION = 4

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Records:
    """A split on disk.

    Args:
        folder: the folder of the split.
        source: the records by index, for `decode_record`.
        lengths: token counts of inputs and targets.
        last_lengths: the same where the last assistant turn of a conversation is the target.
        content: a hash of all tokens, weights, rewards and turns.
        without_eos: the number of targets that do not end in EOS.
        losses: by feature, the texts that the vocabulary cannot hold.
        unread: for each key that is not read, the number of rows that have it.
        weighted: whether any example has a weight; it is 1 where an example has none.
        rewarded: the number of examples with rewards; the tokens of the others have rewards of 0.
        conversations: the number of examples with several assistant turns.
        turns_left_out: the number of conversations whose earlier assistant turns cannot be learnt.
    """

    folder: pathlib.Path
    source: grain.sources.ArrayRecordDataSource
    lengths: Int64[np.ndarray, "examples 2"]
    last_lengths: Int64[np.ndarray, "examples 2"]
    content: str
    without_eos: int
    losses: dict[str, Losses]
    unread: dict[str, int]
    weighted: bool
    rewarded: int
    conversations: int
    turns_left_out: int

    def __len__(self) -> int:
        return len(self.lengths)


def tokenized_records(task: TaskPart, split: str, cache_dir: str | None = None) -> Records:
    """Opens the tokens of a split; writes them to the cache first unless they are there.

    A file is read once for its hash, and once more if its tokens are not in the cache. If two processes
    write at the same time, the first to finish wins.

    Args:
        task: a `seqio.Task` or a `FileTask`.
        split: a split of the task.
        cache_dir: default `$LMIRL_CACHE_DIR`, else `~/.cache/lmirl_jax/examples`.

    Raises:
        UserError: no such split, no data, an empty split, a weight that is no number of 0 or more, nothing but weights of
            0, rewards that do not fit their answer, or a cache folder that cannot be written.
    """
    if split not in task.splits:
        raise UserError(
            f"task {task.name} has no split {split!r}; it has {', '.join(sorted(task.splits)) or 'none'}"
        )
    root = cache_folder(cache_dir)
    reader = _reader(task)
    key = reader.fingerprint(split, FORMAT_VERSION)
    folder = root / f"{task.name.replace(':', '_')}-{split}-{key[:32]}"
    records = _open(folder)
    if records is None:
        _write_folder(task, reader, split, folder)
        records = _open(folder)
    if records is None:
        raise UserError(
            f"the examples in {folder} cannot be read back: free disk space and delete that folder"
        )
    return records


def cache_folder(cache_dir: str | None = None) -> pathlib.Path:
    """The folder of the cache: the given one, else `$LMIRL_CACHE_DIR`, else `~/.cache/lmirl_jax/examples`."""
    return pathlib.Path(
        cache_dir or os.environ.get("LMIRL_CACHE_DIR") or "~/.cache/lmirl_jax/examples"
    ).expanduser()


def decode_record(record: bytes) -> tuple[np.ndarray, np.ndarray]:
    """The inputs and targets of a record."""
    n, m = np.frombuffer(record, "<i4", 2)
    tokens = np.frombuffer(record, "<i4", n + m, offset=8)
    return tokens[:n], tokens[n:]


def decode_example(record: bytes) -> Example:
    """The whole example of a record."""
    inputs, targets = decode_record(record)
    return Example(inputs, targets, json.loads(record[8 + 4 * (len(inputs) + len(targets)) :]))


def _open(folder: pathlib.Path) -> Records | None:
    """The records of a folder; None if there are none or, after a crash of the machine, some are missing."""
    try:
        info = json.loads((folder / "info.json").read_text())
        lengths, last_lengths = np.load(folder / "lengths.npy")
        source = grain.sources.ArrayRecordDataSource(str(folder / "examples.array_record"))
        if len(source) != info["examples"] or len(lengths) != info["examples"]:
            raise ValueError(
                f"{len(source)} records and {len(lengths)} lengths for {info['examples']} examples"
            )
        losses = {feature: Losses(**lost) for feature, lost in info["losses"].items()}
        names = (
            "content",
            "without_eos",
            "unread",
            "weighted",
            "rewarded",
            "conversations",
            "turns_left_out",
        )
        counts = {key: info[key] for key in names}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        _log.warning("the examples in %s are damaged (%s): writing them again", folder, error)
        shutil.rmtree(folder, ignore_errors=True)
        return None
    return Records(folder, source, lengths, last_lengths, losses=losses, **counts)


def _reader(task: Any) -> ExampleReader:
    """Returns a reader of the task's examples: a `FileTask` itself, or SeqIO's pipeline for a SeqIO task."""
    if isinstance(task, FileTask):
        return task
    # Whoever has a SeqIO task has imported SeqIO already.
    from lmirl_jax.data.seqio_examples import SeqioReader

    return SeqioReader(task)


def _write_folder(task: TaskPart, reader: ExampleReader, split: str, folder: pathlib.Path) -> None:
    """Writes to a temporary name beside the folder and renames it at the end, so that the folder is complete or absent."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = pathlib.Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise UserError(
            f"cannot write tokenised examples under {folder.parent} ({error.strerror}): set LMIRL_CACHE_DIR to a "
            "folder that can be written"
        ) from error
    try:
        temporary.chmod(0o755)
        _log.info("tokenising %s, split %s", task.name, split)
        write_records(task, reader, split, temporary)
        try:
            os.rename(temporary, folder)
        except OSError:
            # If the folder exists, another process has written the same tokens first.
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
