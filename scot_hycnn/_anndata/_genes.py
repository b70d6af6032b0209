"""From points of a representation to expression of genes, a block of cells at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from anndata import AnnData
from numpy.typing import ArrayLike, NDArray

from ._labels import Rows
from ._lazy import in_memory
from ._representation import (
    Coordinates,
    Representation,
    dense_array,
    expression_of,
    feature_names,
    loadings_key,
    read_coordinates,
)
from ._results import Prediction
from ._slots import layer_names

Expression: TypeAlias = NDArray[np.float32]  # (cells, genes)
Decoder: TypeAlias = Callable[[NDArray[np.float32]], ArrayLike]

# Cells that are dense at once: of 20,000 genes these are 80 MB.
BLOCK_ROWS = 1000


@dataclass(frozen=True)
class Genes:
    r"""How points of a representation become expression.

    Of principal components with loadings V, :math:`x_{gene} + V (T(x) - x)`: the measured cell, changed by what the map
    changes. It keeps what the components cannot see, while :math:`V T(x) + \mu` would smooth every cell.

    Parameters
    ----------
    adata
        The cells.
    rep
        The space of the points.
    layer
        Where measured expression is; None is X.
    loadings
        V, shape (genes, d); None where a decoder takes their place, or the columns are genes.
    decoder
        Function of points (n, d) that returns expression (n, genes); its result is taken as it is.
    clip
        Whether predicted expression is at least 0.
    """

    adata: AnnData
    rep: Representation
    layer: str | None
    loadings: NDArray[np.float32] | None
    decoder: Decoder | None
    clip: bool

    def measured(self, rows: Rows) -> Expression:
        """Expression of these cells as it was measured: the coordinates themselves where they are genes.

        Raises
        ------
        ValueError
            If there is none, or it is not finite.
        """
        if self.loadings is None and self.decoder is None:
            return read_coordinates(self.adata, self.rep, rows).astype(np.float32)
        values: Any = expression_of(self.adata, self.layer, rows)
        where = _where(self.layer)
        if values is None:
            raise ValueError(f"{where} is empty; pass the layer that holds the values: {layer_names(self.adata)}.")
        dense = dense_array(values)
        if dense.dtype.kind not in "fiub":
            raise ValueError(f"{where} holds values of dtype {dense.dtype}; expression is numbers.")
        bad = np.flatnonzero(~np.isfinite(dense).all(axis=1))
        if len(bad):
            first = str(self.adata.obs_names[rows[bad[0]]])
            raise ValueError(f"{where} has NaN or infinite values, the first in cell {first!r}; impute them.")
        return dense.astype(np.float32)

    def predicted(self, measured: Expression | None, x: Coordinates, points: Coordinates) -> Expression:
        """Expression of cells at these points.

        Parameters
        ----------
        measured
            Their expression at ``x``, shape (n, genes). Only loadings need it.
        x
            Where the cells are, shape (n, d).
        points
            Where they are predicted to be, shape (n, d).

        Raises
        ------
        ValueError
            If a decoder returns anything but finite numbers of shape (n, genes).
        """
        if self.decoder is not None:
            result = self._decoded(self.decoder, points)
        elif self.loadings is None or measured is None:
            result = points.astype(np.float32)
        else:
            result = measured + (points - x).astype(np.float32) @ self.loadings.T
        return np.maximum(result, 0, out=result) if self.clip else result

    def _decoded(self, decoder: Decoder, points: Coordinates) -> Expression:
        result: Any = decoder(points.astype(np.float32))
        try:
            dense = np.asarray(result.toarray() if hasattr(result, "toarray") else result).astype(np.float32)
        except (TypeError, ValueError, RuntimeError) as error:  # torch raises the last for tensors with gradients
            raise ValueError(
                f"decoder returned {type(result).__name__}, which does not convert to an array of numbers: {error}"
            ) from error
        wanted = (len(points), self.adata.n_vars)
        if dense.shape != wanted:
            raise ValueError(
                f"decoder returned shape {dense.shape} for points of shape {points.shape}; it has to return "
                f"{wanted}, one value for each gene of adata, in the order of adata.var_names."
            )
        n_bad = int((~np.isfinite(dense)).any(axis=1).sum())
        if n_bad:
            raise ValueError(f"decoder returned NaN or infinite values for {n_bad} of {len(points)} cells.")
        return dense

    def fill_measured(self, out: Expression, rows: Rows) -> None:
        """Write measured expression of these cells into ``out``, shape (len(rows), genes)."""
        for block in row_blocks(len(rows)):
            out[block] = self.measured(rows[block])

    def fill_predicted(self, out: Expression, into: Rows, cells: Prediction, size: int = BLOCK_ROWS) -> None:
        """Write predicted expression of these cells into the rows ``into`` of ``out``."""
        for block in row_blocks(len(cells.rows), size):
            measured = None if self.loadings is None else self.measured(cells.rows[block])
            out[into[block]] = self.predicted(measured, cells.x[block], cells.points[block])


def row_blocks(n_rows: int, size: int = BLOCK_ROWS) -> list[slice]:
    """Slices that cover the rows."""
    return [slice(start, start + size) for start in range(0, n_rows, size)]


def find_genes(
    adata: AnnData, rep: Representation, *, layer: str | None, decoder: Decoder | None, clip: bool = False
) -> Genes:
    """Find the way from a representation to genes.

    Parameters
    ----------
    adata
        The cells.
    rep
        The space of the points.
    layer
        Where measured expression is. None is the layer that the PCA was run on, if it was on one, else X; 'X' is X.
    decoder, clip
        See :class:`Genes`.

    Raises
    ------
    TypeError
        If the decoder is no function.
    ValueError
        If there is no way, or the layer does not exist or does not fit.
    """
    if decoder is not None and not callable(decoder):
        raise TypeError(
            f"decoder is of type {type(decoder).__name__}; it takes a function that returns expression "
            f"(n, {adata.n_vars}) for points (n, {rep.n_dims})."
        )
    if decoder is None and columns_are_genes(adata, rep):
        if layer is not None:
            raise ValueError(
                f"layer={layer!r} does not apply: the map was fitted on expression itself, {rep.name!r}; leave it out."
            )
        return Genes(adata, rep, None, None, None, clip)
    loadings = _loadings(adata, rep) if decoder is None else None
    return Genes(adata, rep, find_layer(adata, rep, layer), loadings, decoder, clip)


def has_genes(adata: AnnData, rep: Representation, *, layer: str | None, decoder: Decoder | None) -> bool:
    """Whether there are loadings or a decoder, and expression that they change; or the columns are genes."""
    if decoder is None and columns_are_genes(adata, rep):
        return True
    try:
        is_measured = adata.X is not None or find_layer(adata, rep, layer) is not None
        find_layer(adata, rep, layer)
    except ValueError:
        if layer is not None:
            raise
        return False  # the layer that the components were made from is gone
    return is_measured and (decoder is not None or loadings_key(adata, rep.name) is not None)


def columns_are_genes(adata: AnnData, rep: Representation) -> bool:
    """Whether points of the representation are expression."""
    return rep.name == "X" or feature_names(adata, rep) == [str(name) for name in adata.var_names]


def _loadings(adata: AnnData, rep: Representation) -> NDArray[np.float32]:
    key = loadings_key(adata, rep.name)
    if key is None:
        raise ValueError(
            f"No way from {rep.name!r} to genes: adata.varm has {list(adata.varm)}, and none of them are its loadings. "
            "Pass decoder=, a function from points to expression (of a model such as scVI); or fit on principal "
            "components of these genes (sc.pp.pca keeps the loadings), or on the genes themselves (use_rep='X')."
        )
    loadings = np.asarray(in_memory(adata.varm[key]))[:, : rep.n_dims]
    if loadings.shape != (adata.n_vars, rep.n_dims) or not np.isfinite(loadings).all():
        raise ValueError(
            f"adata.varm[{key!r}] has shape {np.shape(adata.varm[key])}; finite loadings of {adata.n_vars} genes on "
            f"{rep.n_dims} components are needed. Run the PCA again, or pass decoder=."
        )
    return loadings.astype(np.float32)


def find_layer(adata: AnnData, rep: Representation, layer: str | None) -> str | None:
    """Layer of measured expression, None for X; see :func:`find_genes`.

    Raises
    ------
    ValueError
        If it does not exist.
    """
    if layer is None:
        # scanpy writes the layer that a PCA was run on under the PCA's own key.
        pca: Any = in_memory(adata.uns.get("pca" if rep.name == "X_pca" else rep.name, {}))
        params = pca.get("params") if isinstance(pca, dict) else None
        layer = params.get("layer") if isinstance(params, dict) else None
        if layer is not None and (not isinstance(layer, str) or layer not in adata.layers):
            raise ValueError(
                f"The PCA was run on layer {layer!r}, which adata.layers lacks; it has {layer_names(adata)}. "
                "Pass layer= the one with the same values, or layer='X'."
            )
    elif layer not in adata.layers and layer != "X":
        raise ValueError(f"layer={layer!r} is not in adata.layers; it has {layer_names(adata)}, and 'X' is adata.X.")
    return layer if layer in adata.layers else None


def _where(layer: str | None) -> str:
    return "adata.X" if layer is None else f"adata.layers[{layer!r}]"
