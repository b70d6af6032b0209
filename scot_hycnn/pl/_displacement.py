"""How far cells move, by group."""

from __future__ import annotations

from typing import cast

import matplotlib.pyplot as plt
import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scot_hycnn._anndata import read_results

from ._colors import palette_of
from ._groups import members_by_group, read_groupby
from ._scatter import widen
from ._show import finish
from ._text import PLAIN


def displacement(
    adata: AnnData,
    key: str = "hycnn_ot",
    target: str | None = None,
    *,
    groupby: str,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
) -> Axes | Figure | None:
    """Draw how far the map moves the cells of each group, the group that moves farthest on top.

    Boxes span the quartiles around the median, whiskers the 5th to 95th percentile; points are cells.

    Parameters
    ----------
    adata
        Cells with a fit of :func:`scot_hycnn.tl.hycnn_ot`.
    key
        Where it lies in ``uns``.
    target
        Label of the target condition; may be None if there is one.
    groupby
        Column of ``obs`` with labels, such as cell types; scanpy's palette is used if there is one.
    ax
        Draw here.
    show
        Show the figure and return None; None follows ``scanpy.settings.autoshow``.
    return_fig
        Return the figure.

    Returns
    -------
    The axes if ``show`` is False, the figure if ``return_fig``.

    Raises
    ------
    TypeError
        If ``groupby`` is a list.
    ValueError
        If there is no such fit, target or column, several targets and none named, slots are gone, or the column holds
        numbers, more than 200 labels, or none of the cells' labels.

    Warns
    -----
    UserWarning
        If the colours of the groups in ``uns`` cannot be used.

    Examples
    --------
    >>> import scot_hycnn as sh
    >>> adata = sh.datasets.pbmc_planted(n_cells=400)
    >>> sh.tl.hycnn_ot(adata, "control", "IFN-beta", n_pcs=5, potential="gaussian")
    >>> ax = sh.pl.displacement(adata, groupby="cell_type", show=False)
    >>> ax.get_yticklabels()[-1].get_text()
    'CD14+ Monocyte (n = 36)'
    """
    results = read_results(adata, key, target)
    members = members_by_group(adata, groupby, results.source_rows)
    lengths = np.linalg.norm(results.predicted - results.x, axis=1)
    groups = sorted(members, key=lambda label: np.median(lengths[members[label]]))
    labels = read_groupby(adata, groupby)
    palette = dict(zip(labels.names, palette_of(adata, groupby, labels, stacklevel=3), strict=True))
    own = ax is None
    if ax is None:
        _, ax = plt.subplots(figsize=(3.6, 0.8 + 0.3 * len(groups)), layout="constrained")
    for place, label in enumerate(groups):
        _draw_group(ax, place, lengths[members[label]], palette[label])
    ax.set_yticks(range(len(groups)), [f"{label} (n = {len(members[label])})" for label in groups], **PLAIN)
    ax.set(xlim=(0, None), ylim=(-0.6, len(groups) - 0.4))
    ax.set_xlabel(f"displacement ({results.rep.name})", **PLAIN)
    ax.set_title(f"{results.source} → {results.target}", fontsize="medium", **PLAIN)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
    if own:
        widen(ax, max(text.get_window_extent().width for text in ax.get_yticklabels()))
    return cast("Axes | Figure | None", finish(ax, show=show, return_fig=return_fig))


def _draw_group(ax: Axes, place: float, lengths: np.ndarray[tuple[int], np.dtype[np.floating]], color: str) -> None:
    # Boxes of our own: the keyword that lays matplotlib's on their side has changed between versions.
    low, first, middle, third, high = np.percentile(lengths, [5, 25, 50, 75, 95])
    jitter = np.random.default_rng(0).uniform(-0.3, 0.3, len(lengths))
    ax.scatter(lengths, place + jitter, s=4, color=color, alpha=0.4, linewidths=0, rasterized=True, zorder=1)
    ax.hlines(place, low, high, color="black", linewidth=1, zorder=2)
    ax.barh(place, third - first, left=first, height=0.6, color=color, edgecolor="black", linewidth=0.8, zorder=3)
    ax.vlines(middle, place - 0.3, place + 0.3, color="black", linewidth=2, zorder=4)
