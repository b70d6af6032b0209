"""The floor: what one half of the observed cells scores against the other, in many random splits.

Splits are rows of booleans, and all of them are scored at once where a score is made of sums over cells or pairs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from ._checks import Samples
from ._mmd import mean_rbf
from ._pairwise import Elementwise, row_blocks, squared_distances
from ._sinkhorn import entropic_within
from ._sinkhorn_divergence import entropic_between
from ._w2 import exact

Splits = NDArray[np.bool_]  # (splits, cells); which cells are in the first half

N_SPLITS = 100
# Of scores that solve an optimal transport problem for each split.
N_COUPLED_SPLITS = 10


def draw_splits(n_cells: int, rng: np.random.Generator, n_splits: int = N_SPLITS) -> Splits:
    """Random halves of n cells, n // 2 and the rest; shape (splits, n)."""
    first = np.tile(np.arange(n_cells) < n_cells // 2, (n_splits, 1))
    return rng.permuted(first, axis=1)


def mean_and_splits(values: Samples) -> Samples:
    """Mean of those that are finite, and the values of all splits after it, as replicates are kept."""
    finite = values[np.isfinite(values)]
    return np.append(finite.mean() if len(finite) else np.nan, values)


def split_interval(values: Samples, lowest: float = -np.inf, highest: float = np.inf) -> tuple[float, float, float]:
    """Value, and where one more split is expected with 95 % probability, within a statistic's range.

    The prediction interval of a normal distribution, with Student's t because spread and mean are estimated.
    """
    value, splits = float(np.clip(values[0], lowest, highest)), values[1:][np.isfinite(values[1:])]
    if len(splits) < 2:
        return value, np.nan, np.nan
    half = stdtrit(len(splits) - 1, 0.975) * float(splits.std(ddof=1)) * np.sqrt(1 + 1 / len(splits))
    return value, max(value - half, lowest), min(value + half, highest)


def pair_scores(y: Samples, gammas: Samples, *, max_energy: int, max_mmd: int, rng: np.random.Generator) -> Samples:
    """Energy distance and MMD² of halves, shape (2, 1 + splits).

    Over all splits of a sample the mean of both is exactly 0, since each mean over pairs of different cells has the
    same expected value. That is the first entry.

    Parameters
    ----------
    y
        Observed cells in random order, shape (m, d). Halves have at most ``max_energy`` and ``max_mmd`` cells.
    gammas
        Bandwidths.
    max_energy, max_mmd
        Numbers of cells.
    rng
        Of the splits.
    """
    kernel = mean_rbf(gammas)
    # MMD² is the energy distance for 1 - k in the place of the distance.
    distances: list[tuple[int, Elementwise]] = [
        (max_energy, np.sqrt),
        (max_mmd, lambda squared: 1 - kernel(squared)),
    ]
    scores = []
    for max_cells, distance in distances:
        cells = y[: 2 * max_cells]
        values = _energy_of_halves(cells, draw_splits(len(cells), rng), distance)
        scores.append(np.append(0.0 if np.isfinite(values).all() else np.nan, values))
    return np.array(scores)


def _energy_of_halves(cells: Samples, splits: Splits, distance: Elementwise) -> Samples:
    """2 E d(X, Y) - E d(X, X') - E d(Y, Y') of the halves of each split; d is 0 for a cell and itself."""
    first = splits.astype(np.float64)
    total, one_side, within = 0.0, np.zeros(len(first)), np.zeros(len(first))
    for rows in row_blocks(len(cells), len(cells)):
        values = distance(squared_distances(cells[rows], cells))
        total += float(values.sum())
        one_side += first[:, rows] @ values.sum(axis=1)
        within += (first[:, rows] * (values @ first.T).T).sum(axis=1)
    n = first.sum(axis=1)
    m = len(cells) - n
    between = one_side - within
    within_second = total - 2 * one_side + within
    scores: Samples = 2 * between / (n * m) - within / (n * (n - 1)) - within_second / (m * (m - 1))
    return scores


def coupled_scores(
    y: Samples, *, n_coupled: int, epsilon: float, with_w2: bool, rng: np.random.Generator
) -> dict[str, Samples]:
    """Sinkhorn divergence and W2² of ``n_coupled`` cells of each half, with their mean before them.

    In many dimensions they depend on how spread the cells are, which all splits of these cells share. That part of
    their variance is estimated from the dual potentials, as in :func:`scot_hycnn.metrics._clouds.compare`, and the
    splits are spread accordingly.
    """
    metrics = ["sinkhorn_divergence", *(["w2_squared"] if with_w2 else [])]
    values, potentials = np.empty((2, N_COUPLED_SPLITS)), np.zeros((2, len(y)))
    n_seen = np.zeros(len(y))
    for split in range(N_COUPLED_SPLITS):
        drawn = rng.permutation(len(y))[: 2 * n_coupled]
        x_half, y_half = y[drawn[:n_coupled]], y[drawn[n_coupled:]]
        within = [entropic_within(squared_distances(half, half), epsilon) for half in (x_half, y_half)]
        dual = [np.concatenate(entropic_between(x_half, y_half, epsilon)) - np.concatenate(within)]
        if with_w2:
            dual.append(np.concatenate(exact(squared_distances(x_half, y_half))[1:]))
        for i, potential in enumerate(dual):
            values[i, split] = 2 * potential.mean()  # halves are of equal size
            potentials[i, drawn] += potential
        n_seen[drawn] += 1
    seen = n_seen > 0
    # A half's mean potential is half the score, and the cells of both halves are all cells: d score = 2 mean(d cells).
    common = 4 * (potentials[:, seen] / n_seen[seen]).var(axis=1) / len(y)
    return {metric: mean_and_splits(_spread(*each)) for metric, *each in zip(metrics, values, common, strict=False)}


def _spread(values: Samples, variance: float) -> Samples:
    """Values around their mean with so much more variance."""
    own = float(values.var(ddof=1))
    return values if own == 0 else np.asarray(values.mean() + (values - values.mean()) * np.sqrt(1 + variance / own))
