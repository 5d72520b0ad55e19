"""What `lmirl doctor --checkpoint=PATH` says of the files of a checkpoint: whether they are as they were written."""

import math
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from etils import epath

from lmirl_jax import checkpoints, content_hashes, interop
from lmirl_jax.interop.safetensors_files import size_problems

# What is read of an array at a time, in bytes.
PIECE = 2**28
NO_HASHES = "no content hashes in this format, so a changed weight is not found"


def describe_files(checkpoint: epath.Path, kind: str) -> tuple[str, list[str]]:
    """Compares the files of a checkpoint with all that it says of them.

    Args:
        checkpoint: its folder, or of T5X its file.
        kind: its `checkpoints.kind_of`.

    Returns:
        What was compared, and the problems, a line each with the name of the file.

    Raises:
        UserError: a file of another library is damaged.
    """
    if kind == "lmirl":
        found = checkpoints.problems(checkpoint)
        if found:
            return f"{len(found)} damaged", [*found, checkpoints.remedy(checkpoint)]
        return f"all {len(content_hashes.read_hashes(checkpoint))} match their content hashes", []
    pretrained = interop.open_pretrained(checkpoint)
    if kind == "hf":
        found = size_problems(pathlib.Path(interop.config_folder(checkpoint)))
        return f"their sizes match headers and index; {NO_HASHES}", found
    for name, tensor in pretrained.source.tensors().items():
        for index in _pieces(tuple(tensor.shape), np.dtype(tensor.dtype).itemsize):
            pretrained.source.read(name, index)
    return f"every part of the parameters is there and can be decoded; {NO_HASHES}", []


def _pieces(shape: tuple[int, ...], itemsize: int) -> Iterator[tuple[Any, ...]]:
    """Indices that cover an array, each of about so many bytes along its first axis."""
    rest = tuple(slice(0, size) for size in shape[1:])
    if not shape:
        yield ()
        return
    rows = max(1, PIECE // max(1, itemsize * math.prod(shape[1:])))
    for start in range(0, shape[0], rows):
        yield slice(start, min(start + rows, shape[0])), *rest
