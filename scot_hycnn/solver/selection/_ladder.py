"""The ladder: simple maps, from no change to the centred Gaussian map, that are compared on groups left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scot_hycnn._neighbours import GroupKernel, cells_of_both
from scot_hycnn.potentials._gaussian import Gaussian
from scot_hycnn.solver.data._coordinates import Coordinates
from scot_hycnn.solver.data._groups import GROUP_STANDARD_ERRORS, MIN_CELLS_LEFT_OUT, Baselines, Groups, reach

Array = NDArray[np.float64]

# Cells of each group and condition that an energy distance compares, and that a map without some groups is fitted on:
# more would only cost time.
MAX_CELLS_COMPARED = 1000
MAX_CELLS_FITTED = 2000
# Groups are left out one at a time, or, if there are more than these, several at a time.
MAX_FITS = 50
# Maps are averaged by the probability that each is the nearest one: draws of the weights of groups, and the share below
# which a map is left out. On synthetic groups (13 kinds of response, 12 seeds other than those that the rule was
# chosen on) the mean energy distance to new groups was .123 with 4 groups and .106 with 6; of the smallest mean alone
# .128 and .107, of an average of those within one standard error, only if clearly nearer than no change, .141 and .113.
N_DRAWS = 1000
MIN_SHARE = 0.05
# A simpler map, above in the table, counts as the nearest if it lacks less than this part of what the nearest gains.
# Then fewer maps need the groups of new cells, with the same errors (.135 and .085 with 4 and 8 groups; .134, .085).
TIE = 0.01
# Of synthetic groups without a response 83 % then stay where they are, at no cost for the others (.135 for .134 with 4
# groups); with .95 the error with 4 groups is .165.
PROBABLE = 0.8

NO_CHANGE, GAUSSIAN_MAP, CENTRED_GAUSSIAN_MAP = "no change", "Gaussian map", "centred Gaussian map"
GROUP_REGRESSION = "regression over groups"
NETWORKS, CENTRED_NETWORKS = "networks", "centred networks"


@dataclass(frozen=True)
class Rung:
    r"""One map of the ladder, :math:`T_g(x) = N c_g + M (x - c_g) + b` with the mean :math:`c_g` of the source cells.

    N moves the centre of a group and M, which is symmetric and positive definite, the cells around it: for each group
    the map is the gradient of a convex function. If N = M, it is the same map for all groups.
    """

    name: str
    matrix: Array
    between: Array
    offset: Array
    # Mean and covariance of the source cells, centred if the map is: balanced coordinates are made from these.
    mean_x: Array
    covariance: Array
    # Centres of the groups that the map was fitted on, (K, d); and the part of b, (d,), that does not extrapolate.
    centres: Array
    steady: Array

    @property
    def is_centred(self) -> bool:
        """Whether the map needs the centre of a group."""
        return not np.array_equal(self.matrix, self.between)

    @property
    def is_shift(self) -> bool:
        """Whether all cells move alike, wherever they are."""
        still = np.eye(len(self.offset))
        return np.array_equal(self.matrix, still) and np.array_equal(self.between, still)

    @property
    def extrapolates(self) -> bool:
        """Whether the map is centred, and a group moves by where its centre is."""
        return self.is_centred and not np.array_equal(self.between, np.eye(len(self.offset)))

    def move(self, x: Array, centre: Array) -> Array:
        """Move the cells of one group, (n, d) to (n, d); ``centre`` is the mean of its source cells."""
        moved = self.move_centre(centre) if self.is_centred else self.between @ centre + self.offset
        return np.asarray(moved + (x - centre) @ self.matrix)

    def move_centre(self, centre: Array) -> Array:
        """Return where a centred map moves the centre of a group, less where no group is seen nearby."""
        share = reach(self.centres, centre) if self.extrapolates else 1.0
        way = self.between @ centre + self.offset - centre
        return np.asarray(centre + self.steady + share * (way - self.steady))

    def half(self) -> Rung:
        """Return the map that goes half of the way."""
        matrix, between = ((np.eye(len(self.offset)) + part) / 2 for part in (self.matrix, self.between))
        name = f"half of the {self.name}"
        return replace(self, name=name, matrix=matrix, between=between, offset=self.offset / 2, steady=self.steady / 2)

    @property
    def coordinates(self) -> Coordinates:
        """The coordinates in which this map is the identity, around the centre 0."""
        return Coordinates.from_affine(
            self.mean_x, self.mean_x @ self.matrix + self.offset, self.matrix, self.covariance
        )

    @staticmethod
    def mean(rungs: Sequence[Rung], shares: Array) -> Rung:
        """Return the average of maps, which is one too: averages of convex functions are convex."""
        if len(rungs) == 1:
            return rungs[0]
        parts = {
            part: np.tensordot(shares, [getattr(one, part) for one in rungs], axes=1)
            for part in ("matrix", "between", "offset", "steady")
        }
        *others, last = (f"{share:.0%} {one.name}" for one, share in zip(rungs, shares, strict=True))
        like = next((one for one in rungs if one.is_centred), rungs[0])
        name = f"average of {', '.join(others)} and {last}"
        return replace(like, name=name, **parts)


def closed_forms(x: Array, y: Array, groups: Groups) -> list[Rung]:
    """Return the maps that have a closed form, in the order of their table."""
    # A group may lack cells here: then it has neither centre nor move.
    present = np.intersect1d(groups.x, groups.y)
    centres, ends, (w_x, w_y) = centres_of(x, groups.x, groups), centres_of(y, groups.y, groups), groups.weights
    pooled = Gaussian.fit(x, y, weights_x=w_x, weights_y=w_y)
    centred, within = (
        Gaussian.fit(x - centres[groups.x], y - origins[groups.y], weights_x=w_x, weights_y=w_y)
        for origins in (centres, ends)
    )
    weight = groups.proportions[present] / groups.proportions[present].sum()
    starts, moves = centres[present], ends[present] - centres[present]
    move = weight @ moves
    # The variance of this mean over groups: where groups do not agree, or do not move, the shift shrinks to no change.
    variance = weight**2 @ ((moves - move) ** 2).sum(1) / max(1 - weight @ weight, 1e-12)
    reliability = max(0.0, 1 - variance / max(float(move @ move), 1e-300))

    still = np.eye(x.shape[1])
    counts = [np.bincount(codes, minlength=len(centres))[present] for codes in (groups.x, groups.y)]
    none = np.zeros_like(move)
    of_all = Rung("", still, still, none, pooled.mean_x, pooled.covariance_x, starts, none)
    of_centred = replace(of_all, mean_x=none, covariance=centred.covariance_x)
    shifts = [
        replace(of_all, name=name, offset=by, steady=by)
        for name, by in (("centred shift", move), ("shift", y.mean(0) - x.mean(0)))
    ]
    m_all, m_centred, m_within = pooled.matrix, centred.matrix, within.matrix
    offset = pooled.mean_y - m_all @ pooled.mean_x
    gaussian = replace(of_all, name=GAUSSIAN_MAP, matrix=m_all, between=m_all, offset=offset)
    offset = centred.mean_y - m_centred @ centred.mean_x
    centred_gaussian = replace(of_centred, name=CENTRED_GAUSSIAN_MAP, matrix=m_centred, offset=offset, steady=offset)

    # Two maps by regression of the moves of centres on the centres: moves beside their mean, and beside the Gaussian.
    slope, offset = _regression(starts, moves - move, weight, counts)
    regression = replace(
        of_centred, name=GROUP_REGRESSION, matrix=m_within, between=still + slope, offset=move + offset
    )
    slope, offset = _regression(starts, ends[present] - starts @ m_all - gaussian.offset, weight, counts)
    both = replace(
        of_centred,
        name=f"{GAUSSIAN_MAP} with {GROUP_REGRESSION}",
        matrix=m_all,
        between=m_all + slope,
        offset=gaussian.offset + offset,
    )
    shrunk = replace(of_all, name="shrunk centred shift", offset=reliability * move, steady=reliability * move)
    # From the simplest on.
    simple = [replace(of_all, name=NO_CHANGE), shrunk, *(one.half() for one in shifts), *shifts]
    return [*simple, *(of for one in (gaussian, centred_gaussian) for of in (one.half(), one)), regression, both]


def _regression(centres: Array, moves: Array, weight: Array, counts: Sequence[NDArray[np.intp]]) -> tuple[Array, Array]:
    """Return the slope, (d, d), and the constant, (d,), of kriging of moves by centres, both (K, d)."""
    kernel = GroupKernel.of(centres, weight, cells_of_both(*counts))
    dual = np.linalg.solve(kernel(centres, centres) + kernel.noise, moves)
    slope = dual.T @ (centres - kernel.origin) / kernel.scale
    return slope, dual.sum(0) - slope @ kernel.origin


def _baselines(x: Array, groups: Groups, seen: NDArray[np.bool_]) -> tuple[Baselines | None, Array]:
    """Return the baselines of units, fitted on the groups that are seen, (K,), and of each group, seen or not, (K, d).

    Groups that are no parts of units have the baseline 0.
    """
    if groups.parts is None:
        return None, np.zeros((len(groups.labels), x.shape[1]))
    centres, counts = centres_of(x, groups.x, groups), np.bincount(groups.x, minlength=len(groups.labels))
    fitted, found = Baselines.of(centres[seen], counts[seen], groups.parts[seen]), np.empty_like(centres)
    for unit in np.unique(groups.units):
        of_unit = groups.units == unit
        found[of_unit] = fitted.of_unit(centres[of_unit], counts[of_unit], groups.parts[of_unit, 1])
    return fitted, found


def centres_of(cells: Array, codes: NDArray[np.intp], groups: Groups) -> Array:
    """Return the mean of the cells of each group, (K, d); NaN for a group that has none."""
    centres = np.full((len(groups.labels), cells.shape[1]), np.nan)
    for group in np.unique(codes):
        centres[group] = cells[codes == group].mean(0)
    return centres


@dataclass(frozen=True)
class Ladder:
    """Maps of groups that were left out, how near each was to the treated cells there, and which one was chosen."""

    # The maps with a closed form, fitted on all groups; the names of these groups and their centres, (K, d); the
    # baselines of the units that were left out, if these are no groups, and of each group, (K, d), less which these
    # maps take cells and centres; and the Gaussian map of the cells as they are.
    rungs: tuple[Rung, ...]
    all_groups: tuple[str, ...]
    centres: Array
    baselines: Baselines | None
    origins: Array
    gaussian: Coordinates
    # Names of the maps and of what was left out, and the energy distance of each map on each of them, (maps, groups).
    names: tuple[str, ...]
    groups: tuple[str, ...]
    table: Array
    # The share of each map with a closed form in the best one, their average, and the blend of the networks if these
    # were nearer than it.
    shares: Array
    best: Rung
    response_seen: bool = True
    blend: float = 0.0

    @classmethod
    def compare(cls, x: Array, y: Array, groups: Groups, *, rng: int, response_seen: bool) -> Ladder:
        """Leave out every group or unit with enough cells, and choose among the maps that have a closed form.

        All maps act around the baselines of units. On made-up donors with types in proportions of their own (two
        seeds of each kind) the mean energy distance of the best map was .13 to 1 of that without baselines.

        Without a response that is seen, which is a test of all cells, cells stay where they are.
        """
        generator = np.random.default_rng(rng)
        in_x, in_y = (_at_most(MAX_CELLS_FITTED, codes, generator) for codes in (groups.x, groups.y))
        some_x, some_y, some = x[in_x], y[in_y], groups.take(in_x, in_y)
        counts = [np.bincount(codes, minlength=len(groups.labels)) for codes in (some.x, some.y)]
        scored = np.flatnonzero(np.minimum(*counts) >= MIN_CELLS_LEFT_OUT)
        # Rows of a unit's groups become one, by their proportions: the composition is then that of both conditions.
        units, unit = np.unique(groups.units[scored], return_inverse=True)
        share = np.zeros((len(scored), len(units)))
        share[np.arange(len(scored)), unit] = groups.proportions[scored]
        share /= share.sum(0)
        left_out = list(_left_out(some_x, some_y, some, scored, np.array_split(units, min(len(units), MAX_FITS))))
        baselines, origins = _baselines(x, groups, np.ones(len(groups.labels), dtype=bool))
        gaussian = Gaussian.fit(x, y, weights_x=groups.weights[0], weights_y=groups.weights[1])
        x, y = x - origins[groups.x], y - origins[groups.y]
        rungs = closed_forms(x, y, groups)
        distances = np.empty((len(rungs), len(scored)))
        for group, of_fold, cells, centre, observed in left_out:
            distances[:, group] = _energy_distances([one.move(cells, centre) for one in of_fold], observed)
        table = distances @ share
        shares = choose(table, generator) if response_seen else np.eye(1, len(rungs))[0]
        members = np.flatnonzero(shares)
        best = Rung.mean([rungs[number] for number in members], shares[members])
        names = [one.name for one in rungs]
        if len(members) > 1:
            # The average gets its row too: of fits without the group, as the others.
            row = np.empty(len(scored))
            for group, of_fold, cells, centre, observed in left_out:
                mean = Rung.mean([of_fold[k] for k in members], shares[members])
                row[group] = _energy_distances([mean.move(cells, centre)], observed)[0]
            names, table = [*names, best.name], np.vstack([table, row @ share])
        return cls(
            rungs=tuple(rungs),
            all_groups=groups.labels,
            centres=centres_of(x, groups.x, groups),
            baselines=baselines,
            origins=origins,
            gaussian=Coordinates.from_gaussian(gaussian),
            names=tuple(names),
            groups=tuple(units.tolist()),
            table=table,
            shares=shares,
            best=best,
            response_seen=response_seen,
        )

    @property
    def is_centred(self) -> bool:
        """Whether networks are trained on centred cells: where the centred Gaussian map is the better one.

        Around the baselines of units they are not: there is less to gain, and types would lie upon each other.
        """
        mean = dict(zip(self.names, self.table.mean(1), strict=True))
        if self.baselines is not None:
            return False
        return bool(mean[CENTRED_GAUSSIAN_MAP] < mean[GAUSSIAN_MAP])

    @property
    def far(self) -> Rung | None:
        """The map for cells unlike all others: the nearest of those that do not extrapolate, on groups left out."""
        # Shifts are the same everywhere. A map that moves all cells alike needs no other one.
        shifts = [number for number, one in enumerate(self.rungs) if one.is_shift]
        nearest = self.rungs[shifts[int(np.argmin(self.table[shifts].mean(1)))]]
        return None if self.best.is_shift and not self.blend else nearest

    def with_networks(self, more: Array, chosen: int, blends: Sequence[float]) -> Ladder:
        """Return the same with a row for networks.

        ``more`` is the energy distance of each blend, less that of the Gaussian map of the same fold, which lacks
        several groups, (blends, groups); ``chosen`` is the number of the blend that has been chosen on these groups.
        """
        name = CENTRED_GAUSSIAN_MAP if self.is_centred else GAUSSIAN_MAP
        table = self.table[self.names.index(name)] + more
        # Networks need as clear a gain here as in J: of B cells of Kang et al., left out, a gain of .008 over the other
        # types, with a standard error of .024, chose networks, which had .87, while the Gaussian map had .47.
        gain = self.table[self.names.index(self.best.name)] - table[chosen]
        error = gain.std(ddof=1) / np.sqrt(len(gain))
        is_nearest = chosen > 0 and gain.mean() > GROUP_STANDARD_ERRORS * error
        shown = chosen or 1 + int(np.argmin(np.where(np.isfinite(more[1:]), more[1:], np.inf).mean(1)))
        return replace(
            self,
            names=(*self.names, CENTRED_NETWORKS if self.is_centred else NETWORKS),
            table=np.vstack([self.table, table[shown]]),
            blend=blends[chosen] if is_nearest else 0.0,
        )

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
                f"No map was nearer to the treated cells of groups left out than no change, so that cells stay where "
                f"they are (mean energy distance {still:.2g} over {n_groups} groups)."
            )
        why = "was nearest to the treated cells of these groups"
        if self.best.name not in [one.name for one in self.rungs]:
            why = "was taken, with each map's probability of being nearest to the treated cells"
        return (
            f"On groups left out, the {self.best.name} {why} (mean energy distance {nearest:.2g} over {n_groups} "
            f"groups; without any change {still:.2g})."
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
            # Networks, and the average itself, have none.
            "ladder_share": np.concatenate([self.shares, np.zeros(len(self.names) - len(self.rungs))]),
            "ladder_energy_distance": self.table,
            "ladder_mean": self.table.mean(1),
            "ladder_error": self.table.std(1, ddof=1) / np.sqrt(self.table.shape[1]),
        }


def _left_out(
    x: Array, y: Array, groups: Groups, scored: NDArray[np.intp], folds: Sequence[NDArray[np.str_]]
) -> Iterator[tuple[int, list[Rung], Array, Array, Array]]:
    """Yield the place of each group that is scored, the maps without its fold, its cells and their mean, and targets.

    Cells are less the baseline of their unit.
    """
    for fold in folds:
        held = np.isin(groups.units, fold)
        kept_x, kept_y = ~held[groups.x], ~held[groups.y]
        kept, origins = groups.take(kept_x, kept_y), _baselines(x, groups, ~held)[1]
        rungs = closed_forms(x[kept_x] - origins[kept.x], y[kept_y] - origins[kept.y], kept)
        for place in np.flatnonzero(held[scored]):
            group = scored[place]
            source, target = x[groups.x == group] - origins[group], y[groups.y == group] - origins[group]
            yield int(place), rungs, source[:MAX_CELLS_COMPARED], source.mean(0), target[:MAX_CELLS_COMPARED]


def choose(table: Array, generator: np.random.Generator) -> Array:
    """Return the share of each map, (maps,); energy distances have shape (maps, groups), no change first.

    It is the probability that the map is the simplest of the nearest on average over groups, by the Bayesian bootstrap
    over those that were left out. Maps that are not nearer than no change have none; and no change has all, unless the
    nearest map is nearer than it with the probability PROBABLE.

    Source: Rubin (1981), The Bayesian bootstrap, Ann. Stat. 9, 130-134; for averages of models Yao et al. (2018),
    Bayesian Anal. 13, 917-1007, sec. 3.4.
    """
    mean = table.mean(1)
    of_draws = generator.dirichlet(np.ones(table.shape[1]), N_DRAWS) @ table.T
    is_nearer = of_draws[:, int(np.argmin(mean))] < of_draws[:, 0]
    if is_nearer.mean() < PROBABLE:
        return np.asarray(np.eye(1, len(table))[0])
    of_draws = np.where(mean <= mean[0], of_draws, np.inf)
    smallest = of_draws.min(1)
    limit = smallest + TIE * (of_draws[:, 0] - smallest)
    simplest = (of_draws <= limit[:, None]).argmax(1)
    shares = np.bincount(simplest, minlength=len(table)) / N_DRAWS
    # No share is at most MIN_SHARE if there are more maps than 1 / MIN_SHARE; then the largest is taken.
    shares = np.where(shares >= min(MIN_SHARE, shares.max()), shares, 0.0)
    return np.asarray(shares / shares.sum())


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
