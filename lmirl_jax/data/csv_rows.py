"""Reads the rows of CSV and TSV, whose first line names the columns; every value is a text."""

import csv
import io
import itertools
from collections.abc import Iterator, Sequence

from lmirl_jax.data.json_rows import ByteStream
from lmirl_jax.types import UserError

# The separators of columns that are understood, by the ending of the file that has each as its own.
SEPARATORS = {".csv": ",", ".tsv": "\t"}
# The most characters of a value. A quote that is never closed makes all that follows one value.
_LONGEST = 2**26


class TextRow(dict[str, str]):
    """A row of a format that holds texts alone: a number or a list is written as a text."""


def read_csv(stream: ByteStream, name: str, ending: str) -> Iterator[tuple[str, TextRow]]:
    """The rows of a table in order, and what to call each in an error.

    Args:
        stream: the bytes, not compressed.
        name: the name of the file in errors.
        ending: a key of `SEPARATORS`; its separator is used where the first line has it, else one that the line has.

    Raises:
        UserError: a column twice, a row with more or fewer values than there are columns, quotes that do not match, or no
            UTF-8; names the line on which the row begins.
    """
    # Python's own limit is 131,072 characters, and documents are longer.
    csv.field_size_limit(_LONGEST)
    line = 0
    try:
        with io.TextIOWrapper(stream, encoding="utf-8-sig", newline="") as text:
            first = text.readline()
            lines = csv.reader(
                itertools.chain([first], text), delimiter=_separator(first, ending), strict=True
            )
            header: list[str] | None = None
            for values in lines:
                begin, line = line + 1, lines.line_num
                where = f"{name}, line {begin}"
                if not values:
                    continue  # An empty line.
                if header is None:
                    header = values
                    _check_header(header, where)
                else:
                    yield where, _row(header, values, where)
    except csv.Error as error:
        raise UserError(
            f"{name}, line {line + 1}: not CSV ({error}); quote values, and double their quotes"
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"{name}, after line {line}: not UTF-8 ({error.reason}); save the file as UTF-8"
        ) from error


def _row(header: Sequence[str], values: Sequence[str], where: str) -> TextRow:
    if len(values) != len(header):
        raise UserError(
            f"{where}: {len(values)} values for {len(header)} columns; quote a value that holds a separator, a quote or the end "
            "of a line"
        )
    return TextRow(zip(header, values, strict=True))


def _separator(header: str, ending: str) -> str:
    """The file's own separator if its first line has it, else the first other one there: a table of one column has none."""
    own = SEPARATORS[ending]
    return next((mark for mark in (own, "\t", ";", ",") if mark in header), own)


def _check_header(header: Sequence[str], where: str) -> None:
    twice = [name for name in header if header.count(name) > 1]
    if twice:
        raise UserError(f"{where}: the column {twice[0]!r} is there twice; keep one of them, or rename it")
