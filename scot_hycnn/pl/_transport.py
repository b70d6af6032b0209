"""Arrows from source cells to where the map moves them."""

from __future__ import annotations

from typing import Any

import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scot_hycnn._anndata._conditions import read_groups
from scot_hycnn._anndata._fit_input import check_counts
from scot_hycnn._anndata._results import group_column, read_fit
from scot_hycnn._anndata.evaluation._screen_input import responses_of
from scot_hycnn._anndata.genes._genes import read_evaluated

from ._colors import cell_colors, explain
from ._figure import axes_or_new, entitle_cells, show_or_return
from ._labels import BACKGROUND, OBSERVED, SOURCE
from ._plane import add_legend, arrows_of, label, mean_field, positions, scatter

_STYLES = ("arrows", "streams")
# Squares along each axis: a field of more arrows is hard to read, and lines need more squares to be smooth.
_OF_ARROWS, _OF_STREAMS = 10, 20


def transport(
    adata: AnnData,
    key: str = "hycnn_ot",
    *,
    target: str | None = None,
    basis: str | None = None,
    color: str | None = None,
    style: str = "arrows",
    n_grid: int | None = None,
    n_neighbors: int | None = None,
    title: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
) -> Axes | Figure | None:
    """Draw where the map moves cells, as arrows or streams; held-out cells if the fit was made with a split.

    Parameters
    ----------
    adata
        Cells with a fit of :func:`scot_hycnn.tl.hycnn_ot`.
    key
        Key of the fit in ``uns``.
    target
        Label of the target condition; may be left out if there is only one.
    basis
        Embedding in ``obsm``, for instance ``'umap'``, in which predicted cells are placed as by
        :func:`scot_hycnn.tl.project`: arrows show the direction of a response and not its size, and cells that would
        lie between islands are left out, as the title says. None draws the two dimensions of the representation that
        the map changes most, in which arrows are exact.
    color
        Gene, of ``adata`` or ``adata.raw``, or column of ``obs``, to colour source cells by, over target cells in grey:
        categories, with scanpy's palette if it can be used (else a warning says why), or numbers, whose colours end at
        their 99th percentile. Cells without a finite value are grey. None takes the ``group_key`` of the fit, else the
        conditions.
    style
        ``'arrows'``: one for each category of ``color``, or of ``group_key``, else for each square of a grid, if a
        quarter of its cells move: the way of the cell with start and end nearest to the medians of those that move, or
        of the next one that does not lie over another arrow.
        Categories in which a permutation test sees no response, as for :func:`displacement`, have none.
        ``'streams'`` run along the smoothed mean displacement of the cells that pass, thicker where cells move farther.
    n_grid
        Squares along each axis; None takes 20 for streams, and 10 for arrows without categories. Squares with fewer
        than 5 cells, and categories with fewer than 10, get no arrow or line.
    n_neighbors
        Measured cells that place a predicted one in an embedding; None takes the positions that
        :func:`scot_hycnn.tl.project` has stored (a warning says if they are of another fit), or its default.
    title, ax, show, return_fig
        First line of the title; None names the conditions. Axes to draw into, and what to show or return, as in scanpy.

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
    for name, value in {"n_grid": n_grid, "n_neighbors": n_neighbors}.items():
        if value is not None:
            check_counts(**{name: value})
    results, called = read_evaluated(adata, key, target)
    color = group_column(adata, read_fit(adata, key), color)
    colors = None if color is None else cell_colors(adata, color, key, results, results.source_rows)
    place = positions(adata, results, key, basis=basis, n_neighbors=n_neighbors)
    groups, palette, note = None, list[str](), ""
    if colors is not None and n_grid is None:
        column = color if colors.scale is None else group_column(adata, read_fit(adata, key), None)
        if column is not None:
            labels = read_groups(adata.obs, column, "color")
            groups = labels.codes[results.source_rows]
            # A map moves cells a little also where nothing responds.
            responds = responses_of(adata, key, results.target, column)
            quiet = [code for code, name in enumerate(labels.names) if not responds.get(name, True)]
            groups = np.where(np.isin(groups, quiet), -1, groups)
            note = "no arrow where no response is seen" if quiet and style == "arrows" else ""
            # Cells that are coloured by their groups give arrows the same colours.
            palette = [colors.legend.get(name, BACKGROUND) for name in labels.names] if colors.legend else []
    inside = ax is not None
    ax = axes_or_new(ax, 4.4, 4)
    n_total = len(place.x) + len(place.y)
    if colors is None:
        condition = np.repeat([SOURCE, OBSERVED], [len(place.x), len(place.y)])
        scatter(ax, np.concatenate([place.x, place.y]), condition, n_total=n_total, alpha=0.5)
    else:
        # Target cells lie beneath, so that a reader sees whether the arrows lead to them.
        scatter(ax, place.y, BACKGROUND, n_total=n_total, alpha=1.0)
        scatter(ax, place.x, colors.rgba[results.source_rows], n_total=n_total)
    if style == "arrows":
        # From cells of each group, else of each square, to where they move.
        starts, ends, parts = arrows_of(place, groups, n_grid or _OF_ARROWS)
        look: dict[str, Any] = {"color": "black", "edgecolor": "white", "linewidth": 0.5}
        if palette:  # groups that lie over each other are told apart by colour
            look = {"color": [palette[part] for part in parts], "edgecolor": "black", "linewidth": 0.8}
        look |= {"width": 0.005 if groups is None else 0.007, "zorder": 3}
        ax.quiver(*starts.T, *(ends - starts).T, angles="xy", scale_units="xy", scale=1, **look)
        ax.update_datalim(ends)
        ax.autoscale_view()
    elif place.placed.any():
        # Along the mean displacement of the cells that pass, thicker where they move farther.
        centres, field = mean_field(place.x[place.placed], place.predicted[place.placed], n_grid or _OF_STREAMS)
        length = np.linalg.norm(field.filled(0), axis=0)
        if length.any():
            look = {"color": "black", "density": 1.2, "arrowsize": 1.1, "zorder": 3}
            look |= {"linewidth": 0.6 + 1.4 * length / length.max()}
            ax.streamplot(*centres, *field, **look)
    label(ax, place.names)
    entitle_cells(ax, title, results, called, place.note("arrows: direction, not size"), note)
    if colors is None:
        add_legend(ax, {results.source: SOURCE, results.target: OBSERVED}, inside=inside)
    else:
        explain(ax, colors, others={results.target: BACKGROUND}, inside=inside)
    return show_or_return(ax, show=show, return_fig=return_fig)
