"""Arrows from source cells to where the map moves them."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scot_hycnn._anndata._fit_input import check_counts
from scot_hycnn._anndata._results import read_results

from ._figure import PLAIN, show_or_return
from ._labels import BACKGROUND, OBSERVED, SOURCE, cell_colors
from ._plane import add_legend, draw_arrows, draw_streams, explain, label, positions, scatter

_STYLES = {"arrows": draw_arrows, "streams": draw_streams}


def transport(
    adata: AnnData,
    key: str = "hycnn_ot",
    *,
    target: str | None = None,
    basis: str | None = None,
    color: str | None = None,
    style: str = "arrows",
    n_grid: int = 20,
    n_neighbors: int | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
) -> Axes | Figure | None:
    """Draw where the map moves cells, as arrows or streams.

    Parameters
    ----------
    adata
        Cells with a fit of :func:`scot_hycnn.tl.hycnn_ot`.
    key
        Key of the fit in ``uns``.
    target
        Label of the target condition; may be left out if there is only one.
    basis
        Embedding in ``obsm``, for instance ``'umap'``. Predicted cells are placed as by
        :func:`scot_hycnn.tl.project`, so arrows show the direction of a response and not its size. None draws the
        first two dimensions of the representation, in which arrows are exact.
    color
        Column of ``obs`` to colour source cells by, over target cells in grey: categories, with scanpy's palette if it
        can be used (else a warning says why), or numbers, such as ``'hycnn_ot_std'``. Cells without a finite value are
        grey. None colours the conditions.
    style
        ``'arrows'`` lead from the median position of the source cells in a square to the median of where they move;
        ``'streams'`` run along the smoothed mean displacement of the cells that pass, thicker where cells move farther.
    n_grid
        Squares along each axis. Squares with fewer than 5 cells, or with cells that stay, get no arrow or line.
    n_neighbors
        Measured cells that place a predicted one in an embedding; None takes the positions that
        :func:`scot_hycnn.tl.project` has stored (a warning says if they are of another fit), or its default.
    ax, show, return_fig
        As in scanpy: axes to draw into; show the figure and return None, or return the figure.

    Returns
    -------
    The axes if ``show`` is False, the figure if ``return_fig``.

    Raises
    ------
    ValueError
        If a fit, target, embedding, column, style or slot does not exist or is not unique, or if ``color`` has no
        finite value or more than 200 labels.

    Examples
    --------
    >>> import scot_hycnn as sh
    >>> adata = sh.datasets.pbmc_planted(n_cells=400)
    >>> sh.tl.hycnn_ot(adata, "control", "IFN-beta", n_pcs=5, potential="gaussian")
    >>> ax = sh.pl.transport(adata, color="cell_type", show=False)
    """
    if style not in _STYLES:
        raise ValueError(f"style={style!r} is unknown; choose one of {list(_STYLES)}.")
    check_counts(n_grid=n_grid, **({} if n_neighbors is None else {"n_neighbors": n_neighbors}))
    results = read_results(adata, key, target)
    colors = None if color is None else cell_colors(adata, color)
    place = positions(adata, results, key, basis=basis, n_neighbors=n_neighbors)
    inside = ax is not None
    if ax is None:
        _, ax = plt.subplots(figsize=(4.4, 4), layout="constrained")
    n_total = len(place.x) + len(place.y)
    if colors is None:
        condition = np.repeat([SOURCE, OBSERVED], [len(place.x), len(place.y)])
        scatter(ax, np.concatenate([place.x, place.y]), condition, n_total=n_total, alpha=0.5)
    else:
        # Target cells lie beneath, so that a reader sees whether the arrows lead to them.
        scatter(ax, place.y, BACKGROUND, n_total=n_total, alpha=1.0)
        scatter(ax, place.x, colors.rgba[results.source_rows], n_total=n_total)
    _STYLES[style](ax, place.x, place.predicted, n_grid)
    label(ax, place.names)
    ax.set_title(f"{results.source} → {results.target}", **PLAIN)
    if colors is None:
        add_legend(ax, {results.source: SOURCE, results.target: OBSERVED}, inside=inside)
    else:
        explain(ax, colors, others={results.target: BACKGROUND}, inside=inside)
    return show_or_return(ax, show=show, return_fig=return_fig)
