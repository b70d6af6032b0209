"""From points of a representation to expression of genes, a block of cells at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from anndata import AnnData
from numpy.typing import ArrayLike, NDArray

from ._conditions import Rows
from ._lazy import in_memory
from ._representation import (
    Coordinates,
    Representation,
    dense_array,
    expression_of,
    feature_names,
    find_layer,
    is_finite,
    loadings_key,
    read_coordinates,
)
from ._results import Prediction
from ._schema import layer_names

Expression: TypeAlias = NDArray[np.float32]  # (cells, genes)
Decoder: TypeAlias = Callable[[NDArray[np.float32]], ArrayLike]

# Cells that are dense at once: of 20,000 genes these are 80 MB.
BLOCK_ROWS = 1000

# Cells on which measured values are compared with coordinates: milliseconds. In a file they lie in runs, each of which
# touches one chunk or two.
_CHECKED_CELLS, _RUN_IN_FILE = 300, 15
# How far the two may be apart, relative to the spread of the coordinates. Measured on Kang's cells: 1e-6 for an exact
# PCA, 0.02 for a randomised one (0.07 of pure noise); 0.4 for a PCA of the scaled values or of another logarithm, 0.7
# and 1.1 for another sum of counts, 5.7 for counts. Values that were changed after their PCA lie between: 0.1 to 0.21
# in pbmc_planted, whose small values are zeros, and 0.12 to 0.29 there for a PCA of the scaled values. The genes'
# slopes on what the components add up to tell these two: they are 0.1 to 0.2 away from 1, and 0.3 to 0.45.
_ROUNDING, _MOST_APART = 0.1, 0.25
# Loadings are orthonormal up to float32 and the solver if their products are no farther from 1 and 0.
_ORTHONORMAL = 1e-2
# Share of zeros among the values that a prediction started from that no decoder reaches by chance.
_MANY_ZEROS = 0.05


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
        where, dense = _where(self.layer), dense_array(_read(self.adata, self.layer, rows))
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
    adata: AnnData,
    rep: Representation,
    rows: Rows,
    *,
    layer: str | None,
    decoder: Decoder | None,
    clip: bool = False,
) -> Genes:
    """Find the way from a representation to genes, and check that measured values and loadings belong together.

    Parameters
    ----------
    adata
        The cells.
    rep
        The space of the points.
    rows
        Row numbers of the cells whose expression is wanted; the check is on some of them.
    layer
        Where measured expression is. None is the layer that the PCA was run on, if it was on one, else X; 'X' is X.
    decoder, clip
        See :class:`Genes`.

    Raises
    ------
    TypeError
        If the decoder is no function.
    ValueError
        If there is no way, the layer does not exist, or its values are not those that the representation was made from.
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
    found = find_layer(adata, rep, layer)
    if decoder is not None:
        return Genes(adata, rep, found, None, decoder, clip)
    loadings = _loadings(adata, rep)
    _check_values(adata, rep, rows, found, loadings)
    return Genes(adata, rep, found, loadings, None, clip)


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


