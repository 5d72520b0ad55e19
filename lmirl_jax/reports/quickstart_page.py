"""The page that the quickstart ends with: runs that differ in their objective, over a sweep of temperatures."""

import dataclasses
import os
from collections.abc import Mapping, Sequence

from lmirl_jax.evaluation.front import Cell, curves
from lmirl_jax.reports.comparison_sections import add_fronts
from lmirl_jax.reports.figures import loss_figure
from lmirl_jax.reports.heatmap import Row
from lmirl_jax.reports.report import Report

REWARDS = (
    "The logits are soft Q-values. A token's reward is what they imply: `r_t = q_t - discount_t * v_{t+1}`, in nats, with "
    "`q_t` the logit of the token, `v_{t+1}` the log-sum-exp of the logits after it, and a discount of 0 at the last "
    "token. Blue tokens add to the return, orange ones take from it. Point at a token for its value, or open the list below."
)


@dataclasses.dataclass(frozen=True)
class HeatMap:
    """Answers to one prompt, scored by one model: a heading, the prompt, a sentence that explains, the labelled rows."""

    title: str
    rows: Sequence[Row]
    prompt: str = ""
    explanation: str = ""


def quickstart_report(
    path: str | os.PathLike[str],
    *,
    cells: Sequence[Cell],
    losses: Mapping[str, tuple[Sequence[float | int], Sequence[float | int]]],
    heatmaps: Sequence[HeatMap],
    verdict: str | Sequence[str],
    settings: Mapping[str, str | Sequence[str]],
    title: str = "Maximum likelihood and IQLearn on the same task",
    lead: str = "",
    loss_note: str = "",
) -> None:
    """Writes the report of runs that were trained alike but for their objective.

    Args:
        path: of the HTML file.
        cells: what each run scored at each temperature, with accuracy, distinct_valid and self_bleu.
        losses: for each run its steps and its training losses, in nats per token.
        heatmaps: token rewards, a map for each prompt and model.
        verdict: one paragraph or several, from `evaluation.verdict`.
        settings: what was run; several values under one name are lines of code, such as commands.
        title: of the page.
        lead: a sentence below it.
        loss_note: a sentence on what the losses hold, below their figure.

    Raises:
        UserError: cells that do not make a sweep, empty losses, wrong heat maps, or a place that cannot be written.
    """
    measures = [
        name for name in ("distinct_valid", "self_bleu") if all(name in c.means for c in curves(cells))
    ]
    report = Report(title, lead)
    report.section("Verdict", *([verdict] if isinstance(verdict, str) else verdict), callout=True)
    add_fronts(report, cells, diversity=measures)
    report.section("Training loss").figures(loss_figure(losses), caption=loss_note)
    if heatmaps:
        report.section("Token rewards", REWARDS)
        for shown in heatmaps:
            report.subheading(shown.title)
            report.text(*filter(None, (f"Prompt: {shown.prompt}" * bool(shown.prompt), shown.explanation)))
            report.heat_map(shown.rows)
    report.section("What was run").facts(settings)
    report.write(path)
