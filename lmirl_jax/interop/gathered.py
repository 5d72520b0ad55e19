"""The tensors of another format, made one by one from parameters that lie on a mesh."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from lmirl_jax.interop.name_table import Entry


@dataclasses.dataclass(frozen=True)
class Outgoing:
    """A tensor of another format that has yet to be made.

    Args:
        name: its name there.
        shape: its shape there.
        entry: its entry in the name table.
        layer: the number of its layer; None where it belongs to none, or to all.
    """

    name: str
    shape: tuple[int, ...]
    entry: Entry
    layer: int | None

    def value(self, params: Mapping[str, Any]) -> np.ndarray:
        """The tensor on this host; all processes must ask for the same tensors in the same order.

        Args:
            params: our parameters by their paths.
        """
        array = params[self.entry.ours]
        return self.entry.to_theirs(_on_host(array if self.layer is None else array[self.layer]))


def outgoing(entries: Sequence[Entry], params: Mapping[str, Any]) -> Iterator[Outgoing]:
    """Lists the tensors that parameters become in another format, in the order of its table."""
    for entry in entries:
        shape = params[entry.ours].shape
        for number, name in enumerate(entry.names(shape)):
            layer_shape = shape[1:] if entry.is_stacked else shape
            yield Outgoing(name, entry.their_shape(layer_shape), entry, number if entry.is_stacked else None)


def flatten(params: Any) -> dict[str, Any]:
    """The leaves of nested dicts by their paths, such as 'encoder/norm/scale'."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {"/".join(str(part.key) for part in path): leaf for path, leaf in leaves}


def _on_host(array: Any) -> np.ndarray:
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        return np.asarray(multihost_utils.process_allgather(array, tiled=True))
    return np.asarray(array)
