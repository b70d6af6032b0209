"""Distances of all pairs of cells, and means over them in row blocks: time grows with n x m, memory does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from ._checks import Samples

# Elementwise function of squared Euclidean distances. It may overwrite its argument.
Distances: TypeAlias = NDArray[np.floating[Any]]
Elementwise: TypeAlias = Callable[[Distances], Distances]

_BLOCK_ENTRIES = 2**18  # distances held at once: 2 MB of float64, which stays in a core's cache
# Below this share of |x|² + |y|², the expansion |x|² + |y|² - 2<x,y> has lost more than 4 of 16 digits.
_CANCELLED = 1e-4
_MANY = 0.02  # share of such pairs above which it is faster to compute all of them again


def mean_between(x: Samples, y: Samples, function: Elementwise) -> float:
    """Mean of ``function(|x_i - y_j|**2)`` over all i, j.

    Distances are summed coordinate by coordinate, not expanded into |x|² + |y|² - 2<x,y>, which loses half of
    the digits where cells are close to each other.
    """
    total = sum(float(function(cdist(x[rows], y, "sqeuclidean")).sum()) for rows in row_blocks(len(x), len(y)))
    return total / (len(x) * len(y))


def mean_within(x: Samples, function: Elementwise) -> float:
    """Mean of ``function(|x_i - x_j|**2)`` over all pairs i != j (a U-statistic), each evaluated once."""
    total = 0.0
    for rows in row_blocks(len(x), len(x)):
        values = function(cdist(x[rows], x[rows.start :], "sqeuclidean"))
        total += float(np.triu(values, k=1).sum())
    return total / (len(x) * (len(x) - 1) / 2)


def squared_distances(x: Samples, y: Samples) -> Samples:
    """|x_i - y_j|², shape (n, m), with 11 digits or more of each; 0 for equal cells.

    Matrix products are four times as fast as sums over coordinates, but lose the digits of cells that are close to each
    other and far from the origin: those pairs are summed coordinate by coordinate.

    Parameters
    ----------
    x, y
        Cells, shape (n, d) and (m, d); best around an origin that is near most of them.
    """
    squared = np.empty((len(x), len(y)))
    x_norms, y_norms = np.square(x).sum(axis=1), np.square(y).sum(axis=1)
    for rows in row_blocks(*squared.shape):
        block = np.matmul(x[rows], y.T, out=squared[rows])
        scale = np.add.outer(x_norms[rows], y_norms)
        block *= -2
        block += scale
        scale *= _CANCELLED
        near = block <= scale
        n_near = np.count_nonzero(near)
        if n_near > _MANY * near.size:
            block[:] = cdist(x[rows], y, "sqeuclidean")
        elif n_near:
            i, j = np.divmod(np.flatnonzero(near), len(y))
            block[i, j] = np.square(x[rows][i] - y[j]).sum(axis=1)
    return squared


def row_blocks(n_rows: int, n_columns: int) -> Iterator[slice]:
    """Slices of rows, of so many entries as stay in a core's cache."""
    size = max(1, _BLOCK_ENTRIES // n_columns)
    return (slice(start, start + size) for start in range(0, n_rows, size))
