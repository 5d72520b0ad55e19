"""The files of a task by split: where its demonstrations are read, and what identifies them."""

import dataclasses
import hashlib
import json
import logging
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from lmirl_jax.data.columns import MESSAGES, Columns
from lmirl_jax.data.data_files import has_split
from lmirl_jax.data.formats import table_ending
from lmirl_jax.data.jsonl import demonstration_files, read_demonstrations
from lmirl_jax.data.unread_keys import UnreadKeys
from lmirl_jax.types import UserError

_log = logging.getLogger(__name__)

# A file whose time of change is at most this many nanoseconds ago may change again without a change of that time.
SETTLED = 2 * 10**9

# Loss and answers of a run are evaluated on the same file, which is hashed once.
_hashes: dict[tuple[str, int, int, int], str] = {}


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """The validation split that goes with DATA.

    Args:
        data: VALIDATION_DATA, a path; None for none.
        share: VALIDATION_SHARE, the share of the prompts of DATA.
    """

    data: str | None = None
    share: float = 0.0

    def check(self) -> None:
        """Raises a UserError if there are two validation splits."""
        if self.share and self.data is not None:
            raise UserError(
                f"VALIDATION_SHARE={self.share:g} and VALIDATION_DATA are both set: a share of DATA, or a file; set one of them"
            )


@dataclasses.dataclass(frozen=True)
class FileSource:
    """The files of each split. Their content is their identity, not their path.

    Args:
        paths: by split, a path as `data_files` takes it.
        settings: by split, the name of the setting that gave the path, for errors.
        columns: the columns of their rows.
        held_out: the share of the prompts that are the validation split, and not in the training split; 0 for none.
    """

    paths: Mapping[str, str] = dataclasses.field(default_factory=dict)
    settings: Mapping[str, str] = dataclasses.field(default_factory=dict)
    columns: Columns = dataclasses.field(default_factory=Columns)
    held_out: float = 0.0

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self.paths)

    def content_hash(self, split: str) -> str:
        """Hashes a split's files, unless this process has hashed them since their last change."""
        return content_hash(self._files(split))

    def identity(self, split: str) -> dict[str, Any]:
        """What determines the rows of a split, for the hash of its tokens."""
        columns = {"columns": dict(self.columns.names)} if self.columns.names else {}
        share = {"validation_share": self.held_out} if self.held_out else {}
        # The separator of a table is the one that its name stands for, if its first line has several.
        endings = [table_ending(file) for file in self._files(split)]
        tables = {"tables": endings} if any(endings) else {}
        return {"file": self.content_hash(split), **columns, **share, **tables}

    def rows(self, split: str, unread: UnreadKeys) -> Iterator[tuple[str, dict[str, Any]]]:
        """Reads a split's files once; yields for each row its name in errors, and its texts and numbers."""
        taken, name, count = self._takes(split), f"{self.paths[split]}, {split}", 0
        several = 0
        for where, row in read_demonstrations(self._files(split), self.columns, unread, taken):
            count += 1
            several += isinstance(row.get("targets"), list) and len(row["targets"]) > 1
            yield where, row
        if not count:
            raise UserError(
                f"VALIDATION_SHARE={self.held_out:g} leaves no prompt of {self.paths[split]} in the {split} split: set another "
                "share, or VALIDATION_DATA"
            )
        if several:
            _log.info(
                "%s: %d of %d rows have several targets: the first is learnt, and answers are compared with all",
                name,
                several,
                count,
            )

    def only(self, split: str) -> "FileSource":
        """The same source without its other splits."""
        return dataclasses.replace(self, paths={split: self.paths[split]})

    def _takes(self, split: str) -> Callable[[Mapping[str, Any]], bool] | None:
        """Whether a row is in a split; None for all rows."""
        if not self.held_out:
            return None
        return lambda row: is_held_out(row, self.held_out) == (split == "validation")

    def _files(self, split: str) -> list[pathlib.Path]:
        part = "train" if self.held_out else split
        return demonstration_files(self.paths[split], self.settings[split], part)


def file_source(data: str, held_out: HeldOut, columns: Columns) -> FileSource:
    """The source of a path of DATA, and of the validation split that it brings or that goes with it.

    Raises:
        UserError: DATA brings a validation split, and a share of it is to be one.
    """
    paths, settings = {"train": os.fspath(data)}, {"train": "DATA"}
    brought = has_split(data, "validation")
    if held_out.share and brought:
        raise UserError(
            f"VALIDATION_SHARE={held_out.share:g}, and {data} has a validation split: set the share to 0, or name the folder of "
            "the training split"
        )
    if held_out.data is not None:
        paths["validation"], settings["validation"] = os.fspath(held_out.data), "VALIDATION_DATA"
    elif brought or held_out.share:
        paths["validation"], settings["validation"] = os.fspath(data), "DATA"
    return FileSource(paths, settings, columns, held_out.share)


def is_held_out(row: Mapping[str, Any], share: float) -> bool:
    """Whether a row is in the validation split, by a hash of its prompt alone: neither its answer nor other rows matter.

    The prompt is the text of `inputs`, or the messages before the last assistant turn.

    Args:
        row: a row as `read_demonstrations` yields it.
        share: the expected share of the prompts in the validation split; with a larger one, the same prompts are in it.
    """
    digest = hashlib.sha256(_prompt(row).encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def _prompt(row: Mapping[str, Any]) -> str:
    if MESSAGES not in row:
        return row["inputs"]
    messages = row[MESSAGES]
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        return repr(messages)  # It is refused where the vocabulary is known.
    answers = [i for i, message in enumerate(messages) if message.get("role") == "assistant"]
    prompt = messages[: answers[-1]] if answers else messages
    # The columns of Parquet are there in every message.
    prompt = [{key: value for key, value in message.items() if value is not None} for message in prompt]
    if len(prompt) == 1 and prompt[0].keys() == {"role", "content"} and prompt[0]["role"] == "user":
        # The same prompt as a text of `inputs`.
        return str(prompt[0]["content"])
    return json.dumps(prompt, sort_keys=True, ensure_ascii=False, default=str)


def content_hash(files: Sequence[pathlib.Path]) -> str:
    """A hash of the content of files in their order; that of a single file is its own SHA-256."""
    hashes = [_content_hash(file) for file in files]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def _content_hash(file: pathlib.Path) -> str:
    stat = file.stat()
    key = (str(file.resolve()), stat.st_ino, stat.st_size, stat.st_mtime_ns)
    if key not in _hashes:
        with open(file, "rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        if time.time_ns() - stat.st_mtime_ns < SETTLED:
            return digest
        _hashes[key] = digest
    return _hashes[key]
