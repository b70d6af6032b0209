"""What all figures share: panels, limits of what fits into a figure, numbers, legends, and what a figure returns."""

from __future__ import annotations

import textwrap
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, TypeVar

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from numpy.typing import NDArray
from scanpy import settings

from scot_hycnn._anndata._conditions import MAX_ENTRIES, as_labels, listed, matching
from scot_hycnn._anndata._results import Results

# matplotlib draws at most 2**16 pixels, 436 inches at 150 dpi; 200 groups of pl.evaluation take 217, 100 panels 360.
MAX_GENES, MAX_PANELS = 1000, 100
# For every text with a name from the data: matplotlib reads what stands between two '$' as a formula.
PLAIN: dict[str, Any] = {"parse_math": False}

# Letters of the size of a title in one inch, and in a line of narrow axes.
_LETTERS, _MIN_LETTERS = 19, 30

Drawn = TypeVar("Drawn", bound="Axes | list[Axes]")


def check_number(n: int, what: str, maximum: int = MAX_ENTRIES) -> None:
    """Raise a ValueError if a figure would have too many entries to be read or drawn."""
    if n > maximum:
        raise ValueError(f"{what} makes {n:,} entries, and a figure shows at most {maximum:,}; choose some of them.")


def known_labels(name: str, values: Sequence[Hashable] | Hashable, found: Sequence[str], place: str) -> list[str]:
    """Return the labels that match the values of a parameter; labels are text, so 1 may be stored as '1.0'."""
    wanted = as_labels(values)
    matches = matching(wanted, found)
    unknown = [value for value, match in zip(wanted, matches, strict=True) if len(match) != 1]
    if unknown or not matches:
        raise ValueError(f"{name}: {listed(unknown or wanted)} is not in {place}; there are {listed(found)}.")
    return [found[match[0]] for match in matches]


def check_one_panel(ax: Axes | None, n: int, what: str) -> None:
    """Raise a ValueError if several panels are to be drawn into the axes of a user, or too many into one figure."""
    if ax is not None and n > 1:
        raise ValueError(f"ax takes one panel, and {what} makes {n}; leave ax out.")
    if n > MAX_PANELS:
        raise ValueError(f"A figure has at most {MAX_PANELS} panels, and these are {n:,}; choose fewer.")


def axes_or_new(ax: Axes | None, width: float, height: float) -> Axes:
    """Return the axes of the user, else new ones in a figure of this size in inches."""
    return plt.subplots(figsize=(width, height), layout="constrained")[1] if ax is None else ax


