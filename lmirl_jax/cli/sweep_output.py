"""Writes the files of a sweep, and the text for the terminal."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from etils import epath

from lmirl_jax import evaluation, reports
from lmirl_jax.cli.sweep_plan import AnsweringRun, SweepConfig
from lmirl_jax.evaluation import sweep_tables
from lmirl_jax.evaluation.evaluator import describe_prompts
from lmirl_jax.evaluation.sweep_cells import FinishedCell

# The maximum number of samples that the page shows for a prompt and run.
MOST_SAMPLES = 4


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A complete sweep: the runs, each cell with its run, and the folder to which the sweep is written."""

    config: SweepConfig
    answering: Sequence[AnsweringRun]
    finished: Sequence[tuple[AnsweringRun, FinishedCell]]
    folder: epath.Path

    @property
    def metrics(self) -> tuple[str, list[str]]:
        """The measure of quality, and those of diversity."""
        return self.config.metrics(self.finished[0][1].metrics)

    @property
    def cells(self) -> list[evaluation.Cell]:
        """The cells in the form of `evaluation.front`."""
        return [
            evaluation.Cell(
                run.label,
                run.seed,
                cell.settings.temperature,
                cell.metrics,
                cell.per_prompt,
                cell.settings.top_p,
            )
            for run, cell in self.finished
        ]


def write(sweep: Sweep, seconds: float) -> str:
    """Writes sweep.csv, sweep.json and report.html; returns the table, the verdicts and the report's path."""
    quality, diversity = sweep.metrics
    cells, baseline = sweep.cells, sweep.config.baseline
    rows = sweep_tables.tidy_rows(
        cells,
        [str(run.checkpoint) for run, _ in sweep.finished],
        [cell.intervals for _, cell in sweep.finished],
    )
    sweep_tables.write_csv(sweep.folder / "sweep.csv", rows)
    verdicts = sweep_verdicts(sweep)
    compared = {
        name: sweep_tables.findings(cells, quality=quality, diversity=name, baseline=baseline)
        for name in diversity
    }
    content = {
        "settings": _settings(sweep),
        "signatures": _signatures(sweep),
        "quality": quality,
        "diversity": compared,
        "curves": sweep_tables.curve_rows(cells, [quality, *diversity]),
        "verdicts": verdicts,
        "cells": rows,
    }
    sweep_tables.write_json(sweep.folder / "sweep.json", content)
    point = choose_point(sweep)
    report = sweep.folder / "report.html"
    reports.sweep_report(
        report,
        cells=cells,
        quality=quality,
        diversity=diversity,
        baseline=baseline,
        text=reports.PageText(
            "Quality and diversity over sampling temperatures",
            verdict=verdicts,
            settings=_facts(sweep),
            lead=lead(sweep),
        ),
        answers=sample_answers(sweep, point),
        point=point,
    )
    table = evaluation.table(cells, [quality, *diversity])
    return "\n".join(
        [table, lead(sweep), "", *verdicts, "", f"report: {report}", f"finished in {seconds:.0f} s"]
    )


def sweep_verdicts(sweep: Sweep) -> list[str]:
    """Writes one paragraph for each measure of diversity and each top-p."""
    quality, diversity = sweep.metrics
    baseline = sweep.config.baseline
    verdicts = []
    for name in diversity:
        for top_p in sorted(sweep.config.top_ps, reverse=True):
            cells = [cell for cell in sweep.cells if cell.top_p == top_p]
            verdict = evaluation.verdict(cells, baseline=baseline, quality=quality, diversity=name)
            verdicts.append(f"At top-p {top_p:g}: {verdict}" if len(sweep.config.top_ps) > 1 else verdict)
    # Where the quality is missing, the verdicts on all measures are the same sentence, which is printed once.
    return list(dict.fromkeys(verdicts))


def choose_point(sweep: Sweep) -> tuple[float, float]:
    """The temperature and top-p of the answers on the page: SHOWN_TEMPERATURE, or the values nearest to 1."""
    temperature = sweep.config.shown_temperature or min(
        sweep.config.temperatures, key=lambda temperature: abs(temperature - 1)
    )
    return float(temperature), float(max(sweep.config.top_ps))


def sample_answers(sweep: Sweep, point: tuple[float, float]) -> list[reports.PromptAnswers]:
    """The first prompts with the first samples of each run's first seed."""
    of_runs = {
        run.label: cell.answers
        for run, cell in sweep.finished
        if run.seed == 0 and (cell.settings.temperature, cell.settings.top_p) == point
    }
    first = next(iter(of_runs.values()))
    return [
        reports.PromptAnswers(
            row["inputs"],
            row["targets"] if isinstance(row["targets"], str) else " | ".join(row["targets"]),
            {label: answers[i]["samples"][:MOST_SAMPLES] for label, answers in of_runs.items()},
        )
        for i, row in enumerate(first[: sweep.config.shown_prompts])
    ]


def _settings(sweep: Sweep) -> dict[str, Any]:
    """The settings that all cells have in common."""
    one = sweep.finished[0][1].settings
    shared = {
        name: getattr(one, name)
        for name in ("task", "split", "num_examples", "num_samples", "seed", "top_k", "min_p")
    }
    available = getattr(sweep.answering[0].prompts, "available", None)
    shared |= {} if available is None else {"available": available}
    return shared | {"temperatures": list(sweep.config.temperatures), "top_ps": list(sweep.config.top_ps)}


def _facts(sweep: Sweep) -> dict[str, str | Sequence[str]]:
    one = sweep.finished[0][1].settings
    facts: dict[str, str | Sequence[str]] = {
        "Task": f"{one.task}, split {one.split}, {_prompts(sweep)}",
        "Sampling": f"{one.num_samples} samples a prompt, seed {one.seed}",
        "Temperature": ", ".join(f"{temperature:g}" for temperature in sweep.config.temperatures),
        "Top-p": ", ".join(f"{top_p:g}" for top_p in sweep.config.top_ps),
    }
    if one.top_k or one.min_p:
        facts["Other filters"] = f"top-k {one.top_k or 'off'}, min-p {one.min_p:g}"
    facts |= _signatures(sweep)
    for label in dict.fromkeys(run.label for run in sweep.answering):
        facts[label] = [str(run.checkpoint) for run in sweep.answering if run.label == label]
    return facts


def lead(sweep: Sweep) -> str:
    """Says in a sentence which runs answered what."""
    counts: dict[str, int] = {}
    for run in sweep.answering:
        counts[run.label] = counts.get(run.label, 0) + 1
    labels = ", ".join(f"{label} ({n} seeds)" if n > 1 else label for label, n in counts.items())
    one = sweep.finished[0][1].settings
    return f"{labels} on {one.task}: {_prompts(sweep)}, {one.num_samples} samples each."


def _prompts(sweep: Sweep) -> str:
    return describe_prompts(sweep.answering[0].prompts, sweep.finished[0][1].settings.num_examples)


def _signatures(sweep: Sweep) -> dict[str, str]:
    """The signatures of sacrebleu for BLEU and ChrF, if they are among the metrics."""
    return evaluation.signatures(sweep.answering[0].prompts, sweep.finished[0][1].settings.num_examples)
