"""Cells in a plane: where they lie and move, how they are drawn, their legend, and how far they move by chance."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from scot_hycnn._anndata._embedding import (
    N_NEIGHBORS,
    embedding_axes,
    find_embedding,
    place_predicted,
    read_embedding,
    read_projection,
)
from scot_hycnn._anndata._results import Results, read_results
from scot_hycnn._response import MIN_CELLS

from ._figure import PLAIN, legend, widen

# As many entries as fit beside axes of usual height.
_LEGEND_ROWS = 16
# A legend within the axes covers cells: with more entries than these it is written smaller.
_FEW = 6
# An arrow of fewer cells describes these cells rather than the region.
_MIN_CELLS = 5
# A smaller share of moving cells gets no arrow.
_MIN_MOVERS = 0.25
# Cells that move by less than this part of the figure's diagonal stay: their arrows would be specks.
_MIN_LENGTH = 0.025
# A predicted cell is farther from all measured cells than this percentage of them are from their fifth neighbour: it
# lies in empty space.
_USUAL = 99
# Standard deviation of the smoothing of streams, in squares.
_SMOOTHING = 1.0
# Stations on the way of each cell: consecutive ones lie in neighbouring squares unless the grid is very fine.
_STATIONS = 16

Points = NDArray[np.floating[Any]]


class Positions(NamedTuple):
    """Positions of cells in a plane, and the names of its axes."""

    x: Points  # source cells, (n, 2)
    predicted: Points  # the same cells, moved, (n, 2)
    y: Points  # target cells, (m, 2)
    names: list[str]
    placed: NDArray[np.bool_]  # which of the moved cells have a place in the plane, (n,)
    is_exact: bool  # whether moved cells lie where the map moves them, and not among measured cells like them

    def note(self, of_embedding: str) -> str:
        """Return what a reader has to know about predicted cells in an embedding, empty for an exact plane."""
        n_left_out = int((~self.placed).sum())
        left_out = f"; {n_left_out:,} cells between islands left out" if n_left_out else ""
        return "" if self.is_exact else f"{of_embedding}{left_out}"


def positions(adata: AnnData, results: Results, key: str, *, basis: str | None, n_neighbors: int | None) -> Positions:
    """Return where cells lie in an embedding, or in the two dimensions of the representation that change most."""
    if basis is None or results.rep.name in (basis, f"X_{basis}"):
        if results.rep.n_dims < 2:
            raise ValueError(f"The map of {results.rep.name!r} has one dimension; pass basis to plot it in a plane.")
        # Mean squared displacement, whose sum over dimensions is the transport cost.
        change = ((results.predicted - results.x).astype(float) ** 2).mean(axis=0)
        most = sorted(np.argsort(-change, kind="stable")[:2].tolist())
        x, predicted, y = (points[:, most] for points in (results.x, results.predicted, results.y))
        names = [results.names[dimension] for dimension in most]
        return Positions(x, predicted, y, names, np.ones(len(x), dtype=bool), is_exact=True)
    embedding = find_embedding(adata, basis)
    x, y = (read_embedding(adata, embedding, rows)[:, :2] for rows in (results.source_rows, results.target_rows))
    # An embedding such as UMAP has no place for predicted cells: they lie where tl.project has put them, unless a
    # number of neighbours asks for another projection. Both place them among all cells, also if some are drawn.
    everyone = read_results(adata, key, results.target)
    places = read_projection(adata, everyone, embedding, key) if n_neighbors is None else None
    if places is None:
        places = place_predicted(adata, everyone, embedding, N_NEIGHBORS if n_neighbors is None else n_neighbors)
    predicted = places[np.searchsorted(everyone.source_rows, results.source_rows), :2]
    measured = read_embedding(adata, embedding, everyone.measured_rows)[:, :2]
    # Cells are placed at a mean of neighbours, which lies in empty space if these are on different islands. The first
    # neighbour of a measured cell is the cell itself.
    tree = cKDTree(measured)
    usual = np.atleast_2d(tree.query(measured, [min(N_NEIGHBORS + 1, len(measured))])[0])
    placed = np.asarray(tree.query(predicted)[0] <= np.percentile(usual, _USUAL))
    return Positions(x, predicted, y, embedding_axes(embedding), placed, is_exact=False)


def scatter(ax: Axes, points: Points, color: str | NDArray[Any], *, n_total: int, alpha: float = 0.7) -> None:
    """Draw cells, smaller if the figure has many in total, and as pixels even within a vector figure."""
    # In random order no condition hides another one.
    order = np.random.default_rng(0).permutation(len(points))
    colors = color if isinstance(color, str) else color[order]
    x, y = points[order].T
    ax.scatter(x, y, s=size_of(n_total), c=colors, alpha=alpha, linewidths=0, rasterized=True)


def size_of(n_total: int) -> float:
    """Return the area of a cell in a figure of so many."""
    return float(np.clip(20_000 / max(n_total, 1), 2, 20))


def label(ax: Axes, names: list[str]) -> None:
    """Name the axes as scanpy does, without numbers, since the units of an embedding have no meaning."""
    ax.set_xlabel(names[0], **PLAIN)
    ax.set_ylabel(names[1], **PLAIN)
    ax.set(xticks=[], yticks=[])
    ax.spines[["top", "right"]].set_visible(False)


def add_legend(ax: Axes, entries: dict[str, str], title: str | None = None, *, inside: bool) -> None:
    """Explain colours: within the axes of a user, else at the right of ours, in a figure widened for the legend."""
    marker: dict[str, Any] = {"linestyle": "", "marker": "o", "markersize": 4 if inside else 6}
    handles = [Line2D([], [], color=color, **marker) for color in entries.values()]
    size = "small" if not inside else "x-small" if len(handles) <= _FEW else "xx-small"
    # Beside the axes of a user there may be another panel, which a legend outside would cover.
    place: dict[str, Any] = (
        {"loc": "best", "framealpha": 0.7, "handletextpad": 0.1, "labelspacing": 0.2, "borderpad": 0.3}
        if inside
        else {"loc": "center left", "bbox_to_anchor": (1.0, 0.5), "frameon": False}
    )
    ncols = 1 + (len(handles) - 1) // _LEGEND_ROWS
    drawn = legend(ax, handles, list(entries), title, fontsize=size, title_fontsize=size, ncols=ncols, **place)
    if not inside:
        widen(ax, drawn.get_window_extent().width)


def arrows_of(place: Positions, groups: NDArray[np.intp] | None, n_grid: int) -> tuple[Points, Points, list[int]]:
    """Return start and end of the arrows of groups of cells, else of squares, (arrows, 2), and whose they are.

    ``groups`` are numbers, (n,), -1 for cells without a group.
    """
    x, predicted = place.x[place.placed], place.predicted[place.placed]
    if not len(x):
        return x, predicted, []
    parts = _squares(x, n_grid)[1] if groups is None else groups[place.placed]
    min_cells = _MIN_CELLS if groups is None else MIN_CELLS
    least = _min_length(x, predicted)
    moves = np.linalg.norm(predicted - x, axis=1) > least
    ways, chosen, drawn = np.hstack([x, predicted]), list[int](), list[int]()
    for part in np.unique(parts[parts >= 0]):
        members = parts == part
        # Often some of the cells of a type respond and others stay: the arrow is that of those that move.
        movers = np.flatnonzero(members & moves)
        if members.sum() >= min_cells and len(movers) >= _MIN_MOVERS * members.sum():
            # The way of one cell, that nearest to the medians of start and end: the medians themselves may lie in empty
            # space, and means would follow a few cells that jump.
            off = ((ways[movers] - np.median(ways[movers], axis=0)) ** 2).sum(axis=1)
            ranked = movers[off.argsort(kind="stable")]
            # Types that lie together would have one arrow over the other: the next cell that is clear of those drawn.
            n_tried = 1 if groups is None else len(ranked) // 2 + 1
            gaps = cdist(ways[ranked[:n_tried]], ways[chosen]).min(axis=1, initial=np.inf)
            chosen.append(int(ranked[(gaps > 2 * least).argmax()]))
            drawn.append(int(part))
    return x[chosen], predicted[chosen], drawn


def mean_field(x: Points, predicted: Points, n_grid: int) -> tuple[Points, np.ma.MaskedArray[Any, Any]]:
    """Return centres of the squares, (2, n_grid), and mean displacements, (2, n_grid, n_grid) with rows along y."""
    # Cells move straight and evenly, by the displacement interpolation (1 - t) x + t T(x) of McCann (1997), so the
    # field is that of Benamou & Brenier (2000), averaged over time.
    stations = np.concatenate([x + t * (predicted - x) for t in np.linspace(0, 1, _STATIONS)])
    centres, square = _squares(stations, n_grid)
    # Sums and counts are smoothed alike, so that a displacement is a mean over cells and not over squares.
    sums = (
        np.bincount(square, weight, minlength=n_grid**2).reshape(n_grid, n_grid)
        for weight in (np.ones(len(stations)), *np.tile((predicted - x).T, _STATIONS))
    )
    count, *displacement = (gaussian_filter(total, _SMOOTHING, mode="constant") for total in sums)
    mean = np.stack(displacement) / np.maximum(count, np.finfo(float).tiny)
    # Squares that few cells pass, and those whose cells stay, are masked. A cell that is in a square at several
    # stations counts once.
    visits = np.unique(np.stack([square, np.tile(np.arange(len(x)), _STATIONS)]), axis=1)[0]
    few = np.bincount(visits, minlength=n_grid**2).reshape(n_grid, n_grid) < _MIN_CELLS
    stays = np.linalg.norm(mean, axis=0) <= _min_length(x, predicted)
    return centres, np.ma.masked_array(mean, np.broadcast_to(few | stays, mean.shape))


def _squares(x: Points, n_grid: int) -> tuple[Points, NDArray[np.intp]]:
    """Return centres of the squares along both axes, shape (2, n_grid), and the square of each cell, row by row."""
    low, high = x.min(axis=0), x.max(axis=0)
    width = np.where(high > low, high - low, 1) / n_grid
    column, row = np.minimum((x - low) // width, n_grid - 1).astype(np.intp).T
    return low[:, None] + width[:, None] * (np.arange(n_grid) + 0.5), row * n_grid + column


def _min_length(x: Points, predicted: Points) -> float:
    return float(_MIN_LENGTH * np.linalg.norm(np.ptp(np.concatenate([x, predicted]), axis=0)))
