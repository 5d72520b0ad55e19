"""Writes labels beside the points of a figure where they cover least."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

FONT_SIZE = 9.0  # Points.


@dataclasses.dataclass(frozen=True)
class PointLabel:
    """A short text for a point, in the coordinates of the data."""

    text: str
    x: float
    y: float
    color: str


def write_labels(
    axis: Any, labels: Sequence[PointLabel], segments: Sequence[Float[np.ndarray, "_ 2"]]
) -> None:
    """Writes each label at the place around its point that covers least of lines, points and earlier labels.

    Args:
        axis: of a figure whose limits are final; the figure is drawn once to fix its layout.
        labels: the points and their texts.
        segments: the lines to keep clear of, as corners in the coordinates of the data.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = axis.get_figure()
    FigureCanvasAgg(figure).draw()
    scale = figure.dpi / 72  # Pixels a point.
    dots = [_dots(axis.transData.transform(corners)) for corners in segments]
    taken = np.concatenate([*dots, axis.transData.transform([(label.x, label.y) for label in labels])])
    for label in labels:
        point = axis.transData.transform((label.x, label.y))
        half = np.array([0.32 * FONT_SIZE * len(label.text) + 1, 0.55 * FONT_SIZE]) * scale
        shift = _best_shift(axis, point, half, taken, 3.5 * scale)
        note = axis.annotate(
            label.text,
            (label.x, label.y),
            shift / scale,
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=FONT_SIZE,
            color=label.color,
        )
        note.set_in_layout(False)  # It must not move the axes that it was placed in.
        corners = np.array(list(itertools.product((-1, -0.5, 0, 0.5, 1), (-1, 0, 1))))
        taken = np.concatenate([taken, point + shift + corners * half])


def _best_shift(
    axis: Any,
    point: Float[np.ndarray, "2"],
    half: Float[np.ndarray, "2"],
    taken: Float[np.ndarray, "dots 2"],
    gap: float,
) -> Float[np.ndarray, "2"]:
    """Of three rings of places around the point the one over the fewest dots; nearer ones win ties."""
    frame = axis.get_window_extent()
    places = []
    for ring, angle in itertools.product((1.0, 1.5, 2.2), np.arange(16) * np.pi / 8):
        direction = np.array([np.cos(angle), np.sin(angle)])
        shift = (
            (half + gap) * ring * direction / np.abs(direction).max()
        )  # The box clears the point on one side.
        low, high = point + shift - half, point + shift + half
        covered = ((taken > low) & (taken < high)).all(axis=1).sum()
        outside = not (frame.contains(*low) and frame.contains(*high))
        places.append((covered + 100.0 * outside + 1.5 * ring, shift))
    return min(places, key=lambda place: place[0])[1]


def _dots(corners: Float[np.ndarray, "_ 2"]) -> Float[np.ndarray, "dots 2"]:
    """A line as dots, two pixels apart."""
    pieces = [corners[:1]]
    for start, end in itertools.pairwise(corners):
        count = max(2, int(np.hypot(*(end - start)) / 2))
        pieces.append(start + (end - start) * np.linspace(0, 1, count)[:, None])
    return np.concatenate(pieces)
