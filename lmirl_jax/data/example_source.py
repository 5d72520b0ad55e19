"""The examples of a split on disk by their number: a read costs the same however many there are.

A place in a file is read by `os.pread`, not through a map of memory, where a file system that fails would end the process.

tokens.bin     the tokens of all examples, inputs before targets, as the smallest type that holds them
features.bin   their other features, JSON after JSON, in UTF-8
places.npy     [examples + 1, 3] where the inputs, the targets and the features of each example begin, in tokens and bytes;
               in the last row, where those of the last one end
"""

import errno
import functools
import json
import os
import pathlib
import weakref
from typing import Any

import numpy as np
from jaxtyping import Shaped

from lmirl_jax.data.retries import read_with_retries
from lmirl_jax.data.task_parts import Example

TOKENS, FEATURES, PLACES = "tokens.bin", "features.bin", "places.npy"
# Beside them; see `records`.
LENGTHS = "lengths.npy"


class ExampleSource:
    """The examples of a folder, as a source of Grain: picklable, and opened when it is first read.

    Args:
        folder: the folder with the files above.
        token_type: the type of the tokens on disk, such as '<u2'.
        with_features: whether examples have their features; their file is not read without.

    Raises:
        ValueError: the files are not of one length.
    """

    def __init__(self, folder: pathlib.Path, token_type: str, with_features: bool = True):
        self._folder, self._type, self._with_features = folder, token_type, with_features
        places = np.load(folder / PLACES, mmap_mode="r")
        ends = [int(end) for end in places[-1]]
        sizes = [os.path.getsize(folder / name) for name in (TOKENS, FEATURES)]
        expected = [ends[0] * np.dtype(token_type).itemsize, ends[2]]
        if sizes != expected:
            raise ValueError(f"{TOKENS} and {FEATURES} have {sizes} bytes, not {expected}")
        self._count = len(places) - 1

    def without_features(self) -> "ExampleSource":
        """The same examples, of which only the tokens are read."""
        return ExampleSource(self._folder, self._type, with_features=False)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Example:
        index = int(index)
        if not 0 <= index < self._count:
            raise IndexError(index)
        return read_with_retries(lambda: self._read(index), str(self._folder))

    def __getstate__(self) -> dict[str, Any]:
        # Open files stay in their process.
        return {key: value for key, value in vars(self).items() if key != "_files"}

    def __repr__(self) -> str:
        return f"ExampleSource({str(self._folder)!r}, {self._type!r}, {self._with_features})"

    def _read(self, index: int) -> Example:
        places, tokens, features = self._files
        begin, middle, of_features, end, _, end_of_features = places.read(3 * index, 3 * index + 6).tolist()
        row = tokens.read(begin, end).astype(np.int32)
        read = (
            json.loads(features.read(of_features, end_of_features).tobytes()) if self._with_features else {}
        )
        return Example(row[: middle - begin], row[middle - begin :], read)

    @functools.cached_property
    def _files(self) -> tuple["_Values", "_Values", "_Values"]:
        places = np.load(self._folder / PLACES, mmap_mode="r")
        return (
            _Values(self._folder / PLACES, places.dtype, places.offset),
            _Values(self._folder / TOKENS, np.dtype(self._type)),
            _Values(self._folder / FEATURES, np.dtype("u1")),
        )


class _Values:
    """The values in a file, which stays open; threads may read it at once.

    Args:
        file: the path.
        dtype: the type of a value.
        offset: the number of bytes before the first value.
    """

    def __init__(self, file: pathlib.Path, dtype: np.dtype, offset: int = 0):
        self._dtype, self._offset = dtype, offset
        self._opened = os.open(file, os.O_RDONLY)
        weakref.finalize(self, os.close, self._opened)

    def read(self, begin: int, end: int) -> Shaped[np.ndarray, " values"]:
        """The values from number `begin` to before `end`."""
        size, count = self._dtype.itemsize, end - begin
        found = os.pread(self._opened, count * size, self._offset + begin * size)
        if len(found) != count * size:
            raise OSError(errno.EIO, "a file ends too early")
        return np.frombuffer(found, self._dtype)
