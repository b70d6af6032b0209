"""How far the cells of each group move."""

from __future__ import annotations

from typing import Any

import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scot_hycnn._anndata._representation import space_of
from scot_hycnn._anndata._results import read_fit
from scot_hycnn._anndata.evaluation._screen_input import responses_of
from scot_hycnn._anndata.genes._genes import read_evaluated

from ._figure import PLAIN, axes_or_new, entitle_cells, name_rows, show_or_return, widen
from ._labels import groups_to_draw, large_groups

# A map moves cells a little also where nothing responds: opacity of groups without a visible response.
_PALE = 0.2


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
    the fit was made with a split. A map moves cells a little also where nothing responds. Groups are therefore pale
    where a permutation test sees no difference between source and target cells (energy distance, p values corrected
    over groups above 0.05), or where one of them has fewer than ten cells.

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
    title, ax, show, return_fig
        First line of the title; None names the conditions. Axes to draw into, and what to show or return, as in scanpy.

    Returns
    -------
    The axes if ``show`` is False, the figure if ``return_fig``.

    Raises
    ------
    ValueError
        If a fit, target, column or slot does not exist or is not unique, or if neither a column nor ``group_key`` names
        groups, at most 200.

    Examples
    --------
    >>> import scot_hycnn as sh
    >>> adata = sh.datasets.pbmc_planted(n_cells=400)
    >>> sh.tl.hycnn_ot(adata, "control", "IFN-beta", n_pcs=5, potential="gaussian")
    >>> ax = sh.pl.displacement(adata, groupby="cell_type", show=False)
    """
    results, called = read_evaluated(adata, key, target)
    groupby, members, palette = groups_to_draw(adata, read_fit(adata, key), groupby, results.source_rows)
    tested = responses_of(adata, key, results.target, groupby)
    responding = {label for label, responds in tested.items() if responds}
    large, note = large_groups({label: len(cells) for label, cells in members.items()})
    lengths = np.linalg.norm(results.predicted - results.x, axis=1)
    # The y axis points upwards, so the last group is on top.
    groups = sorted(large, key=lambda label: np.median(lengths[members[label]]))
    names = [f"{label} (n = {len(members[label])})" for label in groups]
    is_ours, ax = ax is None, axes_or_new(ax, 3.6, 1.2 + 0.3 * len(groups))
    for y, label in enumerate(groups):
        # The boxes are drawn by hand: the keyword for horizontal boxes differs between versions of matplotlib.
        moved, color, opacity = lengths[members[label]], palette[label], 1 if label in responding else _PALE
        low, first, median, third, high = np.percentile(moved, [5, 25, 50, 75, 95])
        jitter = np.random.default_rng(0).uniform(-0.3, 0.3, len(moved))
        ax.scatter(moved, y + jitter, s=4, color=color, alpha=0.4 * opacity, linewidths=0, rasterized=True, zorder=1)
        # Whiskers end at the box, through which they would be seen where it is pale.
        ax.hlines([y, y], [low, third], [first, high], color="black", linewidth=1, zorder=2)
        box: dict[str, Any] = {"facecolor": (color, opacity), "edgecolor": "black", "linewidth": 0.8, "zorder": 3}
        ax.barh(y, third - first, left=first, height=0.6, **box)
        ax.vlines(median, y - 0.3, y + 0.3, color="black", linewidth=2, zorder=4)
    name_rows(ax, names)
    ax.set(xlim=(0, None), ylim=(-0.6, len(groups) - 0.4))
    boxes = "box: middle half of the cells, line: 90 %"
    ax.set_xlabel(f"displacement (distance in {space_of(results.rep)})\n{boxes}", **PLAIN)
    pale = "pale: no response is seen" if any(label not in responding for label in groups) else ""
    pale += ", or too few cells" if pale and not tested.keys() >= set(groups) else ""
    entitle_cells(ax, title, results, called, pale, note)
    if is_ours:
        widen(ax, max(text.get_window_extent().width for text in ax.get_yticklabels()))
    return show_or_return(ax, show=show, return_fig=return_fig)
