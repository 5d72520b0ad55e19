"""Whether the tensors of a foreign checkpoint are those of a network, each of them in its shape."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from etils import epath
from flax import nnx

from lmirl_jax.interop.name_table import Entry, TensorInfo, TensorSource
from lmirl_jax.models import abstract
from lmirl_jax.types import ModelConfig, UserError

# The number of tensors of which an error tells the names.
LISTED = 5
# The ends of the names of a recipe's sizes; each shows in the number of tensors, or in the shape of one.
SIZES = ("_dim", "_heads", "_layers", "_size", "_buckets")


@runtime_checkable
class Opened(Protocol):
    """What is compared: a `Pretrained`."""

    @property
    def path(self) -> epath.Path: ...

    @property
    def kind(self) -> str: ...

    @property
    def model(self) -> ModelConfig: ...

    @property
    def entries(self) -> tuple[Entry, ...]: ...

    @property
    def source(self) -> TensorSource: ...

    @property
    def ignored(self) -> tuple[str, ...]: ...


def parameter_shapes(model: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The shape of each parameter of a network by its path, without making it."""
    state = abstract.build(model)[1]
    return {"/".join(map(str, path)): tuple(leaf.shape) for path, leaf in nnx.to_flat_state(state)}


def check_fit(opened: Opened) -> None:
    """Compares the tensors of a checkpoint with its sizes; reads no values.

    Raises:
        UserError: lists the tensors that are missing, left over, or of other shapes than the sizes say.
    """
    theirs = dict(opened.source.tensors())
    _check_sizes(opened, theirs)
    ours = parameter_shapes(opened.model)
    missing, wrong = [], []
    for entry in opened.entries:
        shape = ours[entry.ours]
        for name in entry.names(shape):
            found = theirs.pop(name, None)
            expected = entry.their_shape(shape[1:] if entry.is_stacked else shape)
            if found is None:
                missing.append(name)
            elif tuple(found.shape) != expected:
                wrong.append(f"{name} ({_by(found.shape)} instead of {_by(expected)})")
    left_over = [name for name in theirs if name not in opened.ignored]
    faults = {"missing": missing, "left over": left_over, "of another shape": wrong}
    told = [f"{what}: {_listed(names)}" for what, names in faults.items() if names]
    if told:
        raise _unfit(opened, "; ".join(told))


def _check_sizes(opened: Opened, tensors: Mapping[str, TensorInfo]) -> None:
    """Raises a UserError for sizes that no tensor has, before so many layers are listed or so large an array is described."""
    largest = max((size for tensor in tensors.values() for size in tensor.shape), default=0)
    for name, size in _sizes(opened.model):
        # Layers have tensors of their own, or are an axis of those of all.
        if size > (max(largest, len(tensors)) if "layers" in name else largest):
            what = f"{name} would be {size}, of {len(tensors)} tensors with no axis longer than {largest}"
            raise _unfit(opened, what)


def _sizes(recipe: Any) -> Iterator[tuple[str, int]]:
    """The sizes of a network by their names, also those of its parts."""
    for field in dataclasses.fields(recipe):
        value = getattr(recipe, field.name)
        if dataclasses.is_dataclass(value):
            yield from _sizes(value)
        elif field.name.endswith(SIZES):
            yield field.name, value


def _unfit(opened: Opened, what: str) -> UserError:
    where = "its config.json" if opened.kind == "hf" else "a T5 of T5X"
    remedy = "the files do not belong together, or its model is another; copy it again"
    return UserError(f"{opened.path} does not fit {where}: {what} ({remedy})")


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(sorted(names)[:LISTED]) + more


def _by(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "a number"
