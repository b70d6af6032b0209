"""Growth of source cells: how their share of all cells changes."""

from __future__ import annotations

from typing import Any

import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from scot_hycnn._anndata._embedding import embedding_axes, find_embedding
from scot_hycnn._anndata._results import read_fit
from scot_hycnn._anndata.evaluation._growth import growth_by_group, growth_of_cells

from ._figure import axes_or_new, entitle, figure_of, name_rows, show_or_return, widen
from ._labels import BACKGROUND, groups_to_draw
from ._plane import label, scatter, size_of

# Colours of the embedding end where a population is a quarter, or four times, of what it was.
_MAX_LOG2 = 2.0

# Readers take the others for growing where one population dies.
_WHAT = "growth (1: the same share of all cells)\nwhere one share falls, the others rise\nlines: 95 % intervals"


def growth(
    adata: AnnData,
    key: str = "hycnn_ot",
    target: str | None = None,
    *,
    groupby: str | None = None,
    basis: str | None = None,
    title: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
) -> Axes | Figure | None:
    """Draw the growth of each group of source cells, or of each source cell on an embedding.

    The growth is 1 where the share of all cells stays as it was, below 1 where cells die or lack in the target sample,
    and above 1 where they divide, times the option ``growth`` of the fit. Cell death and sampling in other proportions
    cannot be told apart. Lines are 95 % intervals by the sampling of cells, of a ratio of two shares.

    Parameters
    ----------
    adata
        Cells with a fit of :func:`scot_hycnn.tl.hycnn_ot` with ``unbalanced``.
    key
        Key of the fit in ``uns``.
    target
        Label of the target condition; may be left out if there is only one.
    groupby
        Column of ``obs`` with labels, such as cell types; None takes the ``group_key`` of the fit.
    basis
        Embedding in ``obsm``, such as ``'umap'``, on which each source cell is drawn; None draws groups.
    title, ax, show, return_fig
        First line of the title; None names the conditions. Axes to draw into, and what to show or return, as in scanpy.

    Returns
    -------
    The axes if ``show`` is False, the figure if ``return_fig``.

    Raises
    ------
    ValueError
        If a fit, target, column or embedding does not exist, the fit has no growth, or nothing names groups.

    Examples
    --------
    >>> import scot_hycnn as sh
    >>> adata = sh.datasets.pbmc_planted(n_cells=400)
    >>> sh.tl.hycnn_ot(adata, "control", "IFN-beta", n_pcs=5, potential="gaussian", unbalanced=0.3)
    >>> ax = sh.pl.growth(adata, groupby="cell_type", show=False)
    """
    fit = read_fit(adata, key)
    slug = fit.slug(target)
    of_cells = growth_of_cells(adata, fit, slug)
    cells = np.flatnonzero(np.isfinite(of_cells))
    lines = title or f"{fit.source} → {fit.targets[slug]}", f"{len(cells):,} {fit.source} cells"
    if basis is not None:
        embedding = find_embedding(adata, basis)
        points = np.asarray(adata.obsm[embedding.name])[:, :2]
        ax = axes_or_new(ax, 4.6, 3.6)
        scatter(ax, points, BACKGROUND, n_total=len(points), alpha=1.0)
        # Cells with extreme growth are drawn last, so that no others hide them.
        log2 = np.log2(np.maximum(of_cells[cells], 1e-6))
        order = np.argsort(np.abs(log2))
        x, y = points[cells[order]].T
        colors: dict[str, Any] = {"c": log2[order], "cmap": "PuOr", "norm": TwoSlopeNorm(0, -_MAX_LOG2, _MAX_LOG2)}
        drawn = ax.scatter(x, y, s=size_of(len(points)), linewidths=0, rasterized=True, **colors)
        bar = figure_of(ax).colorbar(drawn, ax=ax, extend="both", ticks=range(-2, 3))
        bar.ax.set_yticklabels(["¼", "½", "1", "2", "4"])
        bar.set_label("growth")
        label(ax, embedding_axes(embedding))
        entitle(ax, *lines)
        return show_or_return(ax, show=show, return_fig=return_fig)
    groupby, _, palette = groups_to_draw(adata, fit, groupby, cells)
    table = growth_by_group(adata, fit, slug, groupby)
    names = [f"{row.group} (n = {row.n})" for row in table]
    is_ours, ax = ax is None, axes_or_new(ax, 3.6, 0.9 + 0.3 * len(table))
    for y, row in enumerate(table):
        ax.hlines(y, row.low, row.high, color="black", linewidth=1, zorder=2)
        ax.plot(row.growth, y, "o", color=palette[row.group], markeredgecolor="black", markersize=6, zorder=3)
    ax.axvline(1, color="black", linestyle="--", linewidth=1, zorder=1)
    ax.set_xscale("log")
    # An axis without a number on each side of 1 could not be read.
    low, high = ax.get_xlim()
    ax.set_xlim(min(low, 0.48), max(high, 2.1))
    ax.xaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    name_rows(ax, names)
    ax.set(ylim=(-0.6, len(table) - 0.4), xlabel=_WHAT)
    entitle(ax, *lines)
    if is_ours:
        widen(ax, max(text.get_window_extent().width for text in ax.get_yticklabels()))
    return show_or_return(ax, show=show, return_fig=return_fig)
