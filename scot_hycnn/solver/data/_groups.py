"""Groups of cells, such as cell types, that are to count the same in both clouds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ._checks import FEW_IN_GROUPS, NAMED, UnusableError, least_cells, several

Array = NDArray[np.float64]

# A group with fewer cells in either cloud says nothing of how the group moves.
LEAST_CELLS = 5
# Cells to validate on, if there are so many: from fewer a standard error says little.
LEAST_HELD_OUT = 10
# Fewer cells than these in a cloud give no energy distance worth having: such groups are trained on, and not left out.
LEAST_JUDGED = 10
LEAST_GROUPS_JUDGED = 3
# More labels than these are measured numbers, or names of cells, and no groups. The finest groups that we know of are
# cell types of the mouse brain (1,201 supertypes).
MOST_GROUPS = 2000
CATEGORIES = (
    " Groups (group_key of tl.hycnn_ot) are categories such as cell types: a column of numbers must be cut into some "
    "first, for instance by pandas.cut."
)
# What a missing label becomes as a string: an empty field, NaN of NumPy and pandas.
MISSING = ("", "nan", "NaN", "<NA>", "NaT")

# Proportion of a group from its share of the cells, the mean over both clouds; up to one factor for all groups.
WEIGHTINGS: dict[str, Callable[[Array], Array]] = {
    "sqrt": np.sqrt,
    "equal": np.ones_like,
    "observed": np.asarray,
}


@dataclass(frozen=True, eq=False)
class Labels:
    """Group of each cell of one cloud, as an integer: a screen codes its source cells once, for all targets.

    Parameters
    ----------
    names
        Groups that have a cell, sorted, shape (K,).
    codes
        Of each cell the place of its group in ``names``, shape (n,).
    counts
        Cells of each group, shape (K,).
    """

    names: NDArray[np.str_]
    codes: NDArray[np.int32]
    counts: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.codes)

    @classmethod
    def of(cls, given: Any, name: str = "") -> Labels:
        """Code the labels of a cloud.

        Parameters
        ----------
        given
            Shape (n,): an array, a list, or pandas' categories, whose codes are taken as they are.
        name
            What a message calls the cloud.

        Raises
        ------
        UnusableError
            If a cell has no label.
        """
        if isinstance(given, Labels):
            return given
        names, codes, missing = _coded(given)
        missing = missing | np.isin(names, MISSING)[codes] if len(names) else missing
        if missing.any():
            raise UnusableError(
                f"groups of the {name} cells are missing (NaN, None or an empty label) for {int(missing.sum())} of "
                f"{len(codes)} cells, the first in row {int(np.argmax(missing))}. Name their group, or leave these "
                "cells out.",
                kind="cells without a group",
                found=f"{int(missing.sum())} cells",
            )
        # Labels that differ may print alike, such as 1 and '1'.
        names, same = np.unique(names, return_inverse=True)
        codes = same[codes].astype(np.int32)
        return cls(names, codes, np.bincount(codes, minlength=len(names)))

    def listed(self) -> str:
        """Groups and how many cells they have, for a message."""
        return "{" + several([f"{str(name)!r}: {n}" for name, n in zip(self.names, self.counts, strict=True)]) + "}"

    def without(self, rows: NDArray[np.intp]) -> Labels:
        """Those of all cells but some."""
        codes = np.delete(self.codes, rows)
        return Labels(self.names, codes, np.bincount(codes, minlength=len(self.names)))

    def moved_to(self, places: NDArray[np.intp], n_places: int) -> NDArray[np.intp]:
        """Of each cell its group's number among some of the groups, or -1; shape (n,).

        Parameters
        ----------
        places
            These groups' places in ``names``.
        n_places
            How many they are.
        """
        number = np.full(len(self.names), -1, dtype=np.intp)
        number[places] = np.arange(n_places)
        return number[self.codes]


def _coded(given: Any) -> tuple[NDArray[np.str_], NDArray[np.integer], NDArray[np.bool_]]:
    """Labels in print, of each cell the place of its label among them, and which cells have none."""
    values = getattr(given, "cat", given)  # a Series of categories
    if hasattr(values, "codes") and hasattr(values, "categories"):
        codes, categories = np.asarray(values.codes), np.asarray(values.categories)
        missing = codes < 0
        present = np.flatnonzero(np.bincount(codes[~missing], minlength=len(categories)))
        place = np.zeros(len(categories) + 1, dtype=np.int32)  # the last one is of code -1
        place[present] = np.arange(len(present))
        return categories[present].astype(str), place[codes], missing
    array = np.asarray(given)
    missing = np.ma.getmaskarray(given) if isinstance(given, np.ma.MaskedArray) else np.zeros(len(array), dtype=bool)
    if array.dtype == object:
        missing = missing | np.fromiter((value is None for value in array), bool, len(array))
    return *np.unique(array.astype(str), return_inverse=True), missing


# Of the source and of a target.
PairOfLabels = tuple[Labels, Labels]


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
    def of(cls, x: Any, y: Any, weighting: str) -> Groups:
        """Number the groups of all cells, all of which are in both clouds, and give them proportions."""
        pair = Labels.of(x), Labels.of(y)
        return cls.kept(pair, shared_groups(*pair, least=1), weighting)[0]

    @classmethod
    def kept(
        cls, pair: PairOfLabels, shared: Shared, weighting: str
    ) -> tuple[Groups, NDArray[np.bool_], NDArray[np.bool_]]:
        """Groups that both clouds have, and which cells belong to them, shape (n,) and (m,)."""
        n_groups = len(shared.names)
        x, y = (own.moved_to(places, n_groups) for own, places in zip(pair, shared.places, strict=True))
        keep_x, keep_y = x >= 0, y >= 0
        x, y = x[keep_x], y[keep_y]
        shares = (np.bincount(x, minlength=n_groups) / len(x) + np.bincount(y, minlength=n_groups) / len(y)) / 2
        raw = WEIGHTINGS[weighting](shares)
        return cls(x, y, tuple(map(str, shared.names)), raw / raw.sum()), keep_x, keep_y

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
        rows_of = [_rows_by_group(cloud, len(self.labels)) for cloud in (self.x, self.y)]
        for proportion, *rows in zip(self.proportions, *rows_of, strict=True):
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
        Group of each source and each target cell, a pair of arrays of shape (n,) and (m,), or of pandas' categories.
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
        If there is not one label for each cell, a label is missing (NaN, None, empty), there are more than 2,000
        different ones, fewer than two groups have five cells in both clouds, these are fewer than max(20, 2 d) cells,
        or there are too few groups to leave out.

    Examples
    --------
    >>> from scot_hycnn import solver
    >>> solver.check_groups((["B"] * 9 + ["T"] * 20, ["B"] * 30 + ["T"] * 30 + ["NK"]), (29, 2), (61, 2))
    ['B', 'T']
    """
    pair = pair_of_labels(labels, shape_x[0], shape_y[0])
    return [str(name) for name in usable_groups(pair, shape_x[1], leave_out).names]


