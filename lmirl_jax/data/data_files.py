"""The files that a setting such as DATA names: a file, a folder that Hugging Face `datasets` saved, or a pattern of either."""

import glob
import json
import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any

from lmirl_jax.data.csv_rows import SEPARATORS
from lmirl_jax.data.formats import ARROW, GZIP, JSON, PARQUET
from lmirl_jax.types import UserError

# What `datasets` writes into a folder: `save_to_disk` of a data set, and of a dictionary of them by split.
STATE, SPLITS = "state.json", "dataset_dict.json"
_ENDINGS = (*JSON, *SEPARATORS, PARQUET, ARROW)


def data_files(path: str | os.PathLike[str], remedy: str, split: str | None = None) -> list[pathlib.Path]:
    """The files that a path names, in the order in which they are read; those of a pattern are sorted by their names.

    Args:
        path: the path, or the pattern, as the user gave it.
        remedy: the end of each error: which setting it is, and what it must name.
        split: which split of a saved dictionary of data sets is taken; None for none.

    Raises:
        UserError: it is in a bucket, not there, matches nothing, or is a folder without a data set.
    """
    if "://" in str(path):
        raise UserError(f"{path} is not on this machine: copy it to a disk here and name the copy; {remedy}")
    file = pathlib.Path(path).expanduser()
    if file.is_file():
        return [file]
    if file.is_dir():
        return _saved_files(file, remedy, split)
    if not glob.has_magic(str(path)):
        raise UserError(f"no file at {file}: {remedy}")
    matches = [pathlib.Path(match) for match in sorted(glob.glob(str(file), recursive=True))]
    found = [each for match in matches for each in _matched_files(match, remedy, split)]
    if not found:
        raise UserError(f"no file matches {file}: {remedy}")
    # A pattern may match a folder and what lies in it.
    return list(dict.fromkeys(found))


def has_split(path: str | os.PathLike[str], split: str) -> bool:
    """Whether a path is a saved dictionary of data sets with this split."""
    folder = pathlib.Path(path).expanduser()
    return (folder / SPLITS).is_file() and split in _split_names(folder)


def name_of(path: str | os.PathLike[str]) -> str:
    """A name for the data of a path, of letters, digits, `_` and `.`: the file's name without its ending."""
    pure = pathlib.PurePath(path)
    if pure.suffix == GZIP:
        pure = pure.with_suffix("")
    stem = pure.stem if pure.suffix in _ENDINGS or not glob.has_magic(str(path)) else pure.name
    name = re.sub(r"[^\w.]", "_", stem)
    if glob.has_magic(str(path)):
        # What a pattern leaves open is no name.
        name = re.sub(r"_+", "_", name).strip("_.")
    if not name and str(pure.parent) not in ("", ".", "/"):
        return name_of(pure.parent)
    return name or "data"


def _matched_files(match: pathlib.Path, remedy: str, split: str | None) -> Iterator[pathlib.Path]:
    if match.is_file():
        yield match
    elif (match / STATE).is_file() or (match / SPLITS).is_file():
        yield from _saved_files(match, remedy, split)


def _saved_files(folder: pathlib.Path, remedy: str, split: str | None) -> list[pathlib.Path]:
    """The Arrow files of a folder that `datasets` saved, in the order of its rows."""
    if (folder / SPLITS).is_file():
        names = _split_names(folder)
        if split not in names:
            raise UserError(
                f"{folder} holds the splits {', '.join(names) or 'none'}: name the folder of one, such as "
                f"{str(folder / (names or ['train'])[0])!r}; {remedy}"
            )
        return _saved_files(folder / split, remedy, None)
    if not (folder / STATE).is_file():
        raise UserError(
            f"{folder} is a folder: {remedy}; name a file in it, or a pattern such as {str(folder / '*.jsonl')!r}"
        )
    state = _read(folder / STATE)
    if state.get("_indices_data_files"):
        raise UserError(f"{folder} holds a selection of rows: save it again, after flatten_indices()")
    listed = state.get("_data_files")
    if not isinstance(listed, list) or not listed:
        raise UserError(f"{folder / STATE} lists no files in '_data_files': save the data set again")
    files = [folder / str(entry.get("filename") if isinstance(entry, dict) else entry) for entry in listed]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise UserError(f"{folder} lacks {missing[0]}, which its {STATE} lists: copy the whole folder")
    return files


def _split_names(folder: pathlib.Path) -> list[str]:
    names = _read(folder / SPLITS).get("splits")
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def _read(file: pathlib.Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: not JSON ({error}); copy the whole folder again") from error
    if not isinstance(content, dict):
        raise UserError(f"{file}: not a JSON object; copy the whole folder again")
    return content
