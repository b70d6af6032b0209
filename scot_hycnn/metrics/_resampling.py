"""Bootstrap over cells, and random halves of the observed cells, by counts: no cell is ever copied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from ._moments import FLOAT32, FLOAT64, Moments, exact_mean
from ._samples import Samples

# One half of the observed cells, scored against the other; and what the true means are expected to score.
REPLICATE, CEILING = "replicate", "ceiling"
N_SPLITS = 100

Codes = NDArray[np.intp]  # number of the group of each cell, from 0

# Method and metric to the value, and those of the bootstrap after it; for the replicate, the mean and those of splits.
Scores = dict[tuple[str, str], Samples]


@dataclass(frozen=True)
class CloudDraws:
    """Random numbers of n cells of one cloud."""

    codes: Codes  # group of each cell, (n,)
    counts: Samples  # how often the bootstrap draws each cell, (1 + draws, n)
    order: NDArray[np.intp]  # of the first cells of any number, groups have their shares
    weights: Samples  # with which the groups have their shares, (n,); they sum to n

    @classmethod
    def draw(
        cls, codes: Codes, shares: Samples, n_bootstrap: int, orders: np.random.Generator, draws: np.random.Generator
    ) -> CloudDraws:
        """Draw the order and the bootstrap, which has as many cells of each group as there are."""
        # Row 0 draws every cell once, so that row 0 of every statistic is its value on the sample.
        counts = np.ones((1 + n_bootstrap, len(codes)))
        groups = [np.flatnonzero(codes == group) for group in np.unique(codes)]
        for row in counts[1:]:
            for group in groups:
                row[group] = np.bincount(draws.integers(len(group), size=len(group)), minlength=len(group))
        weights = (shares * len(codes) / np.bincount(codes, minlength=len(shares)))[codes]
        return cls(codes, counts, in_shares(orders.permutation(len(codes)), codes, shares), weights)


@dataclass(frozen=True)
class Resampling:
    """Random numbers of one evaluation of source and target cells, and of predicted cells that are no source cells."""

    source: CloudDraws
    target: CloudDraws
    splits: NDArray[np.bool_]  # which target cells are in the first half, (splits, m)
    source_splits: NDArray[np.bool_]  # which source cells are, (splits, n)
    seed: int  # of halves of fewer cells
    shares: Samples  # of the groups
    others: dict[str, CloudDraws]  # by method

    @classmethod
    def draw(
        cls,
        source: Codes,
        target: Codes,
        n_bootstrap: int,
        rng: np.random.Generator,
        others: Mapping[str, Codes] | None = None,
    ) -> Resampling:
        """Draw all within groups of cells; in every cloud these get the shares that they have among the source cells.

        Orders and splits do not depend on ``n_bootstrap``.
        """
        orders, splits, bootstrap = (np.random.default_rng(seed) for seed in rng.integers(2**63, size=3))
        shares, of_others = np.bincount(source) / len(source), int(rng.integers(2**63))
        of_source, of_target = (
            CloudDraws.draw(codes, shares, n_bootstrap, orders, bootstrap) for codes in (source, target)
        )
        of_source = replace(of_source, weights=np.ones(len(source)))  # exactly 1: these have the shares as they are
        target_splits, seed = draw_splits(target, splits), int(splits.integers(2**63))
        drawn = {}
        for method, codes in (others or {}).items():
            # Each method has the same seeds, so that its scores do not depend on which others are scored.
            generators = (np.random.default_rng([of_others, i]) for i in range(2))
            drawn[method] = CloudDraws.draw(codes, shares, n_bootstrap, *generators)
        return cls(of_source, of_target, target_splits, draw_splits(source, splits), seed, shares, drawn)

    def of(self, method: str) -> CloudDraws:
        """Return the random numbers of the predicted cells of a method: those of the source cells, or its own."""
        return self.others.get(method, self.source)

    def counts(self, method: str, *, halves: str | None) -> Samples:
        """Return the weighted counts of a method's cells, by replicate, then those of two halves of the source cells.

        ``halves`` are those of the splits of the ``'sample'``, or also those of one split for each draw of the
        ``'bootstrap'``, or None.
        """
        drawn = self.of(method)
        counts = drawn.counts * drawn.weights
        if halves is None:
            return counts
        others = counts[1:] if halves == "bootstrap" else counts[:0]
        each = np.append(np.repeat(counts[:1], N_SPLITS, axis=0), others, axis=0)
        if method in self.others:  # they share no source cells
            return np.concatenate([counts, each, each])
        splits = np.append(self.source_splits, self.source_splits[np.arange(len(others)) % N_SPLITS], axis=0)
        return np.concatenate([counts, each * splits, each * ~splits])


def in_shares(order: NDArray[np.intp], codes: Codes, shares: Samples) -> NDArray[np.intp]:
    """Return the cells in an order in which groups have their shares among the first cells, until one is used up."""
    ranks = np.empty(len(order))
    for group in range(len(shares)):
        members = codes[order] == group
        ranks[members] = (np.arange(members.sum()) + 0.5) / shares[group]
    return order[np.argsort(ranks, kind="stable")]


def draw_splits(codes: Codes, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return which cells are in the first of two random halves, n // 2 of each group; shape (splits, n)."""
    first = np.empty((N_SPLITS, len(codes)), dtype=bool)
    for group in np.unique(codes):
        members = np.flatnonzero(codes == group)
        halves = np.tile(np.arange(len(members)) < len(members) // 2, (N_SPLITS, 1))
        first[:, members] = rng.permuted(halves, axis=1)
    return first


def with_mean(splits: Samples) -> Samples:
    """Return the mean of the values that are finite, and the values of all splits after it."""
    finite = splits[np.isfinite(splits)]
    return np.append(finite.mean() if len(finite) else np.nan, splits)


def interval(replicates: Samples, lowest: float, highest: float, *, of_replicate: bool) -> tuple[float, float, float]:
    """Return the value and its 95 % interval within the range of the statistic; NaN where there is no interval."""
    value, others = float(np.clip(replicates[0], lowest, highest)), replicates[1:][np.isfinite(replicates[1:])]
    if not np.isfinite(value) or len(others) < 2:
        return value, np.nan, np.nan
    # Of the bootstrap, the standard interval (Efron & Tibshirani 1993, An introduction to the bootstrap, ch. 13).
    # Quantiles would be off: resampling adds noise to every mean, which lowers correlations and overlaps of genes.
    width = 1.96
    if of_replicate:
        # Where one more split is expected: the prediction interval of a normal distribution, with Student's t because
        # spread and mean are estimated.
        width = float(stdtrit(len(others) - 1, 0.975)) * np.sqrt(1 + 1 / len(others))
    half = width * float(others.std(ddof=1))
    return value, max(value - half, lowest), min(value + half, highest)


@dataclass(frozen=True)
class Sums:
    """Weighted sums over cells, which add up over blocks of cells."""

    weight: Samples  # number of cells, (replicates, 1)
    first: Samples  # sums of values less the origin, (replicates, features)
    second: Samples  # sums of the squares of these differences
    origin: Samples  # (features,)
    size: Samples  # sum of absolute values of all cells, (features,)
    n_cells: int
    precision: float  # relative error of the values

    @classmethod
    def of(cls, counts: Samples, values: Samples, origin: Samples | None = None, precision: float = FLOAT32) -> Sums:
        """Sum over cells; counts (replicates, n) and values (n, features)."""
        # Sums of squares around 0 would lose the digits of the variance. Around the mean, a feature that is constant
        # has exactly its value as mean, and exactly 0 as variance.
        origin = exact_mean(values) if origin is None else origin
        size = np.abs(values).sum(axis=0)
        values = values - origin
        first, second = counts @ values, counts @ np.square(values)
        return cls(counts.sum(axis=1, keepdims=True), first, second, origin, size, len(values), precision)

    def __add__(self, other: Sums) -> Sums:
        """Return the sums over both blocks of cells, which need the same origin."""
        added = ("weight", "first", "second", "size", "n_cells")
        return replace(self, **{name: getattr(self, name) + getattr(other, name) for name in added})

    def __getitem__(self, rows: slice | NDArray[np.intp]) -> Sums:
        """Return the sums of some replicates."""
        return replace(self, weight=self.weight[rows], first=self.first[rows], second=self.second[rows])

    def of_features(self, chosen: NDArray[np.bool_]) -> Sums:
        """Return the sums of some features."""
        arrays = {name: getattr(self, name)[..., chosen] for name in ("first", "second", "origin", "size")}
        return replace(self, **arrays)

    def without(self, part: Sums) -> Sums:
        """Return the sums over the cells that are not in a part of these cells, with the same origin."""
        left = {name: getattr(self, name) - getattr(part, name) for name in ("weight", "first", "second")}
        return replace(self, **left)

    def moments(self) -> Moments:
        """Return mean, variance and number of cells in each replicate."""
        squares = self.second - np.square(self.first) / self.weight
        # The difference of the two sums is rounding where next to nothing is left of them.
        variance = np.where(squares > FLOAT64 * self.second, squares, 0) / (self.weight - 1)
        rounding = self.precision * self.size / self.n_cells
        return Moments(self.origin + self.first / self.weight, variance, self.weight, rounding)
