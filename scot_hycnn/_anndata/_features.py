"""Values of single features, components or genes, of source, predicted and observed cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from ._conditions import Rows
from ._genes import check_decoded, columns_are_genes, row_blocks
from ._representation import dense_array, find_layer
from ._results import Results
from ._schema import layer_names
from ._stored import read_fit

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Values:
    """Values of all features of some cells, read when they are wanted: all genes of all cells are many.

    Parameters
    ----------
    matrix
        Shape (cells, features), dense or sparse.
    rows
        The cells, shape (n,).
    """

    matrix: Any
    rows: Rows

    def among(self, chosen: Rows) -> Values:
        """Those of some of the cells, by their places among them."""
        return Values(self.matrix, self.rows[chosen])

    def columns(self, features: Sequence[int]) -> Numbers:
        """Values of some features, shape (n, len(features))."""
        blocks = [self._read(self.rows[block], list(features)) for block in row_blocks(len(self.rows))]
        return np.concatenate([np.empty((0, len(features))), *blocks])

    def _read(self, rows: Rows, features: list[int] | None = None) -> Numbers:
        """Values of some cells in memory.

        Raises
        ------
        ValueError
            If one is missing, infinite or no number: a mean of these cells would be none.
        """
        values = self.matrix[rows]
        dense = dense_array(values if features is None else values[:, features])
        if dense.dtype.kind not in "fiub":
            raise ValueError(f"Expression holds values of dtype {dense.dtype}; a figure needs numbers.")
        numbers = np.asarray(dense, dtype=np.float64)
        bad = np.flatnonzero(~np.isfinite(numbers).all(axis=1))
        if len(bad):
            raise ValueError(
                f"Expression has NaN, masked or infinite values, the first in the cell in row {rows[bad[0]]}; impute "
                "them, or leave these cells out."
            )
        return numbers

    def moments(self) -> tuple[Numbers, Numbers]:
        """Mean and variance (unbiased; 0 of one cell) of every feature, shape (features,) each."""
        # About a few cells' mean: sums of squares about 0 lose the digits of a small variance.
        origin = self._read(self.rows[:100]).mean(axis=0)
        total, squares = np.zeros_like(origin), np.zeros_like(origin)
        for block in row_blocks(len(self.rows)):
            values = self._read(self.rows[block]) - origin
            total += values.sum(axis=0)
            squares += (values**2).sum(axis=0)
        n = len(self.rows)
        mean = total / n
        variance = np.maximum(squares - n * mean**2, 0) / max(n - 1, 1)
        return np.asarray(origin + mean), np.asarray(variance)


@dataclass(frozen=True)
class Features:
    """Values of features of the three kinds of cells of a fit.

    Parameters
    ----------
    names
        Of the features.
    source, predicted, observed
        Their values: rows of ``source`` and ``predicted`` are the same cells.
    """

    names: list[str]
    source: Values
    predicted: Values
    observed: Values

    def among(self, source: Rows, observed: Rows) -> Features:
        """Those of some cells, by their places among the source cells and the observed ones."""
        return Features(
            self.names, self.source.among(source), self.predicted.among(source), self.observed.among(observed)
        )


def read_dimensions(results: Results) -> Features:
    """Dimensions of the representation as features."""
    kinds = (results.x, results.predicted, results.y)
    return Features(results.names, *(Values(points, np.arange(len(points))) for points in kinds))


def read_genes(adata: AnnData, results: Results, key: str, layer: str | None) -> Features:
    """Genes as features: predicted ones from the layer of :func:`scot_hycnn.tl.decode`, measured ones from X.

    Parameters
    ----------
    adata
        The cells.
    results
        Of the fit.
    key
        Of the fit, and stem of the layer's name.
    layer
        Where measured expression is; None means the same as for :func:`scot_hycnn.tl.decode`.

    Raises
    ------
    ValueError
        If there is no such layer, it lacks cells, or measured values are not those that it was predicted from.
    """
    if columns_are_genes(adata, results.rep):
        return read_dimensions(results)
    name = decoded_layer(adata, results, key)
    if name not in adata.layers:
        raise ValueError(f"Predicted genes: adata.layers lacks {name!r}. Run sh.tl.decode(adata, {key!r}) first.")
    measured_layer = find_layer(adata, results.rep, layer)
    measured: Any = adata.X if measured_layer is None else adata.layers[measured_layer]
    if measured is None:
        raise ValueError(f"adata.X is empty; pass the layer that holds the values: {layer_names(adata)}.")
    predicted = Values(adata.layers[name], results.source_rows)
    n_without = int(np.isnan(dense_array(adata.layers[name][results.source_rows][:, [0]])).sum())
    if n_without:
        raise ValueError(
            f"adata.layers[{name!r}] lacks {n_without} of the {len(results.source_rows)} predicted cells. "
            f"Run sh.tl.decode(adata, {key!r}) again."
        )
    check_decoded(adata, measured_layer, name, results.moved, results.target_rows)
    genes = [str(gene) for gene in adata.var_names]
    return Features(genes, Values(measured, results.source_rows), predicted, Values(measured, results.target_rows))


def has_genes_decoded(adata: AnnData, results: Results, key: str) -> bool:
    """Whether :func:`read_genes` has genes to read."""
    return columns_are_genes(adata, results.rep) or decoded_layer(adata, results, key) in adata.layers


def decoded_layer(adata: AnnData, results: Results, key: str) -> str:
    """Key of the layer that :func:`scot_hycnn.tl.decode` writes for the results' target."""
    fit = read_fit(adata, key)
    return fit.slots(fit.slug(results.target)).layer
