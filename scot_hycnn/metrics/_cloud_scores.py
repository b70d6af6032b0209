"""Scores of predicted cells against observed cells in the representation, with all bootstrap replicates at once."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from ._distances import default_epsilon, entropic_between, entropic_within, exact_coupling, mean_rbf
from ._moments import precision_of
from ._resampling import REPLICATE, CloudDraws, Codes, Resampling, Scores, Sums, draw_splits, in_shares, with_mean
from ._samples import Elementwise, Samples, row_blocks, squared_distances

# Cells of a cloud that go into the energy distance, the MMD (5 kernels), and optimal couplings.
MAX_ENERGY, MAX_MMD, MAX_COUPLED = 2000, 1000, 500
# Splits of scores that solve an optimal transport problem for each of them.
N_COUPLED_SPLITS = 10
# A group with fewer cells in a sample of a large cloud has no part in its scores: replicates would lack it.
_MIN_IN_SAMPLE = 10
# Multiples of 1 / median squared distance: several bandwidths see differences that are finer and coarser than it.
_FACTORS = np.array([4.0, 2.0, 1.0, 0.5, 0.25])
N_NEIGHBORS = 15
# Treated cells to be neighbours, and cells of each side whose neighbours are found: some of each group, and others.
_MAX_CELLS, _MAX_OF_GROUP = 10_000, 200


def bandwidths(y: Samples, draws: Resampling) -> Samples:
    """Return the gammas of the MMD, shape (5,), or (0,) if all observed cells ``y`` are equal up to rounding."""
    cells = y[draws.target.order[:MAX_MMD]] - np.median(y, axis=0)
    squared = squared_distances(cells, cells)
    positive = squared[squared > 0]  # equal cells have no distance to compare others with
    if not len(positive) or default_epsilon(y) == 0:
        return np.empty(0)
    return np.asarray(_FACTORS / np.median(positive))  # the median heuristic, Gretton et al. (2012), sec. 8


def cloud_scores(
    points: Mapping[str, Samples], y: Samples, draws: Resampling, *, gammas: Samples, with_w2: bool
) -> Scores:
    """Return the scores of each method's predicted cells (k, d), and of a replicate, against observed cells (m, d)."""
    scores = _trace_ratios(points, y, draws)
    epsilon = default_epsilon(y) or 1.0  # for cells that are all equal, any number
    # Products of coordinates far from 0 would lose the digits of distances, and one far cell moves no median.
    origin = np.median(y, axis=0)
    y = y - origin
    # Couplings take no weights: groups get their shares by the choice of cells, so that each half has enough of each.
    halves = np.bincount(draws.target.codes) // 2
    n_coupled = int(min(MAX_COUPLED, len(draws.source.order), (halves / draws.shares).min()))
    sampled = [of.codes[of.order] for of in (draws.source, draws.target)]
    shares = tuple(_shares_among(draws.shares, *(codes[:size] for codes in sampled)) for size in (MAX_ENERGY, MAX_MMD))
    cloud = partial(_Cloud, shares=shares, n_coupled=n_coupled, epsilon=epsilon, gammas=gammas)
    observed = cloud(y, draws.target)
    for method, x in points.items():
        of_method = _compare(cloud(x - origin, draws.of(method)), observed, epsilon, gammas, with_w2=with_w2)
        scores |= {(method, metric): values for metric, values in of_method.items()}
    # The replicate: halves of the observed cells, in a random order.
    rng, y, ordered = np.random.default_rng(draws.seed), y[draws.target.order], sampled[1]
    # MMD² is the energy distance for 1 - k in place of the distance.
    distances: dict[str, tuple[int, Elementwise]] = {
        "energy_distance": (MAX_ENERGY, np.sqrt),
        "mmd": (MAX_MMD, lambda squared: 1 - mean_rbf(squared, gammas)),
    }
    for metric, (max_cells, distance) in distances.items():
        some = ordered[: 2 * max_cells]
        among = _shares_among(draws.shares, some)
        values = _energy_of_halves(y[: 2 * max_cells], draw_splits(some, rng), distance, some, among)
        # The mean over all splits is exactly 0: every mean over pairs of different cells has the same expected value.
        scores[REPLICATE, metric] = np.append(0.0 if np.isfinite(values).all() else np.nan, values)
    return scores | _coupled_halves(y, draws, rng, n_coupled=n_coupled, epsilon=epsilon, with_w2=with_w2)


