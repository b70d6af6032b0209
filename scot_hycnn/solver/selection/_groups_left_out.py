"""Cross-validation over groups: the blend is chosen for cells of groups that training has not seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scot_hycnn.solver._options import Settings
from scot_hycnn.solver.data._groups import MIN_CELLS_LEFT_OUT, Groups
from scot_hycnn.solver.data._training_data import MAX_VALIDATION_CELLS, TrainingData
from scot_hycnn.solver.model._blended import Blended

from ._blend import CONVERGED, Score, recentred, score_blends

Array = NDArray[np.float64]
# One score for each blend, in the order of BLENDS, for each group that was left out.
GroupScores = Sequence[Sequence[Score]]

# Folds of the cross-validation: with more groups than these several are left out at a time.
MAX_FOLDS = 5
# Standard errors over groups by which the mean J must be below the Gaussian map's. Groups are few and differ: with one,
# a quarter of the network was taken on three of seven Kang types left out, and lost up to .013 of Pearson-delta; with
# two on one of them.
GROUP_STANDARD_ERRORS = 2.0


def leave_groups_out(
    x: Array,
    y: Array,
    groups: Groups,
    settings: Settings,
    train: Callable[[Settings, Sequence[TrainingData]], Sequence[Blended]],
) -> GroupScores:
    """Fit without some groups and score every blend on each of them, until every group was left out once.

    ``train`` returns an ensemble for each of some training data. Blends are compared with each other, so half of the
    members are enough.
    """
    # Groups are dealt in turn from the largest one: folds have about the same size.
    n_groups = len(groups.labels)
    size = np.bincount(groups.x, minlength=n_groups) + np.bincount(groups.y, minlength=n_groups)
    n_folds = min(MAX_FOLDS, n_groups)
    folds = [np.argsort(-size)[k::n_folds] for k in range(n_folds)]
    training = []
    for fold in folds:
        in_x, in_y = ~np.isin(groups.x, fold), ~np.isin(groups.y, fold)
        options: dict[str, Any] = {"rng": settings.rng, "device": settings.device, "groups": groups.take(in_x, in_y)}
        training.append(TrainingData.prepare(x[in_x], y[in_y], settings.validation_fraction, **options))
    ensembles = train(replace(settings, n_ensemble=max(settings.n_ensemble // 2, 1)), training)

    generator = np.random.default_rng(settings.rng)
    scores: dict[int, Sequence[Score]] = {}
    for fold, cells, trained in zip(folds, training, ensembles, strict=True):
        ensemble = recentred(trained.network, trained.weights, cells)
        for group in fold:
            held_x, held_y = (
                generator.permutation(cloud[codes == group])[:MAX_VALIDATION_CELLS]
                for cloud, codes in ((x, groups.x), (y, groups.y))
            )
            if min(len(held_x), len(held_y)) >= MIN_CELLS_LEFT_OUT:
                scores[int(group)] = score_blends(ensemble, cells.validated_on(held_x, held_y))
    return [scores[group] for group in sorted(scores)]


@np.errstate(invalid="ignore", over="ignore")  # an exploded network scores NaN, which needs no warning from NumPy
def choose_blend_by_groups(scores: GroupScores) -> int:
    """Return the best blend's index: the smallest mean J over groups, as choose_blend does over cells.

    It must be below the Gaussian map's by GROUP_STANDARD_ERRORS standard errors over groups, among blends whose mean
    energy distance is not above the Gaussian map's either: groups are few, so two standard errors would exclude
    hardly any blend. (Kang, each of seven types left out: J alone left the Gaussian map once, for B cells, and lost.)
    """
    j, energy = _differences(scores)
    residual = np.array([[score.residual for score in row] for row in scores]).max(axis=0)
    usable = (residual < CONVERGED) & (energy.mean(0) <= 0) & np.isfinite(j).all(0)
    mean = np.where(usable, j.mean(0), np.inf)
    mean[0] = 0.0
    best = int(np.argmin(mean))
    return best if mean[best] < -GROUP_STANDARD_ERRORS * _standard_error(j)[best] else 0


@np.errstate(invalid="ignore", over="ignore")
def by_blend_left_out(scores: GroupScores) -> dict[str, Array]:
    """Return means over groups with their standard errors, less the Gaussian map's, one row a blend."""
    j, energy = _differences(scores)
    return {
        "J_left_out_by_blend": j.mean(0),
        "J_left_out_error_by_blend": _standard_error(j),
        "energy_distance_left_out_by_blend": energy.mean(0),
        "energy_left_out_error_by_blend": _standard_error(energy),
    }


def _differences(scores: GroupScores) -> tuple[Array, Array]:
    """Return J and the energy distance less the Gaussian map's, shape (groups, blends)."""
    j = np.array([[score.semi_dual for score in row] for row in scores])
    energy = np.array([[score.energy_distance for score in row] for row in scores])
    return j - j[:, :1], energy - energy[:, :1]


def _standard_error(values: Array) -> Array:
    return np.asarray(values.std(0, ddof=1) / np.sqrt(len(values)))
