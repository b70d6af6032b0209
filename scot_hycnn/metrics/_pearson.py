"""Pearson correlation of two profiles over genes."""

from __future__ import annotations

import numpy as np

from ._checks import Samples


def pearson_rows(a: Samples, b: Samples) -> Samples:
    """Pearson correlation of rows, (k, genes) to (k,); NaN, without a warning, where one of them is constant."""
    if a.shape[1] == 0:
        return np.full(len(a), np.nan)
    varies = (np.ptp(a, axis=1) > 0) & (np.ptp(b, axis=1) > 0)
    a, b = (rows - rows.mean(axis=1, keepdims=True) for rows in (a, b))
    scale = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    correlation: Samples = np.divide(
        (a * b).sum(axis=1), scale, out=np.full(len(a), np.nan), where=varies & (scale > 0)
    )
    return correlation


def pearson(a: Samples, b: Samples) -> float:
    """Pearson correlation of two vectors; see :func:`pearson_rows`."""
    return float(pearson_rows(a[None], b[None])[0])