def _shares_among(shares: Samples, *clouds: Codes) -> Samples:
    """Return the shares of the groups that have enough cells in all of these samples, 0 for the others."""
    if len(shares) == 1:
        return shares
    counts = [np.bincount(codes, minlength=len(shares)) for codes in clouds]
    shares = np.where(np.min(counts, axis=0) >= _MIN_IN_SAMPLE, shares, 0.0)
    return np.asarray(shares / shares.sum())


def _trace_ratios(points: Mapping[str, Samples], y: Samples, draws: Resampling) -> Scores:
    """Return the trace ratios of all cells; NaN where the observed cells have no variance."""
    sums, weights = partial(Sums.of, precision=precision_of(y)), draws.target.weights
    observed, halves = sums(draws.target.counts * weights, y), sums(draws.splits * weights, y)
    compared = {method: (sums(draws.counts(method, halves=None), x), observed) for method, x in points.items()}
    scores = {}
    for method, pair in (compared | {REPLICATE: (halves, observed[:1].without(halves))}).items():
        a, b = (each.moments().total_variance() for each in pair)
        ratio = np.divide(a, b, out=np.full(len(a), np.nan), where=b > 0)
        scores[method, "trace_ratio"] = with_mean(ratio) if method == REPLICATE else ratio
    return scores


class _Cloud:
    """Cells, their counts (replicates, n) and groups, and what depends on them alone, for scores against others."""

    def __init__(
        self,
        points: Samples,
        draws: CloudDraws,
        *,
        shares: tuple[Samples, ...],
        n_coupled: int,
        epsilon: float,
        gammas: Samples,
    ) -> None:
        first = draws.order[:MAX_ENERGY]
        points, counts, codes = points[first], draws.counts[:, first], draws.codes[first]
        self.points, self.counts = points, counts
        self.weights = _weights(counts, codes, shares[0])
        self.first_weights = _weights(counts[:, :MAX_MMD], codes[:MAX_MMD], shares[1])
        squared = squared_distances(points, points)
        self.potential = entropic_within(squared[:n_coupled, :n_coupled], epsilon)
        unlike = 1 - mean_rbf(squared[:MAX_MMD, :MAX_MMD], gammas)
        self.kernel = _mean_within(unlike, self.first_weights, codes[:MAX_MMD], shares[1])
        self.distance = _mean_within(np.sqrt(squared, out=squared), self.weights, codes, shares[0])


def _compare(x: _Cloud, y: _Cloud, epsilon: float, gammas: Samples, *, with_w2: bool) -> dict[str, Samples]:
    """Return energy distance, MMD², Sinkhorn divergence and W2² of predicted cells x, shape (replicates,)."""
    squared = squared_distances(x.points, y.points)
    n = len(y.potential)
    unlike = 1 - mean_rbf(squared[:MAX_MMD, :MAX_MMD], gammas)
    between = _mean_between(np.sqrt(squared), x.weights, y.weights)
    scores = {
        "energy_distance": 2 * between - x.distance - y.distance,
        "mmd": 2 * _mean_between(unlike, x.first_weights, y.first_weights) - x.kernel - y.kernel,
    }
    if len(x.potential) < n:  # fewer cells than the others have would raise the next two
        return scores
    # Replicates of the next two hold the dual potentials fixed, which is exact to first order in the counts (envelope
    # theorem): del Barrio & Loubes (2019), Ann. Probab. 47, 926-951. To solve again would be biased upwards, because a
    # replicate has fewer different cells.
    x_first, y_first = (counts[:, :n] / counts[:, :n].sum(axis=1, keepdims=True) for counts in (x.counts, y.counts))
    f, g = entropic_between(x.points[:n], y.points[:n], epsilon)
    scores["sinkhorn_divergence"] = x_first @ (f - x.potential) + y_first @ (g - y.potential)
    if with_w2:
        _, u, v = exact_coupling(squared[:n, :n])
        scores["w2_squared"] = x_first @ u + y_first @ v
    return scores


