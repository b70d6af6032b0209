"""How much of the network to keep: the blend with the Gaussian map, chosen on cells that training never saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scot_hycnn.potentials import Potential
from scot_hycnn.solver.data._cells import Cells
from scot_hycnn.solver.runtime._precision import full_precision
from scot_hycnn.solver.training._conjugate import solve

Array = NDArray[np.float64]

# The grid includes 0, the Gaussian map itself: a fit can always fall back on it.
BLENDS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)

# Standard errors by which J must be below the Gaussian map's before that is given up. With none, fits to 20-300 cells
# of one Gaussian cloud had up to eight times the Gaussian map's error; with one never more than 1.02 times, and
# nonlinear maps were found as before from 100 cells on.
EVIDENCE = 1.0

# Mean residual |y - grad f(x)| up to which conjugates count as solved, in clouds of unit variance. (At a kink of f the
# gradient jumps and a single residual stays large although f* is right: so the mean, not the maximum.)
CONVERGED = 0.1


@dataclass(frozen=True)
class Blended:
    r"""The potential (1 - a) |x|^2/2 + a (mean_k f_k(x) + <s, x>) in balanced coordinates.

    It is convex, and its gradient is the blend of the Gaussian map (here the identity) with the ensemble's mean map,
    shifted by a constant.

    Parameters
    ----------
    network
        Architecture of the K members.
    weights
        Their weights.
    blend
        a in [0, 1].
    shift
        s, shape (d,); None is no shift. See :func:`recentred`.
    """

    network: Potential
    weights: dict[str, Tensor]
    blend: float
    shift: Tensor | None = None

    @property
    def n_members(self) -> int:
        """K."""
        return len(self.weights["v"])

    def member_gradients(self, x: Tensor) -> Tensor:
        """Gradients of the K members at the same points, (n, d) to (K, n, d)."""
        return self.network.gradient(self.weights, x.expand(self.n_members, -1, -1))

    def gradient(self, x: Tensor) -> Tensor:
        """(n, d) to (n, d)."""
        if self.blend == 0:
            return x
        mean = self.member_gradients(x).mean(0)
        return torch.lerp(x, mean if self.shift is None else mean + self.shift, self.blend)

    def value(self, x: Tensor) -> Tensor:
        """(n, d) to (n,)."""
        gaussian = 0.5 * x.square().sum(-1)
        if self.blend == 0:
            return gaussian
        mean = self.network.value(self.weights, x.expand(self.n_members, -1, -1)).mean(0)
        return torch.lerp(gaussian, mean if self.shift is None else mean + x @ self.shift, self.blend)

    def maximisers(self, y: Tensor, start: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Points x with gradient y, (m, d), and their residuals, (m,)."""
        start = y if start is None else start
        x, residual = solve(lambda z: self.gradient(z[0]).unsqueeze(0), y.unsqueeze(0), start.unsqueeze(0))
        return x[0], residual[0]


@dataclass(frozen=True)
class Score:
    """What one blend reached on validation cells, cell by cell: each mean has a standard error.

    Parameters
    ----------
    potential_x, conjugate_y
        f at the source cells and f* at the target cells: the mean of both is J. In units of use_rep squared.
    energy_x, energy_y
        Each cell's share of the energy distance (its first-order influence). In units of use_rep.
    energy_distance
        Unbiased energy distance between transported source cells and target cells, less the target's own term.
    residual
        Mean residual of the conjugates.
    """

    potential_x: Array
    conjugate_y: Array
    energy_x: Array
    energy_y: Array
    energy_distance: float
    residual: float

    @property
    def semi_dual(self) -> float:
        """J = E f(X) + E f*(Y)."""
        return float(self.potential_x.mean() + self.conjugate_y.mean())


# Cells whose images are held at once.
_BLOCK_ROWS = 8192


@torch.no_grad()
@full_precision()
def recentred(network: Potential, weights: dict[str, Tensor], cells: Cells) -> Blended:
    """The ensemble, shifted by the constant that gives the moved training cells the mean of the target.

    Training makes the mean of the *inverse* map right: at a minimum of J the mean of the maximisers is the source's.
    J does not look at the forward map's own mean, which on sparse counts in many noisy components was .3 off. Adding a
    constant to the map adds a linear term to the potential, which stays convex.

    Parameters
    ----------
    network, weights
        The trained ensemble.
    cells
        The cells of the fit.

    Returns
    -------
    The ensemble at blend 1, shifted.
    """
    ensemble = Blended(network, weights, 1.0)
    n = len(cells.x)
    weights_x = np.full(n, 1 / n) if cells.weights_x is None else cells.weights_x
    share = torch.as_tensor(weights_x, dtype=torch.float32, device=cells.x.device)
    # In balanced coordinates the target's training cells have mean 0.
    shift = -sum(
        own @ ensemble.gradient(x) for x, own in zip(cells.x.split(_BLOCK_ROWS), share.split(_BLOCK_ROWS), strict=True)
    )
    return replace(ensemble, shift=shift) if bool(shift.isfinite().all()) else ensemble


