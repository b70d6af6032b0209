"""The blend of the networks with the Gaussian map, chosen on cells, or on groups, that training has not seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scot_hycnn.potentials import Potential
from scot_hycnn.solver._options import Settings
from scot_hycnn.solver.data._coordinates import as_numpy
from scot_hycnn.solver.data._groups import GROUP_STANDARD_ERRORS, MIN_CELLS_LEFT_OUT, Groups
from scot_hycnn.solver.data._training_data import MAX_VALIDATION_CELLS, Trained, TrainingData
from scot_hycnn.solver.model._blended import Blended, solve
from scot_hycnn.solver.runtime._device import full_precision

Array = NDArray[np.float64]

# The grid includes 0, the Gaussian map itself: a fit can always fall back on it.
BLENDS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)

# Standard errors by which J must be below the Gaussian map's before the Gaussian map is replaced (one-standard-error
# rule). With none, fits to 20-300 cells of one Gaussian cloud had up to eight times the Gaussian map's error; with one
# never more than 1.02 times, and nonlinear maps were found as before from 100 cells on.
J_STANDARD_ERRORS = 1.0

# Mean residual |y - grad f(x)| up to which conjugates count as solved, in clouds of unit variance. (At a kink of f the
# gradient jumps and a single residual stays large although f* is right: so the mean, not the maximum.)
CONVERGED = 0.1
# Cells whose images are held at once.
_BLOCK_ROWS = 8192
# Folds of the cross-validation: with more groups than these several are left out at a time.
MAX_FOLDS = 4


@dataclass(frozen=True)
class Score:
    """The scores of one blend on validation cells, cell by cell, so that their means have standard errors."""

    # f at the source cells and f* at the target cells, in units of use_rep squared.
    potential_x: Array
    conjugate_y: Array
    # Each cell's share of the energy distance (its first-order influence), in units of use_rep.
    energy_x: Array
    energy_y: Array
    # Unbiased energy distance between transported source cells and target cells, less the term of the target alone.
    energy_distance: float
    # Mean residual of the conjugates.
    residual: float
    # Distance of the mean of the transported cells from the target's, in standard deviations of the target, and their
    # total variance in units of the target's. J judges the inverse map, so the forward map is measured too.
    mean_error: float = 0.0
    variance_ratio: float = 1.0

    @property
    def semi_dual(self) -> float:
        """J = E f(X) + E f*(Y)."""
        return float(self.potential_x.mean() + self.conjugate_y.mean())


@torch.no_grad()
@full_precision()
def recentred(network: Potential, weights: dict[str, Tensor], cells: TrainingData) -> Blended:
    """Return the ensemble at blend 1, shifted so that the moved training cells have the mean of the target."""
    # Training makes the mean of the *inverse* map right: at a minimum of J the mean of the maximisers is the source's.
    # J does not contain the mean of the forward map, which on sparse counts in many noisy components was .3 off. Adding
    # a constant to the map adds a linear term to the potential, which stays convex.
    ensemble = Blended(network, weights, 1.0)
    n = len(cells.x)
    weights_x = np.full(n, 1 / n) if cells.weights_x is None else cells.weights_x
    share = torch.as_tensor(weights_x, dtype=torch.float32, device=cells.x.device)
    # In balanced coordinates the target's training cells have mean 0.
    shift = -sum(
        part @ ensemble.gradient(x)
        for x, part in zip(cells.x.split(_BLOCK_ROWS), share.split(_BLOCK_ROWS), strict=True)
    )
    return replace(ensemble, shift=shift) if bool(shift.isfinite().all()) else ensemble


@torch.no_grad()
@full_precision()
@np.errstate(invalid="ignore", over="ignore")  # an exploded network scores NaN, which needs no warning from NumPy
def score_blends(ensemble: Blended, cells: TrainingData, blends: Sequence[float] = BLENDS) -> list[Score]:
    """Score blends of an ensemble on validation cells, in order: each conjugate starts from its predecessor's."""
    x, y = cells.x_validation, cells.y_validation
    # The networks move the cells once: the images of all blends lie on a line.
    mapped = replace(ensemble, blend=1.0).gradient(x) if any(blends) else x
    # Distances are taken in the original coordinates, where they have a meaning, on the CPU in double precision.
    # Centred, since matrix products, which are several times faster, lose what is far from the origin.
    centre, scale = cells.coordinates.mean_y, cells.coordinates.scale
    targets = torch.from_numpy(cells.y_validation_original - centre)
    within_target = _mean_distance_to_others(targets).mean()
    target_mean, target_variance = targets.mean(0), float(targets.var(0, correction=0).sum()) or 1.0
    scores = []
    start = y
    for blend in blends:
        f = replace(ensemble, blend=blend)
        start, residual = solve(f.gradient, y, start)
        conjugate = (start * y).sum(-1) - f.value(start)
        moved = torch.from_numpy(cells.coordinates.invert_target(as_numpy(torch.lerp(x, mapped, blend))) - centre)
        between = torch.cdist(moved, targets, compute_mode="use_mm_for_euclid_dist")
        within = _mean_distance_to_others(moved)
        scores.append(
            Score(
                potential_x=as_numpy(f.value(x)) / scale,
                conjugate_y=as_numpy(conjugate) / scale,
                energy_x=as_numpy(2 * between.mean(1) - 2 * within),
                energy_y=as_numpy(2 * between.mean(0)),
                energy_distance=float(2 * between.mean() - within.mean() - within_target),
                residual=float(residual.mean()),
                mean_error=float((moved.mean(0) - target_mean).norm()) / target_variance**0.5,
                variance_ratio=float(moved.var(0, correction=0).sum()) / target_variance,
            )
        )
    return scores


