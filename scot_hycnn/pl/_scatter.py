"""Cells as points, and legends: the looks that all plots share."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from ._colors import CellColors
from ._positions import Points
from ._text import PLAIN, legend

# As many as fit beside a map of usual height.
_LEGEND_ROWS = 16
# More entries than these are written smaller where they lie over cells.
_FEW = 6


def scatter(ax: Axes, points: Points, color: str | NDArray[Any], *, n_total: int, alpha: float = 0.7) -> None:
    """Draw cells: small where the figure has many in total, and as pixels within a vector figure."""
    size = float(np.clip(20_000 / max(n_total, 1), 2, 20))
    # In random order no condition hides another one.
    order = np.random.default_rng(0).permutation(len(points))
    colors = color if isinstance(color, str) else color[order]
    ax.scatter(points[order, 0], points[order, 1], s=size, c=colors, alpha=alpha, linewidths=0, rasterized=True)


def label(ax: Axes, names: list[str]) -> None:
    """Axes as scanpy draws them: names, and no numbers, since the units of an embedding mean nothing."""
    ax.set_xlabel(names[0], **PLAIN)
    ax.set_ylabel(names[1], **PLAIN)
    ax.set(xticks=[], yticks=[])
    ax.spines[["top", "right"]].set_visible(False)


def add_legend(ax: Axes, entries: dict[str, str], title: str | None = None, *, inside: bool) -> None:
    """Explain colours within the axes if they are a user's, else at their right, in a figure widened to hold it.

    Beside the axes of a user may be another panel, which a legend outside would cover.
    """
    handles = [
        Line2D([], [], linestyle="", marker="o", color=color, markersize=4 if inside else 6)
        for color in entries.values()
    ]
    size = "small" if not inside else "x-small" if len(handles) <= _FEW else "xx-small"
    place: dict[str, Any] = (
        {"loc": "best", "framealpha": 0.7, "handletextpad": 0.1, "labelspacing": 0.2, "borderpad": 0.3}
        if inside
        else {"loc": "center left", "bbox_to_anchor": (1.0, 0.5), "frameon": False}
    )
    ncols = 1 + (len(handles) - 1) // _LEGEND_ROWS
    drawn = legend(ax, handles, list(entries), title, fontsize=size, title_fontsize=size, ncols=ncols, **place)
    if not inside:
        widen(ax, drawn.get_window_extent().width)


def explain(ax: Axes, colors: CellColors, others: dict[str, str] | None = None, *, inside: bool) -> None:
    """Legend for categories, colour bar for numbers; ``others`` names what is drawn in one colour beside them."""
    beside = {f"({name} cells)": color for name, color in (others or {}).items()}
    if colors.scale is None:
        add_legend(ax, colors.legend | beside, colors.name, inside=inside)
        return
    figure = ax.get_figure()
    assert figure is not None
    bar = figure.colorbar(mpl.cm.ScalarMappable(colors.scale, "viridis"), ax=ax, shrink=0.7)
    bar.set_label(colors.name, **PLAIN)
    if not inside:
        extent = bar.ax.get_tightbbox()
        assert extent is not None
        widen(ax, extent.width)
    if beside:
        add_legend(ax, beside, inside=True)


def widen(ax: Axes, pixels: float) -> None:
    """Make room in a figure of our own, so that what is beside the map does not take its place."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    figure.set_figwidth(figure.get_figwidth() + pixels / figure.dpi)
