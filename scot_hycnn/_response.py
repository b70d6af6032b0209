"""A test for a response, by permutation of source and target cells, and the verdicts on a predicted one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from scipy.stats import false_discovery_control, pearson3

from ._warn import SIGNIFICANT, counted

# Cells of each condition that the test compares: with 500 it takes some hundredths of a second.
N_COMPARED = 500
N_PERMUTATIONS = 199
# Fewer cells have no distribution to compare, and no replicate.
MIN_CELLS = 10
# Largest chance of a cell to be drawn by its weight.
MAX_CHANCE = 0.9
NO_RESPONSE, AS_REPLICATE, PARTLY = "no response", "predicted as well as a replicate", "partly predicted"
NOT_PREDICTED, NOT_SCORED, TOO_FEW = "not predicted", "responds, too few cells to score", "too few cells"
# A tail that is fitted to so few permutations says nothing about smaller p values.
_MIN_P = 1e-6

Cells = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class NoChange:
    """The hypothesis that the treatment changes nothing: energy distance of source and target, and its p value."""

    energy_distance: float
    p_value: float

    @property
    def rejected(self) -> bool:
        """Whether a response is seen."""
        return self.p_value <= SIGNIFICANT

    @classmethod
    def test(
        cls,
        x: Cells,
        y: Cells,
        groups: tuple[NDArray[np.intp], NDArray[np.intp]] | None,
        rng: np.random.Generator,
        weights: tuple[Cells | None, Cells | None] = (None, None),
    ) -> NoChange:
        """Compare some cells of both clouds by permutation; with codes of groups within these, and drawn by weights.

        With groups, the distance is the mean of those within groups, weighted by nm / (n + m) of their cells.

        Where no permutation is as far apart as the data, the p value comes from a gamma distribution with mean,
        variance and skewness of all permutations: 1 / 200 is too large to be corrected for hundreds of conditions.
        Source: Székely & Rizzo (2013), Energy statistics, J. Stat. Plan. Inference 143, sec. 7; for the tail Josse,
        Pagès & Husson (2008), Testing the significance of the RV coefficient, Comput. Stat. Data Anal. 53.
        """
        orders = [rng.permutation(len(cloud)) for cloud in (x, y)]
        rows_x, rows_y = (
            order[:N_COMPARED] if of is None else rng.permutation(drawn_by_weight(of, order, N_COMPARED, rng))
            for of, order in zip(weights, orders, strict=True)
        )
        both, is_source = np.concatenate([x[rows_x], y[rows_y]]), np.arange(len(rows_x) + len(rows_y)) < len(rows_x)
        group = np.zeros(len(both), dtype=np.intp)
        if groups is not None:
            group = np.concatenate([groups[0][rows_x], groups[1][rows_y]])
        # If the treatment does nothing, labels of condition are exchangeable within groups. The distances are those
        # within groups, too: other proportions of groups are then neither taken for a response nor do they hide one.
        # (In the distance over all cells a strong response had p = 1 where most treated monocytes were lost.)
        distances, parts = np.zeros(N_PERMUTATIONS + 1), list[tuple[NDArray[np.float64], int, float]]()
        for label in np.unique(group):
            cells, source = both[group == label], is_source[group == label]
            n, m = int(source.sum()), int((~source).sum())
            if min(n, m) > 1:
                divisions = np.stack([source, *(rng.permutation(source) for _ in range(N_PERMUTATIONS))])
                parts.append((cdist(cells, cells), n, n * m / (n + m)))
                distances += parts[-1][2] * energy_of_parts(parts[-1][0], divisions.astype(np.float64))
        weight = sum(share for *_, share in parts) or 1.0
        p_value = float((distances >= distances[0]).mean())
        if p_value < 2 / len(distances):
            # Groups are divided independently, so that their moments add. The mean is 0.
            moments = [np.array(moments_of_divisions(between, n)) * [share**2, share**3] for between, n, share in parts]
            variance, third = np.sum(moments, axis=0)
            if variance > 0:
                tail = pearson3.sf(distances[0] / np.sqrt(variance), third / variance**1.5)
                p_value = min(p_value, max(float(tail), _MIN_P))
        return cls(float(distances[0] / weight), p_value)


def adjusted(p_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return p values corrected by Benjamini and Hochberg; those that are not known stay so."""
    result, known = np.full(len(p_values), np.nan), np.isfinite(p_values)
    if known.any():
        result[known] = false_discovery_control(p_values[known])
    return result


