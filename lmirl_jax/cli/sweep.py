"""`lmirl sweep`: runs of several objectives and seeds over temperatures and top-p, in one table and one report."""

import contextlib
import dataclasses
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from etils import epath

from lmirl_jax import configuration, files
from lmirl_jax.arguments import Path
from lmirl_jax.cli.configure import add_run, configure_without_run
from lmirl_jax.cli.flags import Flags
from lmirl_jax.cli.sweep_plan import Policy, Runs, SweepConfig, check_output_dir, check_sweep, paths_by_label

RUN_FILE = "gin/runs/sweep.gin"


def main(flags: Flags) -> int:
    began = time.monotonic()
    result = run(flags)
    if result is not None:
        from lmirl_jax.cli import sweep_output

        print(sweep_output.write(result, time.monotonic() - began))
    return 0


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A whole sweep: for each cell its policy and what its file holds; and the folder that it is written to."""

    config: SweepConfig
    policies: Sequence[Policy]
    finished: Sequence[tuple[Policy, Any]]  # (policy, FinishedCell)
    folder: epath.Path

    @property
    def metrics(self) -> tuple[str, list[str]]:
        """The measure of quality, and those of diversity."""
        return self.config.metrics(self.finished[0][1].metrics)

    @property
    def cells(self) -> list[Any]:
        """As `evaluation.front` takes them."""
        from lmirl_jax.evaluation import Cell

        return [
            Cell(
                policy.run,
                policy.seed,
                cell.settings.temperature,
                cell.metrics,
                cell.per_prompt,
                cell.settings.top_p,
            )
            for policy, cell in self.finished
        ]


def run(flags: Flags) -> Sweep | None:
    """Makes every cell that is missing. Returns the sweep, on the first process alone."""
    configure_without_run(flags, RUN_FILE, "RUNS", "OUTPUT_DIR")
    import jax

    from lmirl_jax.training import checkpoints

    config = configuration.configured(SweepConfig)()
    runs = paths_by_label(configuration.macro("RUNS", hint=Runs))
    output_dir = configuration.macro("OUTPUT_DIR", hint=Path)
    policies = []
    for label, paths in runs.items():
        for seed, path in enumerate(paths):
            checkpoint = add_run(flags, path)
            policies.append(configuration.configured(Policy)(label, seed, checkpoint))
    check_sweep(policies, config)
    check_output_dir(output_dir, ("sweep.csv", "sweep.json", "report.html"), [])
    # Last of what can go wrong: an error leaves no folder behind.
    folder = checkpoints.prepare_directory(output_dir, "OUTPUT_DIR")
    first = jax.process_index() == 0
    with files.held_alone(folder, "OUTPUT_DIR") if first else contextlib.nullcontext():
        finished = list(finish(policies, config, folder / "cells"))
    return Sweep(config, policies, finished, folder) if first else None


def finish(
    policies: Sequence[Policy], config: SweepConfig, folder: epath.Path
) -> Iterator[tuple[Policy, Any]]:
    """Every cell, policy by policy and point by point: read where it is finished, made and kept where not."""
    from lmirl_jax.evaluation.sweep_cells import read_cell

    wanted = [policy.settings(config.points) for policy in policies]
    found = [[read_cell(folder, settings) for settings in of_policy] for of_policy in wanted]
    missing = _as_first_process_sees([[cell is None for cell in of_policy] for of_policy in found])
    count = int(missing.sum())
    _say(f"{missing.size - count} of {missing.size} cells are finished already, {count} to make")
    began, made = time.monotonic(), 0
    for policy, of_policy, cells, todo in zip(policies, wanted, found, missing, strict=True):
        loaded = policy.load() if todo.any() else None
        for settings, cell, absent in zip(of_policy, cells, todo, strict=True):
            if absent:
                cell, made = _make(policy, loaded, settings, folder), made + 1
                seconds = (time.monotonic() - began) / made
                _say(
                    f"{policy}, {_place(settings)}: {made} of {count} made, {seconds * (count - made):.0f} s left"
                )
            if cell is not None:  # It may lie on the first process's disk alone.
                yield policy, cell


def _make(policy: Policy, loaded: Any, settings: Any, folder: epath.Path) -> Any:
    import jax

    from lmirl_jax import evaluation
    from lmirl_jax.evaluation.evaluator import answer_row
    from lmirl_jax.evaluation.sweep_cells import FinishedCell

    answers = policy.answers(loaded, settings)
    metrics, per_prompt = evaluation.measure(policy.data, answers)
    intervals = {
        name: list(ends) for name, ends in evaluation.intervals(policy.data, answers, per_prompt).items()
    }
    cell = FinishedCell(settings, metrics, per_prompt, intervals, [answer_row(answer) for answer in answers])
    if jax.process_index() == 0:
        cell.write(folder)
    return cell


def _place(settings: Any) -> str:
    top_p = f", top-p {settings.top_p:g}" if settings.top_p < 1 else ""
    return f"temperature {settings.temperature:g}{top_p}"


def _as_first_process_sees(flags: Sequence[Sequence[bool]]) -> Any:
    """All processes make the same cells, also where they see other disks."""
    import jax
    import numpy as np

    own = np.array(flags, bool)
    if jax.process_count() == 1:
        return own
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.broadcast_one_to_all(own))


def _say(text: str) -> None:
    import jax

    if jax.process_index() == 0:
        print(f"sweep: {text}", file=sys.stderr, flush=True)
