"""How far cells would move by chance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scot_hycnn._anndata._representation import Coordinates

# Random halves of the source cells. In medians of groups this level is that of networks which are fitted from one half
# to the other: Kang's CD14 monocytes 1.7 and 1.8, B cells 3.1 and 3.0, planted monocytes 1.2 and 1.2.
_N_HALVES = 5


def level_of_chance(everyone: Coordinates, x: Coordinates) -> NDArray[np.float64]:
    """Return how far a map that is fitted where nothing changes moves the cells x, (n,): all source cells, in halves.

    NaN if everyone is too few cells for the covariances.
    """
    n, n_dims = everyone.shape
    if n < 2 * (n_dims + 1):
        return np.full(len(x), np.nan)
    rng, points, cells = np.random.default_rng(0), everyone.astype(np.float64), x.astype(np.float64)
    total = np.zeros(len(x))
    for _ in range(_N_HALVES):
        order = rng.permutation(n)
        first, second = points[order[: n // 2]], points[order[n // 2 :]]
        # T(z) = m_2 + C_1^(-1/2) (C_1^(1/2) C_2 C_1^(1/2))^(1/2) C_1^(-1/2) (z - m_1), Olkin & Pukelsheim (1982).
        root, inverse = _powers(np.atleast_2d(np.cov(first.T)))
        middle, _ = _powers(root @ np.atleast_2d(np.cov(second.T)) @ root)
        moved = second.mean(axis=0) + (cells - first.mean(axis=0)) @ inverse @ middle @ inverse
        total += np.linalg.norm(moved - cells, axis=1)
    return np.asarray(total / _N_HALVES)


def _powers(matrix: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the square root of a positive semi-definite matrix, and the inverse of the root on its range."""
    values, vectors = np.linalg.eigh(matrix)
    roots = np.sqrt(np.maximum(values, 0))
    inverses = np.where(roots > 1e-6 * roots.max(), 1 / np.maximum(roots, np.finfo(float).tiny), 0)
    return (vectors * roots) @ vectors.T, (vectors * inverses) @ vectors.T
