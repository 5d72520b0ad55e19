"""The examples of a split on disk by their number, read from memory-mapped files: a read costs the same however many there are.

tokens.bin     the tokens of all examples, inputs before targets, as the smallest type that holds them
features.bin   their other features, JSON after JSON, in UTF-8
places.npy     [examples + 1, 3] where the inputs, the targets and the features of each example begin, in tokens and bytes;
               in the last row, where those of the last one end
"""

import functools
import json
import mmap
import os
import pathlib
from typing import Any

import numpy as np
from jaxtyping import Int64, Shaped

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
        places, tokens, features = self._files
        begin, middle, of_features, end, _, end_of_features = places[3 * index : 3 * index + 6].tolist()
        row = tokens[begin:end].astype(np.int32)
        read = json.loads(features[of_features:end_of_features].tobytes()) if self._with_features else {}
        return Example(row[: middle - begin], row[middle - begin :], read)

    def __getstate__(self) -> dict[str, Any]:
        # Maps of memory stay in their process.
        return {key: value for key, value in vars(self).items() if key != "_files"}

    def __repr__(self) -> str:
        return f"ExampleSource({str(self._folder)!r}, {self._type!r}, {self._with_features})"

    @functools.cached_property
    def _files(self) -> tuple[Int64[np.ndarray, " places"], Shaped[np.ndarray, " tokens"], np.ndarray]:
        places = np.load(self._folder / PLACES, mmap_mode="r")
        return (
            # A plain view, because slices of numpy's memmap cost several times as much.
            np.asarray(places).reshape(-1),
            _mapped(self._folder / TOKENS, self._type),
            _mapped(self._folder / FEATURES, "u1"),
        )


def _mapped(file: pathlib.Path, dtype: str) -> Shaped[np.ndarray, " values"]:
    if not file.stat().st_size:
        return np.zeros(0, dtype)  # An empty file cannot be mapped.
    with open(file, "rb") as opened:
        return np.frombuffer(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ), dtype)
