"""The figures of reports: quality-diversity fronts and loss curves. matplotlib is imported when a figure is drawn."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from lmirl_jax.evaluation.front import Cell, Curve, curves, describe, temperature_texts
from lmirl_jax.evaluation.pareto import confidence_band, pareto_hull
from lmirl_jax.reports.point_labels import PointLabel, write_labels
from lmirl_jax.types import UserError

# Fixed colours that a page may replace by its own (svg.py); runs also differ by marker and by line.
INK, MUTED, GRID = "#1f2328", "#59636e", "#d8dee4"
SERIES = ("#0072b2", "#d55e00", "#009e73", "#aa4499", "#8a6d00", "#5b5bd6")
MARKERS = ("o", "s", "^", "D", "v", "P")
LINES = ("-", (0, (5, 2)), (0, (2, 1.5)), (0, (7, 2, 1, 2)))
# The most points of a line; longer lines are thinned out.
MOST_POINTS = 1500
# The most characters of the name of a run in a legend.
LONGEST_NAME = 40


def front_figure(
    cells: Sequence[Cell],
    *,
    quality: str = "accuracy",
    diversity: Sequence[str] = ("distinct_valid", "self_bleu"),
) -> Any:
    """Quality over diversity, a panel for each measure of diversity and a curve for each run (and top-p).

    Up and to the right is better in every panel: an axis on which less is more diverse is reversed. Points are labelled
    by temperature; bands are `evaluation.pareto`'s; a dotted line with rings is the hull of several runs.

    Args:
        cells: the cells of the sweeps.
        quality: the metric of the vertical axis.
        diversity: the metrics of the horizontal axes.

    Returns:
        A `matplotlib.figure.Figure`, tied to no window.

    Raises:
        UserError: a run without one of the metrics.
    """
    runs = curves(cells)
    for run in runs:
        for metric in (quality, *diversity):
            if metric not in run.means:
                raise UserError(
                    f"front figure: run {run.label!r} has no metric {metric!r}; it has {', '.join(run.means)}"
                )
    styles = _styles(runs)
    figure = new_figure(5.0 * len(diversity), 4.1)
    for place, metric in enumerate(diversity):
        axis = figure.add_subplot(1, len(diversity), place + 1)
        style_axis(axis)
        lines = [_front(axis, run, quality, metric, style) for run, style in zip(runs, styles, strict=True)]
        if not any(run.means[quality].any() for run in runs):
            # matplotlib would centre the axis on the constant 0.
            axis.set_ylim(-0.05, 1.0)
        elif len(runs) > 1:
            _hull(axis, cells, quality, metric)
        less = describe(metric).sign < 0
        axis.set_xlabel(describe(metric).title + (" (reversed: lower is more diverse)" if less else ""))
        axis.set_ylabel(describe(quality).title)
        axis.margins(0.08, 0.1)
        if less:
            axis.invert_xaxis()
        add_legend(axis, "numbers: temperature; shaded: 95% interval of each run's hull")
        plain_text(figure)
        labels = [
            label
            for run, style in zip(runs, styles, strict=True)
            for label in _temperatures(run, quality, metric, style["color"])
        ]
        write_labels(axis, labels, lines)
    return figure


def loss_figure(
    losses: Mapping[str, tuple[Sequence[float | int], Sequence[float | int]]],
    *,
    title: str = "training loss (nats per token)",
) -> Any:
    """Loss over steps, a curve for each label: every logged value thin, their exponential moving average thick.

    Args:
        losses: the steps and the losses of each label.
        title: the title of the vertical axis.

    Returns:
        A `matplotlib.figure.Figure`; its legend says how the thick line is smoothed.

    Raises:
        UserError: no curves, or steps and losses that differ in number or are empty.
    """
    if not losses:
        raise UserError("loss figure: there are no curves; give one label with its steps and losses or more")
    for label, (steps, values) in losses.items():
        if len(steps) != len(values) or not len(steps):
            raise UserError(
                f"loss figure: {label!r} has {len(steps)} steps and {len(values)} losses; give one loss for each step"
            )
    figure = new_figure(5.4, 3.5)
    axis = figure.add_subplot()
    style_axis(axis)
    span = max(1, max(len(values) for _, values in losses.values()) // 40)
    for i, (label, (steps, values)) in enumerate(losses.items()):
        _loss(axis, steps, np.asarray(values, float), span, label, i)
    every = np.concatenate([np.asarray(values, float) for _, values in losses.values()])
    if every.min() > 0 and every.max() > 8 * every.min():
        _plain_log_scale(axis)
        title += ", log scale"
    axis.set_ylabel(title)
    axis.set_xlabel("step")
    average = f"thin: logged values; thick: exponential moving average over {span}"
    add_legend(axis, average if span > 1 else "every logged value, not smoothed")
    plain_text(figure)
    return figure


def exponential_average(values: Float[np.ndarray, " steps"], span: int) -> Float[np.ndarray, " steps"]:
    """The exponential moving average with decay `1 - 2 / (span + 1)`, without the bias of its start; span 1 changes nothing."""
    decay = 1 - 2 / (span + 1)
    average = weight = 0.0
    result = np.empty_like(values)
    for i, value in enumerate(values):
        average = decay * average + (1 - decay) * value
        weight = decay * weight + (1 - decay)
        result[i] = average / weight
    return result


def new_figure(width: float, height: float) -> Any:
    """A `matplotlib.figure.Figure` of that size in inches, tied to no window."""
    # pyplot is avoided, because it would choose a window system for the whole process.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def style_axis(axis: Any) -> None:
    """Gives an axis the style of all figures."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color(MUTED)
    axis.grid(color=GRID, linewidth=0.6)
    axis.set_axisbelow(True)
    axis.tick_params(colors=MUTED, labelsize=9, length=3)
    for label in (axis.xaxis.label, axis.yaxis.label):
        label.set(color=INK, fontsize=10)