def _weights(counts: Samples, codes: Codes, shares: Samples) -> Samples:
    """Return weights of cells, (replicates, n), with which each group has its share in every replicate."""
    weights = np.zeros(counts.shape)
    for group in np.flatnonzero(shares):
        of_group = counts[:, codes == group]
        weights[:, codes == group] = shares[group] * of_group / of_group.sum(axis=1, keepdims=True)
    return weights


def _mean_between(values: Samples, x_weights: Samples, y_weights: Samples) -> Samples:
    """Return the mean over pairs of cells of two clouds, (n, m), by replicate."""
    return np.asarray(((x_weights @ values) * y_weights).sum(axis=1))


def _mean_within(values: Samples, weights: Samples, codes: Codes, shares: Samples) -> Samples:
    """Return the mean over pairs of different cells of one cloud, (n, n), by replicate; the diagonal is 0."""
    mean = _mean_between(values, weights, weights)
    # Pairs of a cell with itself are left out, also where it was drawn more than once: their distance of 0 is that of
    # no two cells, and would bias every replicate. Pairs of one group are p² of all pairs, with or without them, so
    # that the other pairs of the group count more: by 1 / (1 - s), where s is the chance to draw a cell twice.
    for group in np.flatnonzero(shares):
        own = codes == group
        of_group = weights[:, own]
        twice = np.square(of_group).sum(axis=1) / shares[group] ** 2
        inside = mean if len(shares) == 1 else _mean_between(values[np.ix_(own, own)], of_group, of_group)
        mean = mean + inside * twice / (1 - twice)
    return mean


def _energy_of_halves(
    cells: Samples, splits: NDArray[np.bool_], distance: Elementwise, codes: Codes, shares: Samples
) -> Samples:
    """Return 2 E d(X, Y) - E d(X, X') - E d(Y, Y') of the halves of each split; d is 0 for a cell and itself."""
    first, second = (_weights(half.astype(np.float64), codes, shares) for half in (splits, ~splits))
    scores = np.zeros(len(splits))
    # All splits are scored at once by sums over pairs, in blocks of rows: 4,000 cells have 128 MB of distances. Pairs
    # of one group count more within a half than between halves, as in _mean_within.
    for group in np.flatnonzero(shares):
        own = codes == group
        weights = np.concatenate([first[:, own], second[:, own]])
        twice = np.square(weights).sum(axis=1) / shares[group] ** 2
        inside = twice / (1 - twice) * _quadratic(cells[own], weights, distance)
        scores -= inside[: len(first)] + inside[len(first) :]
    # With w the weights of one half less those of the other, 2 E d(X, Y) - E d(X, X') - E d(Y, Y') = -<w, D w>.
    return np.asarray(scores - _quadratic(cells, first - second, distance))


def _quadratic(cells: Samples, weights: Samples, distance: Elementwise) -> Samples:
    """Return the sum of w_i w_j d(i, j) over all pairs of cells, by split; weights (splits, n)."""
    total = np.zeros(len(weights))
    for rows in row_blocks(len(cells), len(cells)):
        values = distance(squared_distances(cells[rows], cells))
        total += (weights[:, rows].T * (values @ weights.T)).sum(axis=0)
    return total


def _coupled_halves(
    y: Samples, draws: Resampling, rng: np.random.Generator, *, n_coupled: int, epsilon: float, with_w2: bool
) -> Scores:
    """Return Sinkhorn divergence and W2² of ``n_coupled`` cells of each half, with their mean before them."""
    codes = draws.target.codes[draws.target.order]
    metrics = ["sinkhorn_divergence", *(["w2_squared"] if with_w2 else [])]
    values, potentials = np.empty((2, N_COUPLED_SPLITS)), np.zeros((2, len(y)))
    n_drawn = np.zeros(len(y))
    for split in range(N_COUPLED_SPLITS):
        drawn = in_shares(rng.permutation(len(y)), codes, draws.shares)[: 2 * n_coupled]
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
        scores[REPLICATE, metric] = with_mean(mean + (of_splits - mean) * factor)
    return scores


