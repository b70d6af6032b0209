"""Values of single genes or dimensions, of source, predicted and observed cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from ._conditions import Rows
from ._decode_input import check_decoded, columns_are_genes, row_blocks
from ._representation import dense_array, find_layer
from ._results import Results, read_fit
from ._schema import layer_names

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Values:
    """Values of all features of some cells; they are read on use, since all genes of all cells take much memory."""

    matrix: Any  # (cells, features), dense or sparse
    rows: Rows  # (n,)

    def columns(self, features: Sequence[int]) -> Numbers:
        """Return values of some features, shape (n, len(features))."""
        blocks = [self._read(self.rows[block], list(features)) for block in row_blocks(len(self.rows))]
        return np.concatenate([np.empty((0, len(features))), *blocks])

    def moments(self) -> tuple[Numbers, Numbers]:
        """Return mean and variance (unbiased; 0 for one cell) of every feature, shape (features,) each."""
        # Sums are taken around the mean of the first cells: around 0 they lose the digits of a small variance.
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

    def _read(self, rows: Rows, features: list[int] | None = None) -> Numbers:
        """Return values in memory; a ValueError names the first cell that is not finite."""
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


@dataclass(frozen=True)
class Features:
    """Values of the same features in source, predicted and observed cells; the first two are the same cells."""

    names: list[str]
    source: Values
    predicted: Values
    observed: Values

    def among(self, source: Rows, observed: Rows) -> Features:
        """Return the features of some cells, by their places among the source cells and among the observed ones."""
        kinds = (self.source, source), (self.predicted, source), (self.observed, observed)
        return Features(self.names, *(Values(values.matrix, values.rows[chosen]) for values, chosen in kinds))


def read_dimensions(results: Results) -> Features:
    """Return the dimensions of the representation as features."""
    kinds = (results.x, results.predicted, results.y)
    return Features(results.names, *(Values(points, np.arange(len(points))) for points in kinds))


def read_genes(adata: AnnData, results: Results, key: str, layer: str | None) -> Features:
    """Return genes as features: predicted ones from the layer of :func:`scot_hycnn.tl.decode`, others as measured."""
    if columns_are_genes(adata, results.rep):
        return read_dimensions(results)
    name = _decoded_layer(adata, results, key)
    if name not in adata.layers:
        raise ValueError(f"Predicted genes: adata.layers lacks {name!r}. Run sh.tl.decode(adata, {key!r}) first.")
    measured_layer = find_layer(adata, results.rep, layer)
    measured: Any = adata.X if measured_layer is None else adata.layers[measured_layer]
    if measured is None:
        raise ValueError(f"adata.X is empty; pass the layer that holds the values: {layer_names(adata)}.")
    # Cells that were moved after decoding have NaN; the first gene shows this for all genes.
    n_without = int(np.isnan(dense_array(adata.layers[name][results.source_rows][:, [0]])).sum())
    if n_without:
        raise ValueError(
            f"adata.layers[{name!r}] lacks {n_without} of the {len(results.source_rows)} predicted cells. "
            f"Run sh.tl.decode(adata, {key!r}) again."
        )
    # Predicted and measured values have to be on the same scale, or differences between them mean nothing.
    check_decoded(adata, measured_layer, name, results)
    return Features(
        [str(gene) for gene in adata.var_names],
        Values(measured, results.source_rows),
        Values(adata.layers[name], results.source_rows),
        Values(measured, results.target_rows),
    )


def has_genes_decoded(adata: AnnData, results: Results, key: str) -> bool:
    """Return whether :func:`read_genes` has genes to read."""
    return columns_are_genes(adata, results.rep) or _decoded_layer(adata, results, key) in adata.layers


def _decoded_layer(adata: AnnData, results: Results, key: str) -> str:
    fit = read_fit(adata, key)
    return fit.slots(fit.slug(results.target)).layer
