"""The mean displacement of cells, square by square: as arrows or as streams."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from ._positions import Points

# A median of fewer cells says more about these cells than about the region.
_MIN_CELLS = 5
# What is shorter than this part of the figure's diagonal would be specks: these cells stay.
_MIN_LENGTH = 0.01
# Width of the smoothing of streams, in squares.
_SMOOTHING = 1.0
# Stations on the way of every cell: consecutive ones are in neighbouring squares of all but very fine grids.
_STATIONS = 16


def draw_arrows(ax: Axes, x: Points, predicted: Points, n_grid: int) -> None:
    """Draw an arrow from the median position of the cells in each square to that of where they go."""
    starts, ends = arrows_of(x, predicted, n_grid)
    ax.quiver(
        *starts.T,
        *(ends - starts).T,
        angles="xy",
        scale_units="xy",
        scale=1,
        width=0.005,
        color="black",
        edgecolor="white",
        linewidth=0.5,
        zorder=3,
    )
    ax.update_datalim(ends)
    ax.autoscale_view()


def draw_streams(ax: Axes, x: Points, predicted: Points, n_grid: int) -> None:
    """Draw lines along the mean displacement of the cells that pass, thicker where they move farther."""
    centers, field = _field(x, predicted, n_grid)
    length = np.linalg.norm(field.filled(0), axis=0)
    if not length.any():
        return
    width = 0.6 + 1.4 * length / length.max()
    ax.streamplot(
        centers[0], centers[1], field[0], field[1], color="black", linewidth=width, density=1.2, arrowsize=1.1, zorder=3
    )


def _squares(x: Points, n_grid: int) -> tuple[Points, NDArray[np.intp]]:
    """Centers of the squares along both axes, shape (2, n_grid), and each cell's square, counted row by row."""
    low, high = x.min(axis=0), x.max(axis=0)
    width = np.where(high > low, high - low, 1) / n_grid
    column, row = np.minimum((x - low) // width, n_grid - 1).astype(np.intp).T
    return low[:, None] + width[:, None] * (np.arange(n_grid) + 0.5), row * n_grid + column


def _least(x: Points, predicted: Points) -> float:
    return float(_MIN_LENGTH * np.linalg.norm(np.ptp(np.concatenate([x, predicted]), axis=0)))


def arrows_of(x: Points, predicted: Points, n_grid: int) -> tuple[Points, Points]:
    """Median start and end of the cells in each square, shape (arrows, 2) each: a few that jump draw no arrow."""
    _, square = _squares(x, n_grid)
    middle = pd.DataFrame(np.hstack([x, predicted])).groupby(square).agg(["median", "size"])
    enough = middle[0, "size"] >= _MIN_CELLS
    starts, ends = (middle.loc[enough, [(i, "median"), (i + 1, "median")]].to_numpy() for i in (0, 2))
    drawn = np.linalg.norm(ends - starts, axis=1) > _least(x, predicted)
    return starts[drawn], ends[drawn]


def _field(x: Points, predicted: Points, n_grid: int) -> tuple[Points, np.ma.MaskedArray[Any, Any]]:
    """Centers of the squares, and displacements, shape (2, n_grid, n_grid) with rows along y.

    Cells go straight and evenly, by the displacement interpolation (1 - t) x + t T(x) of McCann (1997), so the field is
    that of Benamou & Brenier (2000), averaged over time. Sums and counts are smoothed alike, so that a displacement is
    a mean over cells and not over squares. Squares where few cells pass and those whose cells stay are masked.
    """
    stations = np.concatenate([x + t * (predicted - x) for t in np.linspace(0, 1, _STATIONS)])
    centers, square = _squares(stations, n_grid)
    sums = (
        np.bincount(square, weight, minlength=n_grid**2).reshape(n_grid, n_grid)
        for weight in (np.ones(len(stations)), *np.tile((predicted - x).T, _STATIONS))
    )
    count, *displacement = (gaussian_filter(total, _SMOOTHING, mode="constant") for total in sums)
    mean = np.stack(displacement) / np.maximum(count, np.finfo(float).tiny)
    stays = np.linalg.norm(mean, axis=0) <= _least(x, predicted)
    # A cell that is in a square at several stations counts once.
    visits = np.unique(np.stack([square, np.tile(np.arange(len(x)), _STATIONS)]), axis=1)[0]
    few = np.bincount(visits, minlength=n_grid**2).reshape(n_grid, n_grid) < _MIN_CELLS
    return centers, np.ma.masked_array(mean, np.broadcast_to(few | stays, mean.shape))
