"""Writes a checkpoint in T5X's first format: a msgpack file, and a folder of tensorstore for each large parameter."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import tensorstore
from etils import epath
from flax import serialization

from lmirl_jax.interop.gathered import outgoing
from lmirl_jax.interop.name_table import Entry, numpy_dtype
from lmirl_jax.interop.t5x_files import MSGPACK, OLDEST_VERSION
from lmirl_jax.interop.zarr_arrays import folder_store

# Parameters of fewer numbers are part of the msgpack file.
SMALLEST_FOLDER = 2**16
# The bytes of a chunk of tensorstore.
CHUNK = 64 * 2**20


def write_checkpoint(
    folder: pathlib.Path,
    entries: Sequence[Entry],
    params: Mapping[str, Any],
    dtype_of: Callable[[str], str],
    step: int,
) -> None:
    """Writes parameters as T5X did until it used Orbax; one parameter is in memory at a time.

    Args:
        folder: where to write, such as checkpoint_1000.
        entries: T5X's name table.
        params: our parameters by their paths; every process calls this, and the first one writes.
        dtype_of: gives the type of each parameter by our path, such as 'bfloat16'.
        step: the number of updates made.
    """
    target: dict[str, Any] = {}
    for tensor in outgoing(entries, params):
        value = tensor.value(params).astype(numpy_dtype(dtype_of(tensor.entry.ours)), copy=False)
        if jax.process_index() != 0:
            continue
        *parents, last = tensor.name.split("/")
        inner = target
        for part in parents:
            inner = inner.setdefault(part, {})
        small = value.size < SMALLEST_FOLDER
        inner[last] = np.ascontiguousarray(value) if small else _write_store(folder, tensor.name, value)
    if jax.process_index() == 0:
        # An empty dict of the optimizer's state would be taken for a parameter.
        state = {"step": np.int32(step)}
        content = {"version": OLDEST_VERSION, "optimizer": {"target": target, "state": state}}
        (folder / MSGPACK).write_bytes(serialization.msgpack_serialize(content))


def _write_store(folder: pathlib.Path, name: str, value: np.ndarray) -> dict[str, Any]:
    """Writes a parameter to a folder of its own; returns the description that the msgpack file holds in its place."""
    path = f"target.{name.replace('/', '.')}"
    rows = max(1, CHUNK // max(1, value[0].nbytes))
    metadata = {
        "chunks": [min(rows, value.shape[0]), *value.shape[1:]],
        "compressor": {"id": "gzip", "level": 1},
        "shape": list(value.shape),
    }
    # By default tensorstore leaves out chunks of zeros, which could not be told from missing ones.
    spec = {
        "driver": "zarr",
        "kvstore": folder_store(epath.Path(folder) / path),
        "store_data_equal_to_fill_value": True,
    }
    types = {"dtype": value.dtype.name}
    store: Any = tensorstore.open(spec | types | {"metadata": metadata}, create=True).result()
    store.write(value).result()
    return {
        "driver": "zarr",
        **types,
        "kvstore": {"driver": "file", "path": f"{path}/"},
        "metadata": metadata,
    }
