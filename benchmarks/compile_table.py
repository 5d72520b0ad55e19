"""Every model and objective compiled for TPU slices that are not at hand: memory, FLOPs, what chips send, the roofline.

    launch/local.sh python benchmarks/compile_table.py --out=benchmarks/results/compile_tpu.json [--cells=llama3_8b,...]
        [--objectives=mle,iqlearn,online_iqlearn] [--most_minutes=N]
    launch/local.sh python benchmarks/compile_table.py --out=benchmarks/results/compile_tpu.json --markdown

It needs the TPU compiler (`pip install 'lmirl_jax[compile]'`), and a minute or more for each program. Each result is written
when it is there: the same command goes on with those that are missing. The second command prints the file as a table, in which
those not run have their command.
"""

import argparse
import dataclasses
import gc
import json
import pathlib
import subprocess
import time

import jax

from lmirl_jax import compilation, sharding
from lmirl_jax.cli import commands
from lmirl_jax.cli import flags as flag_parsing
from lmirl_jax.cli.compile_settings import read_programs
from lmirl_jax.cli.compile_table import as_json

OBJECTIVES = ("mle", "iqlearn", "online_iqlearn")


@dataclasses.dataclass(frozen=True)
class Cell:
    """A model on a slice, as flags of `lmirl compile`."""

    model: str
    topology: str
    vocab_size: int
    batch_size: int
    remat: str
    lengths: str = "{'inputs': 512, 'targets': 256}"
    num_slices: int = 1
    mesh: str = "fsdp"
    more: tuple[str, ...] = ()

    def arguments(self, objective: str) -> list[str]:
        files = ["gin/runs/finetune.gin", f"gin/models/{self.model}.gin", f"gin/meshes/{self.mesh}.gin"]
        values = {
            "VOCAB_SIZE": self.vocab_size,
            "BATCH_SIZE": self.batch_size,
            "REMAT": repr(self.remat),
            "TASK_FEATURE_LENGTHS": self.lengths,
            "DTYPE": "'bfloat16'",
            "DROPOUT_RATE": 0.0,
        }
        slices = [f"--num_slices={self.num_slices}"] if self.num_slices > 1 else []
        return [
            *(f"--gin_file={name}" for name in files),
            *(f"--gin.{name}={value}" for name, value in values.items()),
            *(f"--gin.{binding}" for binding in self.more),
            f"--topology={self.topology}",
            *slices,
            f"--objectives={objective}",
        ]


LONG = "{'inputs': 1024, 'targets': 1024}"
T5, LLAMA, GEMMA = 32128, 128256, 256000
CELLS = {
    "llama3_8b": Cell("llama/llama3_1_8b", "v5e:16x16", LLAMA, 256, "minimal", LONG),
    "t5_base": Cell("t5_1_1/base", "v5e:4x4", T5, 256, "minimal"),
    "gemma2_27b": Cell("gemma2/gemma2_27b", "v5e:16x16", GEMMA, 256, "full", LONG),
    "llama3_70b": Cell("llama/llama3_1_70b", "v5p:8x8x8", LLAMA, 512, "full", LONG),
    "t5_xl": Cell("t5_1_1/xl", "v5e:16x16", T5, 1024, "minimal"),
    "t5_large": Cell("t5_1_1/large", "v5e:8x8", T5, 512, "minimal"),
    "t5_xxl": Cell("t5_1_1/xxl", "v5e:16x16", T5, 1024, "minimal"),
    # With 1,024 rows online IQLearn, which has as many rollouts beside them, does not fit.
    "t5_xxl_half": Cell("t5_1_1/xxl", "v5e:16x16", T5, 512, "minimal"),
    "llama3_8b_two_slices": Cell("llama/llama3_1_8b", "v5e:16x16", LLAMA, 512, "minimal", LONG, num_slices=2),
    "llama3_70b_4096_chips": Cell(
        "llama/llama3_1_70b",
        "v5p:16x16x16",
        LLAMA,
        4096,
        "full",
        LONG,
        more=("sharding.make_mesh.data=8",),
    ),
    # As many rows a chip as with 256 chips: what a chip sends must not grow with their number.
    "llama3_8b_64_chips": Cell("llama/llama3_1_8b", "v5e:8x8", LLAMA, 64, "minimal", LONG),
    "llama3_8b_v4": Cell("llama/llama3_1_8b", "v4:4x4x8", LLAMA, 256, "minimal", LONG),
    "llama3_8b_v6e": Cell("llama/llama3_1_8b", "v6e:16x16", LLAMA, 512, "minimal", LONG),
}


