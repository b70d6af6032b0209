"""A test for a response, by permutation of source and target cells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist

from scot_hycnn._warn import SIGNIFICANT

from ._checks import Array
from ._groups import Groups, drawn_by_weight

# Cells of each condition that the test compares: with 500 it takes some hundredths of a second.
N_COMPARED = 500
N_PERMUTATIONS = 199


@dataclass(frozen=True)
class NoChange:
    """The hypothesis that the treatment changes nothing: energy distance of source and target, and its p value."""

    energy_distance: float
    p_value: float

    @property
    def rejected(self) -> bool:
        """Whether a response is seen."""
        return self.p_value <= SIGNIFICANT

    @classmethod
    def test(cls, x: Array, y: Array, groups: Groups | None, rng: np.random.Generator) -> NoChange:
        """Compare some cells of both clouds by permutation; with groups, within these, and drawn by their weights.

        Source: Székely & Rizzo (2013), Energy statistics, J. Stat. Plan. Inference 143, sec. 7.
        """
        rows_x, rows_y = (rng.permutation(len(cloud)) for cloud in (x, y))
        if groups is not None and groups.cells_x is not None and groups.cells_y is not None:
            rows_x, rows_y = (
                rng.permutation(drawn_by_weight(weights, order, N_COMPARED, rng))
                for weights, order in ((groups.cells_x, rows_x), (groups.cells_y, rows_y))
            )
        rows_x, rows_y = rows_x[:N_COMPARED], rows_y[:N_COMPARED]
        both, n, m = np.concatenate([x[rows_x], y[rows_y]]), len(rows_x), len(rows_y)
        is_source = np.arange(n + m) < n
        # If the treatment does nothing, labels of condition are exchangeable; with groups within these alone, so that
        # other proportions of groups are not taken for a response.
        group = np.zeros(n + m, dtype=np.intp)
        if groups is not None:
            group = np.concatenate([groups.x[rows_x], groups.y[rows_y]])
        # Where the cells are sorted by group and then at random, labels in the order of groups stay within their group.
        by_group = np.argsort(group, kind="stable")
        divisions = np.empty((N_PERMUTATIONS + 1, n + m))
        divisions[0] = is_source
        for division in divisions[1:]:
            division[np.lexsort((rng.random(n + m), group))] = is_source[by_group]
        # One matrix product gives the sums of distances within and between the parts of all divisions, and so their
        # energy distances (U-statistics).
        between_cells = cdist(both, both)
        to_source = divisions @ between_cells
        within_source = (to_source * divisions).sum(1)
        between = to_source.sum(1) - within_source
        within_target = between_cells.sum() - within_source - 2 * between
        distances = 2 * between / (n * m) - within_source / (n * (n - 1)) - within_target / (m * (m - 1))
        return cls(float(distances[0]), float((distances >= distances[0]).mean()))
