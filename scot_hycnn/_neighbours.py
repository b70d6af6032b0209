"""Groups of cells: what counts as one, pairs of labels, means of neighbours, and the kernel of kriging."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Numbers = NDArray[np.float64]

NEIGHBOURS = 15
# A column with more distinct values holds measurements or names of cells, not groups. The columns with the most groups
# that we found are donors (982 in OneK1K) and cell types of the mouse brain (1,201 supertypes).
MAX_GROUPS = 2000
# A missing label may have become one of these strings: in a file, by astype(str), or as an empty field.
MISSING = ("", "nan", "NaN", "<NA>", "NaT")


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


def paired(
    units: ArrayLike, of_unit: NDArray[np.integer[Any]], kinds: ArrayLike, of_kind: NDArray[np.integer[Any]]
) -> tuple[tuple[str, ...], NDArray[np.intp], NDArray[np.str_]]:
    """Return the groups of cells by two labels: a unit, such as a donor, and a kind within it, such as a cell type.

    Takes the names and, for each cell, the place of its own among them, -1 for none. The groups that have cells are
    returned in the same way, with the unit and the kind of each, (groups, 2).
    """
    n_kinds = np.size(kinds)
    both = np.where((of_unit < 0) | (of_kind < 0), -1, of_unit.astype(np.intp) * n_kinds + of_kind)
    present, place = np.unique(np.append(both, -1), return_inverse=True)  # the first is -1
    unit, kind = np.divmod(present[1:], n_kinds)
    parts = np.stack([np.array(units, np.str_)[unit], np.array(kinds, np.str_)[kind]], axis=1)
    # No two pairs have one name, whatever commas they have.
    return tuple(f"{one.replace(',', ',,')}, {within}" for one, within in parts.tolist()), place[:-1] - 1, parts
