"""Values of cells and groups from those that are like them: means of neighbours, and the kernel of kriging."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

NEIGHBOURS = 15


def mean_of_neighbours(points: NDArray[Any], known: NDArray[Any], values: Numbers) -> Numbers:
    """Return for each point, (n, d), the mean of the values, (k, ...), of the known cells, (k, d), that are nearest."""
    from sklearn.neighbors import NearestNeighbors  # noqa: PLC0415 - it takes half a second

    index = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(known)), algorithm="brute").fit(known)
    return np.asarray(values[index.kneighbors(points, return_distance=False)].mean(1))


@dataclass(frozen=True)
class GroupKernel:
    r"""The kernel :math:`1 + \langle q, q'\rangle / \overline{|q|^2}` of centres q of groups, less their weighted mean.

    Kriging with it is a ridge regression with a constant.

    Source: Rasmussen & Williams (2006), Gaussian Processes for Machine Learning, eq. 2.25 and sec. 4.2.
    """

    origin: Numbers  # (d,)
    scale: float
    noise: Numbers  # (K, K), diagonal: it falls with the number of cells, and is 1 for a group of median size

    @classmethod
    def of(cls, centres: Numbers, weight: Numbers, n_cells: Numbers) -> GroupKernel:
        """Take the centres of K groups, (K, d), their weights, and their effective numbers of cells, (K,) each."""
        origin = weight @ centres
        scale = max(float(((centres - origin) ** 2).sum(1).mean()), 1e-300)
        return cls(origin, scale, np.diag(np.median(n_cells) / n_cells))

    def __call__(self, some: Numbers, others: Numbers) -> Numbers:
        """Return the kernel between centres, (n, d) and (m, d): (n, m)."""
        return np.asarray(1 + (some - self.origin) @ (others - self.origin).T / self.scale)


def cells_of_both(n_source: NDArray[Any], n_target: NDArray[Any]) -> Numbers:
    """Return the effective number of cells of groups: the harmonic mean of both conditions."""
    return np.asarray(2 / (1 / n_source + 1 / n_target))