def panels_of(
    ax: Axes | None, n: int, n_cols: int, size: tuple[float, float], what: str
) -> tuple[Axes | Figure, list[Axes], int]:
    """Return the axes of the user for one panel, else a new figure; its n panels, row by row; and how many a row has.

    ``size`` is that of a panel in inches, and ``n_cols`` the largest number of panels in a row.
    """
    check_one_panel(ax, n, what)
    if ax is not None:
        return ax, [ax], 1
    n_cols = min(n, n_cols)
    n_rows = -(-n // n_cols)
    n_cols = -(-n // n_rows)  # as few places as can be stay free
    figsize = size[0] * n_cols, size[1] * n_rows
    figure, panels = plt.subplots(n_rows, n_cols, figsize=figsize, layout="constrained", squeeze=False)
    for unused in panels.flat[n:]:
        unused.remove()
    return figure, list(panels.flat[:n]), n_cols


def name_rows(ax: Axes, names: Sequence[str], **style: Any) -> None:
    """Name the rows of a figure, which lie at 0, 1 ..., and draw no line or tick beside them."""
    ax.set_yticks(range(len(names)), names, **style, **PLAIN)
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right"]].set_visible(False)


def entitle(place: Axes | Figure, *lines: str) -> None:
    """Write above axes or panels what is shown, which cells and how many, and notes; empty lines are left out."""
    inches = place.get_window_extent().width / figure_of(place).dpi
    width = max(_MIN_LETTERS, int(_LETTERS * inches))
    text = "\n".join(textwrap.fill(line, width) for line in lines if line)
    (place.set_title if isinstance(place, Axes) else place.suptitle)(text, fontsize="small", **PLAIN)


def entitle_cells(place: Axes | Figure, title: str | None, results: Results, called: str, *notes: str) -> None:
    """Write above axes or panels the title of the user, or the conditions; which cells, and how many; and notes."""
    cells = which_cells(called, {results.source: len(results.source_rows), results.target: len(results.target_rows)})
    entitle(place, title or f"{results.source} → {results.target}", cells, "; ".join(filter(None, notes)))


def which_cells(called: str, sizes: Mapping[str, int]) -> str:
    """Return in print what cells are called, and how many there are of each condition."""
    return f"{called}: {', '.join(f'{size:,} {name}' for name, size in sizes.items())}"


def number(value: float) -> str:
    """Print three digits, with a real minus sign."""
    return f"{value:.3g}".replace("-", "\N{MINUS SIGN}")


def correlation(a: NDArray[np.floating[Any]], b: NDArray[np.floating[Any]]) -> float:
    """Return Pearson's correlation, NaN if one of both does not vary."""
    varies = np.ptp(a) > 0 and np.ptp(b) > 0
    return float(np.corrcoef(a, b)[0, 1]) if varies else float("nan")


def legend(
    place: Axes | Figure, handles: Sequence[Artist], names: Sequence[str], title: str | None = None, **options: Any
) -> Legend:
    """Draw a legend with these names exactly as they are."""
    # The names are set once the legend exists: ``legend`` leaves out entries whose names begin with '_'.
    drawn = place.legend(handles=list(handles), labels=[" "] * len(handles), title=title, **options)
    for text, name in zip(drawn.get_texts(), names, strict=True):
        text.set(text=name, **PLAIN)
    drawn.get_title().set(**PLAIN)
    return drawn


def explain_panels(place: Axes | Figure, panels: list[Axes], handles: Sequence[Artist], names: Sequence[str]) -> None:
    """Draw one legend for all panels: where the grid has room for another panel, else beneath it; or within axes."""
    if isinstance(place, Axes):
        legend(place, handles, names, fontsize="x-small", framealpha=0.7)
        return
    options: dict[str, Any] = {"frameon": False, "fontsize": "small"}
    grid = panels[0].get_gridspec()
    assert grid is not None
    n_free = grid.nrows * grid.ncols - len(panels)
    if n_free:
        middle = 1 - n_free / grid.ncols / 2, 0.5 / grid.nrows
        # A third of the place is for handles, margins, and the names of the axes beside it.
        width = int(_LETTERS * place.get_figwidth() * n_free / grid.ncols * 2 / 3) - 4
        names = [textwrap.fill(name, max(width, 10)) for name in names]
        legend(place, handles, names, loc="center", bbox_to_anchor=middle, **options)
        return
    for nrows in range(1, len(names) + 1):
        drawn = legend(place, handles, names, loc="outside lower center", ncols=-(-len(names) // nrows), **options)
        extent = drawn.get_window_extent()
        if extent.width <= place.bbox.width or nrows == len(names):
            break
        drawn.remove()
    place.set_figheight(place.get_figheight() + extent.height / place.dpi)
    if extent.width > place.bbox.width:
        widen(panels[0], extent.width - place.bbox.width)


def figure_of(place: Axes | Figure) -> Figure:
    """Return the figure that contains these axes."""
    figure = place.get_figure(root=True)
    assert figure is not None
    return figure


def widen(ax: Axes, pixels: float) -> None:
    """Make our figure wider, so that what stands beside the axes does not make them smaller."""
    figure = figure_of(ax)
    figure.set_figwidth(figure.get_figwidth() + pixels / figure.dpi)


def show_or_return(drawn: Drawn, *, show: bool | None, return_fig: bool) -> Drawn | Figure | None:
    """Show the figure, or return it or its axes, as scanpy's plots do."""
    if return_fig:
        return figure_of(drawn[0] if isinstance(drawn, list) else drawn)
    if settings.autoshow if show is None else show:
        plt.show()
        return None
    return drawn
