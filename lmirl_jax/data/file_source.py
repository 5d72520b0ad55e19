"""The files of a task by split: where its demonstrations are read, and what identifies them."""

import dataclasses
import hashlib
import os
import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lmirl_jax.data.data_files import has_split
from lmirl_jax.data.jsonl import demonstration_files, read_demonstrations
from lmirl_jax.data.unread_keys import UnreadKeys

# A file whose time of change is at most this many nanoseconds ago may change again without a change of that time.
SETTLED = 2 * 10**9

# Loss and answers of a run are evaluated on the same file, which is hashed once.
_hashes: dict[tuple[str, int, int, int], str] = {}


@dataclasses.dataclass(frozen=True)
class FileSource:
    """The files of each split. Their content is their identity, not their path.

    Args:
        paths: by split, a path as `data_files` takes it.
        settings: by split, the name of the setting that gave the path, for errors.
    """

    paths: Mapping[str, str] = dataclasses.field(default_factory=dict)
    settings: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self.paths)

    def content_hash(self, split: str) -> str:
        """Hashes a split's files, unless this process has hashed them since their last change."""
        return content_hash(self._files(split))

    def rows(self, split: str, unread: UnreadKeys) -> Iterator[tuple[str, dict[str, Any]]]:
        """Reads a split's files once; yields for each row its name in errors, and its texts and numbers."""
        return read_demonstrations(self._files(split), unread)

    def _files(self, split: str) -> list[pathlib.Path]:
        return demonstration_files(self.paths[split], self.settings[split], split)


def file_source(data: str, validation_data: str | None = None) -> FileSource:
    """The source of DATA, and of VALIDATION_DATA or the validation split that DATA itself brings."""
    paths, settings = {"train": os.fspath(data)}, {"train": "DATA"}
    if validation_data is not None:
        paths["validation"], settings["validation"] = os.fspath(validation_data), "VALIDATION_DATA"
    elif has_split(data, "validation"):
        paths["validation"], settings["validation"] = os.fspath(data), "DATA"
    return FileSource(paths, settings)


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
