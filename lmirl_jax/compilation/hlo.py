"""Reads the text of a compiled program (HLO): its computations, their instructions, and the shapes of these."""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator

# The bits of an element by the name of its type; a token or an opaque value has none.
_BITS = {"pred": 8, "s4": 4, "u4": 4, "c64": 64, "c128": 128, "token": 0, "opaque": 0}
_ARRAY = re.compile(r"([a-z][a-z0-9]*)\[([0-9,<=]*)\](\{[^{}]*\})?")
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{\s*$")
_NAME = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = ")
_CALLED = re.compile(
    r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)"
    r"|(?:branch_computations|called_computations)=\{([^}]*)\}"
)


@dataclasses.dataclass(frozen=True)
class Array:
    """The shape of an array.

    Args:
        dtype: the name of the element type, such as 'bf16'.
        dims: the sizes of its axes.
        on_chip: whether it lies in the memory of the core, not in HBM.
    """

    dtype: str
    dims: tuple[int, ...]
    on_chip: bool = False

    @property
    def size(self) -> int:
        return math.prod(self.dims)

    @property
    def bytes(self) -> int:
        bits = _BITS.get(self.dtype)
        if bits is None:
            digits = re.search(r"\d+", self.dtype)
            bits = int(digits[0]) if digits else 8
        return -(-self.size * bits // 8)


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One instruction.

    Args:
        name: its name, which is unique in its computation.
        arrays: the arrays of its result; several for a tuple.
        opcode: the operation, such as 'fusion'.
        operands: the names of its operands, or for a parameter or a constant the text in its parentheses.
        attributes: the text after the operands.
        is_root: whether it is the result of its computation.
    """

    name: str
    arrays: tuple[Array, ...]
    opcode: str
    operands: tuple[str, ...]
    attributes: str
    is_root: bool

    @property
    def array(self) -> Array:
        """Its result, or the first array of a tuple."""
        return self.arrays[0]

    @functools.cached_property
    def called(self) -> tuple[str, ...]:
        """The names of the computations that it calls."""
        names = []
        for one, several in _CALLED.findall(self.attributes):
            names += [one] if one else [name.strip().lstrip("%") for name in several.split(",")]
        return tuple(dict.fromkeys(name for name in names if name))

    def called_as(self, role: str) -> str:
        """The name of the computation that it calls in this role, such as 'body'."""
        found = re.search(rf"\b{role}=%?([\w.\-]+)", self.attributes)
        assert found is not None, f"{self.name} has no {role}"
        return found[1]

    def attribute(self, name: str) -> str | None:
        """The text of an attribute that ends at a comma or a space outside of brackets; None where there is none."""
        found = re.search(rf"(?:^|[ ,]){name}=", self.attributes)
        return None if found is None else _until_separator(self.attributes[found.end() :])


@dataclasses.dataclass(frozen=True)
class Computation:
    """The instructions of a computation by their names, in their order."""

    name: str
    instructions: dict[str, Instruction]

    @property
    def root(self) -> Instruction:
        return next(instruction for instruction in self.instructions.values() if instruction.is_root)

    def __iter__(self) -> Iterator[Instruction]:
        return iter(self.instructions.values())

    def operand(self, instruction: Instruction, number: int) -> Instruction | None:
        return self.instructions.get(instruction.operands[number])


@dataclasses.dataclass(frozen=True)
class Module:
    """A compiled program.

    Args:
        computations: by their names.
        entry: the name of the one that runs.
    """

    computations: dict[str, Computation]
    entry: str

    @functools.cached_property
    def fused(self) -> frozenset[str]:
        """The computations that are part of one instruction, such as a fusion or a reduction: their arrays lie nowhere."""
        callers = (x for computation in self.computations.values() for x in computation)
        return frozenset(
            name for x in callers if x.opcode not in ("while", "conditional", "call") for name in x.called
        )


def parse(text: str) -> Module:
    """Reads the text that `jax.stages.Compiled.as_text` gives.

    Raises:
        ValueError: it has no entry.
    """
    computations, entry = {}, None
    name, instructions = "", {}
    for line in text.splitlines():
        if line.startswith("}"):
            computations[name] = Computation(name, instructions)
        elif not line.startswith(" "):
            head = _HEAD.match(line)
            if head is not None and not line.startswith("HloModule"):
                name, instructions = head[2], {}
                entry = name if head[1] else entry
        else:
            instruction = _instruction(line)
            if instruction is not None:
                instructions[instruction.name] = instruction
    if entry is None:
        raise ValueError("the text has no ENTRY computation")
    return Module(computations, entry)


def arrays_of(text: str) -> tuple[Array, ...]:
    """The arrays of a shape's text, such as `(f32[2,3]{1,0}, s32[])`."""
    return tuple(
        # S(1) and above are memories of the core; S(0) and no mark are HBM.
        Array(dtype, tuple(int(size.lstrip("<=")) for size in dims.split(",") if size), _on_chip(layout))
        for dtype, dims, layout in _ARRAY.findall(re.sub(r"/\*.*?\*/", "", text))
    )


def _on_chip(layout: str) -> bool:
    space = re.search(r"S\((\d+)\)", layout)
    return space is not None and space[1] != "0"


def _instruction(line: str) -> Instruction | None:
    head = _NAME.match(line)
    if head is None:
        return None
    rest = line[head.end() :]
    end = _closing(rest) + 1 if rest.startswith("(") else rest.index(" ")
    shape, rest = rest[:end], rest[end:].lstrip()
    start = rest.index("(")
    stop = start + _closing(rest[start:])
    operands = tuple(part.strip().split(" ")[-1].lstrip("%") for part in _split(rest[start + 1 : stop]))
    attributes = rest[stop + 1 :].lstrip(", ")
    return Instruction(head[2], arrays_of(shape), rest[:start], operands, attributes, bool(head[1]))


def _closing(text: str) -> int:
    """The index of the parenthesis that closes the one at the start."""
    depth = 0
    for found in re.finditer(r"[()]", text):
        depth += 1 if found[0] == "(" else -1
        if depth == 0:
            return found.start()
    raise ValueError(f"no closing parenthesis: {text[:80]}")


def _split(text: str) -> list[str]:
    """Splits at commas outside of brackets."""
    parts, depth, begin = [], 0, 0
    for found in re.finditer(r"[(\[{)\]},]", text):
        if found[0] == "," and depth == 0:
            parts.append(text[begin : found.start()])
            begin = found.end()
        elif found[0] in "([{":
            depth += 1
        elif found[0] in ")]}":
            depth -= 1
    return [part for part in (*parts, text[begin:]) if part.strip()]


def _until_separator(text: str) -> str:
    depth = 0
    for place, character in enumerate(text):
        if depth == 0 and character == ",":
            return text[:place]
        depth += (character in "([{") - (character in ")]}")
    return text