@np.errstate(invalid="ignore", over="ignore")
def choose_blend(scores: Sequence[Score]) -> int:
    """Return the best blend's index: the smallest J among those that are not visibly worse in energy distance."""
    # J is convex in the blend, unbiased on unseen cells, and shows small errors in many dimensions, which the energy
    # distance does not. But J judges the inverse map, and the energy distance the forward map, which may fail alone: so
    # only usable blends are compared.
    gaussian = scores[0]
    semi_duals = np.array([score.semi_dual if is_usable(score, scores) else np.inf for score in scores])
    semi_duals[0] = gaussian.semi_dual
    best = int(np.argmin(semi_duals))
    error = _standard_error(
        scores[best].potential_x - gaussian.potential_x, scores[best].conjugate_y - gaussian.conjugate_y
    )
    # The one-standard-error rule keeps the Gaussian map (blend 0, the first). Taking the blend nearest to it among
    # those of about the same J cost up to 19 % of the error on the planted PBMCs, and gained nothing elsewhere.
    return best if semi_duals[best] < gaussian.semi_dual - J_STANDARD_ERRORS * error else 0


def is_usable(score: Score, scores: Sequence[Score]) -> bool:
    """Return whether a blend's J is reliable, and its energy distance is not visibly worse than any other's."""
    finite = [
        bool(np.isfinite([one.energy_distance, one.energy_x.sum(), one.energy_y.sum()]).all())
        for one in (score, *scores)
    ]
    # J is too small where conjugates did not converge.
    if not (np.isfinite(score.semi_dual) and score.residual < CONVERGED and finite[0]):
        return False
    # Visibly worse means by two standard errors of the difference.
    return all(
        score.energy_distance - other.energy_distance
        <= 2 * _standard_error(score.energy_x - other.energy_x, score.energy_y - other.energy_y)
        for other, is_finite in zip(scores, finite[1:], strict=True)
        if is_finite
    )


@np.errstate(invalid="ignore", over="ignore")
def by_blend(scores: Sequence[Score], blends: Sequence[float]) -> dict[str, Array]:
    """Return columns of scores, a row for each blend, with standard errors of differences from the first."""
    gaussian = scores[0]
    columns = {
        "blends": blends,
        "J_by_blend": [score.semi_dual for score in scores],
        "J_error_by_blend": [
            _standard_error(score.potential_x - gaussian.potential_x, score.conjugate_y - gaussian.conjugate_y)
            for score in scores
        ],
        "energy_distance_by_blend": [score.energy_distance for score in scores],
        "energy_error_by_blend": [
            _standard_error(score.energy_x - gaussian.energy_x, score.energy_y - gaussian.energy_y) for score in scores
        ],
        "residual_by_blend": [score.residual for score in scores],
    }
    return {name: np.array(column) for name, column in columns.items()}


def _standard_error(x: Array, y: Array) -> float:
    """Return the standard error of the sum of the means of two independent samples."""
    return float(np.sqrt(x.var(ddof=1) / len(x) + y.var(ddof=1) / len(y)))


def _mean_distance_to_others(points: Tensor) -> Tensor:
    distances = torch.cdist(points, points, compute_mode="use_mm_for_euclid_dist").fill_diagonal_(0)
    return distances.sum(1) / (len(points) - 1)


# One score for each blend, in the order of BLENDS, for each group that was left out.
GroupScores = Sequence[Sequence[Score]]


