"""The parameters of a T5X checkpoint: in one msgpack file, in a msgpack file and folders of tensorstore, or saved by Orbax."""

import dataclasses
import functools
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath
from flax import serialization

from lmirl_jax.interop.zarr_arrays import ZarrArray, folder_store, open_arrays
from lmirl_jax.types import UserError

MSGPACK = "checkpoint"
STATE = "state"
# The file in which Orbax describes the tree of its arrays.
ORBAX_TREE = "_METADATA"
# T5X's format 2 stored bfloat16 as uint16; T5X itself refuses it, and so do we.
OLDEST_VERSION = 3
FLOATS = ("float32", "bfloat16", "float16")
# How TensorFlow's file of the same name begins.
OF_TENSORFLOW = b"model_checkpoint_path"


@dataclasses.dataclass(frozen=True)
class InlineArray:
    """An array that the msgpack file itself holds."""

    array: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def dtype(self) -> str:
        return self.array.dtype.name

    def read(self, index: tuple[slice, ...]) -> np.ndarray:
        # NumPy makes a number of an array without axes.
        return np.asarray(self.array[index])


def is_t5x(path: epath.Path) -> bool:
    """Whether a path has the form of one checkpoint of T5X: a file, or a folder with the file `checkpoint` or with `state/`."""
    if path.is_dir():
        return (path / MSGPACK).is_file() or _is_orbax(path)
    return path.is_file() and "checkpoint" in path.name


def _is_orbax(folder: epath.Path) -> bool:
    """Orbax's checkpoints of T5X hold the parameters as `target`, ours as `params`."""
    metadata = folder / STATE / ORBAX_TREE
    return metadata.is_file() and b"'target'" in metadata.read_bytes()


def open_t5x(path: epath.Path) -> "MsgpackTensors | OrbaxTensors":
    """Opens a checkpoint of T5X as a `TensorSource`, whose names are paths such as 'encoder/encoder_norm/scale'.

    Args:
        path: as `is_t5x` describes it; it may be in a bucket.

    Raises:
        UserError: it is no such checkpoint, or an old one.
    """
    if path.is_dir() and not (path / MSGPACK).is_file():
        return OrbaxTensors(path / STATE)
    file = path / MSGPACK if path.is_dir() else path
    return MsgpackTensors(file)


@dataclasses.dataclass(frozen=True)
class MsgpackTensors:
    """The parameters of a msgpack file; where it holds a description of tensorstore, they lie in a folder beside it."""

    file: epath.Path

    @functools.cached_property
    def _arrays(self) -> dict[str, InlineArray | ZarrArray]:
        leaves = {name: leaf for name, leaf in _flatten(self._target()).items() if leaf is not None}
        folders = {name: _store_name(leaf, self.file) for name, leaf in leaves.items() if _is_spec(leaf)}
        if len(set(folders.values())) < len(folders):
            raise UserError(f"{self.file} has two parameters in one folder: copy the checkpoint again")
        stores = {name: folder_store(self.file.parent / folder) for name, folder in folders.items()}
        arrays: dict[str, InlineArray | ZarrArray] = {}
        arrays |= open_arrays(stores, self.file)
        for name, leaf in leaves.items():
            if name not in stores:
                arrays[name] = _inline(leaf, name, self.file)
        _check_types(arrays, self.file)
        return arrays

    def _target(self) -> Any:
        packed = b""
        try:
            packed = self.file.read_bytes()
            content: Any = serialization.msgpack_restore(packed)
            target, version = content["optimizer"]["target"], int(content.get("version", 0))
        except Exception as error:
            # msgpack raises exceptions of many classes, and a wrong tree raises its own.
            if packed.startswith(OF_TENSORFLOW):
                raise UserError(
                    f"{self.file} is of a checkpoint of TensorFlow (Mesh TensorFlow's T5): load it with T5X and save it again"
                ) from None
            what = f"{type(error).__name__}: {error}".partition("\n")[0]
            raise UserError(f"{self.file} is no checkpoint of T5X ({what}): copy it again") from None
        if version < OLDEST_VERSION:
            raise UserError(
                f"{self.file} has T5X's old format {version}: load it with T5X of 2021 and save it again"
            )
        return target

    def tensors(self) -> Mapping[str, InlineArray | ZarrArray]:
        """The description of each parameter; the state of the optimizer is left out."""
        return self._arrays

    def read(self, name: str, index: tuple[slice, ...]) -> np.ndarray:
        """Reads a part of a parameter."""
        return self._arrays[name].read(index)


