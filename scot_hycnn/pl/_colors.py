"""Colours of cells."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.colors import Normalize, to_hex, to_rgba, to_rgba_array
from numpy.typing import NDArray

from scot_hycnn._anndata import Labels, check_names_differ, column_of, read_labels

from ._panels import MOST_SHOWN

# Okabe & Ito (2008): told apart by readers with any kind of colour vision.
SOURCE, PREDICTED, OBSERVED = "#0072B2", "#D55E00", "#009E73"
BACKGROUND = "#D9D9D9"
_OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")


@dataclass(frozen=True)
class CellColors:
    """A colour for each cell, and what the colours mean.

    Parameters
    ----------
    name
        Column of obs.
    each
        Red, green, blue and opacity of every cell of the AnnData, shape (n_obs, 4).
    legend
        Category to colour; empty for numbers.
    scale
        Range of numbers; None for categories.
    """

    name: str
    each: NDArray[np.floating[Any]]
    legend: dict[str, str]
    scale: Normalize | None


def cell_colors(adata: AnnData, color: str) -> CellColors:
    """Colour cells by a column of obs: categories by scanpy's palette in uns if there is one, numbers by viridis.

    Raises
    ------
    TypeError
        If ``color`` is a list.
    ValueError
        If there is no such column, it holds no finite number, or more labels than a legend can name.

    Warns
    -----
    UserWarning
        If the palette in uns cannot be used.
    """
    column = column_of(adata.obs, color, "color")
    if pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_bool_dtype(column.dtype):
        return _by_number(column, color)
    labels = read_labels(column, f"adata.obs[{color!r}]")
    if len(labels.values) > MOST_SHOWN:
        raise ValueError(
            f"color={color!r} has {len(labels.values):,} different labels, and a legend names at most {MOST_SHOWN}: "
            "colour by numbers or by fewer categories (.cat.remove_unused_categories() drops those without cells)."
        )
    check_names_differ(labels, f"adata.obs[{color!r}]")
    palette = palette_of(adata, color, labels, stacklevel=4)
    # Code -1 is a missing label; it takes the last entry.
    each = to_rgba_array([*palette, BACKGROUND])[labels.codes]
    return CellColors(color, each, dict(zip(labels.names, palette, strict=True)), None)


def _by_number(column: pd.Series[Any], color: str) -> CellColors:
    values = column.to_numpy(dtype=float, na_value=np.nan)
    finite = np.isfinite(values)
    if not finite.any():
        raise ValueError(f"color={color!r} has no finite value in adata.obs; choose another column.")
    scale = Normalize(values[finite].min(), values[finite].max())
    each = np.tile(to_rgba(BACKGROUND), (len(values), 1))
    each[finite] = mpl.colormaps["viridis"](scale(values[finite]))
    return CellColors(color, each, {}, scale)


def palette_of(adata: AnnData, name: str, labels: Labels, *, stacklevel: int | None) -> list[str]:
    """Colour of each label: scanpy's in uns if they can be used, else our own.

    Parameters
    ----------
    adata
        The cells.
    name
        Column of obs.
    labels
        Its labels.
    stacklevel
        Of the warning, as for :func:`warnings.warn`; None for no warning.

    Warns
    -----
    UserWarning
        If there are colours that cannot be used.
    """
    n, key = len(labels.values), f"{name}_colors"
    stored: Any = adata.uns.get(key)
    if stored is not None or key in adata.uns:
        wrong = _why_unusable(stored, n)
        if wrong is None:
            return [to_hex(tuple(color) if isinstance(color, np.ndarray) else color) for color in stored[:n]]
        if stacklevel is not None:
            warnings.warn(
                f"adata.uns[{key!r}] {wrong}, so other colours are drawn; put one colour that matplotlib knows for "
                "each category there, or delete it.",
                UserWarning,
                stacklevel=stacklevel,
            )
    if n <= len(_OKABE_ITO):
        return list(_OKABE_ITO[:n])
    named = "tab10" if n <= 10 else "tab20" if n <= 20 else "turbo"
    # An array of integers counts the entries of a list of colours, one of floats runs along a continuous map.
    steps = np.linspace(0, 1, n) if named == "turbo" else np.arange(n)
    return [to_hex(value) for value in mpl.colormaps[named](steps)]


def _why_unusable(stored: Any, n: int) -> str | None:
    """What is wrong with a palette for n categories; None if nothing is."""
    if not isinstance(stored, (Sequence, np.ndarray, pd.Index, pd.Series)) or isinstance(stored, str):
        return f"is of type {type(stored).__name__} and no list of colours"
    if np.ndim(stored) == 0 or len(stored) < n:
        return f"has {0 if np.ndim(stored) == 0 else len(stored)} colours for {n} categories"
    unknown = [color for color in list(stored)[:n] if not _is_color(color)]
    return f"has {unknown[0]!r}, which is no colour that matplotlib knows" if unknown else None


def _is_color(color: Any) -> bool:
    try:
        opacity = to_rgba(tuple(color) if isinstance(color, np.ndarray) else color)[3]
    except (TypeError, ValueError):
        return False
    return opacity > 0  # 'None' is a colour too, that of nothing
