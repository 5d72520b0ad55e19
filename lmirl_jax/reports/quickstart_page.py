"""The page of the quickstart: runs that differ in their objective, over a sweep of temperatures."""

import dataclasses
import os
from collections.abc import Mapping, Sequence

from lmirl_jax.evaluation.front import Cell, curves
from lmirl_jax.reports.comparison_sections import add_fronts
from lmirl_jax.reports.figures import loss_figure
from lmirl_jax.reports.heatmap import Row
from lmirl_jax.reports.page_text import PageText
from lmirl_jax.reports.report import Report

REWARDS = (
    "The logits are soft Q-values. A token's reward is what they imply: `r_t = q_t - discount_t * v_{t+1}`, in nats, with "
    "`q_t` the logit of the token, `v_{t+1}` the log-sum-exp of the logits after it, and a discount of 0 at the last "
    "token. Blue tokens add to the return, orange ones take from it. Point at a token for its value, or open the list below."
)


@dataclasses.dataclass(frozen=True)
class HeatMap:
    """The scored answers to one prompt under one model: a heading, labelled rows, the prompt, and an explanation."""

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
    text: PageText,
    quality: str = "accuracy",
    loss_note: str = "",
) -> None:
    """Writes the report of runs that differ only in their objective and seed.

    Args:
        path: the path of the HTML file.
        cells: the metrics of each run at each temperature, with the quality, distinct_valid and self_bleu.
        losses: the steps and the held-out losses of each objective, in nats per token.
        heatmaps: the token rewards, one map for each prompt and model.
        text: the title, the verdict, and what was run.
        quality: the metric at whose equal levels the runs are compared.
        loss_note: a sentence below the figure of the losses that says what they contain.

    Raises:
        UserError: cells that do not make a sweep, empty losses, wrong heat maps, or a place that cannot be written.
    """
    measures = [
        name for name in ("distinct_valid", "self_bleu") if all(name in c.means for c in curves(cells))
    ]
    report = Report(text.title, text.lead)
    report.section("Verdict", *text.verdict, callout=True)
    add_fronts(report, cells, quality=quality, diversity=measures)
    figure = loss_figure(losses, title="held-out loss (nats per token)")
    report.section("Held-out loss").figures(figure, caption=loss_note)
    if heatmaps:
        report.section("Token rewards", REWARDS)
        for heatmap in heatmaps:
            report.subheading(heatmap.title)
            prompt = f"Prompt: {heatmap.prompt}" if heatmap.prompt else ""
            report.text(*filter(None, (prompt, heatmap.explanation)))
            report.heat_map(heatmap.rows)
    report.section("What was run").facts(text.settings)
    report.write(path)
