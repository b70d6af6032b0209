"""Groups of cells, such as cell types, that are to count the same in both clouds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ._checks import least_cells

Array = NDArray[np.float64]
Labels = tuple[NDArray[np.str_], NDArray[np.str_]]

# A group with fewer cells in either cloud says nothing of how the group moves.
LEAST_CELLS = 5
# Cells to validate on, if there are so many: from fewer a standard error says little.
LEAST_HELD_OUT = 10
# Fewer cells than these in a cloud give no energy distance worth having: such groups are trained on, and not left out.
LEAST_JUDGED = 10
LEAST_GROUPS_JUDGED = 3

# Proportion of a group from its share of the cells, the mean over both clouds; up to one factor for all groups.
WEIGHTINGS: dict[str, Callable[[Array], Array]] = {
    "sqrt": np.sqrt,
    "equal": np.ones_like,
    "observed": np.asarray,
}


@dataclass(frozen=True)
class Groups:
    r"""The group of each cell, and the proportions that groups are given in both clouds.

    With :math:`q_k` the share of group k among the cells, averaged over both clouds, its proportion is
    :math:`\propto\sqrt{q_k}` (``'sqrt'``), the same for all (``'equal'``) or :math:`q_k` itself (``'observed'``).

    Parameters
    ----------
    x, y
        Number of the group of each source and target cell, shape (n,) and (m,).
    labels
        Their names.
    proportions
        Shape (K,), sum 1.
    """

    x: NDArray[np.intp]
    y: NDArray[np.intp]
    labels: tuple[str, ...]
    proportions: Array

    @classmethod
    def of(cls, x: NDArray[np.str_], y: NDArray[np.str_], weighting: str) -> Groups:
        """Number the groups, all of which are in both clouds, and give them proportions."""
        labels = np.unique(x)
        shares = np.array([((x == label).mean() + (y == label).mean()) / 2 for label in labels])
        raw = WEIGHTINGS[weighting](shares)
        return cls(np.searchsorted(labels, x), np.searchsorted(labels, y), tuple(map(str, labels)), raw / raw.sum())

    @property
    def weights(self) -> tuple[Array, Array]:
        """Weight of each cell, shape (n,) and (m,), sum 1 in each cloud: a group's proportion, spread over its cells.

        Groups without a cell here (they may all be held out) leave their proportion to the others.
        """
        w_x, w_y = (
            self.proportions[cloud] / np.bincount(cloud, minlength=len(self.labels))[cloud]
            for cloud in (self.x, self.y)
        )
        return w_x / w_x.sum(), w_y / w_y.sum()

    def take(self, x: NDArray[np.bool_], y: NDArray[np.bool_]) -> Groups:
        """The groups of some cells, with the proportions of all."""
        return Groups(self.x[x], self.y[y], self.labels, self.proportions)

    def hold_out(self, fraction: float, most: int, rng: np.random.Generator) -> tuple[NDArray[np.bool_], ...]:
        """Which cells to validate on: as many of each group in both clouds, so that the groups have their proportions.

        Parameters
        ----------
        fraction
            Part of the smaller cloud's cells, about; at most half of a group is taken.
        most
            Most cells of a cloud.
        rng
            Source of randomness.

        Returns
        -------
        Boolean arrays, shape (n,) and (m,).
        """
        total = min(max(fraction * min(len(self.x), len(self.y)), LEAST_HELD_OUT), most)
        taken = np.zeros(len(self.x), dtype=bool), np.zeros(len(self.y), dtype=bool)
        for k, proportion in enumerate(self.proportions):
            rows = [np.flatnonzero(cloud == k) for cloud in (self.x, self.y)]
            count = min(max(round(total * proportion), 1), *(len(found) // 2 for found in rows))
            for chosen, found in zip(taken, rows, strict=True):
                chosen[rng.permutation(found)[:count]] = True
        return taken


@dataclass(frozen=True)
class Strata:
    """Draws cells of one cloud, a group by its proportion and then one of its cells.

    Cumulative weights of millions of single cells would be beyond the precision of float32.

    Parameters
    ----------
    cumulative
        Cumulative proportions, shape (K,).
    start, size
        Where the cells of each group begin in the cells ordered by group, and how many they are, shape (K,).
    order
        Row numbers of the cells ordered by group, shape (n,).
    """

    cumulative: Tensor
    start: Tensor
    size: Tensor
    order: Tensor

    @classmethod
    def of(cls, cloud: NDArray[np.intp], proportions: Array, device: str) -> Strata:
        """Prepare for drawing; groups without a cell leave their proportion to the others."""
        size = np.bincount(cloud, minlength=len(proportions))
        share = np.cumsum(np.where(size > 0, proportions, 0))
        numbers = (torch.as_tensor(rows, device=device) for rows in (np.cumsum(size) - size, size, np.argsort(cloud)))
        return cls(torch.as_tensor(share / share[-1], dtype=torch.float32, device=device), *numbers)

    @property
    def codes(self) -> NDArray[np.intp]:
        """Number of the group of each cell, shape (n,)."""
        order, size = self.order.cpu().numpy(), self.size.cpu().numpy()
        codes = np.empty(len(order), dtype=np.intp)
        codes[order] = np.repeat(np.arange(len(size)), size)
        return codes

    def draw(self, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
        """Row numbers, with replacement."""
        group, within = (
            torch.rand(shape, generator=generator, dtype=torch.float32, device=generator.device) for _ in range(2)
        )
        k = torch.searchsorted(self.cumulative, group, right=True).clamp(max=len(self.size) - 1)
        return self.order[self.start[k] + (within * self.size[k]).long().clamp(max=self.size[k] - 1)]


def check_groups(
    labels: object, shape_x: tuple[int, int], shape_y: tuple[int, int], *, leave_out: str = "cells"
) -> list[str]:
    """Check groups as :func:`scot_hycnn.solver.fit` will, before any work.

    Parameters
    ----------
    labels
        Group of each source and each target cell, a pair of arrays of shape (n,) and (m,).
    shape_x, shape_y
        Shapes of both clouds, (n, d) and (m, d).
    leave_out
        ``'groups'`` needs three groups with ten cells or more in both clouds.

    Returns
    -------
    Groups with at least five cells in both clouds; the fit leaves out the cells of others.

    Raises
    ------
    ValueError
        If there is not one label for each cell, fewer than two groups have five cells in both clouds, these are
        fewer than max(20, 2 d) cells, or there are too few groups to leave out.

    Examples
    --------
    >>> from scot_hycnn import solver
    >>> solver.check_groups((["B"] * 9 + ["T"] * 20, ["B"] * 30 + ["T"] * 30 + ["NK"]), (29, 2), (61, 2))
    ['B', 'T']
    """
    return _check(labels, shape_x, shape_y, leave_out)[2]


def _check(
    labels: object, shape_x: tuple[int, ...], shape_y: tuple[int, ...], leave_out: str
) -> tuple[NDArray[np.str_], NDArray[np.str_], list[str]]:
    """Labels of both clouds as strings, and the groups that both have; see :func:`check_groups`."""
    of_x, of_y = _pair_of_labels(labels, shape_x[0], shape_y[0])
    shared = shared_groups(of_x, of_y)
    if len(shared) < 2:
        raise ValueError(
            f"groups: {shared or 'no group'} has {LEAST_CELLS} cells or more in both clouds, and at least two groups "
            f"are needed. The source has {_counts(of_x)} and the target {_counts(of_y)}."
        )
    kept = [int(np.isin(cloud, shared).sum()) for cloud in (of_x, of_y)]
    needed = least_cells(shape_x[1])
    if min(kept) < needed:
        raise ValueError(
            f"The groups {shared} that source and target share have {kept[0]} and {kept[1]} cells; at least {needed} "
            f"of each are needed in {shape_x[1]} dimensions."
        )
    judged = shared_groups(of_x, of_y, LEAST_JUDGED)
    if leave_out == "groups" and len(judged) < LEAST_GROUPS_JUDGED:
        raise ValueError(
            f"leave_out='groups' needs at least {LEAST_GROUPS_JUDGED} groups with {LEAST_JUDGED} cells or more in "
            f"source and target; there are {judged}. Use leave_out='cells', or finer groups."
        )
    return of_x, of_y, shared


def groups_to_leave_out(
    labels: object, shape_x: tuple[int, ...], shape_y: tuple[int, ...], leave_out: str
) -> tuple[Labels, list[str]]:
    """Labels of both clouds, checked as by :func:`check_groups`, and the groups that a fit leaves out."""
    of_x, of_y, shared = _check(labels, shape_x, shape_y, leave_out)
    return (of_x, of_y), sorted({*of_x.tolist(), *of_y.tolist()} - set(shared))


def group_cells(x: Array, y: Array, labels: Labels, weighting: str) -> tuple[Array, Array, Groups]:
    """Cells of the groups that both clouds have, and these groups.

    Parameters
    ----------
    x, y
        Source and target cells, shape (n, d) and (m, d).
    labels
        The group of each, a pair of arrays of shape (n,) and (m,).
    weighting
        One of WEIGHTINGS.

    Returns
    -------
    The cells that are kept, and their groups.
    """
    of_x, of_y = labels
    shared = shared_groups(of_x, of_y)
    keep_x, keep_y = np.isin(of_x, shared), np.isin(of_y, shared)
    return x[keep_x], y[keep_y], Groups.of(of_x[keep_x], of_y[keep_y], weighting)


def _pair_of_labels(groups: object, n: int, m: int) -> Labels:
    """Labels of both clouds as strings.

    Raises
    ------
    ValueError
        If there is not one label for each cell.
    """
    pair = list(groups) if isinstance(groups, (tuple, list)) else []
    if len(pair) != 2:
        raise ValueError(
            f"groups must be a pair: labels of the source cells and of the target cells; it is {groups!r}."
        )
    x, y = (_labels(cloud, size, name) for cloud, size, name in zip(pair, (n, m), ("source", "target"), strict=True))
    return x, y


def shared_groups(x: NDArray[np.str_], y: NDArray[np.str_], least: int = LEAST_CELLS) -> list[str]:
    """Groups with at least so many cells in both clouds."""
    counts = [dict(zip(*np.unique(cloud, return_counts=True), strict=True)) for cloud in (x, y)]
    return [str(label) for label in counts[0] if all(count.get(label, 0) >= least for count in counts)]


def _labels(cloud: ArrayLike, size: int, name: str) -> NDArray[np.str_]:
    labels = np.asarray(cloud)
    if labels.shape != (size,):
        raise ValueError(f"groups of the {name} cells have shape {labels.shape}; there are {size} cells.")
    return labels.astype(str)


def _counts(labels: NDArray[np.str_]) -> dict[str, int]:
    found, counts = np.unique(labels, return_counts=True)
    return {str(label): int(count) for label, count in zip(found, counts, strict=True)}
