"""Places labels beside the points of a figure where they cover as little as possible."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

# The font size, in points.
FONT_SIZE = 9.0


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
    """Writes each label at the place around its point that covers the fewest lines, points and earlier labels.

    Args:
        axis: an axis whose limits are final; its figure is drawn once to fix the layout.
        labels: the points and their texts.
        segments: the lines to avoid, as corners in the coordinates of the data.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = axis.get_figure()
    FigureCanvasAgg(figure).draw()
    # Pixels for each point.
    scale = figure.dpi / 72
    dots = [_dots(axis.transData.transform(corners)) for corners in segments]
    occupied = np.concatenate([*dots, axis.transData.transform([(label.x, label.y) for label in labels])])
    for label in labels:
        point = axis.transData.transform((label.x, label.y))
        half = np.array([0.32 * FONT_SIZE * len(label.text) + 1, 0.55 * FONT_SIZE]) * scale
        shift = _best_shift(axis, point, half, occupied, 3.5 * scale)
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
        # The label must not change the layout in which it was placed.
        note.set_in_layout(False)
        corners = np.array(list(itertools.product((-1, -0.5, 0, 0.5, 1), (-1, 0, 1))))
        occupied = np.concatenate([occupied, point + shift + corners * half])


def _best_shift(
    axis: Any,
    point: Float[np.ndarray, "2"],
    half: Float[np.ndarray, "2"],
    occupied: Float[np.ndarray, "dots 2"],
    gap: float,
) -> Float[np.ndarray, "2"]:
    """The shift to the place, in three rings around the point, that covers the fewest dots; nearer places win ties."""
    frame = axis.get_window_extent()
    places = []
    for ring, angle in itertools.product((1.0, 1.5, 2.2), np.arange(16) * np.pi / 8):
        direction = np.array([np.cos(angle), np.sin(angle)])
        # On one side the box just clears the point.
        shift = (half + gap) * ring * direction / np.abs(direction).max()
        low, high = point + shift - half, point + shift + half
        overlaps = ((occupied > low) & (occupied < high)).all(axis=1).sum()
        outside = not (frame.contains(*low) and frame.contains(*high))
        places.append((overlaps + 100.0 * outside + 1.5 * ring, shift))
    return min(places, key=lambda place: place[0])[1]


def _dots(corners: Float[np.ndarray, "_ 2"]) -> Float[np.ndarray, "dots 2"]:
    """Dots along a line, two pixels apart."""
    pieces = [corners[:1]]
    for start, end in itertools.pairwise(corners):
        count = max(2, int(np.hypot(*(end - start)) / 2))
        pieces.append(start + (end - start) * np.linspace(0, 1, count)[:, None])
    return np.concatenate(pieces)
