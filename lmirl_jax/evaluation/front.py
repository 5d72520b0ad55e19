"""Quality-diversity fronts: what a sweep over sampling temperatures, at one top-p or several, says of runs."""

import dataclasses
import itertools
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from lmirl_jax.statistics.evidence import counted, event_prompts
from lmirl_jax.statistics.proportions import mean_interval
from lmirl_jax.types import UserError


@dataclasses.dataclass(frozen=True)
class Cell:
    """What one policy scored at one sampling temperature and top-p: `metrics` are means over prompts or over the corpus.

    `per_prompt` has the value of each prompt, for metrics that are means over prompts; it stands in for the mean. The
    prompts are the same, in the same order, in every cell: comparisons are paired.
    """

    run: str
    seed: int
    temperature: float | int
    metrics: Mapping[str, Any]
    per_prompt: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    top_p: float | int = 1.0


@dataclasses.dataclass(frozen=True)
class Metric:
    """How a metric is named and which way is better or more diverse."""

    short: str
    title: str
    digits: int
    sign: int = 1
    more: str = ""
    less: str = ""


LEANING = 0.2  # Of half an interval: so far may its middle lie from the value before both ends are written.
NOTATION = (
    "95% intervals over {over}: ± half of one, or both ends where it leans to one side; Wilson's for shares, else bootstrap; "
    "none where there are too few prompts"
)

METRICS = {
    "accuracy": Metric("accuracy", "accuracy", 3),
    "distinct_valid": Metric(
        "distinct",
        "valid distinct answers per prompt",
        2,
        more="more valid distinct answers per prompt",
        less="fewer valid distinct answers per prompt",
    ),
    "self_bleu": Metric(
        "Self-BLEU",
        "Self-BLEU",
        1,
        sign=-1,
        more="more diverse samples (lower Self-BLEU)",
        less="less diverse samples (higher Self-BLEU)",
    ),
}


