"""Arrays of cells: the input check that all metrics share, distances of all pairs of cells, and means over them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import issparse
from scipy.spatial.distance import cdist

Samples: TypeAlias = NDArray[np.float64]  # (cells, features)
# A function of squared Euclidean distances, entry by entry.
Elementwise: TypeAlias = Callable[[Samples], Samples]

_BLOCK_ENTRIES = 2**18  # distances of a block: 2 MB of float64, which stay in the cache of a core
# Below this share of |x|² + |y|², the expansion |x|² + |y|² - 2<x,y> has lost more than 4 of 16 digits.
_CANCELLED = 1e-4
_MANY = 0.02  # share of such pairs above which it is faster to compute all of them again

# Beyond these sizes the squares of numbers are infinite or 0 in float64, and so would be distances and variances.
_SMALLEST, _LARGEST = 1e-150, 1e150


def draw_cells(
    x: Samples, y: Samples, max_cells: int, rng: int | np.random.Generator | None
) -> tuple[Samples, Samples]:
    """Return both clouds, with ``max_cells`` random cells of one that has more; a ValueError if that is below 2."""
    if max_cells < 2:
        raise ValueError(f"max_cells={max_cells}; at least 2 cells of each cloud are needed.")
    generator = np.random.default_rng(rng)
    x, y = (
        cells[generator.choice(len(cells), size=max_cells, replace=False)] if len(cells) > max_cells else cells
        for cells in (x, y)
    )
    return x, y


def mean_between(x: Samples, y: Samples, function: Elementwise) -> float:
    """Return the mean of ``function(|x_i - y_j|**2)`` over all i, j."""
    # cdist sums distances coordinate by coordinate. The expansion |x|² + |y|² - 2<x,y> would lose half of the digits
    # where cells are close to each other.
    total = sum(float(function(cdist(x[rows], y, "sqeuclidean")).sum()) for rows in row_blocks(len(x), len(y)))
    return total / (len(x) * len(y))


def mean_within(x: Samples, function: Elementwise) -> float:
    """Return the mean of ``function(|x_i - x_j|**2)`` over all pairs i != j (a U-statistic), computed once a pair."""
    total = 0.0
    for rows in row_blocks(len(x), len(x)):
        values = function(cdist(x[rows], x[rows.start :], "sqeuclidean"))
        total += float(np.triu(values, k=1).sum())
    return total / (len(x) * (len(x) - 1) / 2)


def squared_distances(x: Samples, y: Samples) -> Samples:
    """Return |x_i - y_j|², shape (n, m), with at least 11 digits; it is fast where the origin is near most cells."""
    # Matrix products are four times as fast as sums over coordinates, but lose the digits of cells that are close to
    # each other and far from the origin: those pairs are summed coordinate by coordinate.
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
    """Return slices of rows whose entries stay in the cache of a core."""
    size = max(1, _BLOCK_ENTRIES // n_columns)
    return (slice(start, start + size) for start in range(0, n_rows, size))


def check_samples(*, paired: bool = False, **arrays: ArrayLike) -> tuple[Samples, ...]:
    """Return the named arrays as float64 (cells, features); with ``paired``, row i is the same cell in all of them."""
    samples = {name: _as_samples(name, values) for name, values in arrays.items()}
    advice = {
        "columns": "All arrays need the same features (genes or components) in the same order.",
        "rows": "Row i has to be the same cell in every array; compare unpaired cells with energy_distance, mmd or w2.",
    }
    for axis, what in [(1, "columns"), *([(0, "rows")] if paired else [])]:
        sizes = {name: array.shape[axis] for name, array in samples.items()}
        if len(set(sizes.values())) > 1:
            found = ", ".join(f"{name} {size}" for name, size in sizes.items())
            raise ValueError(f"The numbers of {what} differ: {found}. {advice[what]}")
    return tuple(samples.values())


def _as_samples(name: str, values: ArrayLike) -> Samples:
    if issparse(values):
        raise TypeError(f"{name} is a sparse matrix; pass a dense array, for example {name}.toarray().")
    if isinstance(values, np.ma.MaskedArray):
        values = np.ma.filled(values.astype(np.float64), np.nan)  # a number under the mask is not a value
    try:
        array = np.ascontiguousarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} does not convert to an array of numbers: {error}") from error
    # ascontiguousarray gives a scalar one dimension, hence the dimensions are those of the input.
    if np.ndim(values) != 2 or array.shape[0] < 2 or array.shape[1] < 1:
        raise ValueError(
            f"{name} has shape {np.shape(values)}; it needs two dimensions, (cells, features), with at least 2 cells "
            f"and 1 feature. One feature of many cells is {name}[:, None]."
        )
    n_bad = int((~np.isfinite(array)).any(axis=1).sum())
    if n_bad:
        raise ValueError(
            f"{name} has NaN or infinite values in {n_bad} of {len(array)} rows; select the cells that have "
            f"values first, for example {name}[np.isfinite({name}).all(axis=1)]."
        )
    size = float(np.abs(array).max())
    if size > _LARGEST or 0 < size < _SMALLEST:
        raise ValueError(
            f"{name} has values of size {size:.1e}, whose squares float64 does not hold (sizes from {_SMALLEST:g} to "
            f"{_LARGEST:g}); give all arrays in other units."
        )
    return array