@dataclasses.dataclass(frozen=True)
class OrbaxTensors:
    """The parameters of a `state/` folder of Orbax."""

    folder: epath.Path

    @functools.cached_property
    def _arrays(self) -> dict[str, ZarrArray]:
        try:
            # Orbax's own reader would open the arrays of the optimizer too.
            tree = json.loads((self.folder / ORBAX_TREE).read_text(encoding="utf-8"))["tree_metadata"]
            names = [_name(leaf) for leaf in tree.values() if leaf["key_metadata"][0]["key"] == "target"]
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            what = f"{type(error).__name__}: {error}".partition("\n")[0]
            raise UserError(
                f"{self.folder} is no whole checkpoint of T5X and Orbax ({what}): copy it again"
            ) from None
        arrays = open_arrays({name: self._store(name) for name in names}, self.folder)
        _check_types(arrays, self.folder)
        return arrays

    def _store(self, name: str) -> dict[str, Any]:
        stored = f"target.{name.replace('/', '.')}"
        if (self.folder / "manifest.ocdbt").exists():
            return {"driver": "ocdbt", "base": folder_store(self.folder), "path": f"{stored}/"}
        return folder_store(self.folder / stored)

    def tensors(self) -> Mapping[str, ZarrArray]:
        """The description of each parameter; the state of the optimizer is left out."""
        return self._arrays

    def read(self, name: str, index: tuple[slice, ...]) -> np.ndarray:
        """Reads a part of a parameter."""
        return self._arrays[name].read(index)


def _name(leaf: Mapping[str, Any]) -> str:
    """The path within `target` of a leaf of Orbax's tree."""
    return "/".join(str(part["key"]) for part in leaf["key_metadata"][1:])


def _is_spec(leaf: Any) -> bool:
    """Whether a leaf is a description of tensorstore in place of an array."""
    return isinstance(leaf, Mapping) and "driver" in leaf


def _flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """The leaves of nested dicts by their paths; a description of tensorstore is a leaf."""
    if not isinstance(tree, Mapping) or _is_spec(tree):
        return {prefix: tree}
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flatten(value, f"{prefix}/{key}" if prefix else str(key))
    return flat


def _inline(leaf: Any, name: str, file: epath.Path) -> InlineArray:
    if not isinstance(leaf, np.ndarray | np.generic):
        raise UserError(
            f"{file}: {name or 'target'} has the type {type(leaf).__name__} and is no array: copy the checkpoint again"
        )
    return InlineArray(np.asarray(leaf))


def _check_types(arrays: Mapping[str, Any], where: epath.Path) -> None:
    for name, array in arrays.items():
        if array.dtype not in FLOATS:
            raise UserError(
                f"{where}: {name} has the type {array.dtype}, a quantised or whole-number one: load a checkpoint whose "
                f"parameters are {', '.join(FLOATS)}"
            )


def _store_name(spec: Mapping[str, Any], file: epath.Path) -> str:
    """The name of the folder that a description names, whatever disk or bucket the checkpoint was written to."""
    # Older versions of tensorstore had the path beside the driver.
    inner = spec.get("kvstore")
    given = str(spec.get("path") or (inner.get("path", "") if isinstance(inner, Mapping) else "")).rstrip("/")
    name = given.rpartition("/")[2]
    if name in ("", ".", "..") or spec["driver"] != "zarr":
        raise UserError(
            f"{file} names the folder {given!r} of the kind {spec['driver']!r} for a parameter, which is none of T5X's: copy the "
            "checkpoint again"
        )
    return name
