"""A sweep as data for other programs: a tidy table, and its findings as JSON."""

import csv
import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from lmirl_jax import files
from lmirl_jax.evaluation.comparison import compare, pairs
from lmirl_jax.evaluation.front import Cell, curves
from lmirl_jax.evaluation.pareto import pareto_hull

COLUMNS = ("run", "seed", "checkpoint", "temperature", "top_p", "metric", "value", "low", "high", "prompts")


def tidy_rows(
    cells: Sequence[Cell], checkpoints: Sequence[str], intervals: Sequence[Mapping[str, Sequence[float]]]
) -> list[dict[str, Any]]:
    """One row for each cell and metric, with the keys of COLUMNS: the value and its 95% interval.

    Args:
        cells: the cells of a sweep.
        checkpoints: the checkpoint of each cell.
        intervals: the intervals of each cell by metric, as `evaluation.intervals` returns them.

    Returns:
        The rows. `low` and `high` are None for metrics without an interval; `prompts` is the number of prompts, None where the
        cell has no values by prompt.
    """
    rows = []
    for cell, checkpoint, ends in zip(cells, checkpoints, intervals, strict=True):
        prompts = max(map(len, cell.per_prompt.values()), default=None)
        for metric in dict.fromkeys([*cell.metrics, *cell.per_prompt]):
            # The mean of the values by prompt comes first, as in the table and the figures.
            if metric in cell.per_prompt:
                value = sum(cell.per_prompt[metric]) / len(cell.per_prompt[metric])
            else:
                value = cell.metrics[metric]
            place = (cell.run, cell.seed, checkpoint, cell.temperature, cell.top_p, metric)
            low, high = ends.get(metric, (None, None))
            rows.append(dict(zip(COLUMNS, (*place, value, low, high, prompts), strict=True)))
    return rows


def curve_rows(cells: Sequence[Cell], metrics: Sequence[str]) -> list[dict[str, Any]]:
    """One row for each point of a run's curve and metric: the mean over seeds, with its 95% interval over prompts and seeds.

    Args:
        cells: the cells of a sweep.
        metrics: the metrics.

    Returns:
        The rows, which are the numbers of the table that `evaluation.table` prints; `low` and `high` are None for metrics without
        values by prompt.
    """
    return [
        {
            "run": curve.run,
            "seeds": len(curve.seeds),
            "temperature": temperature,
            "top_p": curve.top_p,
            "metric": metric,
            "value": interval.mean,
            "low": interval.low,
            "high": interval.high,
        }
        for curve in curves(cells)
        for index, temperature in enumerate(curve.temperatures)
        for metric in metrics
        for interval in [curve.interval(metric, index)]
    ]


def findings(
    cells: Sequence[Cell], *, quality: str, diversity: str, baseline: str | None = None
) -> dict[str, Any]:
    """The findings of a sweep on quality against one measure of diversity, as JSON.

    Args:
        cells: the cells of a sweep.
        quality: a metric; larger is better.
        diversity: a metric.
        baseline: the run that the others are compared with; None for the first run.

    Returns:
        `hull` has the corners over all runs. `comparisons` has the fields of `Comparison` for each run against the baseline at
        each top-p, where both have values per prompt and share a level of quality.
    """
    comparisons = []
    for base, run in pairs(cells, baseline):
        if all(metric in curve.values for curve in (base, run) for metric in (quality, diversity)):
            comparison = compare(base, run, quality=quality, diversity=diversity)
            if comparison is not None:
                place = {"run": run.run, "baseline": base.run, "top_p": run.top_p}
                comparisons.append(place | dataclasses.asdict(comparison))
    hull = pareto_hull(cells, quality=quality, diversity=diversity)
    return {"hull": [dataclasses.asdict(corner) for corner in hull], "comparisons": comparisons}


def write_csv(path: epath.PathLike, rows: Sequence[dict[str, Any]]) -> None:
    """Writes rows with the same keys as a table; the cell of a value that is None stays empty."""
    with files.open_atomic(path) as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_json(path: epath.PathLike, content: Any) -> None:
    with files.open_atomic(path) as file:
        json.dump(content, file, indent=1, ensure_ascii=False)
        file.write("\n")
