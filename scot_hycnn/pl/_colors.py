"""Colours of cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.colors import Normalize, to_hex
from numpy.typing import NDArray

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
        Hexadecimal colour of every cell of the AnnData, shape (n_obs,).
    legend
        Category to colour; empty for numbers.
    scale
        Range of numbers; None for categories.
    """

    name: str
    each: NDArray[np.str_]
    legend: dict[str, str]
    scale: Normalize | None


def cell_colors(adata: AnnData, color: str) -> CellColors:
    """Colour cells by a column of obs: categories by scanpy's palette in uns if there is one, numbers by viridis.

    Raises
    ------
    ValueError
        If there is no such column, or it holds no finite number.
    """
    if color not in adata.obs:
        raise ValueError(f"color={color!r} is not a column of adata.obs; it has {list(adata.obs)}.")
    column = adata.obs[color]
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        values = column.to_numpy(dtype=float)
        finite = np.isfinite(values)
        if not finite.any():
            raise ValueError(f"color={color!r} has no finite value in adata.obs; choose another column.")
        scale = Normalize(values[finite].min(), values[finite].max())
        each = [to_hex(mpl.colormaps["viridis"](scale(v))) if np.isfinite(v) else BACKGROUND for v in values]
        return CellColors(color, np.array(each), {}, scale)
    categories = column.astype("category").cat
    palette = _palette(adata, color, len(categories.categories))
    # Code -1 is a missing label; it takes the last entry.
    each = np.array([*palette, BACKGROUND])[categories.codes]
    return CellColors(color, np.array(each), dict(zip(map(str, categories.categories), palette, strict=True)), None)


def _palette(adata: AnnData, color: str, n: int) -> list[str]:
    stored: Any = adata.uns.get(f"{color}_colors", ())
    if len(stored) >= n:
        return [to_hex(value) for value in stored[:n]]
    if n <= len(_OKABE_ITO):
        return list(_OKABE_ITO[:n])
    named = "tab10" if n <= 10 else "tab20" if n <= 20 else "turbo"
    # An array of integers counts the entries of a list of colours, one of floats runs along a continuous map.
    steps = np.linspace(0, 1, n) if named == "turbo" else np.arange(n)
    return [to_hex(value) for value in mpl.colormaps[named](steps)]
