"""The way from a representation to genes, and the check that measured values and loadings belong together."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from anndata import AnnData
from numpy.typing import ArrayLike, NDArray

from scot_hycnn._anndata._conditions import Rows
from scot_hycnn._anndata._representation import (
    Coordinates,
    Expression,
    Representation,
    dense_array,
    expression_of,
    feature_names,
    find_layer,
    in_memory,
    loadings_key,
    name_of,
    read_coordinates,
    read_expression,
    read_finite,
    row_blocks,
)
from scot_hycnn._anndata._results import Results, StoredFit, learned_from, training_rows
from scot_hycnn._anndata._schema import check_key, layer_names, loadings_slot

Decoder: TypeAlias = Callable[[NDArray[np.float32]], ArrayLike]

Marks = NDArray[np.bool_]  # (genes,)

# Measured values are compared with coordinates on 300 cells, which takes milliseconds. In a file they are read as runs
# of 15 neighbours, since each run touches one chunk or two.
_CHECKED_CELLS, _RUN_IN_FILE = 300, 15
# Share of the cells with the largest differences that the comparison leaves out: one broken coordinate must not refuse
# all cells. It is small, since values of a tenth of the cells on another scale have to be refused.
_OUTLIERS = 0.05
# How far values and coordinates may be apart, relative to the spread of the coordinates. Measured on Kang's cells: 1e-6
# for an exact PCA, 0.02 for a randomised one (0.07 of pure noise); 0.4 for a PCA of the scaled values or of another
# logarithm, 0.7 and 1.1 for another sum of counts, 5.7 for counts. Values that were changed after their PCA lie
# between: 0.1 to 0.21 in pbmc_planted, whose small values are zeros, and 0.12 to 0.29 there for a PCA of the scaled
# values. The slopes of the genes on the sum of the components separate these two: they differ from 1 by 0.1 to 0.2,
# and by 0.3 to 0.45.
_ROUNDING, _MAX_DISTANCE = 0.1, 0.25
# Cells with a smaller part of the variance of the cells of the PCA are some of its cell types.
_PART = 0.7
# Loadings count as orthonormal if no entry of V'V is farther from the identity; float32 and solvers are more exact.
_ORTHONORMAL = 1e-2
# Penalties of the ridge regression, relative to the largest eigenvalue of the Gram matrix: from none to such that every
# coefficient becomes 0. Each gene takes its own.
_PENALTIES = np.logspace(-8, 2, 41)
# Eigenvalues that are smaller than this part of the largest one are rounding.
_RANK = 1e-10
# A decoder does not return this share of its values equal to those that the formula starts from by chance.
_CHANCE = 0.05


@dataclass(frozen=True)
class Genes:
    r"""The way from points of a representation to expression.

    With loadings V of principal components it is :math:`x_{gene} + V (T(x) - x)`: the measured cell, changed by what
    the map changes. The part that the components do not explain stays, while :math:`V T(x) + \mu` would smooth it away.
    Rows of V of genes that the PCA did not use are the coefficients of :func:`_ridge`.
    """

    adata: AnnData
    rep: Representation  # of the points
    layer: str | None  # of measured expression; None is X
    loadings: NDArray[np.float32] | None  # V, (genes, d); None with a decoder, or if the dimensions are the genes
    decoder: Decoder | None  # points (n, d) to expression (n, genes)
    clip: bool  # whether negative predicted values become 0
    in_representation: Marks  # genes that the representation was made from
    is_predicted: Marks  # the others stay as measured

    @property
    def summary(self) -> str:
        """Return how many genes are predicted, and how, for the log."""
        outside = int((self.is_predicted & ~self.in_representation).sum())
        text = f"predicting {int(self.is_predicted.sum())} genes"
        if outside:
            text += f", {outside} of which {self.rep.name!r} was not made from, by ridge regression on it"
        return text

    @property
    def problem(self) -> str:
        """Return which genes are not predicted, and why; it is empty if all are."""
        n = int((~self.is_predicted).sum())
        text = (
            f"{n} genes that {self.rep.name!r} was not made from are not predicted and stay as measured: too few "
            "training cells of the fit are here to learn them from. Run sh.tl.decode on all cells, then take a part "
            "of them afterwards."
        )
        return text if n else ""

    def measured(self, rows: Rows) -> Expression:
        """Return measured expression of these cells; a ValueError names the first cell that is not finite."""
        if self.loadings is None and self.decoder is None:
            return read_coordinates(self.adata, self.rep, rows).astype(np.float32)
        dense = dense_array(read_expression(self.adata, self.layer, rows))
        bad = np.flatnonzero(~np.isfinite(dense).all(axis=1))
        if len(bad):
            first = str(self.adata.obs_names[rows[bad[0]]])
            raise ValueError(
                f"{name_of(self.layer)} has NaN or infinite values, the first in cell {first!r}; impute them."
            )
        return dense.astype(np.float32)

    def decoded(self, rows: Rows, x: Coordinates, points: Coordinates, correction: Any) -> Expression:
        """Return the predicted expression of the cells in these rows, which a map moves from x to points."""
        # A decoder and maps of genes need no measured values, which are then not read.
        measured = None if self.loadings is None else self.measured(rows)
        return self.predicted(measured, x, points, None if correction is None else correction.at(rows))

    def predicted(
        self, measured: Expression | None, x: Coordinates, points: Coordinates, shift: Expression | None = None
    ) -> Expression:
        """Return expression, (n, genes), of cells with ``measured`` expression that a map moves from x to points.

        ``shift`` is added to it, the :class:`Correction` of these cells.
        """
        if self.decoder is not None:
            returned: Any = self.decoder(points.astype(np.float32))
            result = np.asarray(returned.toarray() if hasattr(returned, "toarray") else returned)
            are_numbers, wanted = result.dtype.kind in "fiub", (len(points), self.adata.n_vars)
            result = result.astype(np.float32) if are_numbers else result
            bad = " with NaN or infinite values" if are_numbers and not np.isfinite(result).all() else ""
            if result.shape != wanted or not are_numbers or bad:
                raise ValueError(
                    f"decoder returned shape {result.shape} and dtype {result.dtype}{bad} for points of shape "
                    f"{points.shape}; it has to return finite numbers of shape {wanted}, one for each gene of adata."
                )
        elif self.loadings is None or measured is None:
            result = points.astype(np.float32)  # the dimensions are the genes
        else:
            result = measured + (points - x).astype(np.float32) @ self.loadings.T
        result = result if shift is None else result + shift
        return np.maximum(result, 0, out=result) if self.clip else result


def find_genes(
    adata: AnnData,
    fit: StoredFit,
    rep: Representation,
    rows: Rows,
    *,
    layer: str | None,
    decoder: Decoder | None,
    clip: bool = False,
    held_out: Rows | None = None,
) -> Genes:
    """Find the way from a representation to genes, and check on some of the rows that it fits the measured values.

    ``held_out`` cells are not learned from, although the fit was made from them.
    """
    if decoder is not None and not callable(decoder):
        raise TypeError(
            f"decoder is of type {type(decoder).__name__}; it takes a function of points (n, {rep.n_dims}) that "
            f"returns expression (n, {adata.n_vars})."
        )
    everywhere = np.ones(adata.n_vars, dtype=bool)
    # Three ways: the dimensions are the genes, a decoder of the user, or the loadings of a PCA.
    if decoder is None and columns_are_genes(adata, rep):
        if layer is not None:
            raise ValueError(
                f"layer={layer!r} does not apply: the map was fitted on expression itself, {rep.name!r}; leave it out."
            )
        return Genes(adata, rep, None, None, None, clip, everywhere, everywhere)
    found = find_layer(adata, rep, layer)
    if decoder is not None:
        return Genes(adata, rep, found, None, decoder, clip, everywhere, everywhere)
    loadings = _read_loadings(adata, rep)
    _check_values(adata, rep, rows, found, loadings)
    inside = in_representation(adata, rep, None)
    if inside.all():
        return Genes(adata, rep, found, loadings, None, clip, inside, inside)

    # Genes outside of the representation: coefficients that tl.decode has stored, or new ones, of training cells alone.
    stored = adata.varm.get(loadings_slot(fit.key))
    training = learned_from(adata, fit, held_out)
    if stored is not None and np.shape(stored) == loadings.shape and len(training) == len(training_rows(adata, fit)):
        coefficients: NDArray[np.float32] | None = np.asarray(in_memory(stored), dtype=np.float32)
    else:
        coefficients = _ridge(adata, rep, found, training)
    if coefficients is None:
        return Genes(adata, rep, found, loadings, None, clip, inside, inside)
    loadings = np.where(inside[:, None], loadings, coefficients)
    return Genes(adata, rep, found, loadings, None, clip, inside, everywhere)


def _ridge(adata: AnnData, rep: Representation, layer: str | None, rows: Rows) -> NDArray[np.float32] | None:
    r"""Return coefficients B of ridge regression of every gene on the representation, (genes, d).

    .. math:: B = \operatorname{argmin} \|X_c - Z_c B^\top\|^2 + \alpha \|B\|^2

    with centred coordinates :math:`Z_c` and expression :math:`X_c` of these cells, and for each gene the penalty
    :math:`\alpha` of the smallest generalised cross-validation. None if there are too few cells.
    """
    rows, _ = read_finite(adata, rep, rows)
    n, d = len(rows), rep.n_dims
    if n < 2 * d + 2:
        return None
    # Sums over blocks of cells: X is never dense, and one factorisation of Z'Z serves all genes and penalties.
    gram, z_sum, origin = np.zeros((d, d)), np.zeros(d), np.zeros(d)
    cross, x_sum, squares = np.zeros((adata.n_vars, d)), np.zeros(adata.n_vars), np.zeros(adata.n_vars)
    for block in row_blocks(n):
        z = read_coordinates(adata, rep, rows[block]).astype(np.float64)
        origin = z.mean(axis=0) if block.start == 0 else origin
        z -= origin
        x = read_expression(adata, layer, rows[block]).astype(np.float64)
        gram, z_sum, cross = gram + z.T @ z, z_sum + z.sum(axis=0), cross + np.asarray(x.T @ z)
        x_sum += np.asarray(x.sum(axis=0)).ravel()
        squares += np.asarray((x.multiply(x) if hasattr(x, "multiply") else x * x).sum(axis=0)).ravel()
    if not np.isfinite(squares).all():
        gene = str(adata.var_names[np.flatnonzero(~np.isfinite(squares))[0]])
        raise ValueError(
            f"{name_of(layer)} has NaN or infinite values, for instance of the gene {gene!r}; impute them."
        )
    cross -= np.outer(x_sum, z_sum / n)
    total = np.maximum(squares - x_sum**2 / n, 0)  # sum of squares of every gene around its mean
    eigenvalues, basis = np.linalg.eigh(gram - np.outer(z_sum, z_sum / n))
    kept = eigenvalues > _RANK * eigenvalues[-1]
    eigenvalues, basis = eigenvalues[kept], basis[:, kept]
    projected = cross @ basis
    explained = projected**2 / eigenvalues

    # Generalised cross-validation (Golub, Heath & Wahba 1979): n RSS / (n - 1 - trace H)², where 1 is the intercept.
    lowest, penalty = np.full(adata.n_vars, np.inf), np.zeros(adata.n_vars)
    for alpha in _PENALTIES * eigenvalues.max(initial=0):
        kept_share = eigenvalues / (eigenvalues + alpha)
        score = (total - explained @ (1 - (1 - kept_share) ** 2)) / (n - 1 - kept_share.sum()) ** 2
        penalty = np.where(score < lowest, alpha, penalty)
        lowest = np.minimum(score, lowest)
    coefficients = projected / (eigenvalues + penalty[:, None]) @ basis.T
    return np.asarray(coefficients, dtype=np.float32)


def has_genes(adata: AnnData, rep: Representation, *, layer: str | None, decoder: Decoder | None) -> bool:
    """Return whether there is a way to genes: loadings or a decoder with measured values, or dimensions are genes."""
    if decoder is None and columns_are_genes(adata, rep):
        return True
    try:
        found = find_layer(adata, rep, layer)
    except ValueError:
        if layer is not None:
            raise
        return False  # the layer that the components were made from was deleted
    is_measured = found is not None or adata.X is not None
    return is_measured and (decoder is not None or loadings_key(adata, rep.name) is not None)


def columns_are_genes(adata: AnnData, rep: Representation) -> bool:
    """Return whether the dimensions of the representation are the genes."""
    return rep.name == "X" or feature_names(adata, rep) == [str(name) for name in adata.var_names]


def in_representation(adata: AnnData, rep: Representation, decoder: Decoder | None) -> Marks:
    """Return which genes the representation was made from; all where there are no loadings to tell."""
    if decoder is not None or columns_are_genes(adata, rep) or loadings_key(adata, rep.name) is None:
        return np.ones(adata.n_vars, dtype=bool)
    # A gene that is 0 in all training cells has no loadings, although a PCA of all genes was made from it.
    pca: Any = in_memory(adata.uns.get("pca" if rep.name == "X_pca" else rep.name, {}))
    params = pca.get("params", {}) if isinstance(pca, Mapping) else {}
    if isinstance(params, Mapping) and params.get("mask_var", "unknown") is None:
        return np.ones(adata.n_vars, dtype=bool)
    return np.asarray((_read_loadings(adata, rep) != 0).any(axis=1))


def check_layer(adata: AnnData, name: str, *, reads: str | None) -> None:
    """Raise a ValueError if ``name`` is no valid key of layers, or holds measured values or those of others."""
    check_key(name)
    if name not in adata.layers:
        return
    before = adata.layers[name]
    # tl.decode writes dense layers under the name of the prediction, or with NaN where no cell is predicted.
    is_dense = isinstance(before, np.ndarray) and before.dtype == np.float32
    is_ours = is_dense and (f"X_{name}" in adata.obsm or np.isnan(before[:, :1]).any())
    if name == reads or not is_ours:
        raise ValueError(
            f"key_added={name!r} would overwrite adata.layers[{name!r}], which holds other values than predicted ones."
        )


def check_decoded(
    adata: AnnData, layer: str | None, decoded: str, results: Results, shift_of: Callable[[Rows], Expression] | None
) -> None:
    """Raise a ValueError if measured values in ``layer`` (None is X) have another scale than the ``decoded`` layer.

    ``shift_of`` returns the correction of cells, with or without which the layer may have been decoded.
    """
    rep = results.rep
    if loadings_key(adata, rep.name) is None:
        return
    loadings = _read_loadings(adata, rep)
    rows = _sample(adata, layer, results.source_rows)
    cells = np.searchsorted(results.source_rows, rows)
    points = results.predicted[cells]
    predicted = dense_array(read_expression(adata, decoded, rows)).astype(np.float64)

    # The layer does not say how it was made: by a decoder, on a scale of its own, or by x + V (T(x) - x). So this
    # computes x, and compares it with measured values. Where the sum was negative and clipped to 0, x is not known, nor
    # for genes outside of the representation.
    change = (points - results.x[cells]).astype(np.float64) @ loadings.T
    starts = [predicted - change] if shift_of is None else [predicted - change, predicted - change - shift_of(rows)]
    rounding = 1e-5 * max(1.0, float(np.abs(predicted).max()))
    is_known = (predicted != 0) & (loadings != 0).any(axis=1)

    def share(values: Any, known: NDArray[np.bool_]) -> float:
        return max((np.abs(start - values)[known] < rounding).mean() for start in starts) if known.any() else 0.0

    origin = [other for other, values in _layers(adata, rows) if share(dense_array(values), is_known) > 1 - _CHANCE]
    # If these values were deleted since, zeros show the formula: it alone returns exactly V (T(x) - x) where x was 0.
    is_linear = bool(origin) or share(0, is_known & (change != 0)) > _CHANCE
    if is_linear or _distance(predicted, loadings, points, _variance(adata, rep)) <= _MAX_DISTANCE:
        _check_values(adata, rep, results.measured_rows, layer, loadings)
    if is_linear and layer not in origin:
        other = f"layer={origin[0] or 'X'!r}" if origin else "values that are gone"
        raise ValueError(
            f"adata.layers[{decoded!r}] was predicted from {other}, and {name_of(layer)} holds others: run "
            f"sh.tl.decode again with layer={layer or 'X'!r}."
        )


def _check_values(
    adata: AnnData, rep: Representation, rows: Rows, layer: str | None, loadings: NDArray[np.float32]
) -> None:
    """Raise a ValueError unless some of the cells have the coordinates that the loadings give for these values."""
    rows, points = read_finite(adata, rep, _sample(adata, layer, rows))
    variance = _variance(adata, rep)
    distance = _distance(read_expression(adata, layer, rows), loadings, points, variance)
    if distance <= _MAX_DISTANCE:
        return

    # Name a layer with the right values, if there is one; layers of predicted cells have NaN.
    fits = [
        other
        for other, values in _layers(adata, rows)
        if np.isfinite(values.sum(axis=1, dtype=np.float64)).all()
        and _distance(values, loadings, points, variance) <= _MAX_DISTANCE
    ]
    remedy = (
        f"Pass layer={fits[0] or 'X'!r}, which fits"
        if fits
        else f"Pass layer= the one that the PCA was run on: neither X nor any of adata.layers, {layer_names(adata)}, "
        "fits. Or run the PCA on values that are there, and fit again"
    )
    raise ValueError(
        f"{name_of(layer)} does not hold the values that {rep.name!r} was made from: in {len(rows)} cells, drawn at "
        f"random, it times the loadings adata.varm[{loadings_key(adata, rep.name)!r}] and adata.obsm[{rep.name!r}] are "
        f"{distance:.3g} times their spread apart, beyond a constant. {remedy}."
    )


def _layers(adata: AnnData, rows: Rows) -> Iterator[tuple[str | None, Any]]:
    """Yield X (as None) and the layers with their values of these cells, as far as these are numbers."""
    for layer in [None, *layer_names(adata)]:
        with suppress(ValueError):
            yield layer, read_expression(adata, layer, rows)


def _sample(adata: AnnData, layer: str | None, rows: Rows) -> Rows:
    """Return some 300 of the cells, ascending: always the same ones, from everywhere in a file."""
    rows = np.unique(rows)
    in_file = adata.isbacked or hasattr(expression_of(adata, layer, rows[:0]), "dask")  # of no cell: nothing is read
    size = _RUN_IN_FILE if in_file else 1
    runs = np.sort(np.random.default_rng(0).permutation(-(-len(rows) // size))[: _CHECKED_CELLS // size])
    places = (runs[:, None] * size + np.arange(size)).ravel()
    chosen: Rows = rows[places[places < len(rows)]]
    return chosen


def _variance(adata: AnnData, rep: Representation) -> float:
    """Return the variance of the cells that the PCA was made from, 0 if it is unknown."""
    pca: Any = in_memory(adata.uns.get("pca" if rep.name == "X_pca" else rep.name, {}))
    stored = pca.get("variance") if isinstance(pca, Mapping) else None
    if not isinstance(stored, np.ndarray) or stored.ndim != 1 or stored.dtype.kind != "f":
        return 0.0
    # A damaged entry may claim any length, and hold any number.
    with np.errstate(all="ignore"):
        variance = float(stored[: rep.n_dims].sum())
    return variance if np.isfinite(variance) else 0.0


def _distance(values: Any, loadings: NDArray[np.float32], points: Coordinates, variance: float) -> float:
    """Return how far coordinates z are from what the loadings V give for the values x, relative to their spread.

    For a PCA, V is orthonormal and x V - z is the same for all cells. If genes were taken out since, or V comes from
    another linear model, only the scale can be checked: x changes by V z. ``variance`` is that of all cells of the PCA.
    """
    basis, z = loadings.astype(np.float64), points.astype(np.float64)
    # Genes.measured names cells that are not finite. Single cells with large differences are broken, not the layer.
    with np.errstate(invalid="ignore", over="ignore"):
        projected = np.asarray(values.astype(np.float64) @ basis)
        difference = projected - z
        finite = np.isfinite(difference).all(axis=1)
        centre = np.median(difference[finite], axis=0) if finite.any() else 0.0
        error = np.where(finite, ((difference - centre) ** 2).sum(axis=1), np.inf)
    is_part = z[finite].var(axis=0).sum() < _PART * variance if finite.any() else False
    kept = np.argsort(error, kind="stable")[: int(np.ceil((1 - _OUTLIERS) * finite.sum()))]
    projected, z = projected[kept], z[kept]
    if len(z) < 2 or not np.ptp(z, axis=0).any():
        return 0.0  # nothing varies
    projected, z = projected - projected.mean(axis=0), z - z.mean(axis=0)

    # Loadings that are not orthonormal: the least-squares scale of V z in x, which should be 1.
    gram = basis.T @ basis
    if np.abs(gram - np.eye(len(gram))).max() > _ORTHONORMAL:
        size = float(((z @ gram) * z).sum())
        return abs(float((projected * z).sum()) / size - 1) if size > 0 else 0.0
    # Root mean square difference, relative to the spread. Slopes are needed only where rounding does not explain it.
    size = float((z**2).sum())
    distance = math.sqrt(float(((projected - z) ** 2).sum()) / max(size, variance * len(z)))
    if distance <= _ROUNDING:
        return distance
    # Within a cell type the rest of a gene goes with V z even for an exact PCA of all types: slopes of genes were off
    # by 0.15 to 0.35 there. Those of the components were not, by 0.2 at most in pbmc_planted, by 0.31 for log2.
    return max(distance, _slopes(projected, z) if is_part else _slopes(dense_array(values)[kept], z @ basis.T))


def _slopes(values: NDArray[Any], change: NDArray[np.float64]) -> float:
    """Return how far slopes of values on ``change``, of mean 0, are from 1: the root mean square, weighted by its size.

    Both have shape (n, k), of genes or components.
    """
    values = values.astype(np.float64) - values.mean(axis=0, dtype=np.float64)
    size = (change**2).sum(axis=0)
    used = size > 0
    values, change, size, n = values[:, used], change[:, used], size[used], len(values)
    if n < 3:
        return 0.0
    slope = (values * change).sum(axis=0) / size
    # Variance of the slopes of so few cells, without the assumption that all cells scatter alike (White 1980).
    chance = ((change * (values - slope * change)) ** 2).sum(axis=0) / size * (n / (n - 2))
    return math.sqrt(max(0.0, float((size * (slope - 1) ** 2 - chance).sum() / size.sum())))


def _read_loadings(adata: AnnData, rep: Representation) -> NDArray[np.float32]:
    key = loadings_key(adata, rep.name)
    if key is None:
        raise ValueError(
            f"No way from {rep.name!r} to genes: adata.varm has {list(adata.varm)}, and none of them are its loadings. "
            "Pass decoder=, a function from points to expression; or fit on principal components, or on genes "
            "(use_rep='X')."
        )
    loadings = np.asarray(in_memory(adata.varm[key]))[:, : rep.n_dims]
    if loadings.shape != (adata.n_vars, rep.n_dims) or not np.isfinite(loadings).all():
        raise ValueError(
            f"adata.varm[{key!r}] has shape {np.shape(adata.varm[key])}; finite loadings of {adata.n_vars} genes on "
            f"{rep.n_dims} components are needed: run the PCA again, or pass decoder=."
        )
    return loadings.astype(np.float32)
