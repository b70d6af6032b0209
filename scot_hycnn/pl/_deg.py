"""Change of the genes that change most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import matplotlib.pyplot as plt
import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from scot_hycnn._anndata import Features, check_counts, read_genes, read_results

from ._colors import OBSERVED, PREDICTED
from ._groups import Members, paired_members
from ._panels import MOST_GENES, check_number, check_one_panel
from ._show import finish
from ._text import PLAIN

Changes = NDArray[np.float64]


def deg(
    adata: AnnData,
    key: str = "hycnn_ot",
    target: str | None = None,
    *,
    groupby: str | None = None,
    names: Sequence[str] | None = None,
    n_genes: int = 20,
    layer: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
) -> Axes | list[Axes] | Figure | None:
    """Draw the observed and the predicted change of the genes that change most.

    The change is the difference of means, predicted or observed less source; of log-transformed expression it is a log
    fold change of (geometric) means, in the logarithm that the data are in.

    Parameters
    ----------
    adata
        Cells with a fit of :func:`scot_hycnn.tl.hycnn_ot` whose genes :func:`scot_hycnn.tl.decode` has predicted, or
        that was made on the genes or proteins themselves.
    key
        Where the fit lies in ``uns``.
    target
        Label of the target condition; may be None if there is one.
    groupby
        Column of ``obs`` with labels, such as cell types: two heat maps, observed and predicted, of the groups that
        have cells of both conditions. None draws two dots a gene.
    names
        Genes. None takes those with the largest Welch t statistic between observed and source cells, in either
        direction, as ``sc.tl.rank_genes_groups`` ranks them; of all cells, with and without ``groupby``.
    n_genes
        How many, if ``names`` is None.
    layer
        Key of ``layers`` with measured expression, as given to :func:`scot_hycnn.tl.decode`.
    ax
        Draw here; not with ``groupby``.
    show
        Show the figure and return None; None follows ``scanpy.settings.autoshow``.
    return_fig
        Return the figure.

    Returns
    -------
    The axes if ``show`` is False, the two of them if ``groupby`` is given; the figure if ``return_fig``.

    Raises
    ------
    TypeError
        If ``groupby`` is a list.
    ValueError
        If there is no such fit, target, column or gene, several targets and none named, slots or layers are gone,
        ``n_genes`` is not a whole number of 1 or more, no group has cells of both conditions, there are more than
        200 groups or 1,000 genes, or ``ax`` is given with ``groupby``.

    References
    ----------
    Welch (1947), Biometrika 34, 28-35.

    Examples
    --------
    >>> import scot_hycnn as sh
    >>> adata = sh.datasets.pbmc_planted(n_cells=400)
    >>> sh.tl.hycnn_ot(adata, "control", "IFN-beta", potential="gaussian")
    >>> sh.tl.decode(adata)
    >>> observed, predicted = sh.pl.deg(adata, groupby="cell_type", n_genes=5, show=False)
    >>> predicted.get_title()
    'predicted'
    """
    check_counts(n_genes=n_genes)
    check_one_panel(ax, 1 if groupby is None else 2, f"groupby={groupby!r}")
    results = read_results(adata, key, target)
    features = read_genes(adata, results, key, layer)
    groups = {} if groupby is None else paired_members(adata, groupby, results)
    which = _top(features, n_genes) if names is None else _named(features, names)
    check_number(len(which), f"n_genes={n_genes}" if names is None else "names", MOST_GENES)
    chosen = [features.names[i] for i in which]
    if groupby is None:
        if ax is None:
            _, ax = plt.subplots(figsize=(4.2, 1.2 + 0.2 * len(which)), layout="constrained")
        _draw_dots(ax, _changes(features, which), chosen)
        ax.set_title(f"{results.source} → {results.target}", fontsize="medium", **PLAIN)
        return cast("Axes | Figure | None", finish(ax, show=show, return_fig=return_fig))
    changes = np.stack([_changes(features.among(*pair), which) for pair in groups.values()])
    axes = _draw_heat_maps(changes, chosen, groups)
    for panel in axes:
        panel.set_ylabel(f"{groupby} ({results.source},\n{results.target} cells)", fontsize="small", **PLAIN)
    return cast("list[Axes] | Figure | None", finish(axes, show=show, return_fig=return_fig))


def _named(features: Features, names: Sequence[str]) -> list[int]:
    unknown = [name for name in names if name not in features.names]
    if unknown or not len(names):
        raise ValueError(f"names={list(names)}: {unknown} are not among the {len(features.names)} genes.")
    return [features.names.index(name) for name in names]


def _top(features: Features, n_genes: int) -> list[int]:
    (before, variance), (after, other) = features.source.moments(), features.observed.moments()
    error = np.sqrt(variance / len(features.source.rows) + other / len(features.observed.rows))
    t = (after - before) / np.maximum(error, 1e-12)  # genes that do not vary
    top = np.argsort(-np.abs(t), kind="stable")[:n_genes]
    change = (after - before)[top]
    return [int(gene) for gene in top[np.argsort(-change, kind="stable")]]


def _changes(features: Features, which: list[int]) -> Changes:
    """Observed and predicted change, shape (2, genes)."""
    source, predicted, observed = (
        values.columns(which).mean(axis=0) for values in (features.source, features.predicted, features.observed)
    )
    return np.stack([observed - source, predicted - source])


def _draw_dots(ax: Axes, changes: Changes, names: list[str]) -> None:
    places = np.arange(len(names))
    ax.axvline(0, color="black", linewidth=0.8)
    ax.hlines(places, changes.min(axis=0), changes.max(axis=0), color="0.7", linewidth=1.5, zorder=1)
    ax.plot(changes[0], places, "o", color=OBSERVED, label="observed", markersize=7)
    ax.plot(changes[1], places, "D", color=PREDICTED, label="predicted", markersize=4)
    ax.set_yticks(places, names, fontsize="small", **PLAIN)
    ax.set(ylim=(len(names) - 0.4, -0.6), xlabel="change of mean expression")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize="small", loc="lower right")  # changes fall from top to bottom


def _draw_heat_maps(changes: Changes, names: list[str], groups: dict[str, tuple[Members, Members]]) -> list[Axes]:
    n_groups = len(groups)
    figure, (above, below) = plt.subplots(
        2, 1, figsize=(3.2 + 0.24 * len(names), 1.6 + 0.5 * n_groups), layout="constrained", sharex=True
    )
    # A few extreme changes of small groups would fade all others.
    limit = float(np.percentile(np.abs(changes), 99)) or 1.0
    for ax, kind, part in ((above, "observed", changes[:, 0]), (below, "predicted", changes[:, 1])):
        picture = ax.imshow(part, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
        ax.set_title(kind, fontsize="medium")
        rows = [f"{label} ({len(source)}, {len(target)})" for label, (source, target) in groups.items()]
        ax.set_yticks(range(n_groups), rows, fontsize="small", **PLAIN)
        ax.tick_params(length=0)
    below.set_xticks(range(len(names)), names, rotation=90, fontsize="small", **PLAIN)
    figure.colorbar(picture, ax=[above, below], label="change of mean expression", shrink=0.6, extend="both")
    return [above, below]
