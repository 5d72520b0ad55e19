"""How often each computation of a compiled program runs: the bodies of loops as often as their loops turn.

XLA writes a loop as a condition and a body over one tuple, the state. Where the compiler has not noted the number of turns,
it follows from the counter's start, its step and the bound that the condition compares it with. A loop whose bound depends on
data, such as the blocks of real tokens of soft Q-values, has no number of turns in the text: the caller gives it.
"""

import collections
import dataclasses
import re
from collections.abc import Mapping, Sequence

from lmirl_jax.compilation.hlo import Computation, Instruction, Module

# Instructions that pass on the value of their first operand, as far as scalars go.
_SAME_VALUE = ("copy", "bitcast", "convert", "reshape", "broadcast", "copy-start", "copy-done")
_KNOWN = re.compile(r"known_trip_count\D+(\d+)")


@dataclasses.dataclass(frozen=True)
class Runs:
    """How often computations run.

    Args:
        counts: for each computation that runs, how often; of the branches of a conditional the longest counts as run.
        data_dependent: the loops whose number of turns the caller gave, by the names that JAX gave them.
    """

    counts: Mapping[str, int]
    data_dependent: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class _Element:
    """An element of the state of a loop, by its number."""

    number: int


@dataclasses.dataclass(frozen=True)
class _Frame:
    """A computation as it is called from one place.

    Args:
        computation: the computation.
        state: of a loop's body, the elements of the state that have one value in every turn.
        caller, operands: of a fusion or a call, the place that calls it and the operands there.
    """

    computation: Computation
    state: Mapping[int, int] = dataclasses.field(default_factory=dict)
    caller: "_Frame | None" = None
    operands: tuple[str, ...] = ()


def count_runs(module: Module, data_dependent_turns: int = 1) -> Runs:
    """Counts how often each computation runs in one run of the program.

    Args:
        module: the program.
        data_dependent_turns: the turns of a loop whose bound depends on data.
    """
    counts: collections.Counter[str] = collections.Counter()
    unknown: list[str] = []

    def visit(frame: _Frame, times: int) -> None:
        counts[frame.computation.name] += times
        for instruction in frame.computation:
            if instruction.opcode == "while":
                visit_loop(frame, instruction, times)
                continue
            called: Sequence[str] = instruction.called
            if instruction.opcode == "conditional":
                called = [max(called, key=lambda name: _length(module, name))]
            for name in called:
                visit(_Frame(module.computations[name], {}, frame, instruction.operands), times)

    def visit_loop(frame: _Frame, loop: Instruction, times: int) -> None:
        turns = _turns(module, frame, loop)
        if turns is None:
            unknown.append(_jax_name(loop))
            turns = data_dependent_turns
        counts[loop.called_as("condition")] += times * (turns + 1)
        body = module.computations[loop.called_as("body")]
        visit(_Frame(body, _constant_state(frame, loop, body)), times * turns)

    visit(_Frame(module.computations[module.entry]), 1)
    return Runs(dict(counts), tuple(dict.fromkeys(unknown)))


def _length(module: Module, name: str) -> int:
    """The number of a computation's instructions, with those of the ones that it calls."""
    computation = module.computations[name]
    return sum(1 + sum(_length(module, inner) for inner in each.called) for each in computation)


def _jax_name(instruction: Instruction) -> str:
    found = re.search(r'op_name="([^"]*)"', instruction.attributes)
    return found[1] if found else instruction.name


def _turns(module: Module, frame: _Frame, loop: Instruction) -> int | None:
    """The number of turns of a loop; None where it depends on data."""
    known = _KNOWN.search(loop.attributes)
    if known:
        return int(known[1])
    body = module.computations[loop.called_as("body")]
    condition = _Frame(module.computations[loop.called_as("condition")])
    constants = _constant_state(frame, loop, body)
    return _turns_until(module, condition, condition.computation.root, (frame, loop, body), constants)


