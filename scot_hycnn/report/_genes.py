"""Genes that change most, observed and predicted."""

from __future__ import annotations

from typing import Any

import numpy as np
from anndata import AnnData

from scot_hycnn._anndata import (
    Features,
    Genes,
    Results,
    Values,
    find_genes,
    has_genes,
    has_genes_decoded,
    read_genes,
)


def describe_genes(
    adata: AnnData, results: Results, key: str, *, layer: str | None, n_genes: int
) -> dict[str, Any] | str:
    """Means and changes of the genes with the largest Welch t between observed and source cells.

    Returns
    -------
    A table, or a sentence that says why there is none.
    """
    if has_genes_decoded(adata, results, key):
        features = read_genes(adata, results, key, layer)
        before, variance = features.source.moments()
        change = features.predicted.moments()[0] - before
    elif has_genes(adata, results.rep, layer=layer, decoder=None):
        genes = find_genes(adata, results.rep, results.measured_rows, layer=layer, decoder=None)
        features = _measured(adata, results, genes)
        before, variance = features.source.moments()
        # Principal components are linear: the mean change of genes is the loadings times that of the components.
        assert genes.loadings is not None
        change = genes.loadings.astype(float) @ (results.predicted - results.x).astype(float).mean(axis=0)
    else:
        return (
            f"There is no way from {results.rep.name!r} to genes in this file. Fit on principal components with their "
            f"loadings, or run sh.tl.decode(adata, {key!r}, decoder=...) with a model's decoder."
        )
    after, other = features.observed.moments()
    error = np.sqrt(variance / len(features.source.rows) + other / len(features.observed.rows))
    t = (after - before) / np.maximum(error, 1e-12)  # genes that do not vary
    top = np.argsort(-np.abs(t), kind="stable")[:n_genes]
    r = _correlation(change, after - before)
    return {
        "rows": [[features.names[i], before[i], after[i] - before[i], change[i], t[i]] for i in top],
        "n": len(features.names),
        "r": r,
        "kind": "proteins or genes of the map" if results.rep.name == "X" else "genes",
    }


def _measured(adata: AnnData, results: Results, genes: Genes) -> Features:
    matrix: Any = adata.X if genes.layer is None else adata.layers[genes.layer]
    source, observed = Values(matrix, results.source_rows), Values(matrix, results.target_rows)
    return Features([str(name) for name in adata.var_names], source, source, observed)


def _correlation(predicted: Any, observed: Any) -> float:
    """NaN where there is nothing to correlate."""
    if len(predicted) < 3 or np.ptp(predicted) == 0 or np.ptp(observed) == 0:
        return float("nan")
    return float(np.corrcoef(predicted, observed)[0, 1])
