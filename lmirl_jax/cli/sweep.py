"""`lmirl sweep`: runs of several objectives and seeds over temperatures and top-p, in one table and one report."""

import time
from collections.abc import Iterator, Sequence

import jax
from etils import epath

from lmirl_jax import configuration, evaluation, files, locks
from lmirl_jax.arguments import Path
from lmirl_jax.cli import sweep_output
from lmirl_jax.cli.configure import add_run, configure_without_run
from lmirl_jax.cli.flags import Flags
from lmirl_jax.cli.processes import from_first_process, say
from lmirl_jax.cli.sweep_plan import (
    AnsweringRun,
    LoadedRun,
    Runs,
    SweepConfig,
    check_output_dir,
    check_sweep,
    paths_by_label,
)
from lmirl_jax.evaluation.evaluator import answer_row
from lmirl_jax.evaluation.sweep_cells import CellSettings, FinishedCell, read_cell

RUN_FILE = "gin/runs/sweep.gin"


def main(flags: Flags) -> int:
    began = time.monotonic()
    result = run(flags)
    if jax.process_index() == 0:
        print(sweep_output.write(result, time.monotonic() - began))
    return 0


def run(flags: Flags) -> sweep_output.Sweep:
    """Makes every cell that is missing. The result is complete on the first process, the only one that must see the files."""
    configure_without_run(flags, RUN_FILE, "RUNS", "OUTPUT_DIR")
    config = configuration.with_configuration(SweepConfig)()
    paths = paths_by_label(configuration.macro("RUNS", hint=Runs))
    output_dir = configuration.macro("OUTPUT_DIR", hint=Path)
    answering = []
    for label, label_paths in paths.items():
        for seed, path in enumerate(label_paths):
            checkpoint = add_run(flags, path)
            answering.append(configuration.with_configuration(AnsweringRun)(label, seed, checkpoint))
    check_sweep(answering, config)
    check_output_dir(output_dir, ("sweep.csv", "sweep.json", "report.html"), [])
    # This comes after every check, so that an error leaves no folder behind.
    folder = files.prepare_directory(output_dir, "OUTPUT_DIR")
    with locks.lock_directory(folder, "OUTPUT_DIR"):
        finished = list(finish(answering, config, folder / "cells"))
    return sweep_output.Sweep(config, answering, finished, folder)


def finish(
    answering: Sequence[AnsweringRun], config: SweepConfig, folder: epath.Path
) -> Iterator[tuple[AnsweringRun, FinishedCell]]:
    """Yields every cell, run by run and point by point. Cells that are finished are read, others are made and written."""
    settings_by_run = [run.settings(config.points) for run in answering]
    on_disk = [[read_cell(folder, settings) for settings in run_settings] for run_settings in settings_by_run]
    # All processes make the same cells, even if they see other disks.
    missing = from_first_process([[cell is None for cell in cells] for cells in on_disk])
    count = int(missing.sum())
    say("sweep", f"{missing.size - count} of {missing.size} cells are finished already, {count} to make")
    began, done = time.monotonic(), 0
    for run, run_settings, cells, todo in zip(answering, settings_by_run, on_disk, missing, strict=True):
        loaded = run.load() if todo.any() else None
        for settings, cell, absent in zip(run_settings, cells, todo, strict=True):
            if loaded is not None and absent:
                cell, done = _make_cell(run, loaded, settings, folder), done + 1
                seconds = (time.monotonic() - began) / done
                left = f"{seconds * (count - done):.0f} s left"
                say("sweep", f"{run}, {_place(settings)}: {done} of {count} made, {left}")
            # Only the first process may see the disk on which the cell lies.
            if cell is not None:
                yield run, cell


def _make_cell(
    run: AnsweringRun, loaded: LoadedRun, settings: CellSettings, folder: epath.Path
) -> FinishedCell:
    answers = run.answers(loaded, settings)
    metrics, per_prompt = evaluation.measure(run.prompts, answers)
    intervals = {
        name: list(ends) for name, ends in evaluation.intervals(run.prompts, answers, per_prompt).items()
    }
    cell = FinishedCell(settings, metrics, per_prompt, intervals, [answer_row(answer) for answer in answers])
    if jax.process_index() == 0:
        cell.write(folder)
    return cell


def _place(settings: CellSettings) -> str:
    top_p = f", top-p {settings.top_p:g}" if settings.top_p < 1 else ""
    return f"temperature {settings.temperature:g}{top_p}"