def check_decoded(adata: AnnData, layer: str | None, decoded: str, moved: Prediction, observed: Rows) -> None:
    """Check that measured values can be compared with a layer of predicted ones.

    The layer does not say how it was made: a decoder may have another scale than the PCA. What
    :func:`scot_hycnn.tl.decode` computes from loadings is recognised by its values.

    Parameters
    ----------
    adata
        The cells.
    layer
        Where measured expression is; None is X.
    decoded
        The layer of predicted expression.
    moved
        Source cells and where they went.
    observed
        Row numbers of the target cells.

    Raises
    ------
    ValueError
        If they cannot.
    """
    rep = moved.rep
    if loadings_key(adata, rep.name) is None:
        return
    loadings = _loadings(adata, rep)
    rows = next(_draws(adata, layer, moved.rows))
    cells = np.searchsorted(moved.rows, rows)
    predicted = dense_array(_read(adata, decoded, rows)).astype(np.float64)
    change = (moved.points[cells] - moved.x[cells]).astype(np.float64) @ loadings.T
    # Where the formula was used, this is the value that it started from, unless the sum was negative and clipped.
    start, rounding, is_seen = predicted - change, 1e-5 * max(1.0, float(np.abs(predicted).max())), predicted != 0

    def is_origin(other: str | None) -> bool:
        values = _read_numbers(adata, other, rows)
        return values is not None and _share(np.abs(start - dense_array(values))[is_seen] < rounding) > 1 - _MANY_ZEROS

    origin = [layer] if is_origin(layer) else [other for other in _layers(adata) if is_origin(other)]
    # Of values that are no longer there, zeros tell: only the formula returns exactly what the loadings add to 0.
    is_linear = bool(origin) or _share(np.abs(start)[is_seen & (change != 0)] < rounding) > _MANY_ZEROS
    if is_linear or _apart(predicted, loadings, moved.points[cells]) <= _MOST_APART:
        _check_values(adata, rep, np.concatenate([moved.rows, observed]), layer, loadings)
    if is_linear and layer not in origin:
        other = f"layer={_in_words(origin[0])}" if origin else "values that are gone"
        raise ValueError(
            f"adata.layers[{decoded!r}] was predicted from {other}, and {_where(layer)} holds others: run "
            f"sh.tl.decode again with layer={_in_words(layer)}."
        )


def _share(chosen: NDArray[np.bool_]) -> float:
    return float(chosen.mean()) if chosen.size else 0.0


def _check_values(
    adata: AnnData, rep: Representation, rows: Rows, layer: str | None, loadings: NDArray[np.float32]
) -> None:
    """Check on some of the cells that the representation is what the loadings make of these values.

    Raises
    ------
    ValueError
        If it is not.
    """
    rows, points = _finite_cells(adata, rep, layer, rows)
    apart = _apart(_read(adata, layer, rows), loadings, points)
    if apart <= _MOST_APART:
        return
    fits = [other for other in _layers(adata) if other != layer and _fits(adata, other, rows, loadings, points)]
    key = loadings_key(adata, rep.name)
    remedy = (
        f"Pass layer={_in_words(fits[0])}, which fits"
        if fits
        else f"Pass layer= the one that the PCA was run on: neither X nor any of adata.layers, {layer_names(adata)}, "
        "fits, so put these values there first. Or run the PCA on values that are there, and fit again"
    )
    raise ValueError(
        f"{_where(layer)} does not hold the values that {rep.name!r} was made from, and genes would be wrong: "
        f"{_where(layer)} times the loadings adata.varm[{key!r}], minus adata.obsm[{rep.name!r}], has to be the same "
        f"in all cells; compared in {len(rows)} of them, drawn at random, the two are {apart:.3g} times the spread of "
        f"{rep.name!r} apart. {remedy}."
    )


def _finite_cells(adata: AnnData, rep: Representation, layer: str | None, rows: Rows) -> tuple[Rows, Coordinates]:
    """Some of the cells with finite coordinates, and these; all of them if there are few."""
    found: list[Rows] = [np.empty(0, dtype=np.intp)]
    points: list[Coordinates] = [np.empty((0, rep.n_dims))]
    for drawn in _draws(adata, layer, rows):
        z = read_coordinates(adata, rep, drawn)
        finite = is_finite(z)
        found.append(drawn[finite])
        points.append(z[finite])
        if 2 * sum(map(len, found)) > _CHECKED_CELLS:
            break
    return np.concatenate(found), np.concatenate(points)


