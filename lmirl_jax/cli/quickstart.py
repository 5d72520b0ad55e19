"""`lmirl quickstart`: fine-tunes a small model on few demonstrations by MLE and by IQLearn, and compares both on one page."""

import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from etils import epath

from lmirl_jax import configuration, evaluation, files, locks, reports, rewards, runs
from lmirl_jax.cli import sweep as sweep_command
from lmirl_jax.cli import sweep_output
from lmirl_jax.cli.commands import COMMANDS
from lmirl_jax.cli.flags import Flags, parse
from lmirl_jax.cli.side_by_side import run_side_by_side
from lmirl_jax.tasks import number_paths, number_paths_large
from lmirl_jax.training.metric_writers import read_metrics

RUN_FILE = "gin/runs/quickstart.gin"
SWEEP_FILE = "gin/runs/quickstart_sweep.gin"
# The file of each objective, and its settings, which benchmarks/small_data.py chose on the validation split.
OBJECTIVES: Mapping[str, tuple[str, Mapping[str, float]]] = {
    "MLE": ("mle", {}),
    "IQLearn": ("iqlearn", {"TD_WEIGHT": 0.02}),
}
SEEDS = 3


def main(flags: Flags) -> int:
    began = time.monotonic()
    configuration.load(
        [RUN_FILE, *flags.gin_file], flags.gin_bindings, flags.gin_search_paths, complete=False
    )
    directory = files.absolute_path(configuration.macro("MODEL_DIR", "lmirl_quickstart"))
    # A model this small is not quicker on an accelerator, and only one process can hold a TPU.
    jax.config.update("jax_platforms", "cpu")
    with locks.lock_directory(directory, "MODEL_DIR"):
        training = {
            f"{objective}_{seed}": _train_arguments(flags, objective, settings, seed, directory)
            for seed in range(SEEDS)
            for objective, settings in OBJECTIVES.values()
        }
        sweeping = _sweep_arguments(directory)
        commands = [f"lmirl {shlex.join(arguments)}" for arguments in (*training.values(), sweeping)]
        print("\n".join(commands), file=sys.stderr, flush=True)
        # Seeds differ in numbers alone: what the first one compiles serves the others.
        cache = "JAX_COMPILATION_CACHE_DIR"
        run_side_by_side(training, {cache: os.environ.get(cache) or str(directory / "compiled")})
        sweep = sweep_command.run(parse(sweeping[1:], COMMANDS["sweep"].flags))
        _compare(sweep, directory, commands, time.monotonic() - began)
    return 0


def _run_folder(directory: epath.Path, objective: str, seed: int) -> epath.Path:
    return directory / f"{objective}_{seed}"


def _train_arguments(
    flags: Flags, objective: str, settings: Mapping[str, float], seed: int, directory: epath.Path
) -> list[str]:
    gin_files = [RUN_FILE, *flags.gin_file, f"gin/objectives/{objective}.gin"]
    bindings = [b for b in flags.gin_bindings if b.split("=")[0].strip() != "MODEL_DIR"]
    return [
        "train",
        *(f"--gin_file={file}" for file in gin_files),
        *(f"--gin_search_paths={path}" for path in flags.gin_search_paths),
        *(f"--gin.{name}={value!r}" for name, value in settings.items()),
        *(f"--gin.{name.strip()}={value.strip()}" for name, value in (b.split("=", 1) for b in bindings)),
        f"--gin.MODEL_DIR={str(_run_folder(directory, objective, seed))!r}",
        f"--gin.RANDOM_SEED={seed}",
    ]


def _sweep_arguments(directory: epath.Path) -> list[str]:
    paths = {
        label: [str(_run_folder(directory, name, seed) / "checkpoints" / "best") for seed in range(SEEDS)]
        for label, (name, _) in OBJECTIVES.items()
    }
    return [
        "sweep",
        f"--gin_file={SWEEP_FILE}",
        f"--gin.OUTPUT_DIR={str(directory / 'sweep')!r}",
        f"--gin.RUNS={paths!r}",
    ]


def _compare(
    sweep: sweep_output.Sweep, directory: epath.Path, commands: Sequence[str], seconds: float
) -> None:
    """Prints the table and the verdicts, and writes the report."""
    sweep_output.write(sweep, seconds)
    quality, diversity = sweep.metrics
    verdicts = sweep_output.sweep_verdicts(sweep)
    report = directory / "report.html"
    reports.quickstart_report(
        report,
        cells=sweep.cells,
        quality=quality,
        losses={label: _losses(directory, name) for label, (name, _) in OBJECTIVES.items()},
        heatmaps=[
            _heat_map(label, _run_folder(directory, name, 0)) for label, (name, _) in OBJECTIVES.items()
        ],
        text=reports.PageText(
            "Quickstart: maximum likelihood and IQLearn on few demonstrations",
            verdict=verdicts,
            settings={
                "Commands": list(commands),
                "Time": f"{seconds:.0f} s",
            },
            lead=(
                "A tiny T5 that can add small numbers learns to add larger ones from few demonstrations. "
                + sweep_output.lead(sweep)
            ),
        ),
        loss_note=(
            "The likelihood part of the loss, -log pi in nats per token, on the validation split: the mean over seeds. Where it "
            "rises again, training longer over-fits."
        ),
    )
    print(f"{sweep_output.lead(sweep)}\n{evaluation.table(sweep.cells, [quality, *diversity])}")
    print("\n".join(["", *verdicts, "", f"report: {report}", f"finished in {seconds:.0f} s"]))


def _losses(directory: epath.Path, objective: str) -> tuple[list[int], list[float]]:
    """The steps at which an objective's runs were evaluated, and their mean validation loss."""
    of_seeds = []
    for seed in range(SEEDS):
        lines = read_metrics(_run_folder(directory, objective, seed) / "metrics.jsonl")
        of_seeds.append(
            {int(line["step"]): line["eval/loss_mle"] for line in lines if "eval/loss_mle" in line}
        )
    steps = sorted(set.intersection(*map(set, of_seeds)))
    return steps, [float(np.mean([losses[step] for losses in of_seeds])) for step in steps]


def _heat_map(label: str, run: epath.Path) -> reports.HeatMap:
    """The rewards that a run gives to a right answer and to the same answer with one wrong sum."""
    prompt, right = number_paths_large.examples("test")[0]
    answers = {"right": right, "wrong": number_paths.with_wrong_sum(right)}
    scores = rewards.score(runs.load(str(run / "checkpoints" / "best")), prompt, list(answers.values()))
    rows = [
        reports.scored_row(answer, f"{name} answer") for name, answer in zip(answers, scores, strict=True)
    ]
    explanation = "The wrong answer differs in one sum, and goes on consistently from there."
    return reports.HeatMap(f"Rewards of {label}, first seed", rows, prompt, explanation)
