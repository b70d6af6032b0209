"""Source, predicted and observed cells in a plane."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from scot_hycnn._anndata._fit_input import check_counts
from scot_hycnn._anndata.genes._genes import read_evaluated

from ._colors import cell_colors, explain
from ._figure import PLAIN, entitle_cells, show_or_return
from ._labels import BACKGROUND, OBSERVED, PREDICTED, SOURCE
from ._plane import add_legend, label, positions, scatter


def embedding(
    adata: AnnData,
    key: str = "hycnn_ot",
    *,
    target: str | None = None,
    basis: str | None = None,
    color: str | None = None,
    n_neighbors: int | None = None,
    title: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
) -> Axes | list[Axes] | Figure | None:
    """Draw source, predicted and observed cells: predicted ones should lie where observed ones do.

    These are held-out cells if the fit was made with a split.

    Parameters
    ----------
    adata
        Cells with a fit of :func:`scot_hycnn.tl.hycnn_ot`.
    key
        Key of the fit in ``uns``.
    target
        Label of the target condition; may be left out if there is only one.
    basis
        Embedding in ``obsm`` with predicted cells, or None, as for :func:`transport`.
    n_neighbors
        Measured cells that place a predicted one in an embedding, or None, as for :func:`transport`.
    color
        Gene, or column of ``obs``, to colour cells by, as for :func:`transport`; None colours the three kinds of cells.
        Predicted cells have their predicted expression, or the colour of their source cell.
    title, ax, show, return_fig
        First line of the title; None names the conditions. Into ``ax`` all cells are drawn over each other, and None
        draws three panels side by side, with other cells in grey; the others are as in scanpy.

    Returns
    -------
    The list of axes if ``show`` is False (the axes if ``ax`` is given), the figure if ``return_fig``.

    Raises
    ------
    ValueError
        As for :func:`transport`, or if ``color`` is combined with ``ax``.

    Examples
    --------
    >>> import scot_hycnn as sh
    >>> adata = sh.datasets.pbmc_planted(n_cells=400)
    >>> sh.tl.hycnn_ot(adata, "control", "IFN-beta", n_pcs=5, potential="gaussian")
    >>> source, predicted, observed = sh.pl.embedding(adata, show=False)
    """
    if ax is not None and color is not None:
        raise ValueError(
            "color and ax cannot be combined: cells that lie over each other are coloured by their kind; leave one out."
        )
    if n_neighbors is not None:
        check_counts(n_neighbors=n_neighbors)
    results, called = read_evaluated(adata, key, target)
    rows = results.measured_rows
    colors = None if color is None else cell_colors(adata, color, key, results, rows, with_predicted=True)
    place = positions(adata, results, key, basis=basis, n_neighbors=n_neighbors)
    placed = place.predicted[place.placed]
    everyone = np.concatenate([place.x, placed, place.y])
    note = place.note("predicted cells lie among the measured cells that are most like them")
    kinds = {
        f"{results.source} (source)": (place.x, results.source_rows, SOURCE),
        f"{results.source} → {results.target} (predicted)": (placed, results.source_rows[place.placed], PREDICTED),
        f"{results.target} (observed)": (place.y, results.target_rows, OBSERVED),
    }
    if ax is not None:
        # All kinds in one call, in random order: no kind hides another one.
        palette = np.repeat([kind for *_, kind in kinds.values()], [len(points) for points, *_ in kinds.values()])
        scatter(ax, everyone, palette, n_total=len(everyone), alpha=0.5)
        label(ax, place.names)
        entitle_cells(ax, title, results, called, note)
        add_legend(ax, {name: kind for name, (*_, kind) in kinds.items()}, inside=True)
        return show_or_return(ax, show=show, return_fig=return_fig)
    # Side by side, each panel shows one kind of cells over all others in grey, so that their places can be compared.
    figure, panels = plt.subplots(1, 3, figsize=(10, 3.8), sharex=True, sharey=True, layout="constrained")
    axes: list[Axes] = list(panels)
    for panel, (name, (points, rows, kind)) in zip(axes, kinds.items(), strict=True):
        scatter(panel, everyone, BACKGROUND, n_total=len(everyone), alpha=0.5)
        shades: str | NDArray[np.floating[Any]] = kind
        if colors is not None:
            shades = (colors.predicted if kind == PREDICTED else colors.rgba)[rows]
        scatter(panel, points, shades, n_total=len(everyone))
        label(panel, place.names)
        panel.label_outer()
        panel.set_title(name, fontsize="medium", **PLAIN)
    entitle_cells(figure, title, results, called, note, "grey: cells of the other two panels")
    if colors is not None:
        explain(axes[-1], colors, inside=False)
    return show_or_return(axes, show=show, return_fig=return_fig)
