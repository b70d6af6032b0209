"""Source, predicted and observed cells in a plane."""

from __future__ import annotations

from typing import cast

import matplotlib.pyplot as plt
import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scot_hycnn._anndata import Results, check_counts, read_results

from ._colors import BACKGROUND, OBSERVED, PREDICTED, SOURCE, CellColors, cell_colors
from ._positions import Positions, positions
from ._scatter import add_legend, explain, label, scatter
from ._show import finish
from ._text import PLAIN


def embedding(
    adata: AnnData,
    key: str = "hycnn_ot",
    *,
    target: str | None = None,
    basis: str | None = None,
    color: str | None = None,
    n_neighbors: int | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
) -> Axes | list[Axes] | Figure | None:
    """Draw source, predicted and observed cells: predicted ones should lie where observed ones do.

    Parameters
    ----------
    adata
        Cells with a fit of :func:`scot_hycnn.tl.hycnn_ot`.
    key
        Where it lies in ``uns``.
    target
        Label of the target condition; may be None if there is one.
    basis
        Embedding in ``obsm``, for instance ``'umap'``, in which predicted cells are placed as by
        :func:`scot_hycnn.tl.project`. None draws the first two dimensions of the representation.
    color
        Column of ``obs`` to colour cells by: categories, with scanpy's palette if there is one, or numbers, such as
        ``'hycnn_ot_displacement'``; predicted cells have the colour of their source cell, and cells without a finite
        value are grey. None colours the three kinds of cells.
    n_neighbors
        Measured cells that place a predicted one in an embedding; None takes the positions that
        :func:`scot_hycnn.tl.project` has stored, or its default.
    ax
        Draw all cells over each other here; None draws three panels side by side, with the other cells in grey.
    show
        Show the figure and return None; None follows ``scanpy.settings.autoshow``.
    return_fig
        Return the figure.

    Returns
    -------
    The list of axes if ``show`` is False (the axes if ``ax`` is given), the figure if ``return_fig``.

    Raises
    ------
    TypeError
        If ``color`` is a list.
    ValueError
        If there is no such fit, target, embedding or column, several targets and none named, slots are gone,
        ``color`` has no finite value, more than 200 labels, or is to colour cells that lie over each other, or
        ``n_neighbors`` is not a whole number of 1 or more.

    Warns
    -----
    UserWarning
        If the colours of the categories in ``uns`` cannot be used, or a stored projection is of another fit.

    Examples
    --------
    >>> import scot_hycnn as sh
    >>> adata = sh.datasets.pbmc_planted(n_cells=400)
    >>> sh.tl.hycnn_ot(adata, "control", "IFN-beta", n_pcs=5, potential="gaussian")
    >>> [ax.get_title() for ax in sh.pl.embedding(adata, show=False)]
    ['control (source)', 'control → IFN-beta (predicted)', 'IFN-beta (observed)']
    """
    if ax is not None and color is not None:
        raise ValueError("color and ax do not go together: over each other, only the kinds of cells can be told apart.")
    if n_neighbors is not None:
        check_counts(n_neighbors=n_neighbors)
    results = read_results(adata, key, target)
    colors = None if color is None else cell_colors(adata, color)
    place = positions(adata, results, key, basis=basis, n_neighbors=n_neighbors)
    if ax is not None:
        _overlay(ax, place, results)
        return cast("Axes | Figure | None", finish(ax, show=show, return_fig=return_fig))
    _, panels = plt.subplots(1, 3, figsize=(10, 3.4), sharex=True, sharey=True, layout="constrained")
    axes = list(panels)
    _side_by_side(axes, place, results, colors)
    return cast("list[Axes] | Figure | None", finish(axes, show=show, return_fig=return_fig))


def _kinds(results: Results) -> tuple[str, str, str]:
    return (
        f"{results.source} (source)",
        f"{results.source} → {results.target} (predicted)",
        f"{results.target} (observed)",
    )


def _overlay(ax: Axes, place: Positions, results: Results) -> None:
    everyone = (place.x, place.predicted, place.y)
    palette = (SOURCE, PREDICTED, OBSERVED)
    colors = np.repeat(palette, [len(points) for points in everyone])
    scatter(ax, np.concatenate(everyone), colors, n_total=len(colors), alpha=0.5)
    label(ax, place.names)
    add_legend(ax, dict(zip(_kinds(results), palette, strict=True)), inside=True)


def _side_by_side(axes: list[Axes], place: Positions, results: Results, colors: CellColors | None) -> None:
    everyone = np.concatenate([place.x, place.predicted, place.y])
    panels = (
        (place.x, results.source_rows, SOURCE),
        (place.predicted, results.source_rows, PREDICTED),
        (place.y, results.target_rows, OBSERVED),
    )
    for ax, title, (points, rows, own) in zip(axes, _kinds(results), panels, strict=True):
        scatter(ax, everyone, BACKGROUND, n_total=len(everyone), alpha=0.5)
        scatter(ax, points, own if colors is None else colors.each[rows], n_total=len(everyone))
        label(ax, place.names)
        ax.label_outer()
        ax.set_title(title, fontsize="medium", **PLAIN)
    if colors is not None:
        explain(axes[-1], colors, inside=False)
