"""A whole screen on one page: which conditions respond, in which groups, and whether that is predicted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
from scipy.spatial.distance import pdist

from scot_hycnn._anndata._fit_input import check_counts
from scot_hycnn._response import AS_REPLICATE, NO_RESPONSE, NOT_SCORED, TOO_FEW, in_brief
from scot_hycnn.get._summary import EVERYONE, summary

from ._figure import PLAIN, check_number, entitle, figure_of, known_labels, legend, panels_of, show_or_return

SORTS = ("strength", "cluster", "name")
_MAX_CONDITIONS = 600
# A dot of the strongest response, and the smallest one, in points; inches of a row and of a column.
_LARGEST, _SMALLEST, _ROW, _COLUMN = 11.0, 2.5, 0.19, 0.24
_COLORS, _HOLLOW = "viridis", "#707070"


def screen(
    adata: AnnData,
    key: str | None = None,
    *,
    groupby: str | None = None,
    conditions: Sequence[str] | None = None,
    sort: str = "strength",
    n_rows: int = 60,
    title: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
) -> Axes | list[Axes] | Figure | None:
    """Draw :func:`scot_hycnn.get.summary`: one row for each condition, one column for each group of cells.

    The area of a dot is the strength of the response, the energy distance of observed and source cells. Its colour is
    the share of the response that is predicted, and a black edge says that the prediction is as near as a replicate. A
    hollow dot is a response with too few cells to score its prediction, a grey point is no response, and an empty place
    has fewer than ten cells.

    Parameters
    ----------
    adata
        Cells with a fit of :func:`scot_hycnn.tl.hycnn_screen`, or one of several targets.
    key
        Key of the fit in ``uns``; None takes ``'hycnn_screen'`` if there is one, else ``'hycnn_ot'``.
    groupby
        Column of ``obs`` such as cell types; None takes the ``group_key`` of the fit, and no groups if it has none.
    conditions
        Labels of the conditions to draw; None draws all, up to 600.
    sort
        ``'strength'`` puts the strongest response first, ``'cluster'`` puts conditions with alike responses over groups
        beside each other, ``'name'`` sorts by label.
    n_rows
        Rows of a panel, at most. More conditions continue in a panel beside it.
    title, ax, show, return_fig
        First line of the title. Axes to draw into (of at most ``n_rows`` conditions), and what to show or return, as in
        scanpy.

    Returns
    -------
    The list of axes if ``show`` is False (the axes if ``ax`` is given), the figure if ``return_fig``.

    Raises
    ------
    ValueError
        As :func:`scot_hycnn.get.summary`, or if a condition or ``sort`` is unknown, or these are too many.

    Examples
    --------
    >>> import scot_hycnn as sh
    >>> adata = sh.datasets.screen_planted(n_conditions=6, n_cells=30)
    >>> sh.tl.hycnn_screen(adata, "control", groupby="condition", n_pcs=5, potential="gaussian")
    >>> axes = sh.pl.screen(adata, show=False)
    """
    check_counts(n_rows=n_rows)
    if sort not in SORTS:
        raise ValueError(f"sort={sort!r} is unknown; choose one of {list(SORTS)}.")
    table = summary(adata, key, groupby=groupby)
    names = list(dict.fromkeys(table["condition"]))
    names = names if conditions is None else known_labels("conditions", conditions, names, "the fit")
    groups = list(dict.fromkeys(table["group"]))
    check_number(len(names), "the choice of conditions=", _MAX_CONDITIONS)
    table = table[table["condition"].isin(names)].set_index(["condition", "group"])
    names = sorted(names)
    strengths = pd.DataFrame({group: table["no_change"].xs(group, level="group") for group in groups})
    strengths = strengths.reindex(names).fillna(0).clip(lower=0)
    if sort == "strength":
        # Conditions with a response first; among equal ones the order is that of their names.
        responds = ~table["verdict"].xs(EVERYONE, level="group").isin([NO_RESPONSE, TOO_FEW])
        keyed = strengths.assign(responds=responds).sort_values(["responds", EVERYONE], ascending=False, kind="stable")
        names = keyed.index.tolist()
    elif sort == "cluster":
        # Square roots, so that the strongest group does not decide alone; 'all' alone gives an order by strength.
        names = in_clusters(pdist(np.sqrt(strengths.to_numpy())), names)
    n_long = -(-len(names) // -(-len(names) // n_rows))  # panels of about the same length
    parts = [names[start : start + n_long] for start in range(0, len(names), n_long)]
    # Names take as much room as their letters, and so do the key beside the panels and the title.
    width = 0.4 + 0.075 * max(map(len, names)) + _COLUMN * len(groups)
    height = 0.3 + _ROW * n_long + (0.075 * max(map(len, groups)) if len(groups) > 1 else 0)
    place, axes, _ = panels_of(ax, len(parts), len(parts), (width, height), f"n_rows={n_rows}")
    if isinstance(place, Figure):
        place.set_size_inches(width * len(parts) + 3.6, max(height, 2.6) + 0.5)
    # One scale for all: the square of the width is the area. A few extreme conditions would leave no range for others.
    top = max(float(strengths.to_numpy().max()), 1e-12)
    for panel, part in zip(axes, parts, strict=True):
        _draw(panel, table, part, groups, top)
        panel.set_ylim(n_long - 0.4, -0.6)
    _explain(place, axes, top)
    # In two lines, so that the title does not reach the key.
    entitle(place, title or "", *in_brief(table.xs(EVERYONE, level="group")["verdict"].tolist()))
    return show_or_return(axes if ax is None else ax, show=show, return_fig=return_fig)


def in_clusters(distances: NDArray[np.float64], names: list[str]) -> list[str]:
    """Return names in the order of a hierarchical clustering by distances of all pairs, (n (n - 1) / 2,)."""
    if len(names) < 3:
        return names
    tree = optimal_leaf_ordering(linkage(distances, "average"), distances)
    return [names[leaf] for leaf in leaves_list(tree)]


def _draw(ax: Axes, table: pd.DataFrame, names: list[str], groups: list[str], top: float) -> None:
    """Draw some of the conditions from top to bottom."""
    part = table.reindex(pd.MultiIndex.from_product([names, groups]))
    y, x = (grid.ravel() for grid in np.meshgrid(range(len(names)), range(len(groups)), indexing="ij"))
    verdict = part["verdict"].to_numpy()
    quiet, seen = verdict == NO_RESPONSE, ~np.isin(verdict, [NO_RESPONSE, TOO_FEW]) & part["verdict"].notna().to_numpy()
    ax.scatter(x[quiet], y[quiet], s=4, color="#B0B0B0", linewidths=0, zorder=2)
    # A response that has too few cells for its share is hollow: grey, it would look like no response.
    edges = np.select([verdict[seen] == AS_REPLICATE, verdict[seen] == NOT_SCORED], ["black", _HOLLOW], "none").tolist()
    sizes, shares = _size(part["no_change"].to_numpy()[seen], top), part["explained"].to_numpy(dtype=float)[seen]
    style: dict[str, Any] = {"cmap": mpl.colormaps[_COLORS].with_extremes(bad="white"), "norm": Normalize(0, 1)}
    ax.scatter(
        x[seen], y[seen], s=sizes, c=shares, plotnonfinite=True, edgecolors=edges, linewidths=0.9, zorder=3, **style
    )
    ax.hlines(range(len(names)), -0.5, len(groups) - 0.5, color="#EEEEEE", linewidth=0.6, zorder=1)
    ax.set_yticks(range(len(names)), names, fontsize="x-small", **PLAIN)
    ax.set_xlim(-0.6, len(groups) - 0.4)
    if len(groups) > 1:
        ax.xaxis.tick_top()
        ax.set_xticks(range(len(groups)), groups, rotation=90, fontsize="x-small", **PLAIN)
    else:
        ax.set_xticks([])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def _size(strengths: NDArray[np.float64], top: float) -> NDArray[np.float64]:
    """Return areas of dots: proportional to the strength, but none so small that its colour cannot be seen."""
    return np.asarray(np.maximum(np.clip(strengths, 0, None) / top * _LARGEST**2, _SMALLEST**2))


def _explain(place: Axes | Figure, axes: list[Axes], top: float) -> None:
    """Add a bar for colours, and a key of sizes and edges."""
    # Not longer than two inches beside a long panel.
    shrink = min(0.5, 2 / figure_of(place).get_figheight())
    colors = mpl.cm.ScalarMappable(Normalize(0, 1), _COLORS)
    bar = figure_of(place).colorbar(colors, ax=axes, shrink=shrink, aspect=14, anchor=(0, 1))
    bar.set_label("colour: share of the\nresponse that is predicted", fontsize="small")
    bar.ax.tick_params(labelsize="small")
    strengths = [top, top / 4, top / 16]
    sizes = np.sqrt(_size(np.array(strengths), top))
    looks: list[dict[str, Any]] = [{"color": "#808080", "markersize": size, "markeredgewidth": 0} for size in sizes]
    # The fill of the first is any colour.
    for fill, edge in (("#D9D9D9", "black"), ("white", _HOLLOW)):
        looks.append({"color": fill, "markeredgecolor": edge, "markersize": 7, "markeredgewidth": 0.9})
    looks.append({"color": "#B0B0B0", "markersize": 2})
    looks.append({"color": "none"})
    handles = [Line2D([], [], linestyle="none", marker="o", **look) for look in looks]
    names = [f"{strength:.2g}" for strength in strengths]
    names += [
        "black edge: predicted as\nwell as a replicate",
        "hollow: responds, too few\ncells to score",
        "point: no response",
        "empty: fewer than\nten cells",
    ]
    # Beside the bar, where a reader of a long figure begins.
    options: dict[str, Any] = {"loc": "outside right upper"}
    if isinstance(place, Axes):
        options = {"loc": "lower left", "bbox_to_anchor": (1.04, 0)}
    options |= {"fontsize": "small", "title_fontsize": "small", "frameon": False, "alignment": "left"}
    legend(place, handles, names, "size: strength of the response\n(energy distance)", **options)