def leave_groups_out(
    x: Array,
    y: Array,
    groups: Groups,
    settings: Settings,
    network: Potential,
    *,
    centres: Array | None = None,
    train: Callable[[Settings, Sequence[TrainingData]], Sequence[Trained]],
) -> GroupScores:
    """Fit without some groups and score every blend on each of them, until every group was left out once.

    Groups of one unit are left out together, and their scores averaged.
    With ``centres``, shape (groups, d), the cells of each group are centred by its own.
    """
    # Groups are dealt in turn from the largest one: folds have about the same size.
    units, unit = np.unique(groups.units, return_inverse=True)
    size = np.bincount(unit[groups.x], minlength=len(units)) + np.bincount(unit[groups.y], minlength=len(units))
    n_folds = min(MAX_FOLDS, len(units))
    folds = [np.flatnonzero(np.isin(unit, np.argsort(-size)[k::n_folds])) for k in range(n_folds)]
    training = []
    for fold in folds:
        in_x, in_y = ~np.isin(groups.x, fold), ~np.isin(groups.y, fold)
        around = None if centres is None else (centres, centres)
        kept = groups.take(in_x, in_y)
        training.append(TrainingData.prepare(x[in_x], y[in_y], settings, kept, centres=around))
    # Blends are compared with each other, so half of the members are enough.
    results = train(replace(settings, n_ensemble=max(settings.n_ensemble // 2, 1)), training)

    generator = np.random.default_rng(settings.rng)
    scores: dict[int, Sequence[Score]] = {}
    for fold, cells, trained in zip(folds, training, results, strict=True):
        ensemble = recentred(network, network.weights(trained.theta), cells)
        for group in fold:
            held_x, held_y = (
                generator.permutation(cloud[codes == group])[:MAX_VALIDATION_CELLS]
                for cloud, codes in ((x, groups.x), (y, groups.y))
            )
            if min(len(held_x), len(held_y)) >= MIN_CELLS_LEFT_OUT:
                centre = 0.0 if centres is None else centres[group]
                scores[int(group)] = score_blends(ensemble, cells.validated_on(held_x - centre, held_y - centre))
    of_units: list[Sequence[Score]] = []
    for number in range(len(units)):
        members = [group for group in np.flatnonzero(unit == number) if int(group) in scores]
        share = groups.proportions[members]
        if members:
            rows = zip(*(scores[int(group)] for group in members), strict=True)
            of_units.append([_mean_of_groups(row, share / share.sum()) for row in rows])
    return of_units


@np.errstate(invalid="ignore", over="ignore")
def _mean_of_groups(scores: Sequence[Score], share: Array) -> Score:
    """Return what is read of scores on groups that were left out, averaged over the groups of a unit."""
    if len(scores) == 1:
        return scores[0]
    semi_dual, energy, residual = (
        float(share @ np.array([getattr(one, name) for one in scores]))
        for name in ("semi_dual", "energy_distance", "residual")
    )
    none = np.zeros(1)
    return Score(none + semi_dual, none, none, none, energy_distance=energy, residual=residual)


@np.errstate(invalid="ignore", over="ignore")  # an exploded network scores NaN, which needs no warning from NumPy
def choose_blend_by_groups(scores: GroupScores) -> int:
    """Return the best blend's index: the smallest mean J over groups, as choose_blend does over cells."""
    # J must be below the Gaussian map's by GROUP_STANDARD_ERRORS standard errors over groups, among blends whose mean
    # energy distance is not above the Gaussian map's either: groups are few, so two standard errors would exclude
    # hardly any blend. (Kang, each of seven types left out: J alone left the Gaussian map once, for B cells, and lost.)
    j, energy = _differences(scores)
    residual = np.array([[score.residual for score in row] for row in scores]).max(axis=0)
    usable = (residual < CONVERGED) & (energy.mean(0) <= 0) & np.isfinite(j).all(0)
    mean = np.where(usable, j.mean(0), np.inf)
    mean[0] = 0.0
    best = int(np.argmin(mean))
    return best if mean[best] < -GROUP_STANDARD_ERRORS * _error_over_groups(j)[best] else 0


@np.errstate(invalid="ignore", over="ignore")
def by_blend_left_out(scores: GroupScores) -> dict[str, Array]:
    """Return means over groups with their standard errors, less the Gaussian map's, one row a blend."""
    j, energy = _differences(scores)
    return {
        "J_left_out_by_blend": j.mean(0),
        "J_left_out_error_by_blend": _error_over_groups(j),
        "energy_distance_left_out_by_blend": energy.mean(0),
        "energy_left_out_error_by_blend": _error_over_groups(energy),
    }


def _differences(scores: GroupScores) -> tuple[Array, Array]:
    """Return J and the energy distance less the Gaussian map's, shape (groups, blends)."""
    j = np.array([[score.semi_dual for score in row] for row in scores])
    energy = np.array([[score.energy_distance for score in row] for row in scores])
    return j - j[:, :1], energy - energy[:, :1]


def _error_over_groups(values: Array) -> Array:
    return np.asarray(values.std(0, ddof=1) / np.sqrt(len(values)))
