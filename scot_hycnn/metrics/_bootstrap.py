"""Bootstrap over cells, by how often each cell is drawn: no cell is ever copied.

Replicates are rows of counts. Row 0 draws every cell once, so that row 0 of a statistic is its value on the sample.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ._checks import Samples
from ._rounding import FLOAT32, FLOAT64, exact_mean
from ._welch import Moments

_NORMAL_95 = 1.96


def draw_counts(n_cells: int, n_bootstrap: int, rng: np.random.Generator) -> Samples:
    """How often each cell is drawn in each replicate, shape (1 + n_bootstrap, n_cells)."""
    counts = np.ones((1 + n_bootstrap, n_cells))
    for row in counts[1:]:
        row[:] = np.bincount(rng.integers(n_cells, size=n_cells), minlength=n_cells)
    return counts


def interval(replicates: Samples, lowest: float = -np.inf, highest: float = np.inf) -> tuple[float, float, float]:
    """Value, and the value minus and plus 1.96 standard deviations of the replicates, within a statistic's range.

    The standard interval (Efron & Tibshirani 1993, An introduction to the bootstrap, ch. 13). Quantiles would be off:
    resampling adds noise to every mean, which lowers correlations and overlaps of genes.
    """
    value, others = float(np.clip(replicates[0], lowest, highest)), replicates[1:][np.isfinite(replicates[1:])]
    if not np.isfinite(value) or len(others) < 2:
        return value, np.nan, np.nan
    half = _NORMAL_95 * float(others.std(ddof=1))
    return value, max(value - half, lowest), min(value + half, highest)


@dataclass(frozen=True)
class Sums:
    """Weighted sums over cells, which add up over blocks of them.

    Parameters
    ----------
    weight
        Number of cells, shape (replicates, 1).
    first, second
        Sums of values and of their squares, both less ``origin``, shape (replicates, features).
    origin
        A value near all of them, shape (features,): sums of squares around 0 would lose the digits of the variance.
        Where it is the one value of all cells, their mean is exactly that, and their variance exactly 0.
    size
        Sum of absolute values of all cells, each counted once, shape (features,).
    n_cells
        How many those are.
    precision
        Relative error of the values; see :mod:`scot_hycnn.metrics._rounding`.
    """

    weight: Samples
    first: Samples
    second: Samples
    origin: Samples
    size: Samples
    n_cells: int
    precision: float

    @classmethod
    def of(cls, counts: Samples, values: Samples, origin: Samples | None = None, precision: float = FLOAT32) -> Sums:
        """Sums over cells; counts (replicates, n) and values (n, features). The origin is their mean, if it is None."""
        origin = exact_mean(values) if origin is None else origin
        size = np.abs(values).sum(axis=0)
        values = values - origin
        first, second = counts @ values, counts @ np.square(values)
        return cls(counts.sum(axis=1, keepdims=True), first, second, origin, size, len(values), precision)

    def __add__(self, other: Sums) -> Sums:
        """Both together; they need the same origin."""
        return replace(
            self,
            weight=self.weight + other.weight,
            first=self.first + other.first,
            second=self.second + other.second,
            size=self.size + other.size,
            n_cells=self.n_cells + other.n_cells,
        )

    def __getitem__(self, replicates: slice) -> Sums:
        """Some of the replicates."""
        return replace(
            self, weight=self.weight[replicates], first=self.first[replicates], second=self.second[replicates]
        )

    def without(self, part: Sums) -> Sums:
        """Sums of the cells that are not in a part of these cells, with the same origin."""
        return replace(
            self, weight=self.weight - part.weight, first=self.first - part.first, second=self.second - part.second
        )

    @property
    def mean(self) -> Samples:
        """Shape (replicates, features)."""
        return self.origin + self.first / self.weight

    @property
    def variance(self) -> Samples:
        """With the divisor n - 1, shape (replicates, features); 0 where it is rounding of the difference."""
        difference = self.second - np.square(self.first) / self.weight
        return np.where(difference > FLOAT64 * self.second, difference, 0) / (self.weight - 1)

    @property
    def rounding(self) -> Samples:
        """How far rounding may have moved a mean, shape (features,)."""
        return self.precision * self.size / self.n_cells

    @property
    def moments(self) -> Moments:
        """Mean, variance and number of cells."""
        return Moments(self.mean, self.variance, self.weight, self.rounding)

    @property
    def trace(self) -> Samples:
        """Total variance, shape (replicates,), without features that vary by rounding only."""
        variance = self.variance
        return np.asarray(np.where(variance > np.square(self.rounding), variance, 0).sum(axis=1))


def mean_between(values: Samples, x_counts: Samples, y_counts: Samples) -> Samples:
    """Mean of values of pairs of cells of two clouds, (n, m), by replicate."""
    total = ((x_counts @ values) * y_counts).sum(axis=1)
    return np.asarray(total / (x_counts.sum(axis=1) * y_counts.sum(axis=1)))


def mean_within(values: Samples, counts: Samples) -> Samples:
    """Mean of values of pairs of different cells of one cloud, (n, n), by replicate.

    Pairs of a cell with itself are left out, also where it was drawn more than once: their distance of zero is nobody's
    distance, and would bias every replicate.
    """
    squares = np.square(counts)
    total = ((counts @ values) * counts).sum(axis=1) - squares @ values.diagonal()
    return np.asarray(total / (counts.sum(axis=1) ** 2 - squares.sum(axis=1)))


def mean_of(potential: Samples, counts: Samples) -> Samples:
    """Mean of values of cells, (n,), by replicate."""
    return np.asarray((counts @ potential) / counts.sum(axis=1))
