"""Writes files on a disk or in a bucket (gs://), which appear complete or not at all."""

import contextlib
import glob
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import IO, Any

import jax
from etils import epath

from lmirl_jax.line_hashes import Growing, HashedLines
from lmirl_jax.locks import lock_file
from lmirl_jax.types import UserError

# What the names of the files of `open_resumable` end in: the lines, their hashes, the settings.
PARTIAL = ("", ".hashes", ".json")


def absolute_path(path: epath.PathLike) -> epath.Path:
    """The absolute path: `~` becomes the home folder, and the path of a bucket stays unchanged.

    Raises:
        UserError: the path is a web address, or no path of this system.
    """
    try:
        given = epath.Path(path)
    except KeyError:
        raise UserError(
            f"{str(path)!r} is neither a path on a disk nor in a bucket (gs://, s3://): download it and name the copy"
        ) from None
    if "\0" in str(path):
        raise UserError(f"{str(path)!r} holds a null character, which no path may: check how it was made")
    return given if "://" in str(path) else given.expanduser().resolve()


def digest(text: str) -> str:
    """A hash of a text in twelve letters, for the names of files that depend on it."""
    return hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).hexdigest()[:12]


def prepare_directory(directory: Any, name: str = "MODEL_DIR") -> epath.Path:
    """Makes a folder, and proves that it can be written to before anything is computed.

    Args:
        directory: the path of the folder.
        name: the name of the setting that gives the path.

    Returns:
        The absolute path.

    Raises:
        UserError: the directory is no path, or cannot be written to.
    """
    if not isinstance(directory, str) or not directory:
        raise UserError(f"{name}={directory!r} is no path: name a folder that you may write to")
    path = absolute_path(directory)
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".writable.{jax.process_index()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"cannot write to {name} {path} ({error.strerror}): choose a folder that you may write to"
        ) from None
    return path


def check_no_input(outputs: Iterable[epath.PathLike], inputs: Mapping[str, Any], name: str) -> None:
    """Keeps a command from overwriting its inputs, also by another spelling of the path or through links.

    Args:
        outputs: the files to write; the temporary files of `open_resumable` and `open_atomic` beside them are checked too.
        inputs: the paths of files by the names of their settings: a path, a pattern, or a mapping by them; other values are
            ignored.
        name: the setting that says where to write.

    Raises:
        UserError: an output is one of the inputs, lies in a folder that is one, or lies in a checkpoint.
    """
    paths = [(label, path) for label, value in inputs.items() for path in _paths(value)]
    for output in map(absolute_path, outputs):
        temporary_names = [*(f"{output.name}.partial{end}" for end in PARTIAL), f".{output.name}.tmp"]
        for file in (output, *(output.parent / each for each in temporary_names)):
            for label, path in paths:
                read = absolute_path(path)
                if _same(file, read):
                    what = f"{name}={str(output)!r}"
                    raise UserError(f"{what} would overwrite {label} {path}, which is read: name another")
                if file.is_relative_to(read) and read.is_dir():
                    raise UserError(
                        f"{name}={str(output)!r} lies in {label} {path}, which is read: name another place"
                    )
        for folder in output.parents:
            if (folder / "_CHECKPOINT_METADATA").is_file():
                raise UserError(f"{name}={str(output)!r} lies in the checkpoint {folder}: name another")


def _paths(value: Any) -> Iterator[str]:
    """The paths that the value of a setting names, and those of the files that match it."""
    if isinstance(value, Mapping):
        for path in value:
            yield from _paths(path)
    elif isinstance(value, (str, os.PathLike)) and value:
        path = os.fspath(value)
        yield path
        if "://" not in path and glob.has_magic(path):
            yield from glob.iglob(os.path.expanduser(path), recursive=True)


