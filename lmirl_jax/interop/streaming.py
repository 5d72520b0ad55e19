"""Loads the parameters of a foreign checkpoint into their places, part by part."""

import functools
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from lmirl_jax.interop.name_table import Entry
from lmirl_jax.interop.pretrained import Pretrained
from lmirl_jax.types import UserError

_log = logging.getLogger(__name__)

VOCAB = "vocab"


def load_params(
    pretrained: Pretrained, shapes: Mapping[str, Any], shardings: Mapping[str, Any], new: Sequence[str] = ()
) -> dict[str, Any]:
    """Loads parameters onto the devices.

    Each device's part of a parameter is read from the files by itself, so that a process never holds more than its parts of
    the parameters and the part that it reads. Where the model has another number of rows for the vocabulary, added rows are
    the mean of the checkpoint's.

    Args:
        pretrained: the checkpoint.
        shapes: nested dicts with the `jax.ShapeDtypeStruct` of each parameter.
        shardings: the sharding of each parameter.
        new: regular expressions of the paths of parameters that the checkpoint need not have, and that `shapes` lacks.

    Returns:
        The parameters in the types of `shapes`.

    Raises:
        UserError: the model has other sizes than the checkpoint.
    """
    for before, after in sorted(_resized(pretrained, shapes, new)):
        _tell_resized(pretrained, before, after)
    theirs = pretrained.parameter_shapes()
    entries = {entry.ours: entry for entry in pretrained.entries}

    def load(path: Any, shape: jax.ShapeDtypeStruct, sharding: jax.sharding.Sharding) -> jax.Array:
        name = path_name(path)
        read = _Reader(pretrained, entries[name], theirs[name], shape)
        # JAX's own make_array_from_callback would gather the parts of all devices first.
        places = sharding.addressable_devices_indices_map(shape.shape).items()
        parts = [jax.block_until_ready(jax.device_put(read(index), device)) for device, index in places]
        return jax.make_array_from_single_device_arrays(shape.shape, sharding, parts)

    return jax.tree_util.tree_map_with_path(load, shapes, shardings)


def check_shapes(pretrained: Pretrained, shapes: Mapping[str, Any], new: Sequence[str] = ()) -> None:
    """Raises a UserError where a model has other sizes than the checkpoint; its vocabulary may have another.

    Parameters whose path one of the regular expressions `new` matches as a whole are not compared.
    """
    _resized(pretrained, shapes, new)


def _resized(pretrained: Pretrained, shapes: Mapping[str, Any], new: Sequence[str]) -> set[tuple[int, int]]:
    """The sizes of the vocabulary in the checkpoint and in the model, where they differ."""
    theirs = pretrained.parameter_shapes()
    ours = {path_name(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(shapes)}
    axes = {entry.ours: entry.our_axes.split() for entry in pretrained.entries}
    resized: set[tuple[int, int]] = set()
    for name in sorted(theirs.keys() | ours.keys()):
        if any(re.fullmatch(pattern, name) for pattern in new):
            continue
        there, here = theirs.get(name), ours.get(name)
        if there is None or here is None or not _fits(axes[name], there, here, resized):
            raise UserError(
                f"checkpoint {pretrained.path} is of another model: {name} is {_shape(there)} there and {_shape(here)} here; "
                "leave MODEL out, so that it is the checkpoint's, or name in NEW_PARAMETERS what is to begin at random"
            )
    return resized


def _tell_resized(pretrained: Pretrained, before: int, after: int) -> None:
    what = (
        f"{after - before} rows are added, each the mean of the others"
        if after > before
        else f"the last {before - after} rows are left out"
    )
    if jax.process_index() == 0:
        _log.warning(
            "%s has %d rows for the vocabulary and the model %d: %s", pretrained.path, before, after, what
        )


def _fits(
    axes: list[str], there: tuple[int, ...], here: tuple[int, ...], resized: set[tuple[int, int]]
) -> bool:
    if len(there) != len(here):
        return False
    for axis, before, after in zip(axes, there, here, strict=True):
        if before != after and axis != VOCAB:
            return False
        if before != after:
            resized.add((before, after))
    return True


class _Reader:
    """Reads the part of one parameter that a device holds.

    Args:
        pretrained: the checkpoint.
        entry: where the parameter lies.
        there: its shape in the checkpoint.
        shape: its shape and type in the model.
    """

    def __init__(
        self, pretrained: Pretrained, entry: Entry, there: tuple[int, ...], shape: jax.ShapeDtypeStruct
    ):
        self.source, self.entry, self.there, self.shape = pretrained.source, entry, there, shape
        axes = entry.our_axes.split()
        self.vocab = axes.index(VOCAB) if VOCAB in axes else None
        self._last: tuple[Any, np.ndarray] | None = None

    def __call__(self, index: tuple[slice, ...] | None) -> np.ndarray:
        assert index is not None
        # Copies of the same part are neighbours.
        bounds = tuple(
            slice(*part.indices(size)[:2]) for part, size in zip(index, self.shape.shape, strict=True)
        )
        key = tuple((part.start, part.stop) for part in bounds)
        if self._last is None or self._last[0] != key:
            self._last = None
            self._last = key, self._read(bounds).astype(self.shape.dtype, copy=False)
        return self._last[1]

    def _read(self, index: tuple[slice, ...]) -> np.ndarray:
        if self.vocab is None or self.there[self.vocab] >= index[self.vocab].stop:
            return self.entry.read(self.source, self.there, index)
        rows = index[self.vocab]
        known = min(rows.stop, self.there[self.vocab])
        shape = [part.stop - part.start for part in index]
        others = self._mean_row[
            tuple(part if axis != self.vocab else slice(None) for axis, part in enumerate(index))
        ]
        whole = np.array(np.broadcast_to(others, shape))
        if rows.start < known:
            part = list(index)
            part[self.vocab] = slice(rows.start, known)
            place = [slice(None)] * len(shape)
            place[self.vocab] = slice(0, known - rows.start)
            whole[tuple(place)] = self.entry.read(self.source, self.there, tuple(part))
        return whole

    @functools.cached_property
    def _mean_row(self) -> np.ndarray:
        whole = tuple(slice(0, size) for size in self.there)
        everything = self.entry.read(self.source, self.there, whole)
        return np.asarray(np.mean(everything, axis=self.vocab, keepdims=True, dtype=np.float32))


def path_name(path: tuple[Any, ...]) -> str:
    """The path of a leaf of nested dicts, such as 'encoder/norm/scale'."""
    return "/".join(str(part.key) for part in path)


def _shape(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else "x".join(map(str, shape))
