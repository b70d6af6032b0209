"""Scores of predicted cells against observed cells in the representation, with all bootstrap replicates at once."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ._checks import Samples
from ._mmd import mean_rbf
from ._moments import precision_of
from ._pairwise import Elementwise, row_blocks, squared_distances
from ._resampling import FLOOR, Resampling, Scores, Sums, draw_splits, with_mean
from ._sinkhorn_divergence import default_epsilon, entropic_between, entropic_within
from ._w2 import exact_coupling

# Cells of a cloud that go into the energy distance, the MMD (5 kernels), and optimal couplings.
MAX_ENERGY, MAX_MMD, MAX_COUPLED = 2000, 1000, 500
# Splits of scores that solve an optimal transport problem for each of them.
N_COUPLED_SPLITS = 10
# Multiples of 1 / median squared distance: several bandwidths see differences that are finer and coarser than it.
_FACTORS = np.array([4.0, 2.0, 1.0, 0.5, 0.25])


def bandwidths(y: Samples, draws: Resampling) -> Samples:
    """Return the gammas of the MMD, shape (5,), or (0,) if all observed cells ``y`` are equal up to rounding."""
    cells = y[draws.target_order[:MAX_MMD]] - np.median(y, axis=0)
    squared = squared_distances(cells, cells)
    positive = squared[squared > 0]  # equal cells have no distance to compare others with
    if not len(positive) or default_epsilon(y) == 0:
        return np.empty(0)
    gammas: Samples = _FACTORS / np.median(positive)  # the median heuristic, Gretton et al. (2012), sec. 8
    return gammas


def cloud_scores(
    points: Mapping[str, Samples], y: Samples, draws: Resampling, *, gammas: Samples, with_w2: bool
) -> Scores:
    """Return the scores of each method's predicted cells (n, d), and of the floor, against observed cells (m, d)."""
    scores = _trace_ratios(points, y, draws)
    epsilon = default_epsilon(y) or 1.0  # for cells that are all equal, any number
    # Products of coordinates far from 0 would lose the digits of distances, and one far cell moves no median.
    origin = np.median(y, axis=0)
    y = y - origin
    n_coupled = min(MAX_COUPLED, len(draws.source_order), len(y) // 2)
    cloud = partial(_Cloud, n_coupled=n_coupled, epsilon=epsilon, gammas=gammas)
    first_x, first_y = draws.source_order[:MAX_ENERGY], draws.target_order[:MAX_ENERGY]
    observed = cloud(y[first_y], draws.target[:, first_y])
    for method, x in points.items():
        predicted = cloud(x[first_x] - origin, draws.source[:, first_x])
        for metric, replicates in _compare(predicted, observed, epsilon, gammas, with_w2=with_w2).items():
            scores[method, metric] = replicates
    # The floor: halves of the observed cells, in a random order.
    rng, y = np.random.default_rng(draws.seed), y[draws.target_order]
    # MMD² is the energy distance for 1 - k in place of the distance.
    distances: dict[str, tuple[int, Elementwise]] = {
        "energy_distance": (MAX_ENERGY, np.sqrt),
        "mmd": (MAX_MMD, lambda squared: 1 - mean_rbf(squared, gammas)),
    }
    for metric, (max_cells, distance) in distances.items():
        cells = y[: 2 * max_cells]
        values = _energy_of_halves(cells, draw_splits(len(cells), rng), distance)
        # The mean over all splits is exactly 0: every mean over pairs of different cells has the same expected value.
        scores[FLOOR, metric] = np.append(0.0 if np.isfinite(values).all() else np.nan, values)
    return scores | _coupled_halves(y, n_coupled, epsilon, rng, with_w2=with_w2)


def _trace_ratios(points: Mapping[str, Samples], y: Samples, draws: Resampling) -> Scores:
    """Return the trace ratios of all cells; NaN where the observed cells have no variance."""
    precision = precision_of(y)
    observed = Sums.of(draws.target, y, precision=precision)
    halves = Sums.of(draws.splits.astype(np.float64), y, precision=precision)
    compared = {method: (Sums.of(draws.source, x, precision=precision), observed) for method, x in points.items()}
    scores = {}
    for method, sums in (compared | {FLOOR: (halves, observed[:1].without(halves))}).items():
        a, b = (each.moments().total_variance() for each in sums)
        ratio = np.divide(a, b, out=np.full(len(a), np.nan), where=b > 0)
        scores[method, "trace_ratio"] = with_mean(ratio) if method == FLOOR else ratio
    return scores


class _Cloud:
    """Cells, their counts (replicates, n), and what depends on them alone, for scores against other clouds."""

    def __init__(self, points: Samples, counts: Samples, *, n_coupled: int, epsilon: float, gammas: Samples) -> None:
        self.points, self.counts = points, counts
        squared = squared_distances(points, points)
        self.potential = entropic_within(squared[:n_coupled, :n_coupled], epsilon)
        self.kernel = _mean_within(mean_rbf(squared[:MAX_MMD, :MAX_MMD], gammas), counts[:, :MAX_MMD])
        self.distance = _mean_within(np.sqrt(squared, out=squared), counts)


def _compare(x: _Cloud, y: _Cloud, epsilon: float, gammas: Samples, *, with_w2: bool) -> dict[str, Samples]:
    """Return energy distance, MMD², Sinkhorn divergence and W2² of predicted cells x, shape (replicates,)."""
    squared = squared_distances(x.points, y.points)
    n = len(x.potential)
    kernel = mean_rbf(squared[:MAX_MMD, :MAX_MMD], gammas)
    scores = {"mmd": x.kernel + y.kernel - 2 * _mean_between(kernel, x.counts[:, :MAX_MMD], y.counts[:, :MAX_MMD])}
    # Replicates of the next two hold the dual potentials fixed, which is exact to first order in the counts (envelope
    # theorem): del Barrio & Loubes (2019), Ann. Probab. 47, 926-951. To solve again would be biased upwards, because a
    # replicate has fewer different cells.
    x_first, y_first = (counts[:, :n] / counts[:, :n].sum(axis=1, keepdims=True) for counts in (x.counts, y.counts))
    f, g = entropic_between(x.points[:n], y.points[:n], epsilon)
    scores["sinkhorn_divergence"] = x_first @ (f - x.potential) + y_first @ (g - y.potential)
    if with_w2:
        _, u, v = exact_coupling(squared[:n, :n])
        scores["w2_squared"] = x_first @ u + y_first @ v
    between = _mean_between(np.sqrt(squared, out=squared), x.counts, y.counts)
    return {"energy_distance": 2 * between - x.distance - y.distance, **scores}


def _mean_between(values: Samples, x_counts: Samples, y_counts: Samples) -> Samples:
    """Return the mean over pairs of cells of two clouds, (n, m), by replicate."""
    total = ((x_counts @ values) * y_counts).sum(axis=1)
    return np.asarray(total / (x_counts.sum(axis=1) * y_counts.sum(axis=1)))


def _mean_within(values: Samples, counts: Samples) -> Samples:
    """Return the mean over pairs of different cells of one cloud, (n, n), by replicate."""
    # Pairs of a cell with itself are left out, also where it was drawn more than once: their distance of 0 is that of
    # no two cells, and would bias every replicate.
    squares = np.square(counts)
    total = ((counts @ values) * counts).sum(axis=1) - squares @ values.diagonal()
    return np.asarray(total / (counts.sum(axis=1) ** 2 - squares.sum(axis=1)))


def _energy_of_halves(cells: Samples, splits: NDArray[np.bool_], distance: Elementwise) -> Samples:
    """Return 2 E d(X, Y) - E d(X, X') - E d(Y, Y') of the halves of each split; d is 0 for a cell and itself."""
    first = splits.astype(np.float64)
    total, one_side, within = 0.0, np.zeros(len(first)), np.zeros(len(first))
    # All splits are scored at once by sums over pairs, in blocks of rows: 4,000 cells have 128 MB of distances.
    for rows in row_blocks(len(cells), len(cells)):
        values = distance(squared_distances(cells[rows], cells))
        total += float(values.sum())
        one_side += first[:, rows] @ values.sum(axis=1)
        within += (first[:, rows] * (values @ first.T).T).sum(axis=1)
    n = first.sum(axis=1)
    m = len(cells) - n
    within_second = total - 2 * one_side + within
    scores: Samples = 2 * (one_side - within) / (n * m) - within / (n * (n - 1)) - within_second / (m * (m - 1))
    return scores


def _coupled_halves(y: Samples, n_coupled: int, epsilon: float, rng: np.random.Generator, *, with_w2: bool) -> Scores:
    """Return Sinkhorn divergence and W2² of ``n_coupled`` cells of each half, with their mean before them."""
    metrics = ["sinkhorn_divergence", *(["w2_squared"] if with_w2 else [])]
    values, potentials = np.empty((2, N_COUPLED_SPLITS)), np.zeros((2, len(y)))
    n_drawn = np.zeros(len(y))
    for split in range(N_COUPLED_SPLITS):
        drawn = rng.permutation(len(y))[: 2 * n_coupled]
        halves = y[drawn[:n_coupled]], y[drawn[n_coupled:]]
        within = [entropic_within(squared_distances(half, half), epsilon) for half in halves]
        dual = [np.concatenate(entropic_between(*halves, epsilon)) - np.concatenate(within)]
        if with_w2:
            dual.append(np.concatenate(exact_coupling(squared_distances(*halves))[1:]))
        for i, potential in enumerate(dual):
            values[i, split] = 2 * potential.mean()  # halves are of equal size
            potentials[i, drawn] += potential
        n_drawn[drawn] += 1
    # In many dimensions the scores depend on how spread the cells are, which all splits share. That part of their
    # variance comes from the dual potentials, as in _compare: the mean potential of a half is half the score, and the
    # cells of both halves are all cells, hence d score = 2 mean(d cells).
    known = n_drawn > 0
    shared = 4 * (potentials[:, known] / n_drawn[known]).var(axis=1) / len(y)
    scores: Scores = {}
    for metric, of_splits, variance in zip(metrics, values, shared, strict=False):
        mean, spread = of_splits.mean(), float(of_splits.var(ddof=1))
        # The splits get so much more variance around their mean.
        factor = np.sqrt(1 + variance / spread) if spread > 0 else 1.0
        scores[FLOOR, metric] = with_mean(mean + (of_splits - mean) * factor)
    return scores
