"""Several panels in one figure."""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure


def grid(n: int, n_cols: int, size: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    """Make a figure of n panels row by row; ``size`` of one in inches."""
    n_cols = min(n, n_cols)
    n_rows = -(-n // n_cols)
    figure, panels = plt.subplots(
        n_rows, n_cols, figsize=(size[0] * n_cols, size[1] * n_rows), layout="constrained", squeeze=False
    )
    axes = list(panels.flat)
    for ax in axes[n:]:
        ax.remove()
    return figure, axes[:n]


def check_one_panel(ax: Axes | None, n: int, what: str) -> None:
    """Refuse to draw several panels into the axes of a user.

    Raises
    ------
    ValueError
        If there are several.
    """
    if ax is not None and n > 1:
        raise ValueError(f"ax takes one panel, and {what} makes {n}; leave ax out.")
