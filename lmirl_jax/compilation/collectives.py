"""Finds what devices send one another in a compiled program: by operation and mesh axes, with counts and bytes."""

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from lmirl_jax.compilation.hlo import Instruction, Module
from lmirl_jax.compilation.loops import Runs

OPERATIONS = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)


@dataclasses.dataclass(frozen=True)
class Traffic:
    """What one device sends in one run of the program, by one operation over the same axes.

    Args:
        operation: its name, such as 'all-gather'.
        axes: the mesh axes whose devices take part; empty where they are none of the mesh.
        count: how often it runs.
        bytes: the bytes that the device sends, by the algorithm's bound: of an array of S bytes over n devices, an all-gather,
            a reduce-scatter and an all-to-all send S (n - 1) / n, an all-reduce twice that, a permutation S.
    """

    operation: str
    axes: tuple[str, ...]
    count: int
    bytes: float


def find_traffic(module: Module, runs: Runs, mesh: Mapping[str, int]) -> list[Traffic]:
    """Adds up the collective operations of a program.

    Args:
        module: the program.
        runs: how often each of its computations runs.
        mesh: the sizes of the mesh axes in their order; device i of the program is the i-th of the mesh.

    Returns:
        One entry for each operation and axes, most bytes first.
    """
    found: dict[tuple[str, tuple[str, ...]], list[tuple[int, float]]] = {}
    sizes = tuple(mesh.values())
    for instruction, operation, times in _collectives(module, runs):
        if instruction.opcode == "send":
            axes, devices = ("slices",), mesh.get("slices", 1)
        elif operation == "collective-permute":
            pairs = _pairs(instruction.attributes)
            axes, devices = axes_of(pairs, mesh), 2
        else:
            group = first_group(instruction.attributes, math.prod(sizes))
            axes, devices = axes_of([(group[0], other) for other in group[1:]], mesh), len(group)
        if devices < 2:
            continue
        sent = _sent(instruction, operation, devices)
        found.setdefault((operation, axes), []).append((times, times * sent))
    totals = [
        Traffic(*key, sum(count for count, _ in parts), sum(size for _, size in parts))
        for key, parts in found.items()
    ]
    return sorted(totals, key=lambda traffic: -traffic.bytes)


def _collectives(module: Module, runs: Runs) -> Iterator[tuple[Instruction, str, int]]:
    """Each collective operation once, with its name and the number of its runs.

    The TPU compiler spreads one operation over several fused computations, which overlap it with others: these pieces have one
    channel, and count as one. It writes some reduce-scatters as a fusion of an all-reduce and a slice.
    """
    pieces: dict[tuple, tuple[Instruction, str, int]] = {}
    for name, times in runs.counts.items():
        computation, is_fused = module.computations[name], name in module.fused
        for instruction in computation:
            operation = _between_slices(instruction) or instruction.opcode.removesuffix("-start")
            if operation not in OPERATIONS:
                continue
            if not is_fused:
                yield instruction, operation, times
                continue
            if operation == "all-reduce" and any(x.opcode == "dynamic-slice" for x in computation):
                operation = "reduce-scatter"
            source = re.search(r'op_name="[^"]*"', instruction.attributes)
            # All operations of a shard_map may have channel 1.
            shapes = tuple((array.dtype, array.dims) for array in instruction.arrays)
            key = instruction.attribute("channel_id"), shapes, source and source[0]
            if key not in pieces or pieces[key][2] < times:
                pieces[key] = instruction, operation, times
    yield from pieces.values()


def _between_slices(instruction: Instruction) -> str | None:
    """The operation that a send to the runtime of the host begins, which joins the arrays of all slices; None for other sends."""
    kind = re.search(r'_xla_megascale_transfer_type="(\w+)"', instruction.attributes)
    return kind[1].lower().replace("_", "-") if kind and instruction.opcode == "send" else None


def _sent(instruction: Instruction, operation: str, devices: int) -> float:
    """The bytes that a device sends in one run of the operation."""
    arrays = instruction.arrays
    if instruction.opcode in ("all-gather-start", "collective-permute-start"):
        # Operands, results, and for a permutation two numbers of its state.
        arrays = arrays[:2][1:] if operation == "collective-permute" else arrays[len(arrays) // 2 :]
    if instruction.opcode == "send":
        # The array, which an all-gather joins with the other slices', and two things of the send's state.
        arrays = arrays[:1] * (devices if operation == "all-gather" else 1)
    size = float(sum(array.bytes for array in arrays))
    share = (devices - 1) / devices
    if operation == "all-reduce":
        return 2 * size * share
    if operation == "reduce-scatter":
        # An all-reduce that is one with the slice after it has the whole array as its result.
        return size * share * (1 if instruction.opcode in ("all-reduce", "send") else devices)
    return size if operation in ("collective-permute", "collective-broadcast") else size * share


def axes_of(pairs: Sequence[tuple[int, int]], mesh: Mapping[str, int]) -> tuple[str, ...]:
    """The mesh axes along which the devices of each pair differ."""
    if not pairs:
        return ()
    places = np.stack(np.unravel_index(np.asarray(pairs), tuple(mesh.values())), axis=-1)
    differs = np.any(places[:, 0] != places[:, 1], axis=0)
    return tuple(axis for axis, varies in zip(mesh, differs, strict=True) if varies)


def _pairs(attributes: str) -> list[tuple[int, int]]:
    text = re.search(r"source_target_pairs=\{((?:\{\d+,\d+\},?)*)\}", attributes)
    pairs = re.findall(r"\{(\d+),(\d+)\}", text[1] if text else "")
    return [(int(source), int(target)) for source, target in pairs]


def first_group(attributes: str, devices: int) -> list[int]:
    """The devices of the first group of a collective operation, from any of the forms in which XLA writes groups.

    Args:
        attributes: the text that has `replica_groups`: `{{0,1},{2,3}}`, `[2,2]<=[2,2]T(1,0)` or `mesh['a'=2,'b'=2] {'a'}`.
        devices: the number of devices, which are one group where none is given.
    """
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", attributes):
        return [int(device) for device in listed[1].split(",")]
    iota = re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", attributes)
    if iota:
        return _iota(iota[2], iota[3], devices).reshape(_numbers(iota[1]))[0].tolist()
    order = r"(?:,\s*device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))?"
    if named := re.search(rf"replica_groups=mesh\[([^\]]*)\]{order}\s*\{{([^}}]*)\}}", attributes):
        return _group_of_axes(named[1], named[4], _iota(named[2], named[3], devices))
    return list(range(devices))


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _iota(shape: str | None, order: str | None, devices: int) -> np.ndarray:
    """The numbers of the devices, laid out in a shape whose axes are then exchanged."""
    numbers = np.arange(devices)
    if shape:
        numbers = numbers.reshape(_numbers(shape))
    return (numbers.transpose(_numbers(order)) if order else numbers).ravel()


def _group_of_axes(mesh: str, axes: str, devices: np.ndarray) -> list[int]:
    """The first group of the form with named axes, of which one may be a part: `'a':(2)4` is the part of 4 after one of 2."""
    sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", mesh)}
    index: list = [slice(0, 1)] * len(sizes)
    for name, before, size in re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", axes):
        place, whole = list(sizes).index(name), sizes[name]
        after = whole // (int(before) * int(size)) if before else 1
        index[place] = slice(0, after * int(size) if before else whole, after)
    return devices.reshape(tuple(sizes.values()))[tuple(index)].ravel().tolist()
