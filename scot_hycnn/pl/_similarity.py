"""Which conditions act alike, as a clustered heatmap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.spatial.distance import squareform

from scot_hycnn._warn import counted
from scot_hycnn.get._similarity import similarity as table_of_similarity

from ._figure import PLAIN, axes_or_new, check_number, entitle, figure_of, known_labels, show_or_return
from ._labels import QUIET, QUIET_GREY
from ._screen import in_clusters

VALUES, SHOWN = ("cosine", "distance"), ("responding", "all")
_MAX_CONDITIONS = 300
# More conditions have smaller names, and rows of as many inches.
_FEW, _ROW, _SMALL_ROW, _SMALL_SIZE = 80, 0.17, 0.09, 5.5


def similarity(
    adata: AnnData,
    key: str | None = None,
    *,
    groupby: str | None = None,
    values: str = "cosine",
    shown: str = "responding",
    conditions: Sequence[str] | None = None,
    title: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
) -> Axes | Figure | None:
    """Draw :func:`scot_hycnn.get.similarity` as a heatmap of conditions x conditions, in the order of a clustering.

    Parameters
    ----------
    adata
        Cells with a fit of :func:`scot_hycnn.tl.hycnn_screen`, or one of several targets.
    key
        Key of the fit in ``uns``; None takes ``'hycnn_screen'`` if there is one, else ``'hycnn_ot'``.
    groupby
        Column of ``obs`` such as cell types, within which a response is tested, as in :func:`screen`; None takes the
        ``group_key`` of the fit.
    values
        ``'cosine'`` of displacements: which conditions move the same cells in the same direction; or ``'distance'`` of
        maps: which ones move them as far, too. The clustering (average linkage) uses the same values.
    shown
        ``'responding'`` leaves out conditions without a response, whose cosines are those of noise, and the title says
        how many these are; ``'all'`` draws all conditions, and names these in grey.
    conditions
        Labels of the conditions to draw, of those that are shown; None draws all, up to 300.
    title, ax, show, return_fig
        First line of the title. Axes to draw into, and what to show or return, as in scanpy.

    Returns
    -------
    The axes if ``show`` is False, the figure if ``return_fig``.

    Raises
    ------
    ValueError
        If there is no such fit, ``values``, ``shown`` or a condition is unknown, or none of the conditions responds, or
        more than 300.

    Examples
    --------
    >>> import scot_hycnn as sh
    >>> adata = sh.datasets.screen_planted(n_conditions=6, n_cells=40)
    >>> sh.tl.hycnn_screen(adata, "control", groupby="condition", n_pcs=5, potential="gaussian")
    >>> ax = sh.pl.similarity(adata, show=False)
    """
    for name, value, choices in (("values", values, VALUES), ("shown", shown, SHOWN)):
        if value not in choices:
            raise ValueError(f"{name}={value!r} is unknown; choose one of {list(choices)}.")
    table = table_of_similarity(adata, key, groupby=groupby)
    seen = table["response"]["seen"]
    chosen = seen if conditions is None else seen[known_labels("conditions", conditions, list(seen.index), "the fit")]
    names = sorted(chosen.index[chosen] if shown == "responding" else chosen.index)
    check_number(len(names), "the choice of conditions=", _MAX_CONDITIONS)
    if not names:
        raise ValueError(f"None of {len(chosen)} conditions shows a response; shown='all' draws all of them.")
    matrix, n = table[values].loc[names, names].to_numpy(), len(names)
    # Of a map that moves nothing the cosine is not defined: it is like no other.
    apart = 1 - np.nan_to_num(matrix) if values == "cosine" else matrix
    order = in_clusters(squareform((apart + apart.T) / 2 * (1 - np.eye(n)), checks=False), names)
    # Names need as much room as their letters.
    size: float | str = "x-small" if n <= _FEW else _SMALL_SIZE
    side = max((_ROW if n <= _FEW else _SMALL_ROW) * n, 2.2) + 0.07 * max(map(len, names))
    ax = axes_or_new(ax, side + 2.2, side + 0.6)
    look: dict[str, Any] = {"cmap": "viridis_r", "vmin": 0}
    if values == "cosine":
        look = {"cmap": "RdBu_r", "vmin": -1, "vmax": 1}
    image = ax.imshow(table[values].loc[order, order].to_numpy(), interpolation="nearest", **look)
    ax.set_yticks(range(n), order, fontsize=size, **PLAIN)
    ax.set_xticks(range(n), order, fontsize=size, rotation=90, **PLAIN)
    for tick in (*ax.get_xticklabels(), *ax.get_yticklabels()):
        tick.set_color("black" if seen[tick.get_text()] else QUIET_GREY)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    # In a notebook a large figure is drawn smaller: what explains it shall be read there, too.
    height = figure_of(ax).get_figheight()
    letters = max(8.3, 0.75 * height)
    bar = figure_of(ax).colorbar(image, ax=ax, shrink=min(0.6, max(3 / height, 0.25)), aspect=16)
    if values == "cosine":
        bar.set_ticks([-1, 0, 1], labels=["\N{MINUS SIGN}1: opposite", "0: nothing in common", "1: alike"])
    what = "directions in which\ncells move (cosine)" if values == "cosine" else "distance of moved cells"
    bar.set_label(what, fontsize=letters)
    bar.ax.tick_params(labelsize=letters)
    note, n_quiet = QUIET if shown == "all" else "left out, without a response: {}", int((~chosen).sum())
    entitle(ax, title or counted(n, "condition"), note.format(n_quiet) if n_quiet else "")
    ax.title.set_fontsize(letters)
    return show_or_return(ax, show=show, return_fig=return_fig)
