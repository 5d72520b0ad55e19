"""The tokens of a split on disk: written once, in a folder named after a hash of all that determines them.

A folder of the cache holds one split of one task: the files of `example_source`, and

    lengths.npy             [3, n, 2] token counts of inputs and targets, EOS included, which show what would be truncated; then
                            the same where the last assistant turn of a conversation is the target; then where the rejected
                            answer is, 0 for an example without one
    info.json               how many examples, how many targets lack a final EOS, what the vocabulary cannot hold of the texts,
                            which keys of a file's rows are not read, whether examples have weights, how many have rewards,
                            how many are conversations of several assistant turns, or of fewer than their file has, how many
                            have a rejected answer, and a hash of all tokens, weights, rewards, turns and rejected answers
    content_hashes.json     the sizes and the hashes of these files, which are compared when a process first opens them
"""

import dataclasses
import json
import logging
import os
import pathlib
import shutil
from typing import Any

import numpy as np
from jaxtyping import Int64

from lmirl_jax import content_hashes
from lmirl_jax.data.example_source import LENGTHS, ExampleSource
from lmirl_jax.data.facts import COUNTED
from lmirl_jax.data.file_task import FileTask
from lmirl_jax.data.preparation import MakesShards, make_shards, prepare
from lmirl_jax.data.shards import RowReader
from lmirl_jax.data.task_parts import TaskPart
from lmirl_jax.data.vocabulary_losses import Losses
from lmirl_jax.types import UserError

FORMAT_VERSION = 7

_log = logging.getLogger(__name__)

# The sizes and times of change of the files of folders that this process has compared with their hashes.
_compared: dict[pathlib.Path, list[tuple[str, int, int]]] = {}


@dataclasses.dataclass(frozen=True)
class Records:
    """A split on disk.

    Args:
        folder: the folder of the split.
        source: the examples by their number.
        lengths: token counts of inputs and targets.
        last_lengths: the same where the last assistant turn of a conversation is the target.
        rejected_lengths: the same where the rejected answer is the target.
        content: a hash of all tokens, weights, rewards, turns and rejected answers.
        without_eos: the number of targets that do not end in EOS.
        losses: by feature, the texts that the vocabulary cannot hold.
        unread: for each key that is not read, the number of rows that have it.
        weighted: whether any example has a weight; it is 1 where an example has none.
        rewarded: the number of examples with rewards; the tokens of the others have rewards of 0.
        conversations: the number of examples with several assistant turns.
        preferences: the number of examples with a rejected answer.
        labelled: the number of examples that say whether their answer is right.
        right: the number of examples whose answer is right.
        turns_left_out: the number of conversations whose earlier assistant turns cannot be learnt.
    """

    folder: pathlib.Path
    source: ExampleSource
    lengths: Int64[np.ndarray, "examples 2"]
    last_lengths: Int64[np.ndarray, "examples 2"]
    rejected_lengths: Int64[np.ndarray, "examples 2"]
    content: str
    without_eos: int
    losses: dict[str, Losses]
    unread: dict[str, int]
    weighted: bool
    rewarded: int
    conversations: int
    preferences: int
    labelled: int
    right: int
    turns_left_out: int

    def __len__(self) -> int:
        return len(self.lengths)


def tokenized_records(
    task: TaskPart, split: str, cache_dir: str | None = None, make_shards: MakesShards = make_shards
) -> Records:
    """Opens the tokens of a split; writes them to the cache first unless they are there.

    A file is read once for its hash, and once more if its tokens are not in the cache. If two processes open it at the same
    time, one writes and the other waits for it.

    Args:
        task: a `seqio.Task` or a `FileTask`.
        split: a split of the task.
        cache_dir: default `$LMIRL_CACHE_DIR`, else `~/.cache/lmirl_jax/examples`.
        make_shards: how the tokens are made: on this machine, or by `beam_preparation`.

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
        prepare(task, reader, split, folder, lambda: _open(folder, remove=True) is not None, make_shards)
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


def _open(folder: pathlib.Path, remove: bool = False) -> Records | None:
    """The records of a folder; None if there are none, or if they are not as they were written, as after a crash of the machine.

    Args:
        folder: the folder.
        remove: whether to remove what is damaged, and to say so; only for the process that holds the lock and writes it again.
    """
    try:
        _compare(folder)
        info = json.loads((folder / "info.json").read_text())
        lengths, last_lengths, rejected_lengths = np.load(folder / LENGTHS, mmap_mode="r")
        source = ExampleSource(folder, info["token_type"])
        if len(source) != info["examples"] or len(lengths) != info["examples"]:
            raise ValueError(
                f"{len(source)} records and {len(lengths)} lengths for {info['examples']} examples"
            )
        losses = {feature: Losses(**lost) for feature, lost in info["losses"].items()}
        names = (*COUNTED, "content", "unread", "weighted")
        counts = {key: info[key] for key in names if key != "examples"}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        if remove:
            _log.warning("the examples in %s are damaged (%s): writing them again", folder, error)
            shutil.rmtree(folder, ignore_errors=True)
        return None
    sizes = lengths, last_lengths, rejected_lengths
    return Records(folder, source, *sizes, losses=losses, **counts)


def _compare(folder: pathlib.Path) -> None:
    """Compares the files of a split with their hashes, unless this process has done so since they were written.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: a file is missing, is left over or has changed.
    """
    found = sorted((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in folder.iterdir())
    if _compared.get(folder) != found:
        problems = content_hashes.problems(folder)
        if problems:
            raise ValueError(content_hashes.describe(problems))
        _compared[folder] = found


def _reader(task: Any) -> RowReader:
    """Returns a reader of the task's examples: a `FileTask` itself, or SeqIO's pipeline for a SeqIO task."""
    if isinstance(task, FileTask):
        return task
    # Whoever has a SeqIO task has imported SeqIO already.
    from lmirl_jax.data.seqio_examples import SeqioReader

    return SeqioReader(task)
