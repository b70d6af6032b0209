"""Several panels in one figure."""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Groups, genes and panels of one figure. matplotlib draws at most 2**16 pixels, which are 436 inches at 150 dpi: 200
# groups of pl.evaluation take 217 inches, 100 rows of panels of pl.mean_scatter 360.
MOST_SHOWN, MOST_GENES, MOST_PANELS = 200, 1000, 100


def check_number(n: int, what: str, most: int = MOST_SHOWN) -> None:
    """Refuse figures that nobody can read, and that matplotlib cannot draw.

    Raises
    ------
    ValueError
        If there is too much to draw.
    """
    if n > most:
        raise ValueError(f"{what} makes {n:,} entries, and a figure shows at most {most:,}; choose some of them.")


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
    """Refuse to draw several panels into the axes of a user, and more than a figure can show.

    Raises
    ------
    ValueError
        If there are several, or too many.
    """
    if ax is not None and n > 1:
        raise ValueError(f"ax takes one panel, and {what} makes {n}; leave ax out.")
    if n > MOST_PANELS:
        raise ValueError(f"A figure has at most {MOST_PANELS} panels, and these are {n:,}; choose fewer.")
