"""Arrays in folders of tensorstore (zarr), as T5X and Orbax write them: on a disk, in a bucket, or within an OCDBT database."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorstore
from etils import epath

from lmirl_jax.types import UserError


@dataclasses.dataclass(frozen=True)
class ZarrArray:
    """An array that is opened, of which nothing is read yet."""

    name: str
    where: epath.Path
    store: Any

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.store.shape)

    @property
    def dtype(self) -> str:
        return str(self.store.dtype.name)

    def read(self, index: tuple[slice, ...]) -> np.ndarray:
        """Reads a part.

        Raises:
            UserError: a chunk is damaged or missing. By default tensorstore would read a missing one as zeros.
        """
        try:
            return np.asarray(self.store[index].read().result())
        except Exception as error:
            raise unreadable(self.where, self.name, error) from None


def open_arrays(stores: Mapping[str, Mapping[str, Any]], where: epath.Path) -> dict[str, ZarrArray]:
    """Opens arrays, all of them at once, because each takes a request where they lie in a bucket.

    Args:
        stores: tensorstore's description of the place of each array, by the array's name.
        where: the path of the checkpoint, for errors.

    Raises:
        UserError: an array, or a part of one, is not there.
    """
    context = tensorstore.Context()
    asked = {
        name: tensorstore.open(
            {"driver": "zarr", "kvstore": dict(store), "fill_missing_data_reads": False},
            open=True,
            read=True,
            context=context,
        )
        for name, store in stores.items()
    }
    arrays = {}
    for name, future in asked.items():
        try:
            arrays[name] = ZarrArray(name, where, future.result())
        except Exception as error:
            raise unreadable(where, name, error) from None
    _check_chunks(arrays)
    return arrays


def _check_chunks(arrays: Mapping[str, ZarrArray]) -> None:
    """Raises a UserError where chunks of an array are missing, as an interrupted copy leaves it."""
    asked = {name: array.store.kvstore.list() for name, array in arrays.items()}
    for name, listing in asked.items():
        array = arrays[name]
        try:
            chunks = [key for key in listing.result() if not key.rpartition(b"/")[2].startswith(b".")]
        except Exception as error:
            raise unreadable(array.where, name, error) from None
        sizes = array.store.chunk_layout.read_chunk.shape
        wanted = math.prod(-(-size // chunk) for size, chunk in zip(array.shape, sizes, strict=True))
        if len(chunks) < wanted:
            what = f"{wanted - len(chunks)} of its {wanted} chunks are missing"
            raise unreadable(array.where, name, ValueError(what))


def folder_store(folder: epath.Path) -> dict[str, str]:
    """The description of a folder for tensorstore: on a disk, or in a bucket of Google's."""
    path = str(folder)
    if path.startswith("gs://"):
        bucket, _, inside = path.removeprefix("gs://").partition("/")
        return {"driver": "gcs", "bucket": bucket, "path": f"{inside}/"}
    return {"driver": "file", "path": f"{path}/"}


def unreadable(where: epath.Path, name: str, error: Exception) -> UserError:
    """The error for an array that cannot be read."""
    # Behind its reason tensorstore tells the whole description.
    reason = str(error).partition("\n")[0].partition(" [tensorstore_spec=")[0]
    return UserError(
        f"{where}: the parameter {name} cannot be read ({reason or type(error).__name__}): copy the checkpoint again"
    )
