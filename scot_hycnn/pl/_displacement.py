"""How far the cells of each group move."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scot_hycnn._anndata._conditions import listed, read_groups
from scot_hycnn._anndata._results import group_column, read_fit, read_results
from scot_hycnn._anndata.genes._genes import read_evaluated

from ._chance import level_of_chance
from ._figure import PLAIN, changed, entitle, show_or_return, which_cells, widen
from ._labels import large_groups, members_by_group, palette_of


def displacement(
    adata: AnnData,
    key: str = "hycnn_ot",
    target: str | None = None,
    *,
    groupby: str | None = None,
    title: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
) -> Axes | Figure | None:
    """Draw how far the map moves the cells of each group, the group that moves farthest on top.

    Boxes span the quartiles around the median, whiskers the 5th to 95th percentile; points are cells, held-out ones if
    the fit was made with a split. Dashed lines show how far cells of the group would move by chance: the median
    displacement by the Gaussian map from one half of the source cells to the other, averaged over 5 random halves.

    Parameters
    ----------
    adata
        Cells with a fit of :func:`scot_hycnn.tl.hycnn_ot`.
    key
        Key of the fit in ``uns``.
    target
        Label of the target condition; may be left out if there is only one.
    groupby
        Column of ``obs`` with labels, such as cell types, of which those with ten cells are drawn; None takes the
        ``group_key`` of the fit. scanpy's palette is used if there is one, and a warning says why if it cannot be used.
    title
        First line of the title; None names the conditions.
    ax, show, return_fig
        As in scanpy: axes to draw into; show the figure and return None, or return the figure.

    Returns
    -------
    The axes if ``show`` is False, the figure if ``return_fig``.

    Raises
    ------
    ValueError
        If a fit, target, column or slot does not exist or is not unique, if neither a column nor ``group_key`` names
        groups, or if the column holds numbers, more than 200 labels, or no label of these cells.

    Examples
    --------
    >>> import scot_hycnn as sh
    >>> adata = sh.datasets.pbmc_planted(n_cells=400)
    >>> sh.tl.hycnn_ot(adata, "control", "IFN-beta", n_pcs=5, potential="gaussian")
    >>> ax = sh.pl.displacement(adata, groupby="cell_type", show=False)
    """
    results, called = read_evaluated(adata, key, target)
    groupby = group_column(adata, read_fit(adata, key), groupby)
    if groupby is None:
        raise ValueError(
            f"groupby=None takes the group_key of the fit, and {key!r} was fitted without one: pass groupby= a column "
            f"of adata.obs, which has {listed(adata.obs.columns)}."
        )
    members, note = large_groups(members_by_group(adata, groupby, results.source_rows))
    labels = read_groups(adata.obs, groupby)
    palette = dict(zip(labels.names, palette_of(adata, groupby, labels), strict=True))
    lengths = np.linalg.norm(results.predicted - results.x, axis=1)
    by_chance = level_of_chance(read_results(adata, key, target).x, results.x)
    # The y axis points upwards, so the last group is on top.
    groups = sorted(members, key=lambda label: np.median(lengths[members[label]]))
    is_ours = ax is None
    if ax is None:
        _, ax = plt.subplots(figsize=(3.6, 0.8 + 0.3 * len(groups)), layout="constrained")
    for y, label in enumerate(groups):
        # The boxes are drawn by hand: the keyword for horizontal boxes differs between versions of matplotlib.
        moved, color = lengths[members[label]], palette[label]
        low, first, median, third, high = np.percentile(moved, [5, 25, 50, 75, 95])
        jitter = np.random.default_rng(0).uniform(-0.3, 0.3, len(moved))
        ax.scatter(moved, y + jitter, s=4, color=color, alpha=0.4, linewidths=0, rasterized=True, zorder=1)
        ax.hlines(y, low, high, color="black", linewidth=1, zorder=2)
        ax.barh(y, third - first, left=first, height=0.6, color=color, edgecolor="black", linewidth=0.8, zorder=3)
        ax.vlines(median, y - 0.3, y + 0.3, color="black", linewidth=2, zorder=4)
        level = np.median(by_chance[members[label]])
        ax.vlines(level, y - 0.5, y + 0.5, color="black", linestyle="--", linewidth=1, zorder=5)
    ax.set_yticks(range(len(groups)), [f"{label} (n = {len(members[label])})" for label in groups], **PLAIN)
    ax.set(xlim=(0, None), ylim=(-0.6, len(groups) - 0.4))
    ax.set_xlabel(f"displacement ({results.rep.name})", **PLAIN)
    chance = f"dashed: by chance ({results.source} against {results.source})"
    entitle(ax, title or changed(results), which_cells(results, called), chance, *filter(None, [note]))
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
    if is_ours:
        widen(ax, max(text.get_window_extent().width for text in ax.get_yticklabels()))
    return show_or_return(ax, show=show, return_fig=return_fig)