def _draws(adata: AnnData, layer: str | None, rows: Rows) -> Iterator[Rows]:
    """All of the cells, some hundred at a time, ascending: always the same, and from all over a file that is sorted."""
    rows = np.unique(rows)
    in_file = adata.isbacked or hasattr(expression_of(adata, layer, rows[:0]), "dask")  # of no cell: nothing is read
    size = _RUN_IN_FILE if in_file else 1
    runs = np.random.default_rng(0).permutation(-(-len(rows) // size))
    for first in range(0, len(runs), _CHECKED_CELLS // size):
        chosen = np.sort(runs[first : first + _CHECKED_CELLS // size])
        places = (chosen[:, None] * size + np.arange(size)).ravel()
        yield rows[places[places < len(rows)]]


def _fits(adata: AnnData, layer: str | None, rows: Rows, loadings: NDArray[np.float32], points: Coordinates) -> bool:
    values = _read_numbers(adata, layer, rows)
    if values is None or not np.isfinite(np.asarray(values.sum(axis=1), dtype=np.float64)).all():
        return False  # layers of predicted cells have NaN
    return _apart(values, loadings, points) <= _MOST_APART


def _layers(adata: AnnData) -> list[str | None]:
    """X, which is None, and the layers."""
    return [None, *layer_names(adata)]


def _in_words(layer: str | None) -> str:
    return repr("X" if layer is None else layer)


def _apart(values: Any, loadings: NDArray[np.float32], points: Coordinates) -> float:
    """How far coordinates z are from what the loadings V make of the values x, relative to their spread.

    V of a PCA is orthonormal, and :math:`x V - z` the same for all cells. Where genes were taken out since, or V is of
    another linear model, only the scale can be seen: x changes by :math:`V z`.
    """
    basis, z = loadings.astype(np.float64), points.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        projected = np.asarray(values.astype(np.float64) @ basis)
    finite = np.isfinite(projected).all(axis=1)  # cells without are named where they are read
    projected, z = projected[finite], z[finite]
    if len(z) < 2 or not np.ptp(z, axis=0).any():
        return 0.0  # nothing varies
    projected, z = projected - projected.mean(axis=0), z - z.mean(axis=0)
    gram = basis.T @ basis
    if np.abs(gram - np.eye(len(gram))).max() > _ORTHONORMAL:
        size = float(((z @ gram) * z).sum())
        return abs(float((projected * z).sum()) / size - 1) if size > 0 else 0.0
    apart = math.sqrt(float(((projected - z) ** 2).sum() / (z**2).sum()))
    return apart if apart <= _ROUNDING else max(apart, _slopes_apart(dense_array(values)[finite], z @ basis.T))


def _slopes_apart(values: NDArray[Any], change: NDArray[np.float64]) -> float:
    """How far slopes of genes on what the components add up to are from 1, in the mean over what these explain.

    Parameters
    ----------
    values, change
        Shape (n, genes); ``change`` has mean 0.
    """
    values = values.astype(np.float64) - values.mean(axis=0, dtype=np.float64)
    size = (change**2).sum(axis=0)
    used = size > 0
    values, change, size, n = values[:, used], change[:, used], size[used], len(values)
    if n < 3:
        return 0.0
    slope = (values * change).sum(axis=0) / size
    # What the slopes of so few cells are off by chance, without assuming that all cells scatter alike (White 1980).
    chance = ((change * (values - slope * change)) ** 2).sum(axis=0) / size * (n / (n - 2))
    return math.sqrt(max(0.0, float((size * (slope - 1) ** 2 - chance).sum() / size.sum())))


def _read(adata: AnnData, layer: str | None, rows: Rows) -> Any:
    """Values of these cells, shape (n, genes), dense or sparse, from memory or a file.

    Raises
    ------
    ValueError
        If there are none, or they are no numbers.
    """
    values: Any = in_memory(expression_of(adata, layer, rows))
    if values is None:
        raise ValueError(f"{_where(layer)} is empty; pass the layer that holds the values: {layer_names(adata)}.")
    if isinstance(values, np.ma.MaskedArray):
        values = dense_array(values)  # NaN for what is masked
    if values.dtype.kind not in "fiub":
        raise ValueError(f"{_where(layer)} holds values of dtype {values.dtype}; expression is numbers.")
    return values


def _read_numbers(adata: AnnData, layer: str | None, rows: Rows) -> Any | None:
    """As :func:`_read`; None if there are none."""
    try:
        return _read(adata, layer, rows)
    except ValueError:
        return None


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


def _where(layer: str | None) -> str:
    return "adata.X" if layer is None else f"adata.layers[{layer!r}]"
