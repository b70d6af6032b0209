"""The genes that change most: observed and predicted change."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from scot_hycnn._anndata._fit_input import check_counts
from scot_hycnn._anndata._results import group_column, read_fit
from scot_hycnn._anndata.evaluation._screen_input import responses_of
from scot_hycnn._anndata.genes._genes import (
    MIN_FRACTION,
    advice_on_genes,
    deg_table,
    read_evaluated,
    read_genes,
    unit_of,
)
from scot_hycnn._warn import SIGNIFICANT

from ._figure import (
    MAX_GENES,
    PLAIN,
    axes_or_new,
    check_number,
    check_one_panel,
    entitle_cells,
    name_rows,
    show_or_return,
)
from ._labels import OBSERVED, PREDICTED, QUIET_GREY, paired_members

_LEVEL = f"(adjusted p \N{LESS-THAN OR EQUAL TO} {SIGNIFICANT})"


def deg(
    adata: AnnData,
    key: str = "hycnn_ot",
    target: str | None = None,
    *,
    groupby: str | None = None,
    names: Sequence[str] | None = None,
    n_genes: int = 20,
    layer: str | None = None,
    title: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
) -> Axes | list[Axes] | Figure | None:
    """Draw the observed and the predicted change of the genes that change most.

    The change is the difference of means, predicted or observed less source: a log fold change of log-transformed data.
    It is that of the table of :func:`scot_hycnn.get.deg`, of held-out cells if the fit was made with a split. Dots in
    the heat maps are significant changes, by the p values of that table; groups that respond come first.

    Parameters
    ----------
    adata
        Cells with a fit of :func:`scot_hycnn.tl.hycnn_ot`.
    key
        Key of the fit in ``uns``.
    target
        Label of the target condition; may be left out if there is only one.
    groupby
        Column of ``obs`` with labels, such as cell types: two heat maps, observed and predicted, of the groups that
        have ten cells of both conditions. None takes the ``group_key`` of the fit; without one, or with ``ax``, two
        dots for each gene are drawn, of all cells.
    names
        Genes. None takes the ``n_genes`` with the largest absolute observed score (Welch's t), of those that a tenth of
        the cells express.
    n_genes
        How many genes are drawn if ``names`` is None.
    layer
        Key of ``layers`` with measured expression, as given to :func:`scot_hycnn.tl.decode`, which also predicts the
        genes.
    title, ax, show, return_fig
        First line of the title; None names the conditions. Axes to draw into (not with ``groupby``), and what to show
        or return, as in scanpy.

    Returns
    -------
    The axes if ``show`` is False, the two of them if there are groups; the figure if ``return_fig``.

    Raises
    ------
    ValueError
        If a fit, target, column, gene or slot does not exist or is not unique, if no group has cells of both
        conditions, or if there are more than 200 groups or 1,000 genes.

    Examples
    --------
    >>> import scot_hycnn as sh
    >>> adata = sh.datasets.pbmc_planted(n_cells=400)
    >>> sh.tl.hycnn_ot(adata, "control", "IFN-beta", potential="gaussian")
    >>> observed, predicted = sh.pl.deg(adata, groupby="cell_type", n_genes=5, show=False)
    """
    check_counts(n_genes=n_genes)
    check_one_panel(ax, 1 if groupby is None else 2, f"groupby={groupby!r}")
    groupby = group_column(adata, read_fit(adata, key), groupby) if ax is None else groupby
    results, called = read_evaluated(adata, key, target, groupby)
    features = read_genes(adata, results, key, layer)
    table = deg_table(adata, key, results, features)
    if names is None:
        # The largest scores of either sign are chosen, and sorted by falling change.
        expressed = table[table["fraction"] >= MIN_FRACTION]
        top = (table if expressed.empty else expressed).head(n_genes)
        names = top.sort_values("observed_change", ascending=False, kind="stable")["gene"].tolist()
    unknown = [name for name in names if name not in features.names]
    if unknown or not len(names):
        advice = advice_on_genes(adata, unknown)
        raise ValueError(f"names={list(names)}: {unknown} are not among the {len(features.names)} genes.{advice}")
    check_number(len(names), "names or n_genes", MAX_GENES)
    genes = list(names)
    what = f"change of mean {unit_of(adata, results, layer)}"
    if groupby is None:
        shown = table.drop_duplicates("gene").set_index("gene").loc[genes]
        changes, seen = _changes(shown)
        ax = axes_or_new(ax, 4.2, 1.2 + 0.2 * len(genes))
        _draw_dots(ax, genes, changes, seen)
        ax.set_xlabel(what)
        entitle_cells(ax, title, results, called, "" if seen.all() else f"white inside: not significant {_LEVEL}")
        # The corner is free, since changes become smaller from top to bottom.
        ax.legend(frameon=False, fontsize="small", loc="lower right")
        return show_or_return(ax, show=show, return_fig=return_fig)
    groups, quiet, notes = paired_members(adata, groupby, results, responses_of(adata, key, results.target, groupby))
    by_group = deg_table(adata, key, results, features, groupby=groupby).drop_duplicates(["group", "gene"])
    rows = pd.MultiIndex.from_product([groups, genes])
    changes, seen = _changes(by_group.set_index(["group", "gene"]).loc[rows])
    shape = 2, len(groups), len(genes)
    both, seen = changes.reshape(shape), seen.reshape(shape)
    # Beyond the 99th percentile colours saturate: a few extreme changes of small groups would make all others pale.
    limit = float(np.percentile(np.abs(both), 99)) or 1.0
    size = (3.2 + 0.24 * len(genes), 1.6 + 0.5 * len(groups))
    figure, panels = plt.subplots(2, 1, figsize=size, layout="constrained", sharex=True)
    axes: list[Axes] = list(panels)
    for i, (panel, kind) in enumerate(zip(axes, ("observed", "predicted"), strict=True)):
        image = panel.imshow(both[i], "RdBu_r", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
        panel.set_title(kind, fontsize="medium")
        row, column = np.nonzero(seen[i])
        shades = np.where(np.abs(both[i][row, column]) > limit / 2, "white", "black")
        panel.scatter(column, row, s=5, color=shades, linewidths=0)
        name_rows(
            panel,
            [f"{label} ({len(source)}, {len(target)})" for label, (source, target) in groups.items()],
            fontsize="small",
        )
        for name, label in zip(panel.get_yticklabels(), groups, strict=True):
            name.set_color(QUIET_GREY if label in quiet else "black")
        panel.tick_params(length=0)
        panel.spines[:].set_visible(True)
    axes[1].set_xticks(range(len(genes)), genes, rotation=90, fontsize="small", **PLAIN)
    figure.supylabel(f"{groupby} (cells of {results.source}, {results.target})", fontsize="small", **PLAIN)
    entitle_cells(figure, title, results, called, f"dots: significant {_LEVEL}", *notes)
    figure.colorbar(image, ax=axes, label=what, shrink=0.6, extend="both")
    return show_or_return(axes, show=show, return_fig=return_fig)


def _changes(table: pd.DataFrame) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return observed and predicted changes of rows of the table, and which are significant, both (2, rows)."""
    changes, p_values = (
        table[[f"{kind}_{name}" for kind in ("observed", "predicted")]].to_numpy(dtype=float).T
        for name in ("change", "pval_adj")
    )
    return changes, p_values <= SIGNIFICANT


def _draw_dots(ax: Axes, genes: list[str], changes: NDArray[np.float64], seen: NDArray[np.bool_]) -> None:
    """Draw observed and predicted changes of genes, both (2, genes), from top to bottom; white inside if not seen."""
    y = np.arange(len(genes))
    ax.axvline(0, color="black", linewidth=0.8)
    ax.hlines(y, changes.min(axis=0), changes.max(axis=0), color="0.7", linewidth=1.5, zorder=1)
    ax.plot(changes[0], y, "o", color=OBSERVED, label="observed", markersize=7)
    ax.plot(changes[1], y, "D", color=PREDICTED, label="predicted", markersize=4)
    for change, is_seen, marker, size in zip(changes, seen, "oD", (4, 2), strict=True):
        ax.plot(change[~is_seen], y[~is_seen], marker, color="white", markersize=size)
    name_rows(ax, genes, fontsize="small")
    ax.set_ylim(len(genes) - 0.4, -0.6)
