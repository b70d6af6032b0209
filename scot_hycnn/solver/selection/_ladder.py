"""The ladder: simple maps, from no change to the centred Gaussian map, that are compared on groups left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scot_hycnn.potentials._gaussian import Gaussian
from scot_hycnn.solver.data._coordinates import Coordinates
from scot_hycnn.solver.data._groups import MIN_CELLS_LEFT_OUT, Groups

Array = NDArray[np.float64]

# Cells of each group and condition that an energy distance compares, and that a map without some groups is fitted on:
# more would only cost time.
MAX_CELLS_COMPARED = 1000
MAX_CELLS_FITTED = 2000
# Groups are left out one at a time, or, if there are more than these, several at a time.
MAX_FITS = 50
# Standard errors over groups by which a map must be nearer than no change, and within which maps of one family are
# averaged. On 7 Kang types and 11 types of each of three stimuli of Bodenmiller et al., each left out of the choice as
# well, the mean energy distances were .76, .26, .42 and .49; the best single rung of each has .76, .22, .42 and .49.
# The smallest mean alone gave .31 for the second; the simplest map within one standard error .36, and .71 for the third
# (.42); averages over all families within one standard error .30, and .52 for the third.
STANDARD_ERRORS = 1.0

NO_CHANGE, GAUSSIAN_MAP, CENTRED_GAUSSIAN_MAP = "no change", "Gaussian map", "centred Gaussian map"
NETWORKS, CENTRED_NETWORKS = "networks", "centred networks"
# Families: maps that may be averaged. A shift is the same map around every centre, so that it is never a centred one.
_STILL, _SHIFTS, _POOLED, _CENTRED = range(4)


@dataclass(frozen=True)
class Rung:
    r"""One map of the ladder, x to :math:`c + m_y + M (x - c - m_x)`, with M symmetric and positive definite.

    The centre c is 0, or, if the map is centred, the mean of the source cells of the cell's group.
    """

    name: str
    family: int
    mean_x: Array
    mean_y: Array
    matrix: Array
    # Covariance of the source cells, centred if the map is: balanced coordinates are made from it.
    covariance: Array

    @property
    def is_centred(self) -> bool:
        """Whether the map acts around the centre of a group."""
        return self.family == _CENTRED

    def move(self, x: Array, centre: Array) -> Array:
        """Move the cells of one group, (n, d) to (n, d); ``centre`` is the mean of its source cells."""
        centre = centre if self.is_centred else np.zeros_like(centre)
        return np.asarray(centre + self.mean_y + (x - centre - self.mean_x) @ self.matrix)

    def half(self) -> Rung:
        """Return the map that goes half of the way."""
        matrix, end = (np.eye(len(self.matrix)) + self.matrix) / 2, (self.mean_x + self.mean_y) / 2
        return replace(self, name=f"half of the {self.name}", mean_y=end, matrix=matrix)

    @property
    def coordinates(self) -> Coordinates:
        """The coordinates in which this map is the identity, around the centre 0."""
        return Coordinates.from_affine(self.mean_x, self.mean_y, self.matrix, self.covariance)

    @staticmethod
    def mean(rungs: Sequence[Rung]) -> Rung:
        """Return the average of maps of one family, which is one of it: averages of convex functions are convex."""
        first, matrix = rungs[0], np.mean([one.matrix for one in rungs], axis=0)
        offset = np.mean([one.mean_y - one.mean_x @ one.matrix for one in rungs], axis=0)
        *others, last = (one.name for one in rungs)
        name = f"mean of {', '.join(others)} and {last}" if others else last
        return replace(first, name=name, mean_y=offset + first.mean_x @ matrix, matrix=matrix)


def closed_forms(x: Array, y: Array, groups: Groups) -> list[Rung]:
    """Return the maps that have a closed form, in the order of their table."""
    # A group may lack cells here: then it has neither centre nor move.
    present = np.intersect1d(groups.x, groups.y)
    centres, (w_x, w_y) = centres_of(x, groups), groups.weights
    pooled = Gaussian.fit(x, y, weights_x=w_x, weights_y=w_y)
    centred = Gaussian.fit(x - centres[groups.x], y - centres[groups.y], weights_x=w_x, weights_y=w_y)
    weight = groups.proportions[present] / groups.proportions[present].sum()
    moves = np.stack([y[groups.y == group].mean(0) - centres[group] for group in present])
    move = weight @ moves
    # The variance of this mean over groups: where groups do not agree, or do not move, the shift shrinks to no change.
    variance = weight**2 @ ((moves - move) ** 2).sum(1) / max(1 - weight @ weight, 1e-12)
    reliability = max(0.0, 1 - variance / max(float(move @ move), 1e-300))

    def shift(name: str, by: Array, family: int = _SHIFTS) -> Rung:
        return Rung(name, family, pooled.mean_x, pooled.mean_x + by, np.eye(x.shape[1]), pooled.covariance_x)

    shifts = [shift("centred shift", move), shift("shift", y.mean(0) - x.mean(0))]
    gaussians = [
        Rung(name, family, of.mean_x, of.mean_y, of.matrix, of.covariance_x)
        for name, family, of in ((GAUSSIAN_MAP, _POOLED, pooled), (CENTRED_GAUSSIAN_MAP, _CENTRED, centred))
    ]
    still, shrunk = shift(NO_CHANGE, np.zeros_like(move), _STILL), shift("shrunk centred shift", reliability * move)
    whole = [*shifts, *gaussians]
    return [still, *(one.half() for one in whole), shrunk, *whole]


def centres_of(x: Array, groups: Groups) -> Array:
    """Return the mean of the source cells of each group, (K, d); NaN for a group that has none."""
    centres = np.full((len(groups.labels), x.shape[1]), np.nan)
    for group in np.unique(groups.x):
        centres[group] = x[groups.x == group].mean(0)
    return centres


@dataclass(frozen=True)
class Ladder:
    """Maps of groups that were left out, how near each was to the treated cells there, and which one was chosen."""

    # The maps with a closed form, fitted on all groups; the names of these groups and their centres, (K, d).
    rungs: tuple[Rung, ...]
    all_groups: tuple[str, ...]
    centres: Array
    # Names of the maps and of the groups left out, and the energy distance of each map on each of them, (maps, groups).
    names: tuple[str, ...]
    groups: tuple[str, ...]
    table: Array
    # The best map with a closed form, and the blend of the networks if these were nearer than it.
    best: Rung
    response_seen: bool = True
    blend: float = 0.0

    @classmethod
    def compare(cls, x: Array, y: Array, groups: Groups, *, rng: int, response_seen: bool) -> Ladder:
        """Leave out every group with enough cells, and choose among the maps that have a closed form.

        Without a response that is seen, which is a test of all cells, cells stay where they are.
        """
        generator = np.random.default_rng(rng)
        in_x, in_y = (_at_most(MAX_CELLS_FITTED, codes, generator) for codes in (groups.x, groups.y))
        some_x, some_y, some = x[in_x], y[in_y], groups.take(in_x, in_y)
        counts = [np.bincount(codes, minlength=len(groups.labels)) for codes in (some.x, some.y)]
        scored = np.flatnonzero(np.minimum(*counts) >= MIN_CELLS_LEFT_OUT)
        columns, left_out = [], []
        for fold in np.array_split(scored, min(len(scored), MAX_FITS)):
            kept_x, kept_y = ~np.isin(some.x, fold), ~np.isin(some.y, fold)
            rungs = closed_forms(some_x[kept_x], some_y[kept_y], some.take(kept_x, kept_y))
            for group in fold:
                source, target = some_x[some.x == group], some_y[some.y == group]
                centre, cells, observed = source.mean(0), source[:MAX_CELLS_COMPARED], target[:MAX_CELLS_COMPARED]
                left_out.append((rungs, cells, centre, observed))
                columns.append(_energy_distances([one.move(cells, centre) for one in rungs], observed))
        rungs, table = closed_forms(x, y, groups), np.stack(columns, axis=1)
        members = choose(table, [one.family for one in rungs]) if response_seen else [0]
        best = Rung.mean([rungs[number] for number in members])
        names = [one.name for one in rungs]
        if len(members) > 1:
            # The average gets its row too: of fits without the group, as the others.
            row = [
                _energy_distances([Rung.mean([of_fold[k] for k in members]).move(cells, centre)], observed)
                for of_fold, cells, centre, observed in left_out
            ]
            names, table = [*names, best.name], np.vstack([table, np.concatenate(row)])
        labels = tuple(groups.labels[group] for group in scored)
        centres = centres_of(x, groups)
        return cls(tuple(rungs), groups.labels, centres, tuple(names), labels, table, best, response_seen)

    def rung(self, name: str) -> Rung:
        """Return a map with a closed form by its name."""
        return self.rungs[self.names.index(name)]

    @property
    def is_centred(self) -> bool:
        """Whether networks are trained on centred cells: where the centred Gaussian map is the better one."""
        if self.best.family in (_POOLED, _CENTRED):
            return self.best.is_centred
        mean = dict(zip(self.names, self.table.mean(1), strict=True))
        return bool(mean[CENTRED_GAUSSIAN_MAP] < mean[GAUSSIAN_MAP])

    def with_networks(self, more: Array, chosen: int, blends: Sequence[float]) -> Ladder:
        """Return the same with a row for networks.

        ``more`` is the energy distance of each blend, less that of the Gaussian map of the same fold, which lacks
        several groups, (blends, groups); ``chosen`` is the number of the blend that has been chosen on these groups.
        """
        name = CENTRED_GAUSSIAN_MAP if self.is_centred else GAUSSIAN_MAP
        table = self.table[self.names.index(name)] + more
        is_nearest = chosen > 0 and table[chosen].mean() < self.table[self.names.index(self.best.name)].mean()
        shown = chosen or 1 + int(np.argmin(np.where(np.isfinite(more[1:]), more[1:], np.inf).mean(1)))
        return replace(
            self,
            names=(*self.names, CENTRED_NETWORKS if self.is_centred else NETWORKS),
            table=np.vstack([self.table, table[shown]]),
            blend=blends[chosen] if is_nearest else 0.0,
        )

    @property
    def simple_in_training(self) -> Rung:
        """The best map with a closed form in the coordinates of the networks; with a shift these do not matter."""
        is_other = self.best.family in (_POOLED, _CENTRED) and self.best.is_centred != self.is_centred
        return self.rung(CENTRED_GAUSSIAN_MAP if self.is_centred else GAUSSIAN_MAP) if is_other else self.best

    @property
    def sentence(self) -> str:
        """Say which map was nearest."""
        n_groups, still = len(self.groups), self.table[0].mean()
        nearest = self.table[self.names.index(self.best.name)].mean()
        if not self.response_seen:
            return (
                "No response was seen: source and target cells are as near to each other as random halves of both, so "
                "that cells stay where they are. More cells may show one."
            )
        if self.best.name == NO_CHANGE:
            return (
                f"No map was clearly nearer to the treated cells of groups left out than no change, so that cells stay "
                f"where they are (mean energy distance {still:.2g} over {n_groups} groups)."
            )
        return (
            f"On groups left out, the {self.best.name} was nearest to the treated cells of these groups (mean energy "
            f"distance {nearest:.2g} over {n_groups} groups; without any change {still:.2g})."
        )

    @property
    def winner(self) -> str:
        """The name of the map that is kept."""
        return self.names[-1] if self.blend else self.best.name

    def report(self) -> dict[str, Any]:
        """Return the table, as a map stores it."""
        return {
            "winner": self.winner,
            "ladder": np.array(self.names),
            "ladder_groups": np.array(self.groups),
            "ladder_energy_distance": self.table,
            "ladder_mean": self.table.mean(1),
            "ladder_error": self.table.std(1, ddof=1) / np.sqrt(self.table.shape[1]),
        }


def choose(table: Array, families: Sequence[int]) -> list[int]:
    """Return the numbers of the maps to average; energy distances have shape (maps, groups), no change first."""
    mean = table.mean(1)
    nearest = int(np.argmin(mean))
    # The standard error of a difference over groups is a paired one: groups differ more than maps do.
    apart = table - table[nearest]
    error = apart.std(1, ddof=1) / np.sqrt(table.shape[1])
    if mean[0] - mean[nearest] <= STANDARD_ERRORS * error[0]:
        return [0]
    within = (apart.mean(1) <= STANDARD_ERRORS * error) & (mean < mean[0])
    return [k for k, family in enumerate(families) if within[k] and family == families[nearest]]


def _energy_distances(moved: Sequence[Array], y: Array) -> Array:
    """Return the unbiased energy distance of each cloud of moved cells to the target cells."""
    # Products of matrices are several times faster, and lose what is far from the origin.
    centre = y.mean(0)
    targets = torch.from_numpy(y - centre)
    distances = []
    for cells in moved:
        points = torch.from_numpy(cells - centre)
        between = torch.cdist(points, targets, compute_mode="use_mm_for_euclid_dist").mean()
        distances.append(float(2 * between - _within(points)))
    return np.array(distances) - float(_within(targets))


def _within(points: torch.Tensor) -> torch.Tensor:
    distances = torch.cdist(points, points, compute_mode="use_mm_for_euclid_dist").fill_diagonal_(0)
    return distances.sum() / (len(points) * (len(points) - 1))


def _at_most(n_cells: int, codes: NDArray[np.intp], generator: np.random.Generator) -> NDArray[np.bool_]:
    """Return which cells remain, (n,), if each group keeps at most so many, drawn at random."""
    order = np.lexsort((generator.random(len(codes)), codes))
    size = np.bincount(codes)
    place = np.arange(len(codes)) - np.repeat(np.cumsum(size) - size, size)
    chosen = np.zeros(len(codes), dtype=bool)
    chosen[order[place < n_cells]] = True
    return chosen
