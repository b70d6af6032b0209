"""Predicted against observed means of genes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from scot_hycnn._anndata._fit_input import check_counts
from scot_hycnn._anndata._representation import space_of
from scot_hycnn._anndata._results import group_column, read_fit
from scot_hycnn._anndata.evaluation._screen_input import responses_of
from scot_hycnn._anndata.genes._genes import has_features_of_genes, read_dimensions, read_evaluated, read_genes, unit_of

from ._figure import PLAIN, correlation, entitle_cells, figure_of, panels_of, show_or_return
from ._labels import PREDICTED, QUIET_GREY, paired_members
from ._plane import Points

_SOURCE_GREY = "#8C8C8C"
# Where a name may stand, from near to far: distances in points, (60, 1); directions, upper left first, (60, 2).
_ANGLES = np.deg2rad([135, 315, 180, 0, 90, 270, 45, 225, 160, 340, 110, 290])
_DISTANCES = np.repeat([6.0, 14.0, 24.0, 36.0, 50.0], len(_ANGLES))[:, None]
_DIRECTIONS = np.tile(np.column_stack([np.cos(_ANGLES), np.sin(_ANGLES)]), (5, 1))

Box = NDArray[np.floating[Any]]  # x0, y0, x1, y1 in pixels


def mean_scatter(
    adata: AnnData,
    key: str = "hycnn_ot",
    target: str | None = None,
    *,
    groupby: str | None = None,
    layer: str | None = None,
    n_labels: int = 10,
    n_cols: int = 4,
    title: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
) -> Axes | list[Axes] | Figure | None:
    """Draw the mean of every gene in predicted cells against that in observed ones, and that in source cells.

    The nearer the points lie to the line, the better the prediction. R² in the title is that of
    :func:`scot_hycnn.metrics.r2_mean`, beside the high value of the source cells, "no change". If the fit was made with
    a split, the cells are held-out ones. If there is no way from the representation to genes, its dimensions are drawn,
    without R².

    Parameters
    ----------
    adata
        Cells with a fit of :func:`scot_hycnn.tl.hycnn_ot`.
    key
        Key of the fit in ``uns``.
    target
        Label of the target condition; may be left out if there is only one.
    groupby
        Column of ``obs`` with labels, such as cell types: one panel for each group that has ten cells of both
        conditions, those with a response first. None takes the ``group_key`` of the fit; without one, or with ``ax``,
        one panel is of all cells.
    layer
        Key of ``layers`` with measured expression, as given to :func:`scot_hycnn.tl.decode`, which also predicts the
        genes.
    n_labels
        How many genes are named: those with the largest observed change of the mean, in groups with a response.
    n_cols
        Panels in each row, at most.
    title, ax, show, return_fig
        First line of the title; None names the conditions. Axes to draw into (of one group), and what to show or
        return, as in scanpy.

    Returns
    -------
    The axes if ``show`` is False, in a list if there are groups; the figure if ``return_fig``.

    Raises
    ------
    ValueError
        If a fit, target, column or slot does not exist or is not unique, or if no group has cells of both conditions.

    Examples
    --------
    >>> import scot_hycnn as sh
    >>> adata = sh.datasets.pbmc_planted(n_cells=400)
    >>> sh.tl.hycnn_ot(adata, "control", "IFN-beta", potential="gaussian")
    >>> ax = sh.pl.mean_scatter(adata, show=False)
    """
    check_counts(n_cols=n_cols)
    check_counts(0, n_labels=n_labels)
    groupby = group_column(adata, read_fit(adata, key), groupby) if ax is None else groupby
    results, called = read_evaluated(adata, key, target, groupby)
    is_genes = has_features_of_genes(adata, results, key, layer)
    features = read_genes(adata, results, key, layer) if is_genes else read_dimensions(results)
    panels, quiet, notes = {"": features}, set[str](), list[str]()
    if groupby is not None:
        responds = responses_of(adata, key, results.target, groupby)
        groups, labels, notes = paired_members(adata, groupby, results, responds)
        panels = {
            f"{label} ({len(source)}, {len(observed)} cells)": features.among(source, observed)
            for label, (source, observed) in groups.items()
        }
        quiet = {name for name, label in zip(panels, groups, strict=True) if label in labels}
    place, axes, n_cols = panels_of(ax, len(panels), n_cols, (3.4, 3.6), f"groupby={groupby!r}")
    what = f"mean {unit_of(adata, results, layer)}" if is_genes else f"mean of {space_of(results.rep)}"
    means = []
    for i, (panel, (name, cells)) in enumerate(zip(axes, panels.items(), strict=True)):
        source, observed = cells.source.moments().mean, cells.observed.moments().mean
        predicted = source + cells.predicted_change()
        means.append((source, predicted, observed))
        centre = observed.mean()
        line: dict[str, Any] = {"color": "black", "linewidth": 0.8, "linestyle": "--", "label": "as observed"}
        panel.axline((centre, centre), slope=1, zorder=1, **line)
        style: dict[str, Any] = {"s": 8, "alpha": 0.7, "linewidths": 0, "rasterized": True, "zorder": 2}
        panel.scatter(observed, source, color=_SOURCE_GREY, label="no change", **style)
        panel.scatter(observed, predicted, color=PREDICTED, label="predicted", **style)
        # Means of components are not on one scale with 0 as their origin: their R² is near 1 for any prediction.
        r2, of_no_change = (correlation(mean, observed) ** 2 for mean in (predicted, source))
        scores = f"R² = {r2:.3f} (no change {of_no_change:.3f})" if is_genes else ""
        if groupby is None:
            entitle_cells(panel, title, results, called, scores)
        else:
            color = QUIET_GREY if name in quiet else "black"
            panel.set_title("\n".join(filter(None, [name, scores])), fontsize="small", color=color, **PLAIN)
        panel.locator_params(nbins=5)
        panel.set_aspect("equal", adjustable="datalim")
        panel.spines[["top", "right"]].set_visible(False)
        # One label for each row and column of panels: all their axes have the same meaning.
        panel.set_xlabel(f"observed {what}" if i + n_cols >= len(axes) else "", **PLAIN)
        panel.set_ylabel(f"predicted {what}" if i % n_cols == 0 else "", **PLAIN)
    if groupby is not None:
        entitle_cells(place, title, results, called, *notes)
    axes[0].legend(loc="lower right", frameon=False, fontsize="small")
    # Names are placed after the layout has settled.
    figure_of(axes[0]).draw_without_rendering()
    for panel, name, (source, predicted, observed) in zip(axes, panels, means, strict=True):
        if name in quiet:
            continue  # those that seem to change most are chance
        top = np.argsort(-np.abs(observed - source), kind="stable")[:n_labels]
        points = np.column_stack([observed, predicted])
        diagonal = np.repeat(np.linspace(observed.min(), observed.max(), 200)[:, None], 2, axis=1)
        others = np.concatenate([points, np.column_stack([observed, source]), diagonal])
        _add_names(panel, points[top], [features.names[i] for i in top], others)
    drawn = axes if groupby is not None and ax is None else axes[0]
    return show_or_return(drawn, show=show, return_fig=return_fig)


def _add_names(ax: Axes, points: Points, names: Sequence[str], others: Points) -> None:
    """Write names beside points, shape (n, 2), the most important first, where they cover few of the ``others``."""
    room = np.array(ax.get_window_extent().extents)
    scale = figure_of(ax).dpi / 72
    covered = ax.transData.transform(others)
    legend = ax.get_legend()
    taken: list[Box] = [] if legend is None else [np.array(legend.get_window_extent().extents)]
    style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": "x-small", "textcoords": "offset points"}
    style["bbox"] = {"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 0.5}
    # A thin line leads from the name to its point.
    style["arrowprops"] = {"arrowstyle": "-", "color": "0.4", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 1.5}
    for pixel, point, name in zip(ax.transData.transform(points), points, names, strict=True):
        text = ax.annotate(name, point, (0, 0), **style, **PLAIN)
        # It lies within the axes, so the layout needs no room for it.
        text.set_in_layout(False)
        half = np.array(text.get_window_extent().size) / 2 + scale
        # The distance is that of the name's edge from the point, not of its centre.
        offsets = _DIRECTIONS * (_DISTANCES * scale + np.abs(_DIRECTIONS) @ half[:, None])
        low, high = pixel + offsets - half, pixel + offsets + half
        # Greedy: the name takes the cheapest of 60 places. Leaving the axes or covering a name costs more than any
        # number of covered points, and a point about as much as ten points of distance.
        outside = (low < room[:2]).any(axis=1) | (high > room[2:]).any(axis=1)
        overlaps = sum(((low < box[2:]) & (high > box[:2])).all(axis=1).astype(int) for box in taken)
        n_covered = ((covered > low[:, None]) & (covered < high[:, None])).all(axis=2).sum(axis=1)
        best = np.argmin(1000 * (outside + overlaps) + n_covered + _DISTANCES[:, 0] / 10)
        text.set_position(offsets[best] / scale)
        taken.append(np.concatenate([low[best], high[best]]))
