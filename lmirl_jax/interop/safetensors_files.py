"""The tensors of a Hugging Face folder: one safetensors file, or several with an index."""

import dataclasses
import functools
import json
import math
import pathlib
import shlex
from collections.abc import Mapping

import numpy as np
from safetensors import SafetensorError, safe_open

from lmirl_jax.types import UserError

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")
# Weights that transformers read until version 5, and what it needs for them.
OLD_WEIGHTS = {"tf_model.h5": "tf", "flax_model.msgpack": "flax"}
DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """A tensor's shape and type, and the file that holds it."""

    shape: tuple[int, ...]
    dtype: str
    file: pathlib.Path


@dataclasses.dataclass(frozen=True)
class SafetensorsFiles:
    """The tensors of a folder, a `TensorSource`.

    A file is opened for each part that is read and closed again, so that no more than this part stays in memory.

    Args:
        folder: the folder.
    """

    folder: pathlib.Path

    @functools.cached_property
    def _tensors(self) -> dict[str, StoredTensor]:
        index = self.folder / INDEX
        if (self.folder / WEIGHTS).is_file():
            return tensors_of(self.folder / WEIGHTS)
        if not index.is_file():
            raise _no_weights(self.folder)
        tensors: dict[str, StoredTensor] = {}
        weight_map = _weight_map(index)
        for name in sorted(set(weight_map.values())):
            held = tensors_of(_shard(index, name))
            for tensor in sorted(tensor for tensor, file in weight_map.items() if file == name):
                if tensor not in held:
                    raise UserError(
                        f"{index} says that {name} holds {tensor!r}, and it does not: the folder mixes files of two checkpoints; "
                        "copy it again"
                    )
            for tensor in held:
                # A tensor that the index leaves out counts too, as in transformers.
                if weight_map.get(tensor, name) != name or tensor in tensors:
                    raise UserError(
                        f"{self.folder / name} holds {tensor!r}, which is another file's: the folder mixes files of two "
                        "checkpoints; copy it again"
                    )
            tensors |= held
        return tensors

    def tensors(self) -> Mapping[str, StoredTensor]:
        """The description of each tensor, from the headers of the files.

        Raises:
            UserError: there is no such file, or one is damaged.
        """
        return self._tensors

    def read(self, name: str, index: tuple[slice, ...]) -> np.ndarray:
        """Reads a part of a tensor."""
        return read_file(self._tensors[name].file, name, index)


def size_problems(folder: pathlib.Path) -> list[str]:
    """Compares the bytes of all tensors with the `total_size` of an index; a line where they differ, none without an index.

    Raises:
        UserError: a file is missing or is not whole.
    """
    tensors = SafetensorsFiles(folder).tensors()
    index = folder / INDEX
    if (folder / WEIGHTS).is_file() or not index.is_file():
        return []
    try:
        stated = int(json.loads(index.read_text(encoding="utf-8"))["metadata"]["total_size"])
    except (KeyError, TypeError, ValueError):
        return []
    total = sum(math.prod(tensor.shape) * BYTES[tensor.dtype] for tensor in tensors.values())
    if total == stated:
        return []
    return [
        f"{INDEX} says {stated:,} bytes of tensors, and its files hold {total:,}: copy the checkpoint again"
    ]


def read_file(path: pathlib.Path, name: str, index: tuple[slice, ...]) -> np.ndarray:
    """Reads a part of a tensor of one file."""
    try:
        with safe_open(path, framework="numpy") as file:
            # A tensor without axes has no slices.
            return file.get_slice(name)[index] if index else file.get_tensor(name)
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from None


def tensors_of(path: pathlib.Path) -> dict[str, StoredTensor]:
    """The description of each tensor of one file."""
    try:
        # The library checks the header: its length, the offsets, and that the file ends where the last tensor does.
        with safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            described = {name: (tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items()}
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from None
    for name, (_, dtype) in described.items():
        if dtype not in DTYPES:
            raise UserError(
                f"{path}: {name} has the type {dtype}, a quantised or whole-number one: load a checkpoint whose weights are "
                f"{', '.join(DTYPES.values())}"
            )
    return {name: StoredTensor(shape, DTYPES[dtype], path) for name, (shape, dtype) in described.items()}


def _weight_map(index: pathlib.Path) -> dict[str, str]:
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        pairs = dict(weight_map).items()
        if not pairs or not all(isinstance(name, str) for pair in pairs for name in pair):
            raise ValueError("an empty or strange weight_map")
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise UserError(
            f"{index} is no index of safetensors files: copy the checkpoint again (it needs a `weight_map`)"
        ) from None
    return dict(pairs)


def _shard(index: pathlib.Path, name: str) -> pathlib.Path:
    """The path of a file that an index names. It must lie beside the index: an index may come from anywhere."""
    if pathlib.PurePath(name).name != name or name in ("", ".", "..") or "\\" in name:
        raise UserError(
            f"{index} names the file {name!r}, which leaves its folder: do not trust this checkpoint; copy it from its source"
        )
    path = index.parent / name
    if not path.is_file():
        raise UserError(
            f"{index} names {name}, which is not beside it: copy the missing file into {index.parent}"
        )
    return path


def _damaged(path: pathlib.Path, error: Exception) -> UserError:
    # The library names its errors in camel case, such as InvalidHeaderDeserialization, and adds what it found.
    reason = str(error).partition("\n")[0].removeprefix("Error while deserializing header: ")
    try:
        path.open("rb").close()
    except OSError as unreadable:
        # The library says of every file that it cannot open that it is not there.
        return UserError(
            f"{path} cannot be read ({unreadable.strerror}): give yourself the right to, or copy it again"
        )
    return UserError(f"{path} is no whole safetensors file ({reason}): copy it again")


def _no_weights(folder: pathlib.Path) -> UserError:
    load, found = "", next((name for name in PICKLED if (folder / name).is_file()), None)
    why, needed = "a pickle can run code", "transformers"
    if found is None:
        found = next((name for name in OLD_WEIGHTS if (folder / name).is_file()), None)
        why, needed = "an old format", "'transformers<5' and its library"
        load = f", from_{OLD_WEIGHTS.get(str(found))}=True"
    if found is None:
        return UserError(
            f"no weights in {folder}: it needs {WEIGHTS}, or {INDEX} and the files that it names; copy the checkpoint again"
        )
    script = (
        "import sys; from transformers import AutoModelForSeq2SeqLM as M; "
        f"M.from_pretrained(sys.argv[1]{load}).save_pretrained(sys.argv[1])"
    )
    return UserError(
        f"{folder} has its weights as {found}, which this library does not read ({why}): convert it where {needed} is installed "
        f'with python -c "{script}" {shlex.quote(str(folder))}'
    )
