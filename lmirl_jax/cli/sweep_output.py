"""What a sweep leaves in its folder and on the terminal."""

from collections.abc import Sequence
from typing import Any

from lmirl_jax.cli.sweep import Sweep

MOST_SAMPLES = 4  # Of a prompt and run, side by side on the page.


def write(sweep: Sweep, seconds: float) -> str:
    """Writes sweep.csv, sweep.json and report.html; returns the table, the verdicts and the report's path."""
    from lmirl_jax import evaluation, rewards
    from lmirl_jax.evaluation import sweep_tables

    quality, diversity = sweep.metrics
    cells, baseline = sweep.cells, sweep.config.baseline
    rows = sweep_tables.tidy_rows(cells, [str(policy.checkpoint) for policy, _ in sweep.finished])
    sweep_tables.write_csv(sweep.folder / "sweep.csv", rows)
    compared = {
        name: sweep_tables.findings(cells, quality=quality, diversity=name, baseline=baseline)
        for name in diversity
    }
    content = {"settings": _settings(sweep), "quality": quality, "diversity": compared, "cells": rows}
    sweep_tables.write_json(sweep.folder / "sweep.json", content)
    verdicts = sweep_verdicts(sweep)
    temperature = shown_temperature(sweep)
    report = sweep.folder / "report.html"
    rewards.sweep_report(
        report,
        cells=cells,
        quality=quality,
        diversity=diversity,
        baseline=baseline,
        verdict=verdicts,
        shown=shown_answers(sweep, temperature),
        shown_temperature=temperature,
        settings=_facts(sweep),
        lead=_lead(sweep),
    )
    table = evaluation.table(cells, [quality, *diversity])
    return "\n".join([table, "", *verdicts, "", f"report: {report}", f"finished in {seconds:.0f} s"])


def sweep_verdicts(sweep: Sweep) -> list[str]:
    """One paragraph for each measure of diversity."""
    from lmirl_jax import evaluation

    quality, diversity = sweep.metrics
    baseline = sweep.config.baseline
    return [
        evaluation.verdict(sweep.cells, baseline=baseline, quality=quality, diversity=name)
        for name in diversity
    ]


def shown_temperature(sweep: Sweep) -> float:
    """The temperature of the answers on the page: the one that was chosen, or the one nearest to 1."""
    chosen = sweep.config.shown_temperature
    return chosen or min(sweep.config.temperatures, key=lambda temperature: abs(temperature - 1))


def shown_answers(sweep: Sweep, temperature: float) -> list[Any]:
    """The first prompts with the first samples of each run's first seed."""
    from lmirl_jax.rewards import Shown

    of_runs = {
        policy.run: cell.answers
        for policy, cell in sweep.finished
        if policy.seed == 0 and cell.settings.temperature == temperature
    }
    first = next(iter(of_runs.values()))
    return [
        Shown(
            row["inputs"],
            row["targets"],
            {run: answers[i]["samples"][:MOST_SAMPLES] for run, answers in of_runs.items()},
        )
        for i, row in enumerate(first[: sweep.config.shown_prompts])
    ]


def _settings(sweep: Sweep) -> dict[str, Any]:
    """What all cells have in common."""
    one = sweep.finished[0][1].settings
    shared = {name: getattr(one, name) for name in ("task", "split", "num_examples", "num_samples", "seed")}
    return shared | {"temperatures": list(sweep.config.temperatures)}


def _facts(sweep: Sweep) -> dict[str, str | Sequence[str]]:
    one = sweep.finished[0][1].settings
    facts: dict[str, str | Sequence[str]] = {
        "Task": f"{one.task}, split {one.split}, {one.num_examples} prompts",
        "Sampling": f"{one.num_samples} samples a prompt and temperature, seed {one.seed}",
    }
    for run in dict.fromkeys(policy.run for policy in sweep.policies):
        facts[run] = [str(policy.checkpoint) for policy in sweep.policies if policy.run == run]
    return facts


def _lead(sweep: Sweep) -> str:
    counts: dict[str, int] = {}
    for policy in sweep.policies:
        counts[policy.run] = counts.get(policy.run, 0) + 1
    runs = ", ".join(f"{run} ({n} seeds)" if n > 1 else run for run, n in counts.items())
    one = sweep.finished[0][1].settings
    return f"{runs} on {one.task}: {one.num_examples} prompts, {one.num_samples} samples each."