@dataclass(frozen=True, eq=False)
class Shared:
    """Groups that two clouds have in common.

    Parameters
    ----------
    names
        Sorted, shape (K,).
    places
        Where they are among the names of either cloud, shape (K,) each.
    """

    names: NDArray[np.str_]
    places: tuple[NDArray[np.intp], NDArray[np.intp]]


def usable_groups(pair: PairOfLabels, n_dims: int, leave_out: str) -> Shared:
    """Groups that a map can be fitted with; see :func:`check_groups`.

    Raises
    ------
    UnusableError
        If they are too many, or too few.
    """
    of_x, of_y = pair
    n_labels = len(of_x.names) + len(np.setdiff1d(of_y.names, of_x.names, assume_unique=True))
    if n_labels > MOST_GROUPS:
        raise UnusableError(
            f"groups: source and target have {n_labels} different labels, such as "
            f"{several([repr(str(name)) for name in of_x.names], 3)}, and at most {MOST_GROUPS} can be groups."
            f"{CATEGORIES}",
            kind=f"more than {MOST_GROUPS} groups",
            found=f"{n_labels} labels",
        )
    shared, judged = shared_groups(of_x, of_y), shared_groups(of_x, of_y, LEAST_JUDGED)
    kept = [int(own.counts[places].sum()) for own, places in zip(pair, shared.places, strict=True)]
    needed, named = least_cells(n_dims), _listed(shared)
    if len(shared.names) < 2:
        problem = (
            f"groups: {named if len(shared.names) else 'no group'} has {LEAST_CELLS} cells or more in both clouds, and "
            f"at least two groups are needed. The source has {of_x.listed()} and the target {of_y.listed()}."
            f"{CATEGORIES if n_labels > NAMED else ''}"
        )
        found = "one group" if len(shared.names) else "no group"
    elif min(kept) < needed:
        problem = (
            f"The groups {named} that source and target share have {kept[0]} and {kept[1]} cells; at least {needed} "
            f"of each are needed in {n_dims} dimensions."
        )
        found = f"{min(kept)} cells"
    elif leave_out == "groups" and len(judged.names) < LEAST_GROUPS_JUDGED:
        problem = (
            f"leave_out='groups' needs at least {LEAST_GROUPS_JUDGED} groups with {LEAST_JUDGED} cells or more in "
            f"source and target; there are {_listed(judged)}. Use leave_out='cells', or finer groups."
        )
        found = f"{len(judged.names)} groups of {LEAST_JUDGED} cells"
    else:
        return shared
    raise UnusableError(problem, kind=FEW_IN_GROUPS, found=found)


