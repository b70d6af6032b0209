"""The input check that all metrics of arrays share."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import issparse

Samples: TypeAlias = NDArray[np.float64]  # (cells, features)

# Beyond these sizes the squares of numbers are infinite or 0 in float64, and so would be distances and variances.
_SMALLEST, _LARGEST = 1e-150, 1e150


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
