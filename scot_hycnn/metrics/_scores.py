"""Scores of several predictions against the same observed cells, with all bootstrap replicates at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ._bootstrap import Sums, draw_counts
from ._checks import Samples
from ._clouds import MAX_COUPLED, Cloud, compare
from ._pearson import pearson_rows
from ._sinkhorn_divergence import default_epsilon
from ._welch import top_genes, welch_t

TOPS = (20, 50, 100)
FLOOR = "floor"

# Method and metric to the value, and its replicates after it.
Scores = dict[tuple[str, str], Samples]


@dataclass(frozen=True)
class Resampling:
    """How often each cell is drawn in each replicate: the same for all predictions, which are then compared in pairs.

    Parameters
    ----------
    source, target
        Counts, shape (replicates, n) and (replicates, m). Halves of the target are drawn apart.
    source_order
        Source cells in random order, shape (n,).
    halves
        Target cells in random order, in two halves, of m // 2 cells and the rest.
    """

    source: Samples
    target: Samples
    source_order: NDArray[np.intp]
    halves: tuple[NDArray[np.intp], NDArray[np.intp]]

    @classmethod
    def draw(cls, n: int, m: int, n_bootstrap: int, rng: np.random.Generator) -> Resampling:
        """Draw cells from n source and m target cells."""
        order = rng.permutation(m)
        halves = order[: m // 2], order[m // 2 :]
        target = np.empty((1 + n_bootstrap, m))
        for half in halves:
            target[:, half] = draw_counts(len(half), n_bootstrap, rng)
        return cls(draw_counts(n, n_bootstrap, rng), target, rng.permutation(n), halves)


def cloud_scores(points: Mapping[str, Samples], y: Samples, draws: Resampling, *, with_w2: bool) -> Scores:
    """Scores in the representation.

    Parameters
    ----------
    points
        Method to predicted cells, shape (n, d).
    y
        Observed cells, shape (m, d).
    draws
        The replicates.
    with_w2
        Whether POT is there.
    """
    origin = y.mean(axis=0)  # products of coordinates far from 0 would lose the digits of distances
    points, y = {method: x - origin for method, x in points.items()}, y - origin
    epsilon = default_epsilon(y) or 1.0  # any, for cells that are all equal
    n_coupled = min(MAX_COUPLED, len(draws.source_order), len(draws.halves[0]))

    def cloud(cells: Samples, counts: Samples, order: NDArray[np.intp]) -> Cloud:
        return Cloud.of(cells, counts, order, n_coupled=n_coupled, epsilon=epsilon)

    observed = cloud(y, draws.target, np.concatenate(draws.halves))
    pairs = {method: (cloud(x, draws.source, draws.source_order), observed) for method, x in points.items()}
    first, second = (cloud(y, draws.target, half) for half in draws.halves)
    scores = {
        (method, metric): replicates
        for method, clouds in {**pairs, FLOOR: (first, second)}.items()
        for metric, replicates in compare(*clouds, epsilon=epsilon, with_w2=with_w2).items()
    }
    return scores | _trace_ratios(points, y, draws)


def _trace_ratios(points: Mapping[str, Samples], y: Samples, draws: Resampling) -> Scores:
    def trace(cells: Samples, counts: Samples) -> Samples:
        return np.asarray(Sums.of(counts, cells).variance.sum(axis=1))

    halves = [trace(y[half], draws.target[:, half]) for half in draws.halves]
    traces = {method: trace(x, draws.source) for method, x in points.items()}
    observed = trace(y, draws.target)
    pairs = {method: (predicted, observed) for method, predicted in traces.items()} | {FLOOR: tuple(halves)}
    return {(method, "trace_ratio"): _ratio(*pair) for method, pair in pairs.items()}


def _ratio(a: Samples, b: Samples) -> Samples:
    ratio: Samples = np.divide(a, b, out=np.full(len(a), np.nan), where=b > 0)
    return ratio


def gene_scores(source: Sums, predicted: Mapping[str, Sums], halves: tuple[Sums, Sums]) -> Scores:
    """Scores of gene expression.

    Parameters
    ----------
    source
        Sums of measured expression of source cells.
    predicted
        Method to sums of predicted expression.
    halves
        Sums of measured expression of the halves of target cells.
    """
    observed = halves[0] + halves[1]
    pairs = {method: (sums, observed) for method, sums in predicted.items()} | {FLOOR: halves}
    largest = welch_t(observed.mean, observed.moments, source.moments)[0]
    scores: Scores = {}
    for method, (a, b) in pairs.items():
        change = a.mean - source.mean, b.mean - source.mean
        t = [welch_t(sums.mean, b.moments, source.moments) for sums in (a, b)]
        scores[method, "r2_mean"] = np.square(pearson_rows(a.mean, b.mean))
        scores[method, "pearson_delta"] = pearson_rows(*change)
        for n_top in (n for n in TOPS if n < source.mean.shape[1]):
            changed = top_genes(largest, n_top)
            scores[method, f"r2_mean_top{n_top}"] = np.square(pearson_rows(a.mean[:, changed], b.mean[:, changed]))
            shared = top_genes(t[0], n_top) & top_genes(t[1], n_top)
            scores[method, f"deg_overlap_top{n_top}"] = shared.sum(axis=1) / n_top
    return scores
