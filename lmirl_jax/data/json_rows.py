"""Reads the rows of JSON lines and of JSON arrays, one in memory at a time."""

import gzip
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lmirl_jax.types import UserError

ByteStream = io.BufferedReader | gzip.GzipFile
# The characters of an array that are read at a time, and the most that one item of it, or a line, may have.
_CHUNK, _LONGEST = 2**16, 2**26


def keys_of(row: Mapping[str, Any]) -> str:
    """The keys of a row for an error, in one line whatever characters they hold."""
    return ", ".join(repr(key)[1:-1] for key in sorted(row)) or "nothing"


def read_lines(stream: ByteStream, name: str, remedy: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of JSON lines, in order, and what to call each in an error.

    Args:
        stream: the bytes, not compressed.
        name: the name of the file in errors.
        remedy: the advice of errors about a row.

    Raises:
        UserError: a line that is no JSON object, has a key twice, is nested too deeply, too long or no UTF-8.
    """
    number = 0
    try:
        # Some editors begin with a byte-order mark.
        with io.TextIOWrapper(stream, encoding="utf-8-sig") as lines:
            for number, line in enumerate(iter(lambda: lines.readline(_LONGEST), ""), start=1):
                if len(line) == _LONGEST:
                    raise UserError(
                        f"{name}, line {number}: {_LONGEST:,} characters and more; write every example in a line of its own"
                    )
                if line.strip():
                    where = f"{name}, line {number}"
                    yield where, _require_object(_decode(line, where, remedy), where, remedy)
    except UnicodeDecodeError as error:
        raise UserError(
            f"{name}, after line {number}: not UTF-8 ({error.reason}); save the file as UTF-8"
        ) from error


def read_array(stream: ByteStream, name: str, remedy: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a JSON array, in order, and what to call each in an error; see `read_lines`."""
    try:
        with io.TextIOWrapper(stream, encoding="utf-8-sig") as text:
            for number, row in enumerate(_Items(text, name, remedy), start=1):
                where = f"{name}, item {number}"
                yield where, _require_object(row, where, remedy)
    except UnicodeDecodeError as error:
        raise UserError(f"{name}: not UTF-8 ({error.reason}); save the file as UTF-8") from error


class _Items:
    """The items of an array; reads more of the file where the text that is there does not hold the next one whole."""

    def __init__(self, file: io.TextIOBase, name: str, remedy: str):
        self._file, self._name, self._remedy = file, name, remedy
        self._text, self._place, self._at_end = "", 0, False

    def __iter__(self) -> Iterator[Any]:
        self._expect("[")
        number = 1
        while self._next_character() != "]":
            where = f"{self._name}, item {number}"
            yield self._item(where)
            if self._next_character() != "]":
                self._expect(",", where)
                number += 1
        self._expect("]")
        if self._next_character():
            raise UserError(f"{self._name}: not JSON (text after the array's end); {self._remedy}")

    def _item(self, where: str) -> Any:
        while True:
            try:
                value, stop = _decode_at(self._text, self._place, where, self._remedy)
            except _IncompleteError as error:
                if self._at_end or len(self._text) - self._place > _LONGEST:
                    raise UserError(f"{where}: not JSON ({error}); {self._remedy}") from None
            else:
                # A number that ends where the text does may go on.
                if stop < len(self._text) or self._at_end:
                    self._place = stop
                    return value
            self._read_more()

    def _next_character(self) -> str:
        while True:
            while self._place < len(self._text) and self._text[self._place].isspace():
                self._place += 1
            if self._place < len(self._text) or self._at_end:
                return self._text[self._place : self._place + 1]
            self._read_more()

    def _expect(self, character: str, after: str | None = None) -> None:
        if self._next_character() != character:
            raise UserError(f"{after or self._name}: not JSON ({character!r} is missing); {self._remedy}")
        self._place += 1

    def _read_more(self) -> None:
        rest = self._text[self._place :]
        # A long item is decoded anew after each reading: doubling keeps the time linear.
        more = self._file.read(max(_CHUNK, len(rest)))
        self._text, self._place, self._at_end = rest + more, 0, not more


class _DuplicateKeyError(ValueError):
    """A key that one JSON object has twice: Python's json would take the last without a word."""


class _IncompleteError(ValueError):
    """Text that is not JSON, or not yet."""


def _object_of_pairs(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _DuplicateKeyError(next(key for key in keys if keys.count(key) > 1))
    return result


_DECODER = json.JSONDecoder(object_pairs_hook=_object_of_pairs)


def _decode(text: str, where: str, remedy: str) -> Any:
    """The value of a text that holds no other."""
    start = len(text) - len(text.lstrip())
    try:
        value, stop = _decode_at(text, start, where, remedy)
    except _IncompleteError as error:
        raise UserError(f"{where}: not JSON ({error}); {remedy}") from None
    if text[stop:].strip():
        raise UserError(f"{where}: not JSON (Extra data); {remedy}")
    return value


def _decode_at(text: str, place: int, where: str, remedy: str) -> tuple[Any, int]:
    try:
        return _DECODER.raw_decode(text, place)
    except _DuplicateKeyError as error:
        raise UserError(f"{where}: the key {error.args[0]!r} is there twice; keep one of them") from None
    except json.JSONDecodeError as error:
        raise _IncompleteError(error.msg) from error
    except RecursionError:
        raise UserError(f"{where}: brackets are nested too deeply; {remedy}") from None
    except ValueError as error:
        # For example, a whole number with too many digits.
        raise UserError(f"{where}: not JSON ({str(error).partition(';')[0]}); {remedy}") from error


def _require_object(value: Any, where: str, remedy: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{where}: not a JSON object; {remedy}")
    return value
