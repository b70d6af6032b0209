"""What one map is to be fitted on, and how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from ._cells import Array, Given
from ._checks import least_cells
from ._choices import make_network
from ._far import Rows, far_cells
from ._groups import LEAST_CELLS, Groups, Labels, group_cells, groups_to_leave_out
from ._settings import Settings


@dataclass(frozen=True)
class Task:
    """One map to fit.

    Parameters
    ----------
    x, y
        Source and target cells, shape (n, d) and (m, d), checked, as they were given: there may be hundreds of clouds
        y, and they become float64 when their turn comes.
    labels
        Group of each cell, or None.
    settings
        Options, every one with its value.
    rest
        Groups whose cells are left out, since they are too few.
    """

    x: Given
    y: Given
    labels: Labels | None
    settings: Settings
    rest: tuple[str, ...] = ()

    @classmethod
    def of(cls, x: Given, y: Given, labels: Any, **options: Any) -> Self:
        """Check options and groups, and give every option its value.

        Raises
        ------
        ValueError
            If an option is unknown or out of range, or groups are too few or not one for each cell.
        """
        settings = Settings.for_cells(min(len(x), len(y)), x.shape[1], n_targets=len(y), **options)
        make_network(settings.potential, settings.solver, x.shape[1], settings.hidden)
        if labels is None:
            if settings.leave_out == "groups":
                raise ValueError("leave_out='groups' needs groups: the group of each source and each target cell.")
            return cls(x, y, None, settings)
        pair, rest = groups_to_leave_out(labels, x.shape, y.shape, settings.leave_out)
        return cls(x, y, pair, settings, tuple(rest))

    @property
    def left_out(self) -> str:
        """What to say of groups that are left out."""
        if not self.rest:
            return ""
        return f"left out the groups {list(self.rest)}, which have fewer than {LEAST_CELLS} cells in source or target."

    @property
    def n_values(self) -> int:
        """Numbers that the cells consist of."""
        return int(self.x.size + self.y.size)

    def cells(self) -> tuple[Array, Array, Groups | None, tuple[Rows, Rows]]:
        """Source cells, target cells and their groups, without those that are left out, and rows of the far ones."""
        x, y = (np.asarray(cloud, dtype=np.float64) for cloud in (self.x, self.y))
        n_kept = least_cells(x.shape[1])
        far = far_cells(x, n_kept=n_kept), far_cells(y, n_kept=n_kept)
        labels = self.labels
        if len(far[0]) or len(far[1]):
            x, y = np.delete(x, far[0], axis=0), np.delete(y, far[1], axis=0)
            labels = None if labels is None else (np.delete(labels[0], far[0]), np.delete(labels[1], far[1]))
        if labels is None:
            return x, y, None, far
        return *group_cells(x, y, labels, self.settings.group_weights), far
