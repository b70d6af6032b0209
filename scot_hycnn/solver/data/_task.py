"""What one map is to be fitted on, and how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from scot_hycnn.solver._options import Settings
from scot_hycnn.solver.training._methods import make_network

from ._checks import Array, Rows, far_cells, min_cells
from ._groups import Groups, PairOfLabels, group_cells, groups_left_out, pair_of_labels, usable_groups


@dataclass(frozen=True)
class Task:
    """One map to fit.

    Parameters
    ----------
    x, y
        Source and target cells, shape (n, d) and (m, d), checked, as they were given: there may be hundreds of clouds
        y, and they become float64 when their turn comes.
    labels
        Group of each cell, or None. Maps from the same source cells share the source's.
    settings
        Options, every one with its value.
    rest
        Groups whose cells are left out, since they are too few.
    far_x
        Rows of the source cells that lie far from all others, which maps from the same source share; None if they have
        not been looked for.
    """

    x: Any
    y: Any
    labels: PairOfLabels | None
    settings: Settings
    rest: tuple[str, ...] = ()
    far_x: Rows | None = None

    @classmethod
    def of(cls, x: Any, y: Any, labels: Any, *, far_x: Rows | None = None, **options: Any) -> Self:
        """Check options and groups, and give every option its value.

        Raises
        ------
        ValueError
            If an option is out of range, or groups are too few or not one for each cell.
        TypeError
            If an option is unknown.
        """
        n_x, n_y = len(x), len(y)
        settings = Settings.for_cells(min(n_x, n_y), x.shape[1], n_targets=n_y, most_cells=max(n_x, n_y), **options)
        make_network(settings.potential, settings.solver, x.shape[1], settings.hidden)
        if labels is None:
            if settings.leave_out == "groups":
                raise ValueError("leave_out='groups' needs groups: the group of each source and each target cell.")
            return cls(x, y, None, settings, far_x=far_x)
        pair = pair_of_labels(labels, n_x, n_y)
        shared = usable_groups(pair, x.shape[1], settings.leave_out)
        return cls(x, y, pair, settings, tuple(groups_left_out(pair, shared)), far_x)

    @property
    def n_values(self) -> int:
        """Numbers that the cells consist of."""
        return (len(self.x) + len(self.y)) * int(self.x.shape[1])

    def cells(self) -> tuple[Array, Array, Groups | None, tuple[Rows, Rows]]:
        """Source cells, target cells and their groups, without those that are left out, and rows of the far ones."""
        x, y = (np.asarray(cloud, dtype=np.float64) for cloud in (self.x, self.y))
        far_x, far_y = far_rows(x) if self.far_x is None else self.far_x, far_rows(y)
        labels = self.labels
        if len(far_x) or len(far_y):
            x, y = np.delete(x, far_x, axis=0), np.delete(y, far_y, axis=0)
            labels = None if labels is None else (labels[0].without(far_x), labels[1].without(far_y))
        if labels is None:
            return x, y, None, (far_x, far_y)
        return *group_cells(x, y, labels, self.settings.group_weights), (far_x, far_y)


def far_rows(cells: Any) -> Rows:
    """Rows of the cells that lie far from all others; none, if too few cells would be left."""
    return far_cells(np.asarray(cells, dtype=np.float64), n_kept=min_cells(cells.shape[1]))
