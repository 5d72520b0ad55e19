"""Name tables: where each parameter of ours lies in another format. One table serves both directions."""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import einops
import ml_dtypes
import numpy as np

LAYERS = "layers"


@runtime_checkable
class TensorInfo(Protocol):
    """The shape of a stored tensor and the name of its type, such as 'float32'."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> str: ...


@runtime_checkable
class TensorSource(Protocol):
    """The tensors of a checkpoint, which are read one by one, or in parts."""

    def tensors(self) -> Mapping[str, TensorInfo]:
        """The description of each tensor by its name; reads no values."""
        ...

    def read(self, name: str, index: tuple[slice, ...]) -> np.ndarray:
        """Reads a part of a tensor, and keeps nothing of it."""
        ...


@dataclasses.dataclass(frozen=True)
class Entry:
    """A parameter in both formats; axes have names, and axes in brackets are merged into one, as `einops` writes it.

    Args:
        ours: the path of the parameter, such as 'encoder/layers/attention/query/kernel'.
        our_axes: such as 'layers embed heads kv'.
        theirs: the name of the tensor; '{layer}' stands for the number of a layer, where each layer has its own tensor.
        their_axes: such as '(heads kv) embed'.
    """

    ours: str
    our_axes: str
    theirs: str
    their_axes: str

    @property
    def is_stacked(self) -> bool:
        """Whether our parameter stacks the tensors of all layers."""
        return "{layer}" in self.theirs

    def names(self, shape: Sequence[int]) -> list[str]:
        """The names of their tensors for a parameter of ours of this shape."""
        if not self.is_stacked:
            return [self.theirs]
        return [self.theirs.format(layer=layer) for layer in range(shape[0])]

    def their_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of one of their tensors for a parameter of ours, or a layer of it, of this shape."""
        axes = self.our_axes.split()
        sizes = dict(zip(axes[1:] if self.is_stacked else axes, shape, strict=True))
        return tuple(int(np.prod([sizes[name] for name in group])) for group in axis_groups(self.their_axes))

    def read(self, source: TensorSource, shape: Sequence[int], index: tuple[slice, ...]) -> np.ndarray:
        """Reads the part `index` of our parameter; of a stacked one, layer by layer.

        Args:
            source: their tensors.
            shape: the shape of our whole parameter.
            index: a slice for each of our axes.

        Returns:
            The part, in the type of the source; where layers have several types, in one that holds them all.
        """
        if not self.is_stacked:
            return self._read_one(source, self.theirs, self.our_axes.split(), shape, index)
        axes = self.our_axes.split()[1:]
        layers = range(*index[0].indices(shape[0]))
        parts = (
            self._read_one(source, self.theirs.format(layer=layer), axes, shape[1:], index[1:])
            for layer in layers
        )
        first = next(parts)
        dtype = widest(source.tensors()[self.theirs.format(layer=layer)].dtype for layer in layers)
        stacked = np.empty((len(layers), *first.shape), numpy_dtype(dtype))
        stacked[0] = first
        for number, part in enumerate(parts, 1):
            stacked[number] = part
        return stacked

    def _read_one(
        self, source: TensorSource, name: str, axes: list[str], shape: Sequence[int], index: tuple[slice, ...]
    ) -> np.ndarray:
        sizes = dict(zip(axes, shape, strict=True))
        wanted = {axis: slice(*part.indices(sizes[axis])[:2]) for axis, part in zip(axes, index, strict=True)}
        theirs, got = [], dict(sizes)
        for group in axis_groups(self.their_axes):
            # A part of merged axes lies together only where it is a part of the first of them.
            inner = int(np.prod([sizes[axis] for axis in group[1:]]))
            first = wanted[group[0]]
            got[group[0]] = first.stop - first.start
            theirs.append(slice(first.start * inner, first.stop * inner))
        read = source.read(name, tuple(theirs))
        arranged = einops.rearrange(read, f"{self.their_axes} -> {' '.join(axes)}", **_used(got, axes))
        rest = [wanted[axis] if got[axis] == sizes[axis] else slice(None) for axis in axes]
        return arranged[tuple(rest)]

    def to_theirs(self, array: np.ndarray) -> np.ndarray:
        """Rearranges our parameter, of one layer where it is stacked, to one of their tensors."""
        axes = self.our_axes.split()
        axes = axes[1:] if self.is_stacked else axes
        return einops.rearrange(array, f"{' '.join(axes)} -> {self.their_axes}")


def numpy_dtype(name: str) -> np.dtype:
    """The type of numpy by its name; bfloat16 is not one of numpy's own."""
    return np.dtype(ml_dtypes.bfloat16) if name == "bfloat16" else np.dtype(name)


def widest(dtypes: Iterable[str]) -> str:
    """The name of the smallest type that holds the values of all of these."""
    names = set(dtypes)
    return names.pop() if len(names) == 1 else "float32"


def axis_groups(axes: str) -> list[list[str]]:
    """The names of the axes that each axis of an `einops` pattern merges."""
    return [group.strip("()").split() for group in re.findall(r"\([^)]*\)|\S+", axes)]


def _used(sizes: Mapping[str, int], axes: Sequence[str]) -> dict[str, int]:
    return {axis: sizes[axis] for axis in axes}
