"""Counts the bytes that a compiled program reads from and writes to HBM, from the shapes of its instructions."""

from collections.abc import Iterator

from lmirl_jax.compilation.hlo import Array, Computation, Instruction, Module
from lmirl_jax.compilation.loops import Runs

# These name values, or wait for what another instruction moves.
_FREE = (
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "while",
    "conditional",
    "call",
    "after-all",
)
_SLICES = ("dynamic-slice", "slice", "gather")


def hbm_bytes(module: Module, runs: Runs) -> float:
    """The bytes that one device moves between HBM and the core in one run of the program.

    Every instruction outside of a fusion reads its operands once and writes its result once; arrays in the memory of the core
    count nothing. Of an array that is only sliced, the slices count; of one that is updated in place, the update.

    Args:
        module: the program.
        runs: how often each of its computations runs.
    """
    total = 0.0
    for name, times in runs.counts.items():
        if name not in module.fused:
            computation = module.computations[name]
            total += times * sum(_moved(module, computation, instruction) for instruction in computation)
    return total


def _moved(module: Module, computation: Computation, instruction: Instruction) -> float:
    opcode = instruction.opcode
    if opcode in _FREE or opcode.endswith("-done"):
        return 0.0
    if opcode in ("slice-start", "dynamic-slice-start"):
        # The slice is read and written; the array that it is cut from is named, not moved.
        read = instruction.arrays[1]
        return _size(read) + (0 if instruction.arrays[0].on_chip else read.bytes)
    if opcode.endswith("-start"):
        return sum(map(_size, instruction.arrays))
    if opcode == "custom-call" and not instruction.operands:
        return 0.0
    operands = [computation.instructions.get(name) for name in instruction.operands]
    if opcode == "fusion":
        body = module.computations[instruction.called[0]]
        parameters = {int(x.operands[0]): x for x in body if x.opcode == "parameter"}
        read = sum(
            _read(body, parameters[number], operand.array)
            for number, operand in enumerate(operands)
            if operand is not None
        )
        return read + sum(_written(body, result, array) for result, array in _results(body, instruction))
    if opcode in _SLICES:
        return 2.0 * _size(instruction.array)
    if opcode == "dynamic-update-slice":
        return 2.0 * _update(computation, instruction)
    return sum(_size(x.array) for x in operands if x is not None) + sum(map(_size, instruction.arrays))


def _size(array: Array) -> float:
    return 0.0 if array.on_chip else float(array.bytes)


def _read(body: Computation, parameter: Instruction, array: Array) -> float:
    """The bytes that a fusion reads of an operand."""
    if array.on_chip:
        return 0.0
    users = list(_users(body, parameter.name))
    if not users or not all(is_first for _, is_first in users):
        return float(array.bytes)
    if all(user.opcode in _SLICES for user, _ in users):
        return float(sum(user.array.bytes for user, _ in users))
    # An update in place reads nothing of the array.
    updates = all(user.opcode == "dynamic-update-slice" for user, _ in users)
    return 0.0 if updates else float(array.bytes)


def _users(body: Computation, name: str) -> Iterator[tuple[Instruction, bool]]:
    """The instructions that use an array, and whether it is their first operand and no other."""
    for instruction in body:
        if name in instruction.operands:
            if instruction.opcode == "bitcast":
                yield from _users(body, instruction.name)
            else:
                yield instruction, name == instruction.operands[0] and instruction.operands.count(name) == 1


def _results(body: Computation, fusion: Instruction) -> Iterator[tuple[Instruction | None, Array]]:
    root = body.root
    if root.opcode == "tuple":
        yield from zip((body.instructions.get(name) for name in root.operands), fusion.arrays, strict=False)
    else:
        yield root, fusion.array


def _written(body: Computation, result: Instruction | None, array: Array) -> float:
    while result is not None and result.opcode == "bitcast":
        result = body.operand(result, 0)
    if result is not None and result.opcode == "dynamic-update-slice" and not array.on_chip:
        return _update(body, result)
    return _size(array)


def _update(computation: Computation, instruction: Instruction) -> float:
    update = computation.operand(instruction, 1)
    return 0.0 if update is None or instruction.array.on_chip else float(update.array.bytes)
