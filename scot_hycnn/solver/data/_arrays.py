"""Masked arrays, whose masks NumPy drops without a word."""

from __future__ import annotations

from typing import Any

import numpy as np


def without_mask(cells: Any) -> Any:
    """Return NaN for what a masked array hides, so that it is said to be missing; anything else stays as it is."""
    if isinstance(cells, np.ma.MaskedArray) and cells.dtype.kind in "fiub":
        return np.ma.filled(cells.astype(np.result_type(cells.dtype, np.float32)), np.nan)
    return cells
