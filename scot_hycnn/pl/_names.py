"""Names of points, placed so that they can be read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.text import Annotation
from numpy.typing import NDArray

from ._positions import Points
from ._text import PLAIN

# Where a name may be, from near to far: distances in points, directions from the upper left round.
_DISTANCES = (6.0, 14.0, 24.0, 36.0, 50.0)
_DIRECTIONS = np.deg2rad([135, 315, 180, 0, 90, 270, 45, 225, 160, 340, 110, 290])

Box = NDArray[np.floating[Any]]  # x0, y0, x1, y1 in pixels


def add_names(ax: Axes, points: Points, names: Sequence[str], others: Points) -> None:
    """Write names beside points, the most important first, each where it hides the least.

    Greedy: a name takes the nearest place within the axes that overlaps no name written before, and of those one that
    covers few points. A thin line leads to its point.

    Parameters
    ----------
    ax
        Of a figure that has been drawn: a constrained layout settles then, and nothing must move any more.
    points
        Shape (n, 2).
    names
        One a point.
    others
        Points that had better stay visible, these among them, shape (m, 2).
    """
    room = np.array(ax.get_window_extent().extents)
    covered = ax.transData.transform(others)
    legend = ax.get_legend()
    taken: list[Box] = [] if legend is None else [np.array(legend.get_window_extent().extents)]
    for place, point, name in zip(ax.transData.transform(points), points, names, strict=True):
        text = ax.annotate(
            name,
            point,
            xytext=(0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize="x-small",
            bbox={"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 0.5},
            **PLAIN,
            arrowprops={"arrowstyle": "-", "color": "0.4", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 1.5},
        )
        text.set_in_layout(False)  # within the axes anyhow
        taken.append(_move(text, place, room, taken, covered))


def _move(text: Annotation, place: Points, room: Box, taken: list[Box], covered: Points) -> Box:
    """Put a name where it costs least, and return its box."""
    figure = text.get_figure(root=True)
    assert figure is not None
    scale = figure.dpi / 72
    extent = text.get_window_extent()
    half = np.array([extent.width, extent.height]) / 2 + scale
    best, least = (0.0, 0.0), np.inf
    box = np.zeros(4)
    for distance in _DISTANCES:
        for angle in _DIRECTIONS:
            direction = np.array([np.cos(angle), np.sin(angle)])
            # The edge of the name, not its middle, is that far from the point.
            offset = direction * (distance * scale + np.abs(direction) @ half)
            candidate = np.concatenate([place + offset - half, place + offset + half])
            cost = _cost(candidate, room, taken, covered) + distance / 10
            if cost < least:
                least, best, box = cost, tuple(offset / scale), candidate
    text.set_position(best)
    return box


def _cost(box: Box, room: Box, taken: list[Box], covered: Points) -> float:
    outside = (box[:2] < room[:2]).any() or (box[2:] > room[2:]).any()
    overlaps = sum((box[:2] < other[2:]).all() and (box[2:] > other[:2]).all() for other in taken)
    n_covered = ((covered > box[:2]) & (covered < box[2:])).all(axis=1).sum()
    return float(1000 * (outside + overlaps) + n_covered)
