"""The page of a sweep: several runs over the same temperatures and top-ps."""

import os
from collections.abc import Sequence

from lmirl_jax.evaluation.front import Cell
from lmirl_jax.reports.comparison_sections import (
    PromptAnswers,
    add_answers,
    add_fronts,
    add_temperature_tables,
)
from lmirl_jax.reports.page_text import PageText
from lmirl_jax.reports.report import Report


def sweep_report(
    path: str | os.PathLike[str],
    *,
    cells: Sequence[Cell],
    quality: str,
    diversity: Sequence[str],
    text: PageText,
    answers: Sequence[PromptAnswers],
    point: tuple[float, float],
    baseline: str | None = None,
) -> None:
    """Writes the report of a sweep.

    Args:
        path: the path of the HTML file.
        cells: the metrics of each run at each temperature.
        quality: the metric at whose equal levels runs are compared; larger is better.
        diversity: the metrics that are compared.
        text: the title, the verdict, and what was run.
        answers: the answers of all runs to the same prompts.
        point: the temperature and the top-p of these answers.
        baseline: the run that the others are compared with; None for the first run.

    Raises:
        UserError: cells that do not make a sweep, or a place that cannot be written.
    """
    report = Report(text.title, text.lead)
    report.section("Verdict", *text.verdict, callout=True)
    add_fronts(report, cells, quality=quality, diversity=diversity, baseline=baseline)
    if answers:
        add_answers(report, answers, point)
    add_temperature_tables(report, cells)
    report.section("What was run").facts(text.settings)
    report.write(path)
