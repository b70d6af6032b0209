"""Scores of gene expression, with all bootstrap replicates at once."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ._checks import Samples
from ._moments import Moments, pearson, top_genes, welch_t
from ._pearson_delta import correlation_of_changes
from ._resampling import FLOOR, Scores, Sums, with_mean

TOPS = (20, 50, 100)
# Scores that are also computed of the genes in the representation alone, with their smallest values.
WITHIN = {"r2_mean": 0.0, "pearson_delta": -1.0, "deg_overlap_top50": 0.0}
IN_REPRESENTATION = "_in_representation"


def gene_scores(
    source: Sums, predicted: Mapping[str, Sums], observed: Sums, halves: Sums, inside: NDArray[np.bool_] | None = None
) -> Scores:
    """Return the scores of each method and of the floor, from sums of expression; ``halves`` are first halves.

    If some genes are not ``inside`` the representation, there are scores of those that are besides.
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
    source_moments, observed_moments = source.moments(), observed.moments()
    scores = {
        (method, metric): values
        for method, sums in predicted.items()
        for metric, values in _scores_of(sums.moments(), observed_moments, source_moments, t).items()
    }
    of_halves = _scores_of(halves.moments(), observed[:1].without(halves).moments(), all_source, t)
    return scores | {(FLOOR, metric): with_mean(values) for metric, values in of_halves.items()}


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