def compile_cell(cell: Cell, objective: str) -> dict:
    flags = flag_parsing.parse(cell.arguments(objective), commands.COMMANDS["compile"].flags)
    devices = compilation.devices_of(cell.topology, cell.num_slices)
    programs = read_programs(flags, objective, devices)
    chip = sharding.chip_of(cell.topology)
    result = compilation.compile_update(programs.setting, programs.learner, programs.data, chip)
    head = {"run": programs.describe(), "topology": cell.topology, "num_slices": cell.num_slices}
    return head | {"chips": programs.setting.mesh.size, "objective": objective} | as_json(result)


def command(cell: Cell, objective: str) -> str:
    quoted = (
        f'{name}="{value}"' if "'" in value else f"{name}={value}"
        for name, _, value in _parts(cell, objective)
    )
    return f"lmirl compile {' '.join(quoted)}"


def _parts(cell: Cell, objective: str) -> list[tuple[str, str, str]]:
    return [argument.partition("=") for argument in cell.arguments(objective)]


def read(path: pathlib.Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"results": {}}


def write(path: pathlib.Path, found: dict) -> None:
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def markdown(found: dict) -> str:
    lines = [
        "| cell | objective | topology | peak | of HBM | TFLOPs | compiled / model | step at the roofline | MFU at most |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, cell in CELLS.items():
        for objective in OBJECTIVES:
            one = found["results"].get(f"{name} {objective}")
            slices = f"{cell.num_slices} x " if cell.num_slices > 1 else ""
            start = f"| {name} | {objective} | {slices}{cell.topology} "
            if one is None:
                lines.append(
                    start + "| not run: `--cells=" + name + " --objectives=" + objective + "` | | | | | |"
                )
            elif not one["fits"]:
                lines.append(start + f"| does not fit: {one.get('reason', '')} | | | | | |")
            else:
                memory = one["memory"]
                lines.append(
                    start
                    + f"| {memory['peak'] / 2**30:.2f} GiB | {memory['share']:.0%} | {one['flops'] / 1e12:.2f} "
                    f"| {one['waste']:.3f} | {1e3 * one['step_seconds']:.0f} ms ({one['bound_by']}) | {one['mfu_bound']:.0%} |"
                )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--cells", default=",".join(CELLS))
    parser.add_argument("--objectives", default=",".join(OBJECTIVES))
    parser.add_argument("--most_minutes", type=float, default=float("inf"))
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args()
    if options.markdown:
        print(markdown(read(options.out)))
        return
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    began = time.monotonic()
    for objective in options.objectives.split(","):
        for name in options.cells.split(","):
            found = read(options.out)
            if (
                f"{name} {objective}" in found["results"]
                or time.monotonic() - began > 60 * options.most_minutes
            ):
                continue
            print(f"{name} {objective}", flush=True)
            result = compile_cell(CELLS[name], objective)
            head = {
                "command": command(CELLS[name], objective),
                "commit": commit.stdout.strip(),
                "jax": jax.__version__,
            }
            found["results"][f"{name} {objective}"] = head | result
            write(options.out, found)
            gc.collect()
            jax.clear_caches()


if __name__ == "__main__":
    main()
