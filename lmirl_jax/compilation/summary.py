"""What one compiled program takes of each chip: memory, operations, what it sends, and the time that these bound."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax

from lmirl_jax.compilation import hlo
from lmirl_jax.compilation.collectives import Traffic, find_traffic
from lmirl_jax.compilation.loops import Runs, count_runs
from lmirl_jax.compilation.memory_traffic import hbm_bytes
from lmirl_jax.compilation.products import matrix_flops
from lmirl_jax.sharding import Chip


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes of one chip, by the compiler.

    Args:
        arguments: what the program is given: state and batch.
        outputs: what it returns in memory of its own; most of it takes the place of arguments (`aliased`).
        aliased: what outputs and arguments share.
        temporaries: everything else, at its largest.
        limit: what a program can use.
    """

    arguments: int
    outputs: int
    aliased: int
    temporaries: int
    limit: float

    @property
    def peak(self) -> int:
        return self.arguments + self.outputs - self.aliased + self.temporaries

    @property
    def share(self) -> float:
        return self.peak / self.limit

    @property
    def fits(self) -> bool:
        return self.peak <= self.limit


@dataclasses.dataclass(frozen=True)
class Summary:
    """The numbers of one program on one chip.

    Args:
        memory: bytes.
        flops: the operations of its matrix products, loops' bodies as often as they run.
        recomputed_flops: the part of them that computes activations or logits again (rematerialisation).
        model_flops: the operations that the model needs; None where the convention does not cover the program.
        hbm_bytes: what it moves between HBM and the core.
        traffic: what it sends.
        seconds: the least time that each resource allows: 'compute', 'hbm', 'ici' and 'dcn'.
        peak_flops: the chip's operations a second.
        largest_array: the largest array that it makes, as text, such as 'f32[16,512,768]'.
        holds_logits: whether an array has a place for every token of the device and every word of it; None: not asked.
        turns: how often the loops turn whose bounds depend on data.
        compile_seconds: how long the compiler took.
    """

    memory: Memory
    flops: float
    recomputed_flops: float
    model_flops: float | None
    hbm_bytes: float
    traffic: list[Traffic]
    seconds: Mapping[str, float]
    peak_flops: float
    largest_array: str
    holds_logits: bool | None
    turns: int
    compile_seconds: float

    @property
    def bound_by(self) -> str:
        return max(self.seconds, key=lambda name: self.seconds[name])

    @property
    def step_seconds(self) -> float:
        """The step time at the roofline: that of the slowest resource, all others hidden behind it."""
        return self.seconds[self.bound_by]

    @property
    def mfu_bound(self) -> float | None:
        """The greatest share of the peak that useful operations can reach."""
        return None if self.model_flops is None else self.model_flops / self.step_seconds / self.peak_flops

    @property
    def waste(self) -> float | None:
        """Compiled over needed operations, recomputation left out; 1 is none."""
        return None if self.model_flops is None else (self.flops - self.recomputed_flops) / self.model_flops


def summarize(
    compiled: jax.stages.Compiled,
    chip: Chip,
    mesh: Mapping[str, int],
    compile_seconds: float,
    model_flops: float | None,
    data_dependent_turns: int,
    recomputed_logits: float,
    logits: tuple[int, int] | None,
) -> Summary:
    """Reads a compiled program.

    Args:
        compiled: the program.
        chip: the kind of chip that it is for.
        mesh: the sizes of its mesh axes.
        compile_seconds: how long its compilation took.
        model_flops: what the model needs of one chip; None where it is not known.
        data_dependent_turns: the turns of loops whose bounds depend on data; 0 where there are none.
        recomputed_logits: the operations of one chip that compute logits a second time, on which XLA has no mark.
        logits: the tokens and the words of one chip whose logits should not be in memory at once; None: not asked.
    """
    module = hlo.parse(compiled.as_text() or "")
    runs = count_runs(module, data_dependent_turns or 1)
    flops, moved = matrix_flops(module, runs), hbm_bytes(module, runs)
    traffic = find_traffic(module, runs, mesh)
    over_slices = [each for each in traffic if "slices" in each.axes]
    inside = sum(each.bytes for each in traffic) - sum(each.bytes for each in over_slices)
    seconds = {"compute": flops / chip.flops, "hbm": moved / chip.hbm_bandwidth, "ici": inside / chip.ici}
    if over_slices and chip.dcn is not None:
        seconds["dcn"] = sum(each.bytes for each in over_slices) / chip.dcn
    largest, holds_logits = _arrays(module, runs, logits)
    return Summary(
        _memory(compiled, chip),
        flops,
        matrix_flops(module, runs, only="rematted_computation") + recomputed_logits,
        model_flops,
        moved,
        traffic,
        seconds,
        chip.flops,
        largest,
        holds_logits,
        data_dependent_turns,
        compile_seconds,
    )


def _memory(compiled: jax.stages.Compiled, chip: Chip) -> Memory:
    found: Any = compiled.memory_analysis()
    return Memory(
        found.argument_size_in_bytes,
        found.output_size_in_bytes,
        found.alias_size_in_bytes,
        found.temp_size_in_bytes,
        chip.hbm,
    )


def _arrays(module: hlo.Module, runs: Runs, logits: tuple[int, int] | None) -> tuple[str, bool | None]:
    """The largest array that the program makes, and whether one has a place for each of the logits."""
    made = [
        array
        for name in runs.counts
        if name not in module.fused
        for instruction in module.computations[name]
        if instruction.opcode not in ("parameter", "get-tuple-element", "tuple", "while", "bitcast")
        and not instruction.opcode.endswith(("-start", "-done"))
        for array in instruction.arrays
    ]
    largest = max(made, key=lambda array: array.bytes)
    text = f"{largest.dtype}[{','.join(map(str, largest.dims))}]"
    if logits is None:
        return text, None
    tokens, words = logits
    # Embeddings have the words as an axis too, and may be larger.
    return text, any(words in array.dims and array.size == tokens * words for array in made)
