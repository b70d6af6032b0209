"""Pearson correlation of two profiles over genes."""

from __future__ import annotations

import numpy as np

from ._checks import Samples


def pearson(a: Samples, b: Samples) -> float:
    """Pearson correlation of two vectors; NaN, without a warning, if one of them is constant."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
