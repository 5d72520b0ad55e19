"""Reads the rows of Parquet and of Arrow files and streams, a batch in memory at a time; their empty values are left out."""

import os
from collections.abc import Iterator
from typing import Any

from lmirl_jax.data.json_rows import ByteStream
from lmirl_jax.types import UserError

# The number of rows that are in memory at a time.
ROWS = 1024
# The bytes of a column of Parquet that are read at a time.
_BUFFER = 2**20


def read_parquet(stream: ByteStream, name: str, remedy: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of Parquet in order, and what to call each in an error.

    Args:
        stream: the bytes, not compressed; it can seek.
        name: the name of the file in errors.
        remedy: the advice of errors about a row.

    Raises:
        UserError: damaged bytes, or a column that is there twice.
    """
    from pyarrow import parquet

    def batches() -> Iterator[Any]:
        # Otherwise a whole group of rows, which may be the file, is read before its first row.
        file = parquet.ParquetFile(stream, buffer_size=_BUFFER, pre_buffer=False)
        return file.iter_batches(ROWS, use_threads=False)

    return _rows(batches, name, "Parquet", remedy)


def read_arrow_file(stream: ByteStream, name: str, remedy: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of Arrow's file format; see `read_parquet`."""
    import pyarrow
    from pyarrow import ipc

    def batches() -> Iterator[Any]:
        # A batch may be the whole file; mapped, it is not read into memory.
        with pyarrow.memory_map(os.fspath(stream.name)) as mapped, ipc.open_file(mapped) as reader:
            yield from map(reader.get_batch, range(reader.num_record_batches))

    return _rows(batches, name, "Arrow", remedy)


def read_arrow_stream(stream: ByteStream, name: str, remedy: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of Arrow's stream format, which `datasets` writes; see `read_parquet`."""
    import pyarrow
    from pyarrow import ipc

    def batches() -> Iterator[Any]:
        with pyarrow.memory_map(os.fspath(stream.name)) as mapped, ipc.open_stream(mapped) as reader:
            yield from reader

    return _rows(batches, name, "Arrow", remedy)


def _rows(batches: Any, name: str, kind: str, remedy: str) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow

    count = 0
    try:
        for batch in batches():
            _check_columns(batch.schema.names, name)
            for start in range(0, batch.num_rows, ROWS):
                for row in batch.slice(start, ROWS).to_pylist():
                    count += 1
                    yield (
                        f"{name}, row {count}",
                        {key: value for key, value in row.items() if value is not None},
                    )
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        # pyarrow raises OSError for a file that is cut off.
        reason = " ".join(str(error).split())
        raise UserError(f"{name}, after row {count}: not {kind} ({reason}); {remedy}") from error


def _check_columns(names: list[str], name: str) -> None:
    twice = [column for column in names if names.count(column) > 1]
    if twice:
        raise UserError(f"{name}: the column {twice[0]!r} is there twice; keep one of them, or rename it")
