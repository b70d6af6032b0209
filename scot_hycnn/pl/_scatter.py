"""Cells as points, and legends: the looks that all plots share."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from ._colors import CellColors
from ._positions import Points


def scatter(ax: Axes, points: Points, color: str | NDArray[np.str_], *, n_total: int, alpha: float = 0.7) -> None:
    """Draw cells: small where the figure has many in total, and as pixels within a vector figure."""
    size = float(np.clip(20_000 / max(n_total, 1), 2, 20))
    # In random order no condition hides another one.
    order = np.random.default_rng(0).permutation(len(points))
    colors = color if isinstance(color, str) else color[order]
    ax.scatter(points[order, 0], points[order, 1], s=size, c=colors, alpha=alpha, linewidths=0, rasterized=True)


def label(ax: Axes, names: list[str]) -> None:
    """Axes as scanpy draws them: names, and no numbers, since the units of an embedding mean nothing."""
    ax.set(xlabel=names[0], ylabel=names[1], xticks=[], yticks=[])
    ax.spines[["top", "right"]].set_visible(False)


def add_legend(ax: Axes, entries: dict[str, str], title: str | None = None) -> None:
    """Explain colours at the right of the axes, where no cell is hidden."""
    handles = [
        Line2D([], [], linestyle="", marker="o", color=color, label=text, markersize=6)
        for text, color in entries.items()
    ]
    ax.legend(
        handles=handles,
        title=title,
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
        frameon=False,
        fontsize="small",
        title_fontsize="small",
        ncols=1 + len(handles) // 16,
    )


def explain(ax: Axes, colors: CellColors, others: dict[str, str] | None = None) -> None:
    """Legend for categories, colour bar for numbers; ``others`` names what is drawn in one colour beside them."""
    others = others or {}
    if colors.scale is None:
        add_legend(ax, colors.legend | {f"({name} cells)": color for name, color in others.items()}, colors.name)
        return
    figure = ax.get_figure()
    assert figure is not None
    figure.colorbar(mpl.cm.ScalarMappable(colors.scale, "viridis"), ax=ax, label=colors.name, shrink=0.7)
