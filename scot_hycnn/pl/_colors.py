"""Colours of cells by a column of obs or a gene, and what explains them."""

from __future__ import annotations

from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, to_rgba_array
from numpy.typing import NDArray

from scot_hycnn._anndata._conditions import MAX_ENTRIES, column_of, listed, read_groups
from scot_hycnn._anndata._representation import space_of
from scot_hycnn._anndata._results import Results, read_fit
from scot_hycnn._anndata.genes._genes import read_gene
from scot_hycnn._warn import did_you_mean

from ._figure import PLAIN, figure_of, widen
from ._labels import BACKGROUND, palette_of
from ._plane import add_legend

# Percentile of a column of numbers at which the scale of its colours ends.
_TOP_COLOR = 99


class CellColors(NamedTuple):
    """Colours of all cells by a column of obs or a gene."""

    column: str  # its name in print
    rgba: NDArray[np.floating[Any]]  # (n_obs, 4)
    predicted: NDArray[np.floating[Any]]  # of source cells that were moved, (n_obs, 4)
    legend: dict[str, str]  # categories and their colours
    scale: Normalize | None = None  # from numbers to viridis
    extend: str = "neither"  # 'max' if numbers lie beyond the end of the scale


def cell_colors(
    adata: AnnData, color: str, key: str, results: Results, rows: NDArray[np.intp], *, with_predicted: bool = False
) -> CellColors:
    """Colour cells by a column of obs or a gene: categories by scanpy's palette in uns if there is one, else viridis.

    The legend names the categories of the cells in ``rows``, and their numbers decide where the scale ends. Predicted
    cells have the category of their source cell, and their own predicted expression.
    """
    # Anything but a name gets the error of column_of.
    if isinstance(color, str) and color not in adata.obs:
        if color not in [*adata.var_names, *([] if adata.raw is None else adata.raw.var_names)]:
            raise ValueError(
                f"color={color!r} is neither a gene nor a column of adata.obs, which has {listed(adata.obs.columns)}."
                f"{did_you_mean(color, [*adata.obs.columns, *adata.var_names])}"
            )
        measured, predicted = read_gene(adata, results, key, color, with_predicted=with_predicted)
        return _of_numbers(color, measured, measured if predicted is None else predicted, rows)
    column, fit = column_of(adata.obs, color, "color"), read_fit(adata, key)
    is_numeric = pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_bool_dtype(column.dtype)
    # Integers may be the groups of the fit.
    if is_numeric and color != fit.params.get("group_key"):
        values = column.to_numpy(dtype=float, na_value=np.nan)
        if not np.isfinite(values).any():
            raise ValueError(f"color={color!r} has no finite value in adata.obs; choose another column.")
        # Columns of the fit have the unit of its representation.
        slots = fit.slots(fit.slug(results.target))
        names = {slots.displacement: "displacement", slots.std: "standard deviation of the networks"}
        name = f"{names[color]} (distance in {space_of(results.rep)})" if color in names else color
        return _of_numbers(name, values, values, rows)
    labels = read_groups(adata.obs, color, "color")
    if len(labels.values) > MAX_ENTRIES:
        raise ValueError(
            f"color={color!r} has {len(labels.values):,} different labels, and a legend names at most {MAX_ENTRIES}: "
            "colour by numbers or by fewer categories (.cat.remove_unused_categories() drops those without cells)."
        )
    palette = palette_of(adata, color, labels)
    # A missing label has the code -1, which takes the last entry.
    rgba = to_rgba_array([*palette, BACKGROUND])[labels.codes]
    drawn = np.unique(labels.codes[rows])
    return CellColors(color, rgba, rgba, {labels.names[code]: palette[code] for code in drawn[drawn >= 0]})


def _of_numbers(
    name: str, values: NDArray[np.float64], predicted: NDArray[np.float64], rows: NDArray[np.intp]
) -> CellColors:
    """Colour numbers of all cells, shape (n_obs,), on a scale for those in ``rows``; grey is not finite."""
    # A few extreme cells would leave no range for all others.
    shown = values[rows][np.isfinite(values[rows])]
    shown = shown if len(shown) else values[np.isfinite(values)]
    # A gene that few cells express is 0 up to a high percentile.
    top = float(np.percentile(shown, _TOP_COLOR))
    top = top if top > shown.min() else float(shown.max())
    scale, colors = Normalize(shown.min(), top), mpl.colormaps["viridis"].with_extremes(bad=BACKGROUND)
    rgba, of_predicted = (colors(scale(np.ma.masked_invalid(numbers))) for numbers in (values, predicted))
    return CellColors(name, rgba, of_predicted, {}, scale, "max" if shown.max() > top else "neither")


def explain(ax: Axes, colors: CellColors, others: dict[str, str] | None = None, *, inside: bool) -> None:
    """Add a legend for categories or a colour bar for numbers; ``others`` are cells drawn in one colour, by name."""
    beside = {f"({name} cells)": color for name, color in (others or {}).items()}
    if colors.scale is None:
        add_legend(ax, colors.legend | beside, colors.column, inside=inside)
        return
    mappable = mpl.cm.ScalarMappable(colors.scale, "viridis")
    bar = figure_of(ax).colorbar(mappable, ax=ax, shrink=0.7, extend=colors.extend)
    bar.set_label(colors.column, **PLAIN)
    if not inside:
        extent = bar.ax.get_tightbbox()
        assert extent is not None
        widen(ax, extent.width)
    if beside:
        add_legend(ax, beside, inside=True)
