"""The parameters of a T5X checkpoint: in one msgpack file, in a msgpack file and folders of tensorstore, or saved by Orbax."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import orbax.checkpoint as ocp
import tensorstore
from etils import epath
from flax import serialization

from lmirl_jax.types import UserError

MSGPACK = "checkpoint"
STATE = "state"
# T5X's format 2 stored bfloat16 as uint16; T5X itself refuses it, and so do we.
OLDEST_VERSION = 3


@dataclasses.dataclass(frozen=True)
class Described:
    """A tensor's shape and the name of its type."""

    shape: tuple[int, ...]
    dtype: str


def is_t5x(path: epath.Path) -> bool:
    """Whether a path has the form of one checkpoint of T5X: a file, or a folder with the file `checkpoint` or with `state/`."""
    if path.is_dir():
        return (path / MSGPACK).is_file() or _is_orbax(path)
    return path.is_file() and "checkpoint" in path.name


def _is_orbax(folder: epath.Path) -> bool:
    """Orbax's checkpoints of T5X hold the parameters as `target`, ours as `params`."""
    metadata = folder / STATE / "_METADATA"
    return metadata.is_file() and "'target'" in metadata.read_text(encoding="utf-8")


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
    def _leaves(self) -> dict[str, Any]:
        try:
            content: Any = serialization.msgpack_restore(self.file.read_bytes())
            target, version = content["optimizer"]["target"], content.get("version", 0)
        except Exception as error:
            # msgpack raises exceptions of many classes, and a wrong tree raises its own.
            what = f"{type(error).__name__}: {error}".partition("\n")[0]
            raise UserError(f"{self.file} is no checkpoint of T5X ({what}): copy it again") from error
        if version < OLDEST_VERSION:
            raise UserError(
                f"{self.file} has T5X's old format {version}: load it with T5X of 2021 and save it again"
            )
        return {name: leaf for name, leaf in _flatten(target).items() if leaf is not None}

    def tensors(self) -> Mapping[str, Described]:
        """The description of each parameter; the state of the optimizer is left out."""
        return {name: _described(leaf) for name, leaf in self._leaves.items()}

    def read(self, name: str, index: tuple[slice, ...]) -> np.ndarray:
        """Reads a part of a parameter."""
        leaf = self._leaves[name]
        if not _is_spec(leaf):
            return np.asarray(leaf)[index]
        folder = _store_name(leaf, self.file)
        return _read_store(
            {"driver": leaf["driver"], "kvstore": kvstore(self.file.parent / folder)}, name, self.file, index
        )


@dataclasses.dataclass(frozen=True)
class OrbaxTensors:
    """The parameters of a `state/` folder of Orbax."""

    folder: epath.Path

    @functools.cached_property
    def _metadata(self) -> dict[str, Any]:
        with ocp.PyTreeCheckpointer() as checkpointer:
            return _flatten(checkpointer.handler.metadata(self.folder)["target"])

    def tensors(self) -> Mapping[str, Described]:
        """The description of each parameter; the state of the optimizer is left out."""
        return {
            name: Described(tuple(leaf.shape), np.dtype(leaf.dtype).name)
            for name, leaf in self._metadata.items()
        }

    def read(self, name: str, index: tuple[slice, ...]) -> np.ndarray:
        """Reads a part of a parameter."""
        stored = f"target.{name.replace('/', '.')}"
        if (self.folder / "manifest.ocdbt").exists():
            store = {"driver": "ocdbt", "base": kvstore(self.folder), "path": f"{stored}/"}
        else:
            store = kvstore(self.folder / stored)
        return _read_store({"driver": "zarr", "kvstore": store}, name, self.folder, index)


def kvstore(folder: epath.Path) -> dict[str, str]:
    """The description of a folder for tensorstore: on a disk, or in a bucket of Google's."""
    path = str(folder)
    if path.startswith("gs://"):
        bucket, _, inside = path.removeprefix("gs://").partition("/")
        return {"driver": "gcs", "bucket": bucket, "path": f"{inside}/"}
    return {"driver": "file", "path": f"{path}/"}


def _read_store(
    spec: Mapping[str, Any], name: str, where: epath.Path, index: tuple[slice, ...]
) -> np.ndarray:
    try:
        store: Any = tensorstore.open(dict(spec), open=True, read=True).result()
        return np.asarray(store[index].read().result())
    except (ValueError, OSError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"{where}: the parameter {name} cannot be read ({reason}): copy the checkpoint again"
        ) from None


def _is_spec(leaf: Any) -> bool:
    return isinstance(leaf, Mapping) and "driver" in leaf


def _flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """The leaves of nested dicts by their paths; a description of tensorstore is a leaf."""
    if not isinstance(tree, Mapping) or _is_spec(tree):
        return {prefix: tree}
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flatten(value, f"{prefix}/{key}" if prefix else str(key))
    return flat


def _described(leaf: Any) -> Described:
    if _is_spec(leaf):
        return Described(tuple(leaf["metadata"]["shape"]), str(leaf["dtype"]))
    return Described(tuple(np.shape(leaf)), np.asarray(leaf).dtype.name)


def _store_name(spec: Mapping[str, Any], file: epath.Path) -> str:
    """The name of the folder that a description names, whatever disk or bucket the checkpoint was written to."""
    # Older versions of tensorstore had the path beside the driver.
    given = str(spec.get("path") or spec["kvstore"].get("path", "")).rstrip("/")
    name = given.rpartition("/")[2]
    if name in ("", ".", ".."):
        raise UserError(
            f"{file} names the folder {given!r} for a parameter, which is none: copy the checkpoint again"
        )
    return name