def _turns_until(
    module: Module,
    condition: _Frame,
    test: Instruction,
    loop: tuple[_Frame, Instruction, Computation],
    constants: Mapping[int, int],
) -> int | None:
    """The greatest number of turns that a part of the condition allows; None where it sets no bound."""
    parts = [condition.computation.instructions.get(name) for name in test.operands]
    if test.opcode == "and":
        bounds = [
            _turns_until(module, condition, part, loop, constants) for part in parts if part is not None
        ]
        return min((bound for bound in bounds if bound is not None), default=None)
    if test.opcode in ("fusion", "call"):
        inner = _Frame(module.computations[test.called[0]], {}, condition, test.operands)
        return _turns_until(module, inner, inner.computation.root, loop, constants)
    if test.opcode in _SAME_VALUE and parts[0] is not None:
        return _turns_until(module, condition, parts[0], loop, constants)
    if test.opcode != "compare":
        return None
    sides = [
        constants.get(side.number, side) if isinstance(side, _Element) else side
        for side in (_trace(condition, part) for part in parts)
    ]
    direction = test.attribute("direction")
    if isinstance(sides[0], int):
        sides, direction = (
            sides[::-1],
            {"LT": "GT", "GT": "LT", "LE": "GE", "GE": "LE"}.get(direction or "", direction),
        )
    counter, bound = sides
    if not isinstance(counter, _Element) or not isinstance(bound, int):
        return None
    start = _initial(*loop[:2], counter.number)
    step = _step(loop[2], counter.number)
    distance = bound - (0 if start is None else start) + {"LE": 1, "GE": -1}.get(direction or "", 0)
    return max(-(-distance // step), 0)


def _initial(frame: _Frame, loop: Instruction, number: int) -> int | None:
    """The first value of an element of a loop's state, if it is a constant."""
    start = frame.computation.operand(loop, 0)
    if start is None or start.opcode != "tuple":
        return None
    return _value(frame, frame.computation.operand(start, number))


def _constant_state(frame: _Frame, loop: Instruction, body: Computation) -> dict[int, int]:
    """The elements of a loop's state that its body passes on, and whose first value is a constant."""
    root, inside = body.root, _Frame(body)
    if root.opcode != "tuple":
        return {}
    passed = (
        number
        for number in range(len(root.operands))
        if _trace(inside, body.operand(root, number)) == _Element(number)
    )
    values = {number: _initial(frame, loop, number) for number in passed}
    return {number: value for number, value in values.items() if value is not None}


def _step(body: Computation, number: int) -> int:
    """What a turn adds to the counter; 1 where the text does not say it plainly."""
    frame, root = _Frame(body), body.root
    added = body.operand(root, number) if root.opcode == "tuple" else None
    while added is not None and added.opcode in _SAME_VALUE:
        added = body.operand(added, 0)
    if added is None or added.opcode != "add":
        return 1
    sides = [_trace(frame, body.operand(added, side)) for side in (0, 1)]
    steps = [side for side in sides if isinstance(side, int)]
    return steps[0] if _Element(number) in sides and steps and steps[0] else 1


def _value(frame: _Frame, instruction: Instruction | None) -> int | None:
    found = _trace(frame, instruction)
    return frame.state.get(found.number) if isinstance(found, _Element) else found


def _trace(frame: _Frame, instruction: Instruction | None) -> int | _Element | None:
    """The constant that a scalar is, or the element of the loop's state; None for anything else."""
    if instruction is None:
        return None
    computation = frame.computation
    if instruction.opcode == "constant":
        return int(instruction.operands[0]) if re.fullmatch(r"-?\d+", "".join(instruction.operands)) else None
    if instruction.opcode in _SAME_VALUE:
        return _trace(frame, computation.operand(instruction, 0))
    if instruction.opcode == "parameter" and frame.caller is not None:
        argument = frame.operands[int(instruction.operands[0])]
        return _trace(frame.caller, frame.caller.computation.instructions.get(argument))
    if instruction.opcode == "get-tuple-element":
        number, source = int(instruction.attribute("index") or 0), computation.operand(instruction, 0)
        if source is not None and source.opcode == "tuple":
            return _trace(frame, computation.operand(source, number))
        if source is not None and source.opcode == "parameter" and frame.caller is None:
            return _Element(number)
    return None
