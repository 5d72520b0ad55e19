"""The upper hull of quality and diversity: of one sweep, and over all runs (the Pareto hull)."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from lmirl_jax.evaluation.front import Cell, Curve, curves, describe, event_prompts_of
from lmirl_jax.statistics.bootstrap import percentile_interval, resampled_means, resampling_weights
from lmirl_jax.statistics.evidence import Evidence

BAND_LEVELS = 30


def front_at(
    quality: Float[np.ndarray, "*draws temperatures"],
    diversity: Float[np.ndarray, "*draws temperatures"],
    levels: Float[np.ndarray, " levels"],
) -> Float[np.ndarray, "*draws levels"]:
    """The greatest diversity that a sweep reaches at each level of quality or above it.

    It is the upper concave hull of the points of the sweep. A policy can reach every point of it: it draws one of two
    temperatures for each prompt, and the means over prompts mix linearly.

    Args:
        quality: a mean over prompts at each temperature.
        diversity: a mean over prompts at each temperature; larger is more diverse.
        levels: levels of quality; above the best point the result is the diversity of that point.

    Returns:
        The diversity at each level.
    """
    level = np.minimum(levels, quality.max(axis=-1, keepdims=True))[..., None]
    best = np.full(level.shape[:-1], -np.inf)
    high, high_diversity = quality[..., None, :], diversity[..., None, :]
    # A loop over the lower point of each pair: all pairs at once would take draws x levels x pairs numbers.
    for i in range(quality.shape[-1]):
        low, low_diversity = high[..., i, None], high_diversity[..., i, None]
        # The quality that the higher point must add to the mixture; 0 or less where the lower point suffices.
        gain = level - low
        possible = (gain <= 0) | (high >= level)
        share = np.where((gain > 0) & possible, gain / np.where(high > low, high - low, 1.0), 0.0)
        mixture = low_diversity * (1 - share) + high_diversity * share
        best = np.maximum(best, np.where(possible, mixture, -np.inf).max(axis=-1))
    return best


def hull_corners(quality: Float[np.ndarray, " points"], diversity: Float[np.ndarray, " points"]) -> list[int]:
    """The points that neither another point nor a mixture of two others beats, from the best to the most diverse.

    Args:
        quality: the quality of each point; larger is better.
        diversity: the diversity of each point; larger is more diverse.

    Returns:
        The indices of these points: the corners of the line that `front_at` follows.
    """
    corners: list[int] = []
    for i in sorted(range(len(quality)), key=lambda i: (-quality[i], -diversity[i])):
        if corners and diversity[i] <= diversity[corners[-1]]:
            # Another point has at least the same quality and diversity.
            continue
        while len(corners) > 1 and _below(quality, diversity, corners[-2], corners[-1], i):
            corners.pop()
        corners.append(i)
    return corners


def _below(
    quality: Float[np.ndarray, " points"], diversity: Float[np.ndarray, " points"], a: int, b: int, c: int
) -> bool:
    """Whether b lies on or below the line from a to c."""
    toward_b = np.array([diversity[b] - diversity[a], quality[b] - quality[a]])
    toward_c = np.array([diversity[c] - diversity[a], quality[c] - quality[a]])
    return bool(toward_c[0] * toward_b[1] <= toward_c[1] * toward_b[0])


@dataclasses.dataclass(frozen=True)
class Corner:
    """A corner of the hull over all runs: the run, its temperature and top-p, and its quality and diversity there."""

    run: str
    temperature: float | int
    top_p: float | int
    quality: float
    diversity: float


def pareto_hull(cells: Sequence[Cell], *, quality: str, diversity: str) -> list[Corner]:
    """The best settings over all runs: no other setting, and no mixture of two, has more quality and more diversity.

    Args:
        cells: the sweeps.
        quality: a metric; larger is better.
        diversity: a metric; `front.METRICS` tells whether larger or smaller is more diverse.

    Returns:
        The corners, from the best quality to the most diverse; seeds are averaged.
    """
    points = [
        Corner(
            curve.run,
            temperature,
            curve.top_p,
            float(curve.means[quality][i]),
            float(curve.means[diversity][i]),
        )
        for curve in curves(cells)
        for i, temperature in enumerate(curve.temperatures)
    ]
    sign = describe(diversity).sign
    places = hull_corners(
        np.array([corner.quality for corner in points]),
        np.array([sign * corner.diversity for corner in points]),
    )
    return [points[i] for i in places]


@dataclasses.dataclass(frozen=True)
class Band:
    """The 95% interval of the diversity that a run reaches at each level of quality, in the unit of the metric."""

    levels: Float[np.ndarray, " levels"]
    low: Float[np.ndarray, " levels"]
    high: Float[np.ndarray, " levels"]


def confidence_band(curve: Curve, *, quality: str, diversity: str) -> Band | None:
    """The bootstrap band around the hull of a run, over prompts and seeds; None without values per prompt, or with too few."""
    if quality not in curve.values or diversity not in curve.values:
        return None
    count = curve.values[quality].shape[-1]
    events = min(len(event_prompts_of([curve.values[name]])) for name in (quality, diversity))
    if Evidence(count, count, events).too_few:
        return None
    sign = describe(diversity).sign
    widest = int(np.argmax(sign * curve.means[diversity]))
    levels = np.linspace(curve.means[quality][widest], curve.means[quality].max(), BAND_LEVELS)
    prompts = resampling_weights(curve.values[quality].shape[-1], 0)
    seeds = resampling_weights(len(curve.seeds), 1)
    draws = front_at(
        resampled_means(curve.values[quality], prompts, seeds),
        sign * resampled_means(curve.values[diversity], prompts, seeds),
        levels,
    )
    ends = np.array(
        [sorted(sign * np.array(percentile_interval(column, 0.95, events))) for column in draws.T]
    )
    return Band(levels, ends[:, 0], ends[:, 1])