def groups_left_out(pair: PairOfLabels, shared: Shared) -> list[str]:
    """Groups whose cells a map is not fitted on, since one cloud has too few of them."""
    return sorted({name for own in pair for name in own.names.tolist()} - set(shared.names.tolist()))


def group_cells(x: Array, y: Array, labels: PairOfLabels, weighting: str) -> tuple[Array, Array, Groups]:
    """Cells of the groups that both clouds have, and these groups.

    Parameters
    ----------
    x, y
        Source and target cells, shape (n, d) and (m, d).
    labels
        The group of each.
    weighting
        One of WEIGHTINGS.

    Returns
    -------
    The cells that are kept, and their groups.
    """
    groups, keep_x, keep_y = Groups.kept(labels, shared_groups(*labels), weighting)
    return x[keep_x], y[keep_y], groups


def labels_of(given: Any, size: int, name: str) -> Labels:
    """Labels of one cloud, coded.

    Raises
    ------
    ValueError
        If there is not one for each cell.
    """
    shape = (len(given),) if isinstance(given, Labels) else np.shape(given)
    if shape != (size,):
        raise UnusableError(
            f"groups of the {name} cells have shape {shape}; there are {size} cells.",
            kind="not one group for each cell",
            found=f"shape {shape}",
        )
    return Labels.of(given, name)


def pair_of_labels(groups: object, n: int, m: int) -> PairOfLabels:
    """Labels of both clouds, coded.

    Raises
    ------
    ValueError
        If they are no pair, or there is not one for each cell.
    """
    pair = list(groups) if isinstance(groups, (tuple, list)) else []
    if len(pair) != 2:
        given = repr(groups)
        raise ValueError(
            "groups must be a pair: labels of the source cells and of the target cells; it is "
            f"{given if len(given) <= 200 else given[:200] + ' ...'}."
        )
    return labels_of(pair[0], n, "source"), labels_of(pair[1], m, "target")


def shared_groups(x: Labels, y: Labels, least: int = LEAST_CELLS) -> Shared:
    """Groups with at least so many cells in both clouds."""
    names, in_x, in_y = np.intersect1d(x.names, y.names, assume_unique=True, return_indices=True)
    enough = np.minimum(x.counts[in_x], y.counts[in_y]) >= least
    return Shared(names[enough], (in_x[enough], in_y[enough]))


def _listed(shared: Shared) -> str:
    return f"[{several([repr(str(name)) for name in shared.names])}]"


def _rows_by_group(cloud: NDArray[np.intp], n_groups: int) -> list[NDArray[np.intp]]:
    """Row numbers of each group's cells, ascending."""
    order = np.argsort(cloud, kind="stable")
    return np.split(order, np.cumsum(np.bincount(cloud, minlength=n_groups))[:-1])