def _styles(runs: Sequence[Curve]) -> list[dict[str, Any]]:
    """The style of each curve: colour and marker of its run; a line style by top-p where there are several, else by run.

    Markers are full at the largest top-p alone.
    """
    names = list(dict.fromkeys(run.run for run in runs))
    top_ps = list(dict.fromkeys(run.top_p for run in runs))
    places = [(names.index(run.run), top_ps.index(run.top_p)) for run in runs]
    return [
        {
            "color": SERIES[i % len(SERIES)],
            "marker": MARKERS[i % len(MARKERS)],
            "markerfacecolor": "none" if j else SERIES[i % len(SERIES)],
            "linestyle": LINES[(j if len(top_ps) > 1 else i) % len(LINES)],
        }
        for i, j in places
    ]


def _front(
    axis: Any, run: Curve, quality: str, diversity: str, style: Mapping[str, Any]
) -> Float[np.ndarray, "_ 2"]:
    """Draws one curve with its band; returns the points of its line, which labels should avoid."""
    points = np.stack([run.means[diversity], run.means[quality]], axis=1)
    axis.plot(*points.T, linewidth=1.6, markersize=5, label=run.label, **style)
    band = confidence_band(run, quality=quality, diversity=diversity)
    if band is not None:
        axis.fill_betweenx(band.levels, band.low, band.high, color=style["color"], alpha=0.16, linewidth=0)
        # A band of a single level has no height, so that a line stands for it.
        if band.levels[0] == band.levels[-1]:
            axis.hlines(
                band.levels[0], band.low[0], band.high[0], color=style["color"], alpha=0.3, linewidth=5
            )
    return points


def _hull(axis: Any, cells: Sequence[Cell], quality: str, diversity: str) -> None:
    corners = pareto_hull(cells, quality=quality, diversity=diversity)
    axis.plot(
        [corner.diversity for corner in corners],
        [corner.quality for corner in corners],
        color=INK,
        linewidth=1.1,
        linestyle=(0, (1, 2)),
        marker="o",
        markersize=10,
        markerfacecolor="none",
        markeredgewidth=0.9,
        label="Pareto hull",
    )


def _temperatures(run: Curve, quality: str, diversity: str, colour: str) -> list[PointLabel]:
    texts = temperature_texts(run.temperatures)
    points = zip(texts, run.means[diversity].tolist(), run.means[quality].tolist(), strict=True)
    return [PointLabel(text, x, y, colour) for text, x, y in points]


def _plain_log_scale(axis: Any) -> None:
    """A logarithmic vertical axis whose ticks are plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _loss(
    axis: Any, steps: Sequence[Any], values: Float[np.ndarray, " steps"], span: int, label: str, i: int
) -> None:
    """Draws the loss of one run: a thick line for its average, and a thin one for the values if the average is smoothed."""
    stride = -(-len(steps) // MOST_POINTS)
    colour, line = SERIES[i % len(SERIES)], LINES[i % len(LINES)]
    if span > 1:
        axis.plot(steps[::stride], values[::stride], color=colour, alpha=0.28, linewidth=0.7)
    average = exponential_average(values, span)[::stride]
    axis.plot(steps[::stride], average, color=colour, linewidth=1.7, linestyle=line, label=label)


def add_legend(axis: Any, title: str) -> None:
    """Names the curves above the axes, in as many columns as fit a width of 300 points."""
    handles, names = axis.get_legend_handles_labels()
    names = [name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…" for name in names]
    columns = max(1, min(len(names), int(300 / (42 + 6.3 * max(map(len, names))))))
    legend = axis.legend(
        handles,
        names,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=columns,
        frameon=False,
        fontsize=10,
        labelcolor=INK,
        handlelength=2.4,
        borderaxespad=0.2,
        columnspacing=1.4,
        title=title,
        title_fontsize=9,
        alignment="left",
    )
    legend.get_title().set_color(MUTED)


def plain_text(figure: Any) -> None:
    """Turns off formulas in labels, so that a `$` in the name of a run stays a `$`."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_parse_math(False)
