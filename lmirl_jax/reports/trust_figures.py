"""The figures of the report on rewards: correlations with their intervals, and the metric over tenths of the return."""

from collections.abc import Mapping, Sequence
from typing import Any

from lmirl_jax.reports.figures import (
    INK,
    LINES,
    MARKERS,
    MUTED,
    SERIES,
    add_legend,
    new_figure,
    plain_text,
    style_axis,
)


def correlation_figure(
    runs: Sequence[str], entries: Sequence[tuple[str, Sequence[Mapping[str, Any] | None]]], title: str
) -> Any:
    """Correlations as points on a line from -1 to 1 with their intervals, a group for each entry and a colour for each run.

    Args:
        runs: the labels of the runs.
        entries: a name, and for each run a row with `value`, `low` and `high`, or None.
        title: the title of the axis.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    figure = new_figure(5.0, 1.25 + len(entries) * (0.2 + 0.15 * len(runs)))
    axis = figure.add_subplot()
    style_axis(axis)
    axis.grid(visible=False, axis="y")
    axis.axvline(0, color=INK, linewidth=0.8)
    for i, run in enumerate(runs):
        colour, marker = SERIES[i % len(SERIES)], MARKERS[i % len(MARKERS)]
        shift = (i - (len(runs) - 1) / 2) * 0.7 / max(len(runs), 1)
        axis.plot([], [], color=colour, marker=marker, linestyle="none", markersize=5, label=run)
        for place, (_, rows) in enumerate(entries):
            row = rows[i]
            if row is None or row["low"] is None:
                continue
            axis.plot(row["value"], place + shift, color=colour, marker=marker, markersize=5)
            axis.hlines(place + shift, row["low"], row["high"], color=colour, linewidth=1.6)
    axis.set_yticks(range(len(entries)), [name for name, _ in entries])
    axis.tick_params(axis="y", length=0, labelsize=10, labelcolor=INK)
    axis.set_ylim(len(entries) - 0.5, -0.5)
    axis.set_xlim(*_span(entries))
    axis.set_xlabel(title)
    add_legend(axis, "")
    plain_text(figure)
    return figure


def tenths_figure(tenths: Mapping[str, Sequence[Mapping[str, Any]]], metric: str) -> Any:
    """The mean metric of answers in each tenth by return, a line for each run.

    Args:
        tenths: the rows of each run with `tenth` and `mean`.
        metric: the name of the metric.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    figure = new_figure(6.2, 3.2)
    axis = figure.add_subplot()
    style_axis(axis)
    for i, (run, rows) in enumerate(tenths.items()):
        axis.plot(
            [row["tenth"] + 1 for row in rows],
            [row["mean"] for row in rows],
            color=SERIES[i % len(SERIES)],
            marker=MARKERS[i % len(MARKERS)],
            linestyle=LINES[i % len(LINES)],
            markersize=5,
            linewidth=1.6,
            label=run,
        )
    axis.set_xticks(range(1, 11))
    axis.set_xlabel("tenth of the answers by return (10: the highest)")
    axis.set_ylabel(f"mean {metric}")
    axis.margins(0.04, 0.1)
    add_legend(axis, "")
    plain_text(figure)
    axis.xaxis.label.set_color(MUTED)
    return figure


def _span(entries: Sequence[tuple[str, Sequence[Mapping[str, Any] | None]]]) -> tuple[float, float]:
    """The limits of the axis: they hold all intervals and 0, with a margin, between -1 and 1."""
    ends = [0.0]
    for _, rows in entries:
        ends += [row[end] for row in rows if row for end in ("value", "low", "high") if row[end] is not None]
    return max(-1.05, min(ends) - 0.08), min(1.05, max(ends) + 0.08)