def energy_of_parts(between_cells: NDArray[np.float64], divisions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the energy distance (U-statistic) of the two parts of each division of cells, shape (divisions,).

    Takes the distances of all cells, (n, n), and which cells are in the first part, 1 or 0, (divisions, n).
    """
    # One matrix product gives the sums of distances within and between the parts of all divisions.
    n = divisions.sum(axis=1)
    m = len(between_cells) - n
    to_first = divisions @ between_cells
    within_first = (to_first * divisions).sum(axis=1)
    between = to_first.sum(axis=1) - within_first
    within_second = between_cells.sum() - within_first - 2 * between
    return np.asarray(2 * between / (n * m) - within_first / (n * (n - 1)) - within_second / (m * (m - 1)))


def moments_of_divisions(between_cells: NDArray[np.float64], n: int) -> tuple[float, float]:
    """Return variance and third moment of the energy distance over all divisions of cells into n and all others.

    The mean is 0. Takes the distances of all cells, as :func:`energy_of_parts` does.
    """
    # Moments of 199 permutations are too noisy for a tail: of principal components, a few of which have most of the
    # variance, p values below 0.0002 were then four times as frequent as they should be without a response.
    n_all = len(between_cells)
    m = n_all - n
    # U-centred distances (Székely & Rizzo 2014) have rows with the sum 0 and no diagonal. The distance of the parts is
    # then -factor times the sum over the pairs of cells of the first part.
    sums = between_cells.sum(axis=0) / (n_all - 2)
    centred = between_cells - sums - sums[:, None] + sums.sum() / (n_all - 1)
    np.fill_diagonal(centred, 0)
    factor = 2 / (n * m) + 1 / (n * (n - 1)) + 1 / (m * (m - 1))
    # Chances of 1, 2 ... 6 cells to be all in the first part. They weigh the sums of products of two or three pairs,
    # by how many different cells these have; as rows have the sum 0, all are multiples of three sums.
    chance = np.cumprod([(n - j) / max(n_all - j, 1) for j in range(6)])
    squares, cubes = np.vdot(centred, centred), np.vdot(centred * centred, centred)
    triangles = np.vdot(centred @ centred, centred)
    variance = squares * (chance[1:4] @ [2, -4, 2])
    third = 4 * cubes * (chance[1:] @ [1, -6, 13, -12, 4]) + 8 * triangles * (chance[2:] @ [1, -3, 3, -1])
    return float(factor**2 * variance), float(-(factor**3) * third)


def drawn_by_weight(weights: Cells, order: NDArray[np.intp], count: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Draw at most ``count`` of the rows ``order``, each at most once, with chances in proportion to their weights."""
    # Systematic sampling, at even steps along the cumulative weights: cells that are drawn all count the same in every
    # score. No cell may be longer than a step.
    share = weights[order] / weights[order].sum()
    count = max(min(count, int(MAX_CHANCE / share.max())), min(count, 1))
    places = np.searchsorted(np.cumsum(share), (rng.random() + np.arange(count)) / max(count, 1))
    return np.unique(order[np.minimum(places, len(order) - 1)])


def in_brief(verdicts: Collection[str]) -> list[str]:
    """Return in print how many conditions respond, and in brackets, if some do, how well they are predicted."""
    found = Counter(verdicts)
    n = {verdict: found[verdict] for verdict in (AS_REPLICATE, PARTLY, NOT_PREDICTED, NOT_SCORED)}
    respond = f"{sum(n.values())} of {counted(len(verdicts), 'condition')} respond{'s' * (sum(n.values()) == 1)}"
    kinds = "; ".join(f"{verdict.removeprefix('responds, ')}: {number}" for verdict, number in n.items() if number)
    return [respond, f"({kinds})"] if kinds else [respond]
