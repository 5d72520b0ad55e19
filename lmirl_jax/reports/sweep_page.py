"""The page that a sweep ends with: several runs over the same temperatures and top-ps."""

import os
from collections.abc import Mapping, Sequence

from lmirl_jax.evaluation.front import Cell
from lmirl_jax.reports.comparison_sections import Shown, add_answers, add_fronts, add_temperature_tables
from lmirl_jax.reports.report import Report


def sweep_report(
    path: str | os.PathLike[str],
    *,
    cells: Sequence[Cell],
    quality: str,
    diversity: Sequence[str],
    verdict: Sequence[str],
    shown: Sequence[Shown],
    shown_at: tuple[float, float],
    settings: Mapping[str, str | Sequence[str]],
    baseline: str | None = None,
    title: str = "Quality and diversity over sampling temperatures",
    lead: str = "",
) -> None:
    """Writes the report of a sweep.

    Args:
        path: of the HTML file.
        cells: what each run scored at each temperature.
        quality: the metric at whose equal levels runs are compared; larger is better.
        diversity: the metrics that are compared.
        verdict: paragraphs, from `evaluation.verdict`.
        shown: answers of all runs to the same prompts.
        shown_at: temperature and top-p of these answers.
        settings: what was run; several values under one name are lines of code.
        baseline: the run that others are compared with; the first if not named.
        title: of the page.
        lead: a sentence below it.

    Raises:
        UserError: cells that do not make a sweep, or a place that cannot be written.
    """
    report = Report(title, lead)
    report.section("Verdict", *verdict, callout=True)
    add_fronts(report, cells, quality=quality, diversity=diversity, baseline=baseline)
    if shown:
        add_answers(report, shown, shown_at)
    add_temperature_tables(report, cells)
    report.section("What was run").facts(settings)
    report.write(path)
