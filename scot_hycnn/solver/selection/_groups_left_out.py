"""The choice of the blend for cells of groups that training has not seen: leave groups out, and look at them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from scot_hycnn.solver._options import Settings
from scot_hycnn.solver.data._cells import MAX_VALIDATION_CELLS, Cells
from scot_hycnn.solver.data._groups import LEAST_JUDGED, Groups

from ._blend import CONVERGED, Blended, Score, recentred, score_blends

Array = NDArray[np.float64]

# Fits to leave groups out in: with more groups than these several are left out at a time.
MOST_FOLDS = 5
# Standard errors over groups by which the mean J must be below the Gaussian map's. Groups are few and differ: with one,
# a quarter of the network was taken on three of seven Kang types left out, and lost up to .013 of Pearson-delta; with
# two on one of them.
EVIDENCE = 2.0

# The loop: the ensembles that it trains, one on each of some clouds of cells.
Train = Callable[[Settings, Sequence[Cells]], list[Blended]]


@dataclass(frozen=True)
class LeftOut:
    """How each blend did on groups that its networks and its Gaussian map had not seen.

    Parameters
    ----------
    labels
        The groups.
    scores
        For each of them one score a blend, in the order of BLENDS.
    """

    labels: tuple[str, ...]
    scores: tuple[list[Score], ...]

    @property
    def semi_dual(self) -> Array:
        """J less the Gaussian map's, shape (groups, blends)."""
        return np.array([[score.semi_dual - row[0].semi_dual for score in row] for row in self.scores])

    @property
    def energy_distance(self) -> Array:
        """Energy distance less the Gaussian map's, shape (groups, blends)."""
        return np.array([[score.energy_distance - row[0].energy_distance for score in row] for row in self.scores])

    @np.errstate(invalid="ignore", over="ignore")  # an exploded network is out, and not worth numpy's warnings
    def choose(self) -> int:
        """Index of the best blend: the rule of :func:`choose`, with groups in the place of cells.

        The smallest mean J over groups, if it is below the Gaussian map's by EVIDENCE standard errors over groups,
        among blends whose mean energy distance is not above the Gaussian map's either: groups are few, so a veto by
        standard errors would be weak. (Kang, each of seven types left out: J alone left the Gaussian map once, for B
        cells, and lost.)
        """
        j, energy = self.semi_dual, self.energy_distance
        residual = np.array([[score.residual for score in row] for row in self.scores]).max(axis=0)
        usable = (residual < CONVERGED) & (energy.mean(0) <= 0) & np.isfinite(j).all(0)
        mean = np.where(usable, j.mean(0), np.inf)
        mean[0] = 0.0
        best = int(np.argmin(mean))
        return best if mean[best] < -EVIDENCE * _error(j)[best] else 0

    def by_blend(self) -> dict[str, Array]:
        """Means over groups with their standard errors, one row a blend."""
        return {
            "J_left_out_by_blend": self.semi_dual.mean(0),
            "J_left_out_error_by_blend": _error(self.semi_dual),
            "energy_distance_left_out_by_blend": self.energy_distance.mean(0),
            "energy_left_out_error_by_blend": _error(self.energy_distance),
        }


def leave_groups_out(x: Array, y: Array, groups: Groups, settings: Settings, train: Train) -> LeftOut:
    """Fit without some groups, score every blend on each of them, until all have had their turn.

    Parameters
    ----------
    x, y
        Source and target cells, shape (n, d) and (m, d).
    groups
        Theirs.
    settings
        As for the fit; half of the members do, since blends are compared with each other.
    train
        The loop.
    """
    generator = np.random.default_rng(settings.rng)
    fewer = replace(settings, n_ensemble=max(settings.n_ensemble // 2, 1))
    rows: dict[int, list[Score]] = {}
    left_out = folds(groups)
    clouds = [_without(fold, x, y, groups, settings) for fold in left_out]
    for fold, cells, trained in zip(left_out, clouds, train(fewer, clouds), strict=True):
        ensemble = recentred(trained.network, trained.weights, cells)
        for k in fold:
            own = (
                generator.permutation(x[groups.x == k])[:MAX_VALIDATION_CELLS],
                generator.permutation(y[groups.y == k])[:MAX_VALIDATION_CELLS],
            )
            if min(map(len, own)) >= LEAST_JUDGED:
                rows[int(k)] = score_blends(ensemble, cells.validated_on(*own))
    order = sorted(rows)
    return LeftOut(tuple(groups.labels[k] for k in order), tuple(rows[k] for k in order))


def _without(fold: NDArray[np.intp], x: Array, y: Array, groups: Groups, settings: Settings) -> Cells:
    """The cells of all other groups."""
    in_x, in_y = ~np.isin(groups.x, fold), ~np.isin(groups.y, fold)
    return Cells.prepare(
        x[in_x],
        y[in_y],
        settings.validation_fraction,
        rng=settings.rng,
        device=settings.device,
        groups=groups.take(in_x, in_y),
    )


def folds(groups: Groups) -> list[NDArray[np.intp]]:
    """Numbers of the groups to leave out together, dealt in turn from the largest on: folds of like size."""
    size = np.bincount(groups.x, minlength=len(groups.labels)) + np.bincount(groups.y, minlength=len(groups.labels))
    dealt = np.argsort(-size)
    n_folds = min(MOST_FOLDS, len(dealt))
    return [dealt[k::n_folds] for k in range(n_folds)]


def _error(values: Array) -> Array:
    return np.asarray(values.std(0, ddof=1) / np.sqrt(len(values)))
