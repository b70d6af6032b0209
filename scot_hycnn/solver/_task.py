"""What one map is to be fitted on, and how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from ._cells import Array, Given
from ._checks import several
from ._choices import make_network
from ._groups import LEAST_CELLS, Groups, PairOfLabels, group_cells, groups_left_out, pair_of_labels, usable_groups
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
        Group of each cell, or None. Maps from the same source cells share the source's.
    settings
        Options, every one with its value.
    rest
        Groups whose cells are left out, since they are too few.
    """

    x: Given
    y: Given
    labels: PairOfLabels | None
    settings: Settings
    rest: tuple[str, ...] = ()

    @classmethod
    def of(cls, x: Given, y: Given, labels: Any, **options: Any) -> Self:
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
            return cls(x, y, None, settings)
        pair = pair_of_labels(labels, n_x, n_y)
        shared = usable_groups(pair, x.shape[1], settings.leave_out)
        return cls(x, y, pair, settings, tuple(groups_left_out(pair, shared)))

    @property
    def left_out(self) -> str:
        """What to say of groups that are left out."""
        if not self.rest:
            return ""
        named = several([repr(label) for label in self.rest])
        return f"left out the groups [{named}], which have fewer than {LEAST_CELLS} cells in source or target."

    @property
    def n_values(self) -> int:
        """Numbers that the cells consist of."""
        return (len(self.x) + len(self.y)) * int(self.x.shape[1])

    def cells(self) -> tuple[Array, Array, Groups | None]:
        """Source cells, target cells and their groups, without those that are left out."""
        x, y = (np.asarray(cloud, dtype=np.float64) for cloud in (self.x, self.y))
        if self.labels is None:
            return x, y, None
        return group_cells(x, y, self.labels, self.settings.group_weights)
