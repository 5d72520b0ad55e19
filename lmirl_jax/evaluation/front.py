"""Quality-diversity fronts of runs: a sweep over sampling temperatures, at one top-p or several."""

import dataclasses
import itertools
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from lmirl_jax.statistics.evidence import event_prompts, pluralise
from lmirl_jax.statistics.proportions import mean_interval
from lmirl_jax.types import UserError


@dataclasses.dataclass(frozen=True)
class Cell:
    """The metrics of one policy at one sampling temperature and top-p: means over prompts, or metrics of the corpus.

    `per_prompt` has the value of each prompt for metrics that are means over prompts; `metrics` need not have these. Every cell
    has the same prompts in the same order, so that comparisons are paired.
    """

    run: str
    seed: int
    temperature: float | int
    metrics: Mapping[str, Any]
    per_prompt: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    top_p: float | int = 1.0


@dataclasses.dataclass(frozen=True)
class Metric:
    """The names of a metric, and whether larger values are better or more diverse (`sign` 1) or smaller ones (`sign` -1)."""

    short: str
    title: str
    digits: int
    sign: int = 1
    more: str = ""
    less: str = ""


# Both ends of an interval are printed where its middle is farther from the value than this share of half its width.
LEANING = 0.2
NOTATION = (
    "95% intervals over {over}: ± half of one, or both ends where it leans to one side; Wilson's for shares, else bootstrap; "
    "none where there are too few prompts"
)