# Of each method and of the replicate: whether cells lie among treated cells of their group, 1 or 0, and the weights of
# the cells that were looked at, both (k,); the others have the weight 0.
Kept: TypeAlias = dict[str, tuple[Samples, Samples]]


def find_kept(
    clouds: Mapping[str, tuple[Samples, Codes]], y: Samples, target: Codes, rng: np.random.Generator
) -> Kept | None:
    """Look at the neighbours of predicted cells (k, d) among treated cells (m, d); codes are -1 without a group.

    A cell is kept if no other group has more cells than its own among the 15 nearest treated cells.
    """
    labelled = rng.permutation(np.flatnonzero(target >= 0))[:_MAX_CELLS]
    codes, n_groups = target[labelled], int(target.max()) + 1
    # Within one group all cells are kept, and cells of groups without treated cells cannot be.
    if len(np.unique(codes)) < 2 or not any(np.isin(own, codes).any() for _, own in clouds.values()):
        return None
    origin = np.median(y, axis=0)  # far from it, the search would lose the digits of small distances
    search = NearestNeighbors(n_neighbors=min(N_NEIGHBORS, len(labelled) - 1)).fit(y[labelled] - origin)

    def are_kept(own: Codes, cells: Samples | None) -> Samples:
        # Without cells the search leaves each treated cell out of its own neighbours.
        neighbors = codes[search.kneighbors(cells, return_distance=False)]
        most = (neighbors[:, :, None] == neighbors[:, None]).sum(axis=2).max(axis=1)
        return np.asarray((neighbors == own[:, None]).sum(axis=1) == most, dtype=np.float64)

    seed, found = int(rng.integers(2**63)), Kept()
    for method, (cells, own) in clouds.items():
        # The same seed chooses the same cells of all methods. A group without treated cells has no neighbours.
        weights = _chosen_weights(np.where(np.isin(own, codes), own, -1), np.random.default_rng(seed))
        chosen, kept = np.flatnonzero(weights), np.zeros(len(own))
        if len(chosen):
            kept[chosen] = are_kept(own[chosen], cells[chosen] - origin)
            found[method] = kept, weights
    kept, weights = np.zeros((2, len(target)))
    sizes, drawn = (np.bincount(of[of >= 0], minlength=n_groups) for of in (target, codes))
    kept[labelled], weights[labelled] = are_kept(codes, None), (sizes / np.maximum(drawn, 1))[codes]
    return found | {REPLICATE: (kept, weights)}


def kept_scores(kept: Kept, cells: Mapping[str, NDArray[np.bool_]], draws: Resampling) -> Scores:
    """Return the shares of kept cells among some of the cells of methods and replicate, boolean (k,), by replicate."""
    shares: Scores = {}
    for method in kept.keys() & cells.keys():
        of = draws.target if method == REPLICATE else draws.of(method)
        # The replicate is the share of all observed cells; its spread is that of shares of their halves.
        rows = np.concatenate([of.counts[:1], draws.splits]) if method == REPLICATE else of.counts
        are_kept, weights = (values[cells[method]] for values in kept[method])
        counts = rows * of.weights * weights
        shares[method, "kept_group"] = counts @ are_kept / counts.sum(axis=1)
    return shares


def _chosen_weights(codes: Codes, rng: np.random.Generator) -> Samples:
    """Choose cells to look at, and return their weights, (n,): each group counts as if all of its cells were chosen."""
    weights = np.zeros(len(codes))
    first = np.zeros(len(codes), dtype=bool)
    first[rng.permutation(len(codes))[:_MAX_CELLS]] = True
    for group in np.unique(codes[codes >= 0]):
        members = np.flatnonzero(codes == group)
        chosen = members[first[members]]
        if len(chosen) < min(_MAX_OF_GROUP, len(members)):
            chosen = rng.permutation(members)[:_MAX_OF_GROUP]
        weights[chosen] = len(members) / len(chosen)
    return weights
