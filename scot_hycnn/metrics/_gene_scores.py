"""Scores of gene expression, with all bootstrap replicates at once."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ._moments import Moments, pearson, top_genes, welch_t
from ._predictions import correlation_of_changes
from ._resampling import CEILING, REPLICATE, Scores, Sums, with_mean
from ._samples import Samples

TOPS = (20, 50, 100)
# Scores that are also computed of the genes in the representation alone, with their smallest values.
WITHIN = {"r2_mean": 0.0, "pearson_delta": -1.0, "deg_overlap_top50": 0.0}
IN_REPRESENTATION = "_in_representation"


def gene_scores(
    source: Sums, predicted: Mapping[str, Sums], observed: Sums, halves: Sums, inside: NDArray[np.bool_] | None = None
) -> Scores:
    """Return the scores of each method and of the replicate, from sums of expression; ``halves`` are first halves.

    If some genes are not ``inside`` the representation, there are scores of those that are besides. Sums over two
    halves of the source cells may follow the others (:meth:`Resampling.counts`), which the ceiling of changes needs; if
    they do so for predictions too, Pearson-delta is that of changes from two different halves.
    """
    scores = _scores_of_genes(source, predicted, observed, halves)
    if inside is None or inside.all() or inside.sum() < 2:
        return scores
    of_methods = {method: sums.of_features(inside) for method, sums in predicted.items()}
    of_cells = [sums.of_features(inside) for sums in (observed, halves)]
    within = _scores_of_genes(source.of_features(inside), of_methods, *of_cells)
    chosen = {(method, metric): values for (method, metric), values in within.items() if metric in WITHIN}
    return scores | {(method, f"{metric}{IN_REPRESENTATION}"): values for (method, metric), values in chosen.items()}


def _scores_of_genes(source: Sums, predicted: Mapping[str, Sums], observed: Sums, halves: Sums) -> Scores:
    all_source, all_observed = source[:1].moments(), observed[:1].moments()
    # The top genes of r2_mean are those of the sample, in every replicate.
    t = welch_t(all_observed, all_observed, all_source)[0]
    n = len(observed.weight)
    source_moments, observed_moments = source[:n].moments(), observed.moments()
    scores = {
        (method, metric): values
        for method, sums in predicted.items()
        for metric, values in _scores_of(sums[:n].moments(), observed_moments, source_moments, t).items()
    }
    a, b = halves.moments(), observed[:1].without(halves).moments()
    for metric, values in _scores_of(a, b, all_source, t).items():
        scores[REPLICATE, metric] = with_mean(values)
        if metric.startswith("r2_mean"):
            scores[CEILING, metric] = _of_all_cells(np.sqrt(scores[REPLICATE, metric]))
    if len(source.weight) > n:
        of_halves = {name: sums[n:] for name, sums in predicted.items() if len(sums.weight) > n}
        scores |= _of_source_halves(source[n:], of_halves, observed, (a, b))
    return scores


def _of_all_cells(r: Samples) -> Samples:
    """Return the reliability of all cells from correlations of halves, 0 if these are not positive."""
    # A half correlates r with the other half, hence all cells s = 2 r / (1 + r) with as many others (Spearman 1910,
    # Brown 1910), and the true means √s with all cells.
    return np.asarray(2 * np.maximum(r, 0) / (1 + np.maximum(r, 0)))


def _of_source_halves(
    source: Sums, predicted: Mapping[str, Sums], observed: Sums, halves: tuple[Moments, Moments]
) -> Scores:
    """Return scores of changes from two halves of the source cells; of methods only if there are predictions of them.

    The first halves come before the second halves, each with those of all splits before those of the bootstrap.
    """
    size, n = len(source.weight) // 2, len(halves[0].n)
    a, b = source[:n].moments(), source[size : size + n].moments()
    replicates = with_mean(correlation_of_changes(*halves, a, b))
    # The true change is expected to correlate so with the observed one, whose noise is that of all cells of both
    # conditions. A predicted mean of treated cells may be above it, since both changes share the source cells.
    scores: Scores = {(CEILING, "pearson_delta"): np.sqrt(_of_all_cells(replicates))}
    if not predicted:
        return scores
    # All splits are compared with all observed cells, and the split of each bootstrap with those of the same bootstrap.
    target = observed[np.append(np.zeros(n, dtype=np.intp), np.arange(1, size - n + 1))].moments()
    first, second = source[:size].moments(), source[size:].moments()
    for method, sums in predicted.items():
        values = correlation_of_changes(sums[:size].moments(), target, first, second)
        scores[method, "pearson_delta"] = np.append(with_mean(values[:n])[:1], values[n:])
    # With true variance S, and noise N of half of the treated and C of half of the source cells, halves correlate
    # r = S / (S + N + C), and the true change √(S / (S + N / 2 + C)) with all treated cells and half of the source.
    of_halves, of_all = (np.var(each, axis=-1) for each in (halves[0].mean - a.mean, target.mean[:n] - b.mean))
    ceiling = np.sqrt(np.clip(replicates[1:] * of_halves / of_all, 0, 1))
    return scores | {(REPLICATE, "pearson_delta"): replicates, (CEILING, "pearson_delta"): with_mean(ceiling)}


def _scores_of(predicted: Moments, observed: Moments, control: Moments, t: Samples) -> dict[str, Samples]:
    """Return the metrics, each with its value in every replicate; shape (replicates,)."""
    a, b = predicted, observed
    scores = {
        "r2_mean": np.square(pearson(a.mean, b.mean, a.rounding, b.rounding)),
        "pearson_delta": correlation_of_changes(a, b, control),
    }
    t_a, t_b = welch_t(a, b, control), welch_t(b, b, control)
    for n_top in (n for n in TOPS if n < len(t)):
        top = top_genes(t, n_top)
        r = pearson(a.mean[:, top], b.mean[:, top], a.rounding[top], b.rounding[top])
        scores[f"r2_mean_top{n_top}"] = np.square(r)
        scores[f"deg_overlap_top{n_top}"] = (top_genes(t_a, n_top) & top_genes(t_b, n_top)).sum(axis=1) / n_top
    return scores