METRICS = {
    "accuracy": Metric("accuracy", "accuracy", 3),
    "valid": Metric("validity", "validity", 3),
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
    """The description of a metric; for an unknown metric, larger values count as better."""
    return METRICS.get(name) or Metric(name, name, 3, more=f"a higher {name}", less=f"a lower {name}")


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean and its 95% interval; `low` and `high` are None without values per prompt, or with too few of them."""

    mean: float
    low: float | None = None
    high: float | None = None


@dataclasses.dataclass(frozen=True)
class Curve:
    """One run at one top-p over its temperatures, in ascending order.

    `means` has the mean over seeds of each metric. `values` has the values behind it, `[temperatures, seeds, prompts]`, only for
    metrics with values per prompt. `label` is the name of the run, with the top-p where a sweep has several.
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
    """Groups cells into one curve for each run and top-p: runs in the order of the cells, the largest top-p first.

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
        curve_cells = grid[cell.run, cell.top_p]
        if (cell.temperature, cell.seed) in curve_cells:
            place = _label(cell.run, cell.top_p, top_ps)
            raise UserError(
                f"front: run {place!r} has temperature {cell.temperature:g}, seed {cell.seed} twice; keep one"
            )
        curve_cells[cell.temperature, cell.seed] = cell
    prompts = sorted({len(values) for cell in cells for values in cell.per_prompt.values()})
    if len(prompts) > 1 or prompts == [0]:
        counts = ", ".join(map(str, prompts))
        raise UserError(
            f"front: cells have values for {counts} prompts; evaluate every run on the same prompts"
        )
    return [
        _curve(run, top_p, _label(run, top_p, top_ps), curve_cells)
        for (run, top_p), curve_cells in grid.items()
        if curve_cells
    ]


def event_prompts_of(values: Iterable[Float[np.ndarray, "_ _ prompts"]]) -> set[int]:
    """The prompts whose value differs from the commonest one, in any of the tables at any temperature and seed."""
    rows = [row for table in values for row in table.reshape(-1, table.shape[-1])]
    return {int(prompt) for row in rows for prompt in event_prompts(row)}


def _label(run: str, top_p: float | int, top_ps: Sequence[float | int]) -> str:
    return f"{run} (top-p {top_p:g})" if len(top_ps) > 1 else run


def _curve(run: str, top_p: float | int, label: str, grid: Mapping[tuple[float | int, int], Cell]) -> Curve:
    temperatures = tuple(sorted({temperature for temperature, _ in grid}))
    seeds = tuple(sorted({seed for _, seed in grid}))
    for temperature, seed in itertools.product(temperatures, seeds):
        if (temperature, seed) not in grid:
            place = f"run {label!r} lacks seed {seed} at temperature {temperature:g}"
            raise UserError(f"front: {place}; evaluate every seed at every temperature")
    rows = [[grid[temperature, seed] for seed in seeds] for temperature in temperatures]
    values = {
        name: np.array([[np.asarray(cell.per_prompt[name], float) for cell in row] for row in rows])
        for name in _in_all(grid.values(), "per_prompt")
    }
    means = {
        name: np.array([[float(cell.metrics[name]) for cell in row] for row in rows]).mean(axis=1)
        for name in _in_all(grid.values(), "metrics")
    }
    means |= {name: table.mean(axis=(1, 2)) for name, table in values.items()}
    return Curve(run, top_p, label, seeds, temperatures, means, values)


def _in_all(cells: Iterable[Cell], field: str) -> list[str]:
    """The metrics that all cells have, in the order of the first cell."""
    first, *rest = (getattr(cell, field) for cell in cells)
    return [name for name in first if all(name in other for other in rest)]


def table(
    cells: Sequence[Cell],
    metrics: Sequence[str] = ("accuracy", "distinct_valid", "self_bleu"),
    *,
    width: int = 100,
) -> str:
    """The sweep as plain text: one row for each temperature, as many curves side by side as fit into `width` columns."""
    all_curves = curves(cells)
    per_block = len(all_curves)
    while per_block > 1 and max(map(len, _block(all_curves[:per_block], metrics))) > width:
        per_block -= 1
    lines = []
    for start in range(0, len(all_curves), per_block):
        lines += [*_block(all_curves[start : start + per_block], metrics), ""]
    descriptions = [describe(metric) for metric in metrics]
    titles = [f"{metric.short}: {metric.title}" for metric in descriptions if metric.short != metric.title]
    if any(m in curve.values for curve in all_curves for m in metrics):
        titles.append(NOTATION.format(over=sample_words(all_curves)))
    return "\n".join([*lines, *(line for title in titles for line in textwrap.wrap(title, width))]).strip(
        "\n"
    )


def sample_words(curves: Sequence[Curve]) -> str:
    """Says in words what the intervals are computed over: `100 prompts`, `100 prompts and seeds (2 a run)`."""
    prompts = next((values.shape[-1] for curve in curves for values in curve.values.values()), 0)
    seeds = sorted({len(curve.seeds) for curve in curves})
    several = f" and seeds ({' or '.join(map(str, seeds))} a run)" if seeds[-1] > 1 else ""
    return pluralise(prompts, "prompt") + several


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
    """Temperatures with the same number of decimals: 0.25, 0.50, 1.00."""
    decimals = max(len(f"{t:g}".partition(".")[2]) for t in temperatures)
    return [f"{t:.{decimals}f}" for t in temperatures]


def entry(curve: Curve, metric: str, temperature: float | int) -> str:
    """One value of the table as `with_interval` writes it, or `-` where the run has none."""
    if temperature not in curve.temperatures or metric not in curve.means:
        return "-"
    value = curve.interval(metric, curve.temperatures.index(temperature))
    return with_interval(value.mean, value.low, value.high, describe(metric).digits)


def with_interval(mean: float, low: float | None, high: float | None, digits: int) -> str:
    """`0.912 ±0.012`, or both ends where the interval is asymmetric: `1.000 [0.839, 1.000]`; the value alone without interval."""
    text = f"{mean:.{digits}f}"
    if low is None or high is None:
        return text
    half = (high - low) / 2
    if abs(mean - (low + high) / 2) > LEANING * half:
        return f"{text} [{low:.{digits}f}, {high:.{digits}f}]"
    return f"{text} ±{half:.{digits}f}"