def _same(one: epath.Path, other: epath.Path) -> bool:
    """Whether two paths lead to the same file, also through hard links or on a file system that ignores case."""
    if one == other:
        return True
    try:
        return "://" not in f"{one}{other}" and os.path.samefile(one, other)
    except OSError:
        return False


@contextlib.contextmanager
def open_atomic(path: epath.PathLike) -> Iterator[IO[str]]:
    """Opens a text file for writing under a temporary name.

    The file gets its name when the block ends without an exception, and is removed otherwise.
    """
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.tmp"
    try:
        with temporary.open("w", encoding="utf-8") as file:
            yield file
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    temporary.replace(path)


@contextlib.contextmanager
def open_resumable(
    path: epath.Path,
    settings: Mapping[str, Any],
    finish: Callable[[epath.Path, epath.Path], None] | None = None,
) -> Iterator[tuple[Growing, int]]:
    """Opens a text file that grows line by line and survives a kill: the next run with the same settings continues it.

    The lines go to PATH.partial, their hashes to PATH.partial.hashes, and the settings to PATH.partial.json. The file gets its
    name when the block ends without an exception. An incomplete last line is dropped; from a line that has changed since it was
    written all are, with a warning. A file in a bucket cannot grow: it appears complete or not at all.

    Args:
        path: the path of the complete file.
        settings: the settings that determine the lines, as JSON.
        finish: converts the file with the lines (its first argument) to the complete file (its second); None where the lines are
            the complete file.

    Yields:
        The file, positioned at its end, and the number of lines that it has.

    Raises:
        UserError: the partial file was begun with other settings, or another run is writing it.
    """
    if "://" in str(path):
        with (
            contextlib.nullcontext(path) if finish is None else _local_copy(path, finish) as place,
            open_atomic(place) as file,
        ):
            yield file, 0
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial, hashes_file, settings_file = (path.parent / f"{path.name}.partial{end}" for end in PARTIAL)
    with open(partial, "a+b") as raw, open(hashes_file, "a+b") as hashes:
        lock_file(raw, f"another run is writing {partial}: wait for it to end, or choose another OUTPUT_PATH")
        file = HashedLines(raw, hashes)
        lines = file.keep_whole(str(partial))
        if lines:
            _check_settings(partial, settings_file, settings)
        else:
            with open_atomic(settings_file) as begun:
                json.dump(settings, begun, indent=1)
        try:
            yield file, lines
        except BaseException:
            file.flush()
            # An empty file has nothing to continue.
            if not os.path.getsize(partial):
                for each in (partial, hashes_file, settings_file):
                    each.unlink()
            raise
        file.sync()
        if finish is None:
            partial.replace(path)
        else:
            _finish(finish, partial, path)
            partial.unlink()
        hashes_file.unlink()
        settings_file.unlink()


def _finish(finish: Callable[[epath.Path, epath.Path], None], lines: epath.Path, path: epath.Path) -> None:
    temporary = path.parent / f".{path.name}.tmp"
    try:
        finish(lines, temporary)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    temporary.replace(path)


@contextlib.contextmanager
def _local_copy(path: epath.Path, finish: Callable[[epath.Path, epath.Path], None]) -> Iterator[epath.Path]:
    """Yields the path of a local file, which `finish` converts to a file in a bucket if the block raises no exception."""
    with tempfile.TemporaryDirectory() as folder:
        lines, complete = epath.Path(folder) / "lines", epath.Path(folder) / path.name
        yield lines
        finish(lines, complete)
        complete.copy(path, overwrite=True)


def _check_settings(partial: epath.Path, settings_file: epath.Path, settings: Mapping[str, Any]) -> None:
    try:
        before = json.loads(settings_file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        before = {}
    now = json.loads(json.dumps(settings))
    for name in {**now, **before}:
        if before.get(name) != now.get(name):
            raise UserError(
                f"{partial} was begun with {name}={before.get(name)!r}, not {now.get(name)!r}: give the same settings "
                "to go on with it, or delete it to begin anew"
            )
