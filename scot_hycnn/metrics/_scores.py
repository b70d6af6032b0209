"""Scores of several predictions against the same observed cells, with all bootstrap replicates at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ._bootstrap import Sums, draw_counts
from ._checks import Samples
from ._clouds import MAX_COUPLED, MAX_ENERGY, MAX_MMD, Cloud, compare
from ._halves import Splits, coupled_scores, draw_splits, mean_and_splits, pair_scores
from ._mmd import gammas_of
from ._pairwise import squared_distances
from ._pearson import pearson_rows
from ._rounding import difference, precision_of
from ._sinkhorn_divergence import default_epsilon
from ._welch import Moments, top_genes, welch_t

TOPS = (20, 50, 100)
FLOOR = "floor"

# Method and metric to the value, and its replicates after it; of the floor, the mean over splits and those.
Scores = dict[tuple[str, str], Samples]


@dataclass(frozen=True)
class Resampling:
    """How often each cell is drawn in each replicate: the same for all predictions, which are then compared in pairs.

    Parameters
    ----------
    source, target
        Counts, shape (replicates, n) and (replicates, m).
    source_order, target_order
        Source and target cells in random order, shape (n,) and (m,).
    splits
        Random halves of the target cells, shape (splits, m).
    seed
        Of the halves of scores that are made of fewer cells.
    """

    source: Samples
    target: Samples
    source_order: NDArray[np.intp]
    target_order: NDArray[np.intp]
    splits: Splits
    seed: int

    @classmethod
    def draw(cls, n: int, m: int, n_bootstrap: int, rng: np.random.Generator) -> Resampling:
        """Draw cells from n source and m target cells; the orders and splits do not depend on the replicates."""
        orders, splits, bootstrap = (np.random.default_rng(seed) for seed in rng.integers(2**63, size=3))
        return cls(
            draw_counts(n, n_bootstrap, bootstrap),
            draw_counts(m, n_bootstrap, bootstrap),
            orders.permutation(n),
            orders.permutation(m),
            draw_splits(m, splits),
            int(splits.integers(2**63)),
        )


def observed_gammas(y: Samples, draws: Resampling) -> Samples:
    """Bandwidths of the MMD, by the observed cells (m, d) that it is made of."""
    first = y[draws.target_order[:MAX_MMD]] - np.median(y, axis=0)
    # Cells that differ by rounding only have no distances to take a bandwidth from.
    return gammas_of(squared_distances(first, first)) if default_epsilon(y) else np.empty(0)


def cloud_scores(
    points: Mapping[str, Samples], y: Samples, draws: Resampling, *, gammas: Samples, with_w2: bool
) -> Scores:
    """Scores in the representation.

    Parameters
    ----------
    points
        Method to predicted cells, shape (n, d).
    y
        Observed cells, shape (m, d).
    draws
        The replicates.
    gammas
        Of the MMD, which is NaN if there are none.
    with_w2
        Whether POT is there.
    """
    traces = _trace_ratios(points, y, draws)
    epsilon = default_epsilon(y) or 1.0  # any, for cells that are all equal
    # Products of coordinates far from 0 would lose the digits of distances, and one far cell moves no median.
    origin = np.median(y, axis=0)
    points, y = {method: x - origin for method, x in points.items()}, y - origin
    n_coupled = min(MAX_COUPLED, len(draws.source_order), len(y) // 2)

    def cloud(cells: Samples, counts: Samples, order: NDArray[np.intp]) -> Cloud:
        return Cloud.of(cells, counts, order, n_coupled=n_coupled, epsilon=epsilon, gammas=gammas)

    observed = cloud(y, draws.target, draws.target_order)
    scores = {
        (method, metric): replicates
        for method, x in points.items()
        for metric, replicates in compare(
            cloud(x, draws.source, draws.source_order), observed, epsilon=epsilon, gammas=gammas, with_w2=with_w2
        ).items()
    }
    rng, shuffled = np.random.default_rng(draws.seed), y[draws.target_order]
    energy, mmd = pair_scores(shuffled, gammas, max_energy=MAX_ENERGY, max_mmd=MAX_MMD, rng=rng)
    floor = {"energy_distance": energy, "mmd": mmd}
    floor |= coupled_scores(shuffled, n_coupled=n_coupled, epsilon=epsilon, with_w2=with_w2, rng=rng)
    return scores | {(FLOOR, metric): values for metric, values in floor.items()} | traces


def _trace_ratios(points: Mapping[str, Samples], y: Samples, draws: Resampling) -> Scores:
    precision = precision_of(y)

    def sums(cells: Samples, counts: Samples) -> Sums:
        return Sums.of(counts, cells, precision=precision)

    observed = sums(y, draws.target)
    halves = sums(y, draws.splits.astype(np.float64))
    scores = {
        (method, "trace_ratio"): _ratio(sums(x, draws.source).trace, observed.trace) for method, x in points.items()
    }
    ratios = _ratio(halves.trace, observed[:1].without(halves).trace)
    return scores | {(FLOOR, "trace_ratio"): mean_and_splits(ratios)}


def _ratio(a: Samples, b: Samples) -> Samples:
    ratio: Samples = np.divide(a, b, out=np.full(len(a), np.nan), where=b > 0)
    return ratio


def gene_scores(source: Sums, predicted: Mapping[str, Sums], observed: Sums, halves: Sums) -> Scores:
    """Scores of gene expression.

    Parameters
    ----------
    source
        Sums of measured expression of source cells.
    predicted
        Method to sums of predicted expression.
    observed
        Sums of measured expression of target cells.
    halves
        Those of the first half of each split.
    """
    all_source, all_observed = source[:1].moments, observed[:1].moments
    largest = welch_t(all_observed.mean, all_observed, all_source)[0]
    source_moments, observed_moments = source.moments, observed.moments
    scores: Scores = {}
    for method, sums in predicted.items():
        for metric, values in _gene_scores(sums.moments, observed_moments, source_moments, largest).items():
            scores[method, metric] = values
    of_halves = _gene_scores(halves.moments, observed[:1].without(halves).moments, all_source, largest)
    return scores | {(FLOOR, metric): mean_and_splits(values) for metric, values in of_halves.items()}


def _gene_scores(a: Moments, b: Moments, source: Moments, largest: Samples) -> dict[str, Samples]:
    """Metric to its value in each replicate, of predicted cells a and observed ones b."""
    rounding = [moments.rounding + source.rounding for moments in (a, b)]
    changes = [difference(moments.mean, source.mean, bound) for moments, bound in zip((a, b), rounding, strict=True)]
    t = [welch_t(moments.mean, b, source, moments.rounding) for moments in (a, b)]
    scores = {
        "r2_mean": np.square(pearson_rows(a.mean, b.mean, a.rounding, b.rounding)),
        "pearson_delta": pearson_rows(*changes, *rounding),
    }
    for n_top in (n for n in TOPS if n < a.mean.shape[1]):
        top = top_genes(largest, n_top)
        profiles = a.mean[:, top], b.mean[:, top], a.rounding[top], b.rounding[top]
        scores[f"r2_mean_top{n_top}"] = np.square(pearson_rows(*profiles))
        shared = top_genes(t[0], n_top) & top_genes(t[1], n_top)
        scores[f"deg_overlap_top{n_top}"] = shared.sum(axis=1) / n_top
    return scores
