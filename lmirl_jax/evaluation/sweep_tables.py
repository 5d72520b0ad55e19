"""A sweep as data for other programs: one tidy table, and its findings."""

import csv
import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from lmirl_jax import files
from lmirl_jax.evaluation.comparison import compare, pairs
from lmirl_jax.evaluation.front import Cell
from lmirl_jax.evaluation.pareto import pareto_hull

COLUMNS = ("run", "seed", "checkpoint", "temperature", "top_p", "metric", "value", "low", "high", "prompts")


def tidy_rows(
    cells: Sequence[Cell], checkpoints: Sequence[str], intervals: Sequence[Mapping[str, Sequence[float]]]
) -> list[dict[str, Any]]:
    """A row a cell and metric, by the names of COLUMNS: the value and its 95% interval.

    Args:
        cells: of a sweep.
        checkpoints: of each cell.
        intervals: of each cell, by metric, as `evaluation.intervals` has them.

    Returns:
        Rows; `low` and `high`, over prompts, are None for metrics without an interval; `prompts` is how many were answered, None
        where the cell does not tell.
    """
    rows = []
    for cell, checkpoint, ends in zip(cells, checkpoints, intervals, strict=True):
        prompts = max(map(len, cell.per_prompt.values()), default=None)
        for metric in dict.fromkeys([*cell.metrics, *cell.per_prompt]):
            if metric in cell.per_prompt:  # Which stands in for the mean, as in the table and the figures.
                value = sum(cell.per_prompt[metric]) / len(cell.per_prompt[metric])
            else:
                value = cell.metrics[metric]
            place = (cell.run, cell.seed, checkpoint, cell.temperature, cell.top_p, metric)
            low, high = ends.get(metric, (None, None))
            rows.append(dict(zip(COLUMNS, (*place, value, low, high, prompts), strict=True)))
    return rows


def findings(
    cells: Sequence[Cell], *, quality: str, diversity: str, baseline: str | None = None
) -> dict[str, Any]:
    """What the sweep says of quality against one measure of diversity, as JSON.

    Args:
        cells: of a sweep.
        quality: a metric; larger is better.
        diversity: a metric.
        baseline: the run that others are compared with; the first if not named.

    Returns:
        `hull`, the corners over all runs; and `comparisons`, each run against the baseline at each top-p as `Comparison` has
        it, where both have values per prompt and share a level of quality; where `too_few` says why, without intervals.
    """
    found = []
    for base, run in pairs(cells, baseline):
        if all(metric in curve.values for curve in (base, run) for metric in (quality, diversity)):
            comparison = compare(base, run, quality=quality, diversity=diversity)
            if comparison is not None:
                place = {"run": run.run, "baseline": base.run, "top_p": run.top_p}
                found.append(place | dataclasses.asdict(comparison))
    hull = pareto_hull(cells, quality=quality, diversity=diversity)
    return {"hull": [dataclasses.asdict(corner) for corner in hull], "comparisons": found}


def write_csv(path: epath.PathLike, rows: Sequence[dict[str, Any]]) -> None:
    """Writes rows with the same keys as a table; what is None is left empty."""
    with files.writing(path) as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_json(path: epath.PathLike, content: Any) -> None:
    with files.writing(path) as file:
        json.dump(content, file, indent=1, ensure_ascii=False)
        file.write("\n")
