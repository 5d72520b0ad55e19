"""The part of `lmirl doctor` on a run's mesh: how each parameter and the main activations are split over it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding

from lmirl_jax import configuration, sharding
from lmirl_jax.cli.flags import Flags
from lmirl_jax.data.jsonl import demonstration_files
from lmirl_jax.models.abstract import build
from lmirl_jax.models.layers import record_constraints
from lmirl_jax.rows import empty_row, stack_rows
from lmirl_jax.types import NetworkConfig, UserError

HEADER = ("shape", "logical axes", "mesh axes", "bytes a device")


def report(flags: Flags) -> tuple[list[str], list[str]]:
    """The lines of the tables for the run of gin files, and what keeps it from starting: sizes, or files that are missing."""
    try:
        configuration.load(flags.gin_file, flags.gin_bindings, flags.gin_search_paths, complete=False)
        configuration.require("BATCH_SIZE", "TASK_FEATURE_LENGTHS", "MODEL", "MESH")
        rows = configuration.macro("BATCH_SIZE") // configuration.macro("NUM_MICROBATCHES", 1)
        lengths = configuration.macro("TASK_FEATURE_LENGTHS")
        lines = describe(configuration.macro("NETWORK"), configuration.macro("MESH"), rows, lengths)
        _check_data(configuration.macro("DATA", None), configuration.macro("VALIDATION_DATA", None))
    except UserError as error:
        return [], [f"a run of these gin files: {str(error).splitlines()[0]}"]
    return lines, []


def describe(model: NetworkConfig, mesh: Mesh, rows: int, lengths: Mapping[str, int]) -> list[str]:
    """The shardings of a run, without making any array.

    Args:
        model: the recipe of the network.
        mesh: the device mesh.
        rows: the number of rows of a global batch, or of a microbatch.
        lengths: the number of tokens of a row, for `inputs` and `targets`.

    Returns:
        The lines of two tables: every parameter, and each kind of activation that the layers split.

    Raises:
        UserError: the mesh does not divide a parameter or the batch.
    """
    sharding.check_batch_size(mesh, rows)
    sharding.check_lengths(mesh, lengths)
    graph, variables = build(model)
    parameters = _parameters(mesh, variables)
    total = sum(row[-1] for row in parameters)
    activations = _activations(mesh, graph, variables, rows, lengths)
    size = math.prod(mesh.shape.values())
    return [
        f"mesh {sharding.describe_mesh(mesh)}, {size} device(s)",
        "",
        *_table([("parameter", *HEADER), *parameters, ("all parameters", "", "", "", total)]),
        "",
        *_table([("activation", *HEADER), *activations]),
        "",
    ]


def _check_data(data: str | Mapping[str, float] | None, validation_data: str | None) -> None:
    """Raises a UserError for a file that training would not find."""
    for path in data if isinstance(data, Mapping) else [data] if data is not None else []:
        demonstration_files(path, "DATA")
    if validation_data is not None:
        demonstration_files(validation_data, "VALIDATION_DATA", "validation")


def _parameters(mesh: Mesh, variables: nnx.State) -> list[tuple[Any, ...]]:
    axes = sharding.logical_axes(variables)
    places = jax.tree.leaves_with_path(sharding.parameter_shardings(mesh, variables))
    by_name = {"/".join(str(key.key) for key in path): place for path, place in places}
    rows = []
    for path, variable in nnx.to_flat_state(variables):
        name = "/".join(map(str, path))
        rows.append((name, *_row(variable.shape, variable.dtype, axes[name], by_name[name])))
    return rows


def _activations(
    mesh: Mesh, graph: nnx.GraphDef, variables: nnx.State, rows: int, lengths: Mapping[str, int]
) -> list[tuple[Any, ...]]:
    """The activations that the layers split in the forward pass, each kind once, though every layer has them."""
    batch = stack_rows([empty_row(lengths)], rows)
    with sharding.use(mesh), record_constraints() as found:
        jax.eval_shape(lambda params, batch: nnx.merge(graph, params).hidden(batch), variables, batch)
    return [
        (_kind(each.logical), *_row(each.shape, each.dtype, each.logical, NamedSharding(mesh, each.spec)))
        for each in dict.fromkeys(found)
    ]


def _kind(logical: Sequence[str | None]) -> str:
    if logical[-1] == "mlp":
        return "feed-forward"
    if "key_length" in logical:
        return "keys, values"
    return "queries" if len(logical) == 4 else "hidden states"


def _row(
    shape: Sequence[int], dtype: Any, logical: Sequence[str | None], place: NamedSharding
) -> tuple[Any, ...]:
    size = math.prod(place.shard_shape(tuple(shape))) * np.dtype(dtype).itemsize
    return _joined(shape), _joined(name or "-" for name in logical), _mesh_axes(place, len(shape)), size


def _joined(parts: Any) -> str:
    return " x ".join(map(str, parts)) or "-"


def _mesh_axes(place: NamedSharding, dimensions: int) -> str:
    """The mesh axes of more than one part that split each dimension; `-` where it is whole."""
    entries = [*place.spec, *(None,) * (dimensions - len(place.spec))]
    names = [() if entry is None else (entry,) if isinstance(entry, str) else entry for entry in entries]
    return _joined("+".join(name for name in each if place.mesh.shape[name] > 1) or "-" for each in names)


def _table(rows: Sequence[tuple[Any, ...]]) -> list[str]:
    texts = [[f"{cell:,}" if isinstance(cell, int) else cell for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    lines = []
    for row in texts:
        *cells, last = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        lines.append("  ".join([*cells, last.strip().rjust(widths[-1])]))
    return lines