def describe(name: str) -> Metric:
    """The description of a metric; one that is not known is taken to be better when larger, under its own name."""
    return METRICS.get(name) or Metric(name, name, 3, more=f"a higher {name}", less=f"a lower {name}")


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean and its 95% interval; `low` and `high` are None without values per prompt, or with too few of them."""

    mean: float
    low: float | None = None
    high: float | None = None


@dataclasses.dataclass(frozen=True)
class Curve:
    """One run over its temperatures, ascending, at one top-p: the mean over seeds of each metric, and the values beneath.

    `values` has the shape `[temperatures, seeds, prompts]`, for metrics with values per prompt only. `label` is the run's
    name, with the top-p where a sweep has several.
    """

    run: str
    top_p: float | int
    label: str
    seeds: tuple[int, ...]
    temperatures: tuple[float | int, ...]
    means: Mapping[str, Float[np.ndarray, " temperatures"]]
    values: Mapping[str, Float[np.ndarray, "temperatures seeds prompts"]]

    def interval(self, metric: str, index: int) -> Interval:
        """The metric at the temperature of this index, with its 95% interval where it has values per prompt."""
        mean = float(self.means[metric][index])
        if metric not in self.values:
            return Interval(mean)
        return Interval(mean, *mean_interval(self.values[metric][index]))


def curves(cells: Sequence[Cell]) -> list[Curve]:
    """Groups cells into one curve a run and top-p, in the order in which the runs appear, from the largest top-p down.

    Raises:
        UserError: no cells, a cell twice, a seed missing at a temperature, or prompts that differ in number.
    """
    if not cells:
        raise UserError("front: there are no cells; evaluate at one temperature or more first")
    runs = dict.fromkeys(cell.run for cell in cells)
    top_ps = sorted({cell.top_p for cell in cells}, reverse=True)
    grid: dict[tuple[str, float | int], dict[tuple[float | int, int], Cell]] = {
        (run, top_p): {} for run in runs for top_p in top_ps
    }
    for cell in cells:
        of_curve = grid[cell.run, cell.top_p]
        if (cell.temperature, cell.seed) in of_curve:
            place = _label(cell.run, cell.top_p, top_ps)
            raise UserError(
                f"front: run {place!r} has temperature {cell.temperature:g}, seed {cell.seed} twice; keep one"
            )
        of_curve[cell.temperature, cell.seed] = cell
    prompts = sorted({len(values) for cell in cells for values in cell.per_prompt.values()})
    if len(prompts) > 1 or prompts == [0]:
        counts = ", ".join(map(str, prompts))
        raise UserError(
            f"front: cells have values for {counts} prompts; evaluate every run on the same prompts"
        )
    return [
        _curve(run, top_p, _label(run, top_p, top_ps), of_curve)
        for (run, top_p), of_curve in grid.items()
        if of_curve
    ]


def event_prompts_of(values: Iterable[Float[np.ndarray, "_ _ prompts"]]) -> set[int]:
    """The prompts whose value is other than the commonest one, of any run at any temperature and seed."""
    rows = [row for table in values for row in table.reshape(-1, table.shape[-1])]
    return {int(prompt) for row in rows for prompt in event_prompts(row)}


def _label(run: str, top_p: float | int, top_ps: Sequence[float | int]) -> str:
    return f"{run} (top-p {top_p:g})" if len(top_ps) > 1 else run


def _curve(run: str, top_p: float | int, label: str, of_run: Mapping[tuple[float | int, int], Cell]) -> Curve:
    temperatures = tuple(sorted({temperature for temperature, _ in of_run}))
    seeds = tuple(sorted({seed for _, seed in of_run}))
    for temperature, seed in itertools.product(temperatures, seeds):
        if (temperature, seed) not in of_run:
            place = f"run {label!r} lacks seed {seed} at temperature {temperature:g}"
            raise UserError(f"front: {place}; evaluate every seed at every temperature")
    rows = [[of_run[temperature, seed] for seed in seeds] for temperature in temperatures]
    values = {
        name: np.array([[np.asarray(cell.per_prompt[name], float) for cell in row] for row in rows])
        for name in _in_all(of_run.values(), "per_prompt")
    }
    means = {
        name: np.array([[float(cell.metrics[name]) for cell in row] for row in rows]).mean(axis=1)
        for name in _in_all(of_run.values(), "metrics")
    }
    means |= {name: table.mean(axis=(1, 2)) for name, table in values.items()}
    return Curve(run, top_p, label, seeds, temperatures, means, values)


def _in_all(cells: Iterable[Cell], field: str) -> list[str]:
    """The metrics that each of the cells has, in the order of the first."""
    first, *rest = (getattr(cell, field) for cell in cells)
    return [name for name in first if all(name in other for other in rest)]


def table(
    cells: Sequence[Cell],
    metrics: Sequence[str] = ("accuracy", "distinct_valid", "self_bleu"),
    *,
    width: int = 100,
) -> str:
    """The sweep as plain text: a row a temperature, the curves side by side, as many as fit into `width` columns."""
    whole = curves(cells)
    per_block = len(whole)
    while per_block > 1 and max(map(len, _block(whole[:per_block], metrics))) > width:
        per_block -= 1
    lines = []
    for start in range(0, len(whole), per_block):
        lines += [*_block(whole[start : start + per_block], metrics), ""]
    described = [describe(metric) for metric in metrics]
    titles = [f"{metric.short}: {metric.title}" for metric in described if metric.short != metric.title]
    if any(m in curve.values for curve in whole for m in metrics):
        titles.append(NOTATION.format(over=over(whole)))
    return "\n".join([*lines, *(line for title in titles for line in textwrap.wrap(title, width))]).strip(
        "\n"
    )


def over(curves: Sequence[Curve]) -> str:
    """What the intervals are over, in words: `100 prompts`, `100 prompts and seeds (2 a run)`."""
    prompts = next((values.shape[-1] for curve in curves for values in curve.values.values()), 0)
    seeds = sorted({len(curve.seeds) for curve in curves})
    several = f" and seeds ({' or '.join(map(str, seeds))} a run)" if seeds[-1] > 1 else ""
    return counted(prompts, "prompt") + several


def _block(runs: Sequence[Curve], metrics: Sequence[str]) -> list[str]:
    temperatures = sorted({temperature for curve in runs for temperature in curve.temperatures})
    groups = []
    for curve in runs:
        columns = []
        for metric in metrics:
            texts = [describe(metric).short, *(entry(curve, metric, t) for t in temperatures)]
            size = max(map(len, texts))
            columns.append([text.rjust(size) for text in texts])
        rows = ["  ".join(row) for row in zip(*columns, strict=True)]
        size = max(len(rows[0]), len(curve.label))
        groups.append([curve.label.center(size), *(row.rjust(size) for row in rows)])
    texts = temperature_texts(temperatures)
    size = max(map(len, texts))
    groups.insert(0, [" " * size, "T".rjust(size), *(text.rjust(size) for text in texts)])
    lines = [" | ".join(row).rstrip() for row in zip(*groups, strict=True)]
    rule = "-+-".join("-" * len(group[0]) for group in groups)
    return [*lines[:2], rule, *lines[2:]]


def temperature_texts(temperatures: Sequence[float | int]) -> list[str]:
    """Temperatures with equally many decimals: 0.25, 0.50, 1.00."""
    decimals = max(len(f"{t:g}".partition(".")[2]) for t in temperatures)
    return [f"{t:.{decimals}f}" for t in temperatures]


def entry(curve: Curve, metric: str, temperature: float | int) -> str:
    """One value of the table as `with_interval` writes it, or `-` where the run has none."""
    if temperature not in curve.temperatures or metric not in curve.means:
        return "-"
    value = curve.interval(metric, curve.temperatures.index(temperature))
    return with_interval(value.mean, value.low, value.high, describe(metric).digits)


def with_interval(mean: float, low: float | None, high: float | None, digits: int) -> str:
    """`0.912 ±0.012`; both ends, `1.000 [0.839, 1.000]`, where the interval leans to one side; the value alone without one."""
    text = f"{mean:.{digits}f}"
    if low is None or high is None:
        return text
    half = (high - low) / 2
    if abs(mean - (low + high) / 2) > LEANING * half:
        return f"{text} [{low:.{digits}f}, {high:.{digits}f}]"
    return f"{text} ±{half:.{digits}f}"
