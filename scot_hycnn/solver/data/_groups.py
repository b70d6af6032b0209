"""Groups of cells, such as cell types, that count the same in both clouds: their labels, checks and proportions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from scot_hycnn._neighbours import MAX_GROUPS, MISSING, paired
from scot_hycnn._response import MAX_CHANCE, drawn_by_weight
from scot_hycnn._warn import MAX_NAMES, counted, joined

from ._checks import FEW_IN_GROUPS, Array, UnusableError, min_cells

# A group with fewer cells in either cloud does not show how the group moves.
MIN_CELLS = 5
# Cells to validate on, if there are so many: from fewer a standard error is not reliable.
MIN_HELD_OUT = 10
# Fewer cells than these in a cloud give no useful energy distance: such groups are trained on, and not left out.
MIN_CELLS_LEFT_OUT = 10
MIN_GROUPS_LEFT_OUT = 3
# Standard errors over groups by which networks must be better on groups left out. Groups are few and differ: with one,
# a quarter of the network was taken on three of seven Kang types left out, and lost up to .013 of Pearson-delta; with
# two on one of them.
GROUP_STANDARD_ERRORS = 2.0
CATEGORIES = (
    " Groups (group_key of tl.hycnn_ot) are categories such as cell types: a column of numbers must be cut into some "
    "first, for instance by pandas.cut."
)
# The usual fault of a design: its donors were either treated or not.
UNITS = (
    " Each of these is a unit (such as a donor, the column that leave_out names) and a group within it, which must "
    "have cells in both conditions. If no unit has, leave this column out: donors and treatment cannot be told apart."
)


@dataclass(frozen=True, eq=False)
class Labels:
    """Group of each cell of one cloud, as an integer: a screen codes its source cells once, for all targets."""

    # Groups that have a cell, sorted, shape (K,); the place of each cell's group among them, shape (n,); and the number
    # of cells of each group, shape (K,).
    names: NDArray[np.str_]
    codes: NDArray[np.int32]
    counts: NDArray[np.intp]
    # Of labels in two columns what is left out of each group and the group within it, such as donor and type, (K, 2).
    parts: NDArray[np.str_] | None = None

    def __len__(self) -> int:
        return len(self.codes)

    @classmethod
    def of(cls, values: Any, name: str = "") -> Labels:
        """Code labels, (n,) or (n, 2): an array, a list or categories of pandas; ``name`` is the cloud in messages."""
        if isinstance(values, Labels):
            return values
        if np.ndim(values) == 2:
            columns = [values.iloc[:, 0], values.iloc[:, 1]] if hasattr(values, "iloc") else np.asarray(values).T
            units, kinds = (cls.of(column, name) for column in columns)
            pairs, place, parts = paired(units.names, units.codes, kinds.names, kinds.codes)
            return cls(np.array(pairs, np.str_), place.astype(np.int32), np.bincount(place), parts)
        categorical = getattr(values, "cat", values)  # a Series of categories
        if hasattr(categorical, "codes") and hasattr(categorical, "categories"):
            # Categories make it unnecessary to read every label, but some of them may have no cell.
            codes, categories = np.asarray(categorical.codes), np.asarray(categorical.categories)
            missing = codes < 0
            present = np.flatnonzero(np.bincount(codes[~missing], minlength=len(categories)))
            place = np.zeros(len(categories) + 1, dtype=np.int32)  # the last one is of code -1
            place[present] = np.arange(len(present))
            names, codes = categories[present].astype(str), place[codes]
        else:
            array = np.asarray(values)
            missing = np.zeros(len(array), dtype=bool)
            if isinstance(values, np.ma.MaskedArray):
                missing |= np.ma.getmaskarray(values)
            if array.dtype == object:
                missing |= np.fromiter((value is None for value in array), bool, len(array))
            names, codes = np.unique(array.astype(str), return_inverse=True)
        if len(names):
            missing = missing | np.isin(names, MISSING)[codes]
        if missing.any():
            raise UnusableError(
                f"groups of the {name} cells are missing (NaN, None or an empty label) for {int(missing.sum())} of "
                f"{len(codes)} cells, the first in row {int(np.argmax(missing))}. Name their group, or leave these "
                "cells out.",
                kind="cells without a group",
                found=counted(int(missing.sum()), "cell"),
            )
        # Labels that differ may print alike, such as 1 and '1'.
        names, same = np.unique(names, return_inverse=True)
        codes = same[codes].astype(np.int32)
        return cls(names, codes, np.bincount(codes, minlength=len(names)))

    def without(self, rows: NDArray[np.intp]) -> Labels:
        """Return the labels of all cells but those of these rows."""
        codes = np.delete(self.codes, rows)
        return replace(self, codes=codes, counts=np.bincount(codes, minlength=len(self.names)))


# Labels of the source and of a target.
PairOfLabels = tuple[Labels, Labels]


@dataclass(frozen=True)
class Groups:
    """The group of each cell, and the proportions that the groups have in both clouds."""

    # Number of the group of each source and target cell, shape (n,) and (m,).
    x: NDArray[np.intp]
    y: NDArray[np.intp]
    # Name and proportion of each group; the proportions add up to 1.
    labels: tuple[str, ...]
    proportions: Array
    # Where whole donors (or whatever units) are left out, and the groups are those within them: the unit of each group
    # and its kind, which the groups of several units share, (K, 2).
    parts: NDArray[np.str_] | None = None
    # How much each cell counts within its group, (n,) and (m,), where these weights differ: see _unbalanced.py.
    cells_x: Array | None = None
    cells_y: Array | None = None

    @classmethod
    def of_one(cls, n_source: int, n_target: int) -> Groups:
        """Return the single group of all cells, for weights without groups."""
        return cls(np.zeros(n_source, np.intp), np.zeros(n_target, np.intp), ("all cells",), np.ones(1))

    @property
    def weights(self) -> tuple[Array, Array]:
        """Weight of each cell, (n,) and (m,), sum 1 in each cloud: a group's proportion, spread over its cells."""
        # Groups without a cell here (they may all be held out) leave their proportion to the others.
        weights = []
        for codes, within in ((self.x, self.cells_x), (self.y, self.cells_y)):
            cells = np.ones(len(codes)) if within is None else within
            raw = cells * (self.proportions / np.maximum(np.bincount(codes, cells, len(self.labels)), 1e-300))[codes]
            weights.append(raw / raw.sum())
        return weights[0], weights[1]

    @property
    def units(self) -> NDArray[np.str_]:
        """What is left out with each group, (K,): the group itself, or its unit."""
        return np.array(self.labels) if self.parts is None else self.parts[:, 0]

    def take(self, x: NDArray[np.bool_], y: NDArray[np.bool_]) -> Groups:
        """Return the groups of some cells, with the proportions of all."""
        cells_x, cells_y = (w if w is None else w[kept] for w, kept in ((self.cells_x, x), (self.cells_y, y)))
        return replace(self, x=self.x[x], y=self.y[y], cells_x=cells_x, cells_y=cells_y)

    def without(self, x: NDArray[np.bool_], y: NDArray[np.bool_]) -> Groups:
        """Return the groups of all cells but those that :meth:`hold_out` returned, by which the others count more."""
        rest, held = self.take(~x, ~y), self.take(x, y)
        if self.cells_x is None or self.cells_y is None:
            return rest
        cells = []
        for codes, its_cells, held_codes in ((self.x, self.cells_x, held.x), (self.y, self.cells_y, held.y)):
            # Heavy cells are more likely held out, with this probability.
            n_held = np.bincount(held_codes, minlength=len(self.labels))
            total = np.bincount(codes, its_cells, len(self.labels))
            chance = its_cells * (n_held / np.maximum(total, 1e-300))[codes]
            cells.append(its_cells / (1 - np.minimum(chance, MAX_CHANCE)))
        return replace(rest, cells_x=cells[0][~x], cells_y=cells[1][~y])

    def hold_out(
        self, fraction: float, max_cells: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return which cells to validate on, shape (n,) and (m,): about a fraction of the smaller cloud."""
        # As many of each group are taken in both clouds, so that the groups have their proportions, and at most half of
        # the group's cells.
        total = min(max(fraction * min(len(self.x), len(self.y)), MIN_HELD_OUT), max_cells)
        in_x, in_y = np.zeros(len(self.x), dtype=bool), np.zeros(len(self.y), dtype=bool)
        by_group = (
            np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes, minlength=len(self.labels)))[:-1])
            for codes in (self.x, self.y)
        )
        for proportion, rows_x, rows_y in zip(self.proportions, *by_group, strict=True):
            count = min(max(round(total * proportion), 1), len(rows_x) // 2, len(rows_y) // 2)
            for held, rows, cells in ((in_x, rows_x, self.cells_x), (in_y, rows_y, self.cells_y)):
                order = rng.permutation(rows)
                held[order[:count] if cells is None else drawn_by_weight(cells, order, count, rng)] = True
        return in_x, in_y


@dataclass(frozen=True)
class Baselines:
    r"""How the source cells of units, such as donors, differ: cells of kind k in unit u have the mean b_u + p_k.

    Least squares over the cells of all groups. So a baseline does not depend on the proportions of kinds in its unit.
    """

    units: dict[str, Array]  # b_u, (d,)
    kinds: dict[str, Array]  # p_k, (d,); their mean is 0

    @classmethod
    def of(cls, centres: Array, counts: NDArray[np.intp], parts: NDArray[np.str_]) -> Baselines:
        """Fit them to the means, (K, d), of groups with so many cells."""
        (units, unit), (kinds, kind) = (np.unique(column, return_inverse=True) for column in parts.T)
        n, sums = np.zeros((len(units), len(kinds))), np.zeros((len(units), len(kinds), centres.shape[1]))
        n[unit, kind], sums[unit, kind] = counts, counts[:, None] * centres
        # The normal equations without the baselines.
        share = n / n.sum(1, keepdims=True)
        normal = np.diag(n.sum(0)) - n.T @ share
        profiles = np.linalg.pinv(normal, hermitian=True) @ (sums.sum(0) - share.T @ sums.sum(1))
        baselines = sums.sum(1) / n.sum(1, keepdims=True) - share @ profiles
        return cls(*(dict(zip(n.tolist(), p, strict=True)) for n, p in ((units, baselines), (kinds, profiles))))

    def of_unit(self, centres: Array, counts: NDArray[np.intp], kinds: NDArray[np.str_]) -> Array:
        """Return the baseline of a new unit, (d,), from the means, (K, d), of its groups; kinds without profile: 0."""
        known = np.isin(kinds, list(self.kinds))
        known = known if known.any() else ~known
        apart = [mean - self.kinds.get(kind, 0.0) for mean, kind in zip(centres[known], kinds[known], strict=True)]
        return np.asarray(np.average(apart, axis=0, weights=counts[known]))


def reach(centres: Array, centre: Array) -> float:
    """Return by how much the move of a group at this centre, (d,), is known from groups at centres, (K, d): in (0, 1].

    It is 1 up to the largest distance of any of them to its nearest other one, and falls with the inverse distance
    beyond.
    """
    if len(centres) < 2:
        return 1.0
    spacing = np.partition(cdist(centres, centres), 1, axis=1)[:, 1].max()
    apart = float(cdist(centre[None], centres).min())
    return 1.0 if apart <= spacing else float(spacing / apart)


def check_groups(
    labels: object, shape_x: tuple[int, int], shape_y: tuple[int, int], *, leave_out: str = "cells"
) -> list[str]:
    """Check groups as :func:`scot_hycnn.solver.fit` will, before any work.

    The fit also leaves out single cells that lie far from all others, which labels do not show, and counts groups
    without them.

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
    of_x, of_y = pair_of(labels)
    pair = labels_of(of_x, shape_x[0], "source"), labels_of(of_y, shape_y[0], "target")
    return [str(name) for name in usable_groups(pair, shape_x[1], leave_out)]


def usable_groups(pair: PairOfLabels, n_dims: int, leave_out: str) -> NDArray[np.str_]:
    """Return the sorted names of the groups that a map can be fitted with, or raise an UnusableError."""
    of_x, of_y = pair
    n_labels = len(np.union1d(of_x.names, of_y.names))
    if n_labels > MAX_GROUPS:
        raise UnusableError(
            f"groups: source and target have {n_labels} different labels, such as "
            f"{joined([repr(str(name)) for name in of_x.names], 3)}, and at most {MAX_GROUPS} can be groups."
            f"{CATEGORIES}",
            kind=f"more than {MAX_GROUPS} groups",
            found=f"{n_labels} labels",
        )
    shared, can_leave_out = _shared(pair, MIN_CELLS), _shared(pair, MIN_CELLS_LEFT_OUT)
    if of_x.parts is not None:
        can_leave_out = np.unique(of_x.parts[np.isin(of_x.names, can_leave_out), 0])
    n_x, n_y = (int(labels.counts[np.isin(labels.names, shared)].sum()) for labels in pair)
    needed = min_cells(n_dims)
    if len(shared) < 2:
        listed_x, listed_y = (
            joined([f"{str(name)!r}: {n}" for name, n in zip(labels.names, labels.counts, strict=True)])
            for labels in pair
        )
        problem = (
            f"groups: {_listed(shared) if len(shared) else 'no group'} has {MIN_CELLS} cells or more in both clouds, "
            f"and at least two groups are needed. The source has {{{listed_x}}} and the target {{{listed_y}}}."
            f"{CATEGORIES if n_labels > MAX_NAMES else ''}{'' if of_x.parts is None else UNITS}"
        )
        found = "one group" if len(shared) else "no group"
    elif min(n_x, n_y) < needed:
        problem = (
            f"The groups {_listed(shared)} that source and target share have {n_x} and {n_y} cells; at least {needed} "
            f"of each are needed in {counted(n_dims, 'dimension')}."
        )
        found = counted(min(n_x, n_y), "cell")
    elif leave_out == "groups" and len(can_leave_out) < MIN_GROUPS_LEFT_OUT:
        problem = (
            f"leave_out='groups' needs at least {MIN_GROUPS_LEFT_OUT} groups with {MIN_CELLS_LEFT_OUT} cells or more "
            f"in source and target; there are {_listed(can_leave_out)}. Use leave_out='cells', or finer groups."
        )
        found = f"{counted(len(can_leave_out), 'group')} of {MIN_CELLS_LEFT_OUT} cells"
    else:
        return shared
    raise UnusableError(problem, kind=FEW_IN_GROUPS, found=found)


def _shared(pair: PairOfLabels, minimum: int) -> NDArray[np.str_]:
    """Return the names of the groups with so many cells in both clouds."""
    of_x, of_y = pair
    names, in_x, in_y = np.intersect1d(of_x.names, of_y.names, assume_unique=True, return_indices=True)
    return names[np.minimum(of_x.counts[in_x], of_y.counts[in_y]) >= minimum]


def _listed(names: NDArray[np.str_]) -> str:
    return f"[{joined([repr(str(name)) for name in names])}]"


def groups_left_out(pair: PairOfLabels, usable: NDArray[np.str_]) -> list[str]:
    """Return the groups whose cells a map is not fitted on, since one cloud has too few of them."""
    of_x, of_y = pair
    left_out: list[str] = np.setdiff1d(np.union1d(of_x.names, of_y.names), usable).tolist()
    return left_out


def group_cells(
    x: Array, y: Array, labels: PairOfLabels, weighting: Callable[[Array], Array]
) -> tuple[Array, Array, Groups]:
    """Return the cells of the groups that both clouds have, and these groups with their proportions.

    ``weighting`` gives proportions, up to a factor, from shares of the cells, which are means over both clouds.
    """
    names = _shared(labels, MIN_CELLS)
    codes = []
    for of_cloud in labels:
        # Number of each group among the shared ones; -1 for the others, whose cells are left out.
        _, places, numbers = np.intersect1d(of_cloud.names, names, assume_unique=True, return_indices=True)
        number = np.full(len(of_cloud.names), -1)
        number[places] = numbers
        codes.append(number[of_cloud.codes])
    in_x, in_y = codes[0] >= 0, codes[1] >= 0
    of_x, of_y = codes[0][in_x], codes[1][in_y]
    shares = (
        np.bincount(of_x, minlength=len(names)) / len(of_x) + np.bincount(of_y, minlength=len(names)) / len(of_y)
    ) / 2
    raw = weighting(shares)
    parts = labels[0].parts
    if parts is not None:
        parts = parts[np.intersect1d(labels[0].names, names, return_indices=True)[1]]
    return x[in_x], y[in_y], Groups(of_x, of_y, tuple(names.tolist()), raw / raw.sum(), parts)


def labels_of(values: Any, size: int, name: str) -> Labels:
    """Return the coded labels of one cloud, or raise an UnusableError if there is not one for each cell."""
    shape = (len(values),) if isinstance(values, Labels) else np.shape(values)
    if shape not in ((size,), (size, 2)):
        raise UnusableError(
            f"groups of the {name} cells have shape {shape}; there are {size} cells.",
            kind="not one group for each cell",
            found=f"shape {shape}",
        )
    return Labels.of(values, name)


def pair_of(groups: object) -> tuple[Any, Any]:
    """Return the labels of the source and of the target, or raise a ValueError unless there are these two."""
    if not isinstance(groups, (tuple, list)) or len(groups) != 2:
        raise ValueError(
            f"groups must be a pair: labels of the source cells and of the target cells; it is {repr(groups)[:200]}."
        )
    return groups[0], groups[1]
