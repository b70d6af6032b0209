"""A test for a response, by permutation of source and target cells, and the verdicts on a predicted one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from scipy.stats import false_discovery_control, pearson3, skew

from ._warn import SIGNIFICANT, counted

# Cells of each condition that the test compares: with 500 it takes some hundredths of a second.
N_COMPARED = 500
N_PERMUTATIONS = 199
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
        variance and skewness of the permutations: 1 / 200 is too large to be corrected for hundreds of conditions.
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
        distances, weight = np.zeros(N_PERMUTATIONS + 1), 0.0
        for label in np.unique(group):
            cells, source = both[group == label], is_source[group == label]
            n, m = int(source.sum()), int((~source).sum())
            if min(n, m) > 1:
                divisions = np.stack([source, *(rng.permutation(source) for _ in range(N_PERMUTATIONS))])
                distances += n * m / (n + m) * energy_of_parts(cdist(cells, cells), divisions.astype(np.float64))
                weight += n * m / (n + m)
        distances /= weight or 1.0
        p_value, null = float((distances >= distances[0]).mean()), distances[1:]
        if p_value < 2 / len(distances) and null.std() > 0:
            tail = pearson3.sf((distances[0] - null.mean()) / null.std(), skew(null))
            p_value = min(p_value, max(float(tail), _MIN_P))
        return cls(float(distances[0]), p_value)


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
