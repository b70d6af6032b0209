"""Pearson correlation of two profiles over genes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ._checks import Samples


def pearson_rows(a: Samples, b: Samples, a_rounding: Samples | float = 0, b_rounding: Samples | float = 0) -> Samples:
    """Pearson correlation of rows, (k, genes) to (k,); NaN, without a warning, where one of them is constant.

    A row is constant if one number is within ``a_rounding`` (of each gene, shape (genes,)) of all its values.
    """
    if a.shape[1] == 0:
        return np.full(len(a), np.nan)
    varies = _varies(a, a_rounding) & _varies(b, b_rounding)
    a, b = (_unit_scale(rows - rows.mean(axis=1, keepdims=True)) for rows in (a, b))
    scale = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    correlation = np.divide((a * b).sum(axis=1), scale, out=np.full(len(a), np.nan), where=varies & (scale > 0))
    return np.asarray(np.clip(correlation, -1, 1))


def pearson(a: Samples, b: Samples, a_rounding: Samples | float = 0, b_rounding: Samples | float = 0) -> float:
    """Pearson correlation of two vectors; see :func:`pearson_rows`."""
    return float(pearson_rows(a[None], b[None], a_rounding, b_rounding)[0])


def _varies(rows: Samples, rounding: Samples | float) -> NDArray[np.bool_]:
    return np.asarray((rows - rounding).max(axis=1) > (rows + rounding).min(axis=1))


def _unit_scale(rows: Samples) -> Samples:
    """Rows over their largest value, whose squares neither overflow nor vanish."""
    largest = np.abs(rows).max(axis=1, keepdims=True)
    scaled: Samples = np.divide(rows, largest, out=np.zeros_like(rows), where=largest > 0)
    return scaled
