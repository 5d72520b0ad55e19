"""The formats of files of rows that are understood: a file's content decides, and its name where there is no content yet.

JSON lines    an object a line; .jsonl or .json
JSON array    of objects; the same endings, known by its `[{`
Parquet       .parquet, or known by its first bytes
text          .txt, a prompt a line; for prompts alone
"""

import json
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from lmirl_jax.types import UserError

JSON = (".jsonl", ".json")
PARQUET = ".parquet"
TEXT = ".txt"
UNDERSTOOD = "JSON lines or a JSON array (.jsonl, .json) and Parquet (.parquet)"
# The number of rows of a Parquet file that are in memory at a time.
ROWS = 1024

_COMPRESSED = (b"\x1f\x8b", b"PK\x03\x04", b"BZh", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ")


def local_file(path: str | os.PathLike[str], remedy: str) -> pathlib.Path:
    """The path of a file that can be read here.

    Args:
        path: the path as the user gave it.
        remedy: the end of each error: which setting it is, and what it must name.

    Raises:
        UserError: it is in a bucket, a folder, or not there.
    """
    if "://" in str(path):
        raise UserError(f"{path} is not on this machine: copy it to a disk here and name the copy; {remedy}")
    file = pathlib.Path(path).expanduser()
    if file.is_dir():
        raise UserError(f"{file} is a folder: {remedy}; name a file in it")
    if not file.is_file():
        raise UserError(f"no file at {file}: {remedy}")
    return file


def check_output_name(path: os.PathLike[str], name: str, parquet: bool = False) -> None:
    """Raises a UserError for a file whose ending says that it holds something else; without one it holds JSON lines.

    Args:
        path: the path of the file to write.
        name: the name of the setting that gave the path.
        parquet: whether it may be Parquet too.
    """
    known = (*JSON, PARQUET) if parquet else JSON
    ending = pathlib.PurePath(path).suffix
    if ending and ending not in known:
        raise UserError(
            f"{name}={os.fspath(path)!r} has the ending {ending!r}: name it {' or '.join(known)} "
            f"({'JSON lines, or Parquet' if parquet else 'JSON lines'})"
        )


def is_text(file: Any) -> bool:
    """Whether a file holds text of a prompt a line, and no rows: it ends in .txt, and its first line is no row."""
    if pathlib.PurePath(file).suffix != TEXT or _begins(file).startswith(b"PAR1"):
        return False
    with file.open("rb") as opened:
        line = opened.readline()
    try:
        first = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return True
    return not (isinstance(first, dict) and ("inputs" in first or "messages" in first))


def read_rows(file: Any, remedy: str, empty: str, also: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a file of any format that is understood, in order, and what to call each in an error.

    Args:
        file: a `pathlib.Path` or `epath.Path` of a file that is there.
        remedy: the advice of errors about a row.
        empty: the advice of the error about an empty file.
        also: other formats that are understood, for the error that names the formats.

    Raises:
        UserError: a format that is not understood, nothing in the file, or a row that is no JSON object, has a key twice, is
            nested too deeply or no UTF-8; names the file and the row.
    """
    count = 0
    for where, row in _reader(file, also)(file, remedy):
        count += 1
        yield where, row
    if not count:
        raise UserError(f"{file} is empty: {empty}")


def parse_object(text: str, where: str, remedy: str) -> dict[str, Any]:
    """A JSON object.

    Raises:
        UserError: the text is none; names `where`.
    """
    return _require_object(_parse(text, where, remedy), where, remedy)


def _reader(file: Any, also: str) -> Any:
    begins, ending = _begins(file), pathlib.PurePath(file).suffix
    if begins.startswith(b"PAR1") or ending == PARQUET:
        return _parquet
    if begins.startswith(_COMPRESSED):
        raise UserError(f"{file} is compressed: unpack it first")
    bare = begins.removeprefix(b"\xef\xbb\xbf").lstrip()
    if bare.startswith(b"[") and bare[1:].lstrip().startswith(b"{"):
        return _json_array
    if bare.startswith(b"{") or ending in JSON:
        return _json_lines
    which = f"its ending {ending!r}" if ending else "its name without an ending"
    raise UserError(f"{file}: neither what it holds nor {which} is understood: give {UNDERSTOOD}{also}")


def _begins(file: Any) -> bytes:
    with file.open("rb") as opened:
        return opened.read(4096)


def _json_lines(file: Any, remedy: str) -> Iterator[tuple[str, dict[str, Any]]]:
    number = 0
    try:
        with file.open("r", encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                text = line.removeprefix("\ufeff") if number == 1 else line  # Some editors begin with a mark.
                if text.strip():
                    where = f"{file}, line {number}"
                    yield where, parse_object(text, where, remedy)
    except UnicodeDecodeError as error:
        raise UserError(
            f"{file}, after line {number}: not UTF-8 ({error.reason}); save the file as UTF-8"
        ) from error


def _json_array(file: Any, remedy: str) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        text = file.read_text(encoding="utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not UTF-8 ({error.reason}); save the file as UTF-8") from error
    for number, row in enumerate(_parse(text, str(file), remedy), start=1):
        where = f"{file}, item {number}"
        yield where, _require_object(row, where, remedy)


def _parquet(file: Any, remedy: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows without their empty columns."""
    import pyarrow
    from pyarrow import parquet

    count = 0
    try:
        with file.open("rb") as opened:
            for batch in parquet.ParquetFile(opened).iter_batches(ROWS):
                for row in batch.to_pylist():
                    count += 1
                    yield (
                        f"{file}, row {count}",
                        {key: value for key, value in row.items() if value is not None},
                    )
    except pyarrow.ArrowException as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{file}, after row {count}: not Parquet ({reason}); {remedy}") from error


def _parse(text: str, where: str, remedy: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_object_of_pairs)
    except _DuplicateKeyError as error:
        raise UserError(f"{where}: the key {error.args[0]!r} is there twice; keep one of them") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not JSON ({error.msg}); {remedy}") from error
    except RecursionError:
        raise UserError(f"{where}: brackets are nested too deeply; {remedy}") from None
    except ValueError as error:
        # For example, a whole number with too many digits.
        raise UserError(f"{where}: not JSON ({str(error).partition(';')[0]}); {remedy}") from error


class _DuplicateKeyError(ValueError):
    """A key that one JSON object has twice: Python's json would take the last without a word."""


def _object_of_pairs(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _DuplicateKeyError(next(key for key in keys if keys.count(key) > 1))
    return result


def _require_object(value: Any, where: str, remedy: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{where}: not a JSON object; {remedy}")
    return value
