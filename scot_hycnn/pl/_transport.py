"""Arrows from source cells to where the map moves them."""

from __future__ import annotations

from typing import cast

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scot_hycnn._anndata import Results, read_results

from ._colors import BACKGROUND, OBSERVED, SOURCE, CellColors, cell_colors
from ._positions import Points, Positions, check_counts, positions
from ._scatter import add_legend, explain, label, scatter
from ._show import finish

# A median of fewer cells says more about these cells than about the region.
_MIN_CELLS = 5
# Arrows shorter than this part of the figure's diagonal would be specks: these cells stay.
_MIN_LENGTH = 0.01


def transport(
    adata: AnnData,
    key: str = "hycnn_ot",
    *,
    target: str | None = None,
    basis: str | None = None,
    color: str | None = None,
    n_grid: int = 20,
    n_neighbors: int = 30,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
) -> Axes | Figure | None:
    """Draw the map as arrows: each from the median position of source cells in a square to that of where they go.

    Parameters
    ----------
    adata
        Cells with a fit of :func:`scot_hycnn.tl.hycnn_ot`.
    key
        Where it lies in ``uns``.
    target
        Label of the target condition; may be None if there is one.
    basis
        Embedding in ``obsm``, for instance ``'umap'``. Predicted cells are placed by their nearest neighbours, so
        arrows show the direction of a response and not its size. None draws the first two dimensions of the
        representation, in which arrows are exact.
    color
        Column of ``obs`` to colour source cells by, over target cells in grey: categories, with scanpy's palette if
        there is one, or numbers, such as ``'hycnn_ot_displacement'`` and ``'hycnn_ot_std'``. Cells without a finite
        value are grey. None colours the conditions.
    n_grid
        Squares along each axis. Squares with fewer than 5 source cells, or whose cells stay, get no arrow.
    n_neighbors
        Neighbours that place a predicted cell in an embedding.
    ax
        Draw here, with the legend inside.
    show
        Show the figure and return None; None follows ``scanpy.settings.autoshow``.
    return_fig
        Return the figure.

    Returns
    -------
    The axes if ``show`` is False, the figure if ``return_fig``.

    Raises
    ------
    ValueError
        If there is no such fit, target, embedding or column, several targets and none named, slots are gone,
        ``color`` has no finite value, or ``n_grid`` or ``n_neighbors`` is not a whole number of 1 or more.

    Examples
    --------
    >>> import scot_hycnn as sh
    >>> adata = sh.datasets.pbmc_planted(n_cells=400)
    >>> sh.tl.hycnn_ot(adata, "control", "IFN-beta", n_pcs=5, potential="gaussian")
    >>> ax = sh.pl.transport(adata, color="cell_type", show=False)
    """
    check_counts(n_grid=n_grid, n_neighbors=n_neighbors)
    results = read_results(adata, key, target)
    colors = None if color is None else cell_colors(adata, color)
    place = positions(adata, results, basis, n_neighbors)
    inside = ax is not None
    if ax is None:
        _, ax = plt.subplots(figsize=(4.4, 4), layout="constrained")
    _draw_cells(ax, place, results, colors)
    starts, ends = _arrows(place.x, place.predicted, n_grid)
    _draw_arrows(ax, starts, ends)
    label(ax, place.names)
    ax.set_title(f"{results.source} → {results.target}")
    if colors is None:
        add_legend(ax, {results.source: SOURCE, results.target: OBSERVED}, inside=inside)
    else:
        explain(ax, colors, others={results.target: BACKGROUND}, inside=inside)
    return cast("Axes | Figure | None", finish(ax, show=show, return_fig=return_fig))


def _draw_cells(ax: Axes, place: Positions, results: Results, colors: CellColors | None) -> None:
    n_total = len(place.x) + len(place.y)
    if colors is None:
        condition = np.repeat([SOURCE, OBSERVED], [len(place.x), len(place.y)])
        scatter(ax, np.concatenate([place.x, place.y]), condition, n_total=n_total, alpha=0.5)
        return
    # Target cells beneath, so that a reader sees whether the arrows lead to them.
    scatter(ax, place.y, BACKGROUND, n_total=n_total, alpha=1.0)
    scatter(ax, place.x, colors.each[results.source_rows], n_total=n_total, alpha=0.7)


def _draw_arrows(ax: Axes, starts: Points, ends: Points) -> None:
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


def _arrows(x: Points, predicted: Points, n_grid: int) -> tuple[Points, Points]:
    """Median start and end of the cells in each square, shape (arrows, 2) each: a few that jump draw no arrow."""
    low, high = x.min(axis=0), x.max(axis=0)
    width = np.where(high > low, high - low, 1) / n_grid
    squares = np.minimum((x - low) // width, n_grid - 1)
    _, square = np.unique(squares, axis=0, return_inverse=True)
    middle = pd.DataFrame(np.hstack([x, predicted])).groupby(square.ravel()).agg(["median", "size"])
    enough = middle[0, "size"] >= _MIN_CELLS
    starts, ends = (middle.loc[enough, [(i, "median"), (i + 1, "median")]].to_numpy() for i in (0, 2))
    diagonal = np.linalg.norm(np.ptp(np.concatenate([x, predicted]), axis=0))
    drawn = np.linalg.norm(ends - starts, axis=1) > _MIN_LENGTH * diagonal
    return starts[drawn], ends[drawn]
