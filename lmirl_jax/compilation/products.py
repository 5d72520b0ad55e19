"""Counts the floating-point operations of the matrix products in a compiled program.

On a TPU the compiler writes every matrix product as a convolution, a batch of products as one whose window is spaced so that
most of its places fall on padding. Only the places that hold a number are counted, as the compiler itself does.
"""

import itertools
import math
import re

from lmirl_jax.compilation.hlo import Computation, Instruction, Module
from lmirl_jax.compilation.loops import Runs


def matrix_flops(module: Module, runs: Runs, only: str = "") -> float:
    """The operations of all matrix products on one device, 2 for each product of two numbers and its addition.

    Kernels that are not XLA's (`tpu_custom_call`) count with the number that they declare, if any.

    Args:
        module: the program.
        runs: how often each of its computations runs.
        only: a part of the name that JAX gave the instructions that count; by default all do.
    """
    total = 0.0
    for name, times in runs.counts.items():
        computation = module.computations[name]
        counted = (instruction for instruction in computation if only in instruction.attributes)
        total += times * sum(_flops(computation, instruction) for instruction in counted)
    return total


def _flops(computation: Computation, instruction: Instruction) -> float:
    if instruction.opcode == "dot":
        return dot_flops(computation, instruction)
    if instruction.opcode == "convolution":
        return convolution_flops(computation, instruction)
    if instruction.opcode == "custom-call":
        declared = re.search(r'\\?"flops\\?":\s*\\?"?(\d+)', instruction.attributes)
        return float(declared[1]) if declared else 0.0
    return 0.0


def dot_flops(computation: Computation, instruction: Instruction) -> float:
    """2 x the size of the result x the sizes of the axes that are summed over."""
    left = computation.operand(instruction, 0)
    assert left is not None
    axes = re.findall(r"\d+", instruction.attribute("lhs_contracting_dims") or "")
    return 2.0 * instruction.array.size * math.prod(left.array.dims[int(axis)] for axis in axes)


def convolution_flops(computation: Computation, instruction: Instruction) -> float:
    """2 x batch x output features x input features of a group x the places of the windows that fall on numbers."""
    left, right = (computation.operand(instruction, side) for side in (0, 1))
    assert left is not None and right is not None
    inputs, kernel, output = re.split(r"_|->", instruction.attribute("dim_labels") or "")
    window = _window(instruction.attribute("window") or "")
    places = 1
    for axis in (label for label in output if label.isdigit()):
        places *= _valid_places(
            left.array.dims[inputs.index(axis)],
            right.array.dims[kernel.index(axis)],
            instruction.array.dims[output.index(axis)],
            {key: values[int(axis)] for key, values in window.items() if values},
        )
    batch, features = (instruction.array.dims[output.index(label)] for label in "bf")
    groups = int(instruction.attribute("batch_group_count") or 1)
    return 2.0 * batch * features * right.array.dims[kernel.index("i")] * places / groups


def _window(text: str) -> dict[str, list[str]]:
    return {key: value.split("x") for key, value in re.findall(r"(\w+)=([\dx_\-]+)", text)}


def _valid_places(size: int, kernel: int, output: int, window: dict[str, str]) -> int:
    """The pairs of an output's place and a window's place that fall on a number of the input, not on padding or a gap."""
    stride, dilation = int(window.get("stride", 1)), int(window.get("rhs_dilate", 1))
    gap, before = int(window.get("lhs_dilate", 1)), int(window.get("pad", "0_0").rpartition("_")[0])
    count = 0
    for out, tap in itertools.product(range(output), range(kernel)):
        place = out * stride + tap * dilation - before
        count += place >= 0 and place % gap == 0 and place // gap < size
    return count
