"""The formats of files of rows that are understood: a file's content decides, and its name where there is no content yet.

JSON lines    an object a line; .jsonl or .json
JSON array    of objects; the same endings, known by its `[{`
CSV           .csv, or .tsv with tabs; columns are named in the first line
Parquet       .parquet, or known by its first bytes
Arrow         .arrow, a file or a stream, as `datasets` writes it
gzip          of JSON or CSV, known by its first bytes
text          .txt, a prompt a line; for prompts alone
"""

import functools
import gzip
import json
import os
import pathlib
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from lmirl_jax.data.arrow_rows import read_arrow_file, read_arrow_stream, read_parquet
from lmirl_jax.data.csv_rows import SEPARATORS, read_csv
from lmirl_jax.data.json_rows import ByteStream, read_array, read_lines
from lmirl_jax.types import UserError

JSON = (".jsonl", ".json")
PARQUET, ARROW, GZIP, TEXT = ".parquet", ".arrow", ".gz", ".txt"
UNDERSTOOD = "JSON lines or a JSON array (.jsonl, .json), CSV (.csv, .tsv), their .gz, Parquet (.parquet) or Arrow (.arrow)"

_GZIP = b"\x1f\x8b"
_COMPRESSED = (_GZIP, b"PK\x03\x04", b"BZh", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ")
# By the first bytes of a file, how its rows are read. A stream of Arrow begins with a mark before each of its messages.
_BINARY = {b"PAR1": read_parquet, b"ARROW1": read_arrow_file, b"\xff\xff\xff\xff": read_arrow_stream}
_Reader = Callable[[ByteStream, str, str], Iterator[tuple[str, dict[str, Any]]]]


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
    if pathlib.PurePath(file).suffix != TEXT:
        return False
    with file.open("rb") as opened:
        line = opened.readline()
    if line.startswith((*_BINARY, *_COMPRESSED)):
        return False
    try:
        first = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return True
    return not (isinstance(first, dict) and ("inputs" in first or "messages" in first))


def read_rows(
    file: Any, remedy: str, empty: str | None, also: str = ""
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a file of any format that is understood, in order, and what to call each in an error.

    A row of CSV is a `TextRow`.

    Args:
        file: a `pathlib.Path` or `epath.Path` of a file that is there.
        remedy: the advice of errors about a row.
        empty: the advice of the error about an empty file; None if it may be empty.
        also: other formats that are understood, for the error that names the formats.

    Raises:
        UserError: a format that is not understood, nothing in the file, or a row that cannot be read; names the file and the
            row.
    """
    count = 0
    with file.open("rb") as opened:
        try:
            stream, read = _reader(file, opened, also)
            for where, row in read(stream, str(file), remedy):
                count += 1
                yield where, row
        except (gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise UserError(
                f"{file}, after row {count}: damaged gzip ({error}); copy the file again, or unpack it first"
            ) from error
    if not count and empty is not None:
        raise UserError(f"{file} is empty: {empty}")


def _reader(file: Any, opened: ByteStream, also: str) -> tuple[ByteStream, _Reader]:
    """The bytes of a file that is open, unpacked, and the function that reads their rows."""
    stream: ByteStream = opened
    ending = _ending(file)
    begins = _begins(stream)
    packed = begins.startswith(_GZIP)
    if packed:
        stream = gzip.GzipFile(fileobj=opened)
        begins = _begins(stream)
    binary = next((read for mark, read in _BINARY.items() if begins.startswith(mark)), None)
    if begins.startswith(_COMPRESSED) or (packed and binary is not None):
        raise UserError(f"{file} is compressed: unpack it first")
    if binary is None:
        binary = {PARQUET: read_parquet, ARROW: read_arrow_stream}.get(ending)
    if binary is not None:
        return stream, binary
    bare = begins.removeprefix(b"\xef\xbb\xbf").lstrip()
    if bare.startswith(b"[") and bare[1:].lstrip().startswith((b"{", b"]")):
        return stream, read_array
    if bare.startswith(b"{") or ending in JSON:
        return stream, read_lines
    if ending in SEPARATORS:
        return stream, functools.partial(_csv, ending)
    which = f"its ending {ending!r}" if ending else "its name without an ending"
    raise UserError(f"{file}: neither what it holds nor {which} is understood: give {UNDERSTOOD}{also}")


def table_ending(file: Any) -> str | None:
    """The ending of a table of texts, `.csv` or `.tsv`, also in gzip; None for a file of another name."""
    ending = _ending(file)
    return ending if ending in SEPARATORS else None


def _ending(file: Any) -> str:
    """The ending of a file's name, without that of gzip."""
    path = pathlib.PurePath(file)
    return path.with_suffix("").suffix if path.suffix == GZIP else path.suffix


def _csv(ending: str, stream: ByteStream, name: str, remedy: str) -> Iterator[tuple[str, dict[str, Any]]]:
    return read_csv(stream, name, ending)


def _begins(stream: ByteStream) -> bytes:
    """The first bytes; reading goes on before them."""
    begins = stream.read(4096)
    stream.seek(0)
    return begins