@torch.no_grad()
@full_precision()
def score_blends(ensemble: Blended, cells: Cells, blends: Sequence[float] = BLENDS) -> list[Score]:
    """Score blends on validation cells.

    Parameters
    ----------
    ensemble
        The trained ensemble.
    cells
        The cells of the fit.
    blends
        The blends, in order; each conjugate starts from its predecessor's.

    Returns
    -------
    One score for each.
    """
    x, y = cells.x_validation, cells.y_validation
    mapped = replace(ensemble, blend=1.0).gradient(x) if any(blends) else x
    # Distances are taken in the original coordinates, where they have a meaning, on the CPU in double precision.
    # Centred, since matrix products, which are several times faster, lose what is far from the origin.
    centre = cells.coordinates.mean_y
    targets = torch.from_numpy(cells.y_validation_original - centre)
    self_distance = _mean_distance_to_others(targets)
    scores = []
    start = y
    for blend in blends:
        f = replace(ensemble, blend=blend)
        start, residual = f.maximisers(y, start)
        conjugate = (start * y).sum(-1) - f.value(start)
        moved = torch.from_numpy(cells.coordinates.invert_target(as_numpy(torch.lerp(x, mapped, blend))) - centre)
        between = torch.cdist(moved, targets, compute_mode="use_mm_for_euclid_dist")
        within = _mean_distance_to_others(moved)
        energy = 2 * between.mean() - within.mean() - self_distance.mean()
        scores.append(
            Score(
                as_numpy(f.value(x)) / cells.coordinates.scale,
                as_numpy(conjugate) / cells.coordinates.scale,
                as_numpy(2 * between.mean(1) - 2 * within),
                as_numpy(2 * between.mean(0)),
                float(energy),
                float(residual.mean()),
            )
        )
    return scores


@np.errstate(invalid="ignore", over="ignore")  # an exploded network is out, and not worth numpy's warnings
def choose(scores: list[Score]) -> int:
    """Index of the best blend: the smallest J among those that are not visibly worse in energy distance.

    J is convex in the blend, unbiased on unseen cells, and sees small errors in many dimensions, to which the energy
    distance is blind. But J judges the inverse map, and the energy distance the forward map: where that fails, J may
    not see it. So a blend whose energy distance is above that of any other by more than two standard errors of the
    difference is out, and so is one whose conjugates did not converge, since its J is too small. The Gaussian map
    (blend 0) is kept unless the smallest J is below its own by EVIDENCE standard errors of the difference. (Taking the
    blend nearest to the Gaussian map among those of about the same J cost up to 19 % of the error on the planted PBMCs,
    and gained nothing elsewhere.)

    Parameters
    ----------
    scores
        One for each of BLENDS, or a beginning of it.
    """
    gaussian = scores[0]
    semi_duals = np.array([score.semi_dual if is_usable(score, scores) else np.inf for score in scores])
    semi_duals[0] = gaussian.semi_dual
    best = int(np.argmin(semi_duals))
    if not semi_duals[best] < gaussian.semi_dual - EVIDENCE * _semi_dual_error(scores[best], gaussian):
        return 0
    return best


@np.errstate(invalid="ignore", over="ignore")
def by_blend(scores: Sequence[Score], blends: Sequence[float]) -> dict[str, Array]:
    """Scores as columns, one row a blend, with the standard errors of their differences from the Gaussian map's.

    Parameters
    ----------
    scores
        The first is the Gaussian map's.
    blends
        One for each score.

    Returns
    -------
    ``blends``, ``J_by_blend``, ``J_error_by_blend``, ``energy_distance_by_blend``, ``energy_error_by_blend``.
    """
    gaussian = scores[0]
    return {
        "blends": np.array(blends),
        "J_by_blend": np.array([score.semi_dual for score in scores]),
        "J_error_by_blend": np.array([_semi_dual_error(score, gaussian) for score in scores]),
        "energy_distance_by_blend": np.array([score.energy_distance for score in scores]),
        "energy_error_by_blend": np.array([_energy_error(score, gaussian) for score in scores]),
    }


def _semi_dual_error(score: Score, gaussian: Score) -> float:
    return _standard_error(score.potential_x - gaussian.potential_x, score.conjugate_y - gaussian.conjugate_y)


def _energy_error(score: Score, other: Score) -> float:
    return _standard_error(score.energy_x - other.energy_x, score.energy_y - other.energy_y)


def is_usable(score: Score, scores: Sequence[Score]) -> bool:
    """Whether a blend's J can be believed, and its energy distance is not visibly worse than any other's."""
    if not (np.isfinite(score.semi_dual) and score.residual < CONVERGED and _has_energy(score)):
        return False
    return all(
        score.energy_distance - other.energy_distance <= 2 * _energy_error(score, other)
        for other in scores
        if _has_energy(other)
    )


def _has_energy(score: Score) -> bool:
    """Whether the energy distance and its standard error are finite."""
    return bool(np.isfinite([score.energy_distance, score.energy_x.sum(), score.energy_y.sum()]).all())


def _standard_error(x: Array, y: Array) -> float:
    return float(np.sqrt(x.var(ddof=1) / len(x) + y.var(ddof=1) / len(y)))


def _mean_distance_to_others(points: Tensor) -> Tensor:
    distances = torch.cdist(points, points, compute_mode="use_mm_for_euclid_dist").fill_diagonal_(0)
    return distances.sum(1) / (len(points) - 1)


def as_numpy(values: Tensor) -> Array:
    """The values in double precision, on the CPU."""
    return np.asarray(values.cpu().double())  # in this order: MPS has no doubles
