"""One map to fit: its cells, their groups, and its settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from scot_hycnn.solver._options import Settings

from ._checks import Array, Rows, far_cells, min_cells
from ._groups import Groups, Labels, group_cells


@dataclass(frozen=True)
class Task:
    """One map to fit.

    Parameters
    ----------
    x, y
        Source and target cells, shape (n, d) and (m, d), checked: arrays, or rows of a file that become an array when
        the map is fitted.
    labels_x, labels_y
        Group of each cell, or None. Maps from the same source cells share ``x`` and ``labels_x``.
    settings
        Options, with a value for every option.
    groups_left_out
        Groups with too few cells, whose cells take no part in the fit.
    far_x
        Rows of the source cells that lie far from all others, which maps from the same source share.
    """

    x: Any
    y: Any
    labels_x: Labels | None
    labels_y: Labels | None
    settings: Settings
    groups_left_out: tuple[str, ...]
    far_x: Rows

    def cells(self) -> tuple[Array, Array, Groups | None, Rows]:
        """Return the cells that take part in the fit, in float64, their groups, and the rows of far target cells."""
        x, y = np.asarray(self.x, dtype=np.float64), np.asarray(self.y, dtype=np.float64)
        far_y = far_rows(y)
        x, y = np.delete(x, self.far_x, axis=0), np.delete(y, far_y, axis=0)
        if self.labels_x is None or self.labels_y is None:
            return x, y, None, far_y
        labels = self.labels_x.without(self.far_x), self.labels_y.without(far_y)
        return *group_cells(x, y, labels, self.settings.group_weights), far_y


def far_rows(cells: Any) -> Rows:
    """Return the rows of cells that lie far from all others; none if too few cells would be left."""
    return far_cells(np.asarray(cells, dtype=np.float64), n_kept=min_cells(cells.shape[1]))
