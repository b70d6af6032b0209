"""The way from a representation to genes, and the check that measured values and loadings belong together."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from anndata import AnnData
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix

from scot_hycnn._anndata._conditions import Rows, codes_of_groups, labelled_rows
from scot_hycnn._anndata._representation import (
    Coordinates,
    Representation,
    dense_array,
    expression_of,
    feature_names,
    find_layer,
    in_memory,
    is_finite,
    loadings_key,
    obs_columns,
    read_coordinates,
)
from scot_hycnn._anndata._results import Results, StoredFit, find_prediction, training_rows
from scot_hycnn._anndata._schema import check_key, layer_names, loadings_slot

from ._group_residuals import CORRECTIONS, MIN_CELLS, MIN_GROUPS, Correction, Numbers, krige

Expression: TypeAlias = NDArray[np.float32]  # (cells, genes)
Decoder: TypeAlias = Callable[[NDArray[np.float32]], ArrayLike]

Marks = NDArray[np.bool_]  # (genes,)

# Cells that are dense at once: of 20,000 genes these are 80 MB.
BLOCK_ROWS = 1000

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
                f"{_name_of(self.layer)} has NaN or infinite values, the first in cell {first!r}; impute them."
            )
        return dense.astype(np.float32)

    def predicted(
        self, measured: Expression | None, x: Coordinates, points: Coordinates, shift: Expression | None = None
    ) -> Expression:
        """Return expression, (n, genes), of cells with ``measured`` expression that a map moves from x to points.

        ``shift`` is added to it, the :class:`Correction` of these cells.
        """
        if self.decoder is not None:
            returned: Any = self.decoder(points.astype(np.float32))
            try:
                result = np.asarray(returned.toarray() if hasattr(returned, "toarray") else returned).astype(np.float32)
            except (TypeError, ValueError, RuntimeError) as error:  # torch raises the last for tensors with gradients
                raise ValueError(
                    f"decoder returned {type(returned).__name__}, which does not convert to an array of numbers: "
                    f"{error}"
                ) from error
            wanted = (len(points), self.adata.n_vars)
            if result.shape != wanted:
                raise ValueError(
                    f"decoder returned shape {result.shape} for points of shape {points.shape}; it has to return "
                    f"{wanted}, one value for each gene of adata, in the order of adata.var_names."
                )
            n_bad = int((~np.isfinite(result)).any(axis=1).sum())
            if n_bad:
                raise ValueError(f"decoder returned NaN or infinite values for {n_bad} of {len(points)} cells.")
        elif self.loadings is None or measured is None:
            result = points.astype(np.float32)  # the dimensions are the genes
        else:
            result = measured + (points - x).astype(np.float32) @ self.loadings.T
        result = result if shift is None else result + shift
        return np.maximum(result, 0, out=result) if self.clip else result


def row_blocks(n_rows: int, size: int = BLOCK_ROWS) -> list[slice]:
    """Return slices that cover the rows."""
    return [slice(start, start + size) for start in range(0, n_rows, size)]


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
            f"decoder is of type {type(decoder).__name__}; it takes a function that returns expression "
            f"(n, {adata.n_vars}) for points (n, {rep.n_dims})."
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
    training, stored = training_rows(adata, fit), adata.varm.get(loadings_slot(fit.key))
    seen = np.empty(0, dtype=np.intp) if held_out is None else np.intersect1d(training, held_out)
    coefficients: NDArray[np.float32] | None
    if stored is not None and not len(seen) and np.shape(stored) == loadings.shape:
        coefficients = np.asarray(in_memory(stored), dtype=np.float32)
    else:
        # Where all training cells are evaluated, a note says so; else none of these is used.
        training = training if len(seen) == len(training) else np.setdiff1d(training, seen)
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
    rows = rows[is_finite(read_coordinates(adata, rep, rows))]
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
            f"{_name_of(layer)} has NaN or infinite values, for instance of the gene {gene!r}; impute them."
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


def find_correction(
    adata: AnnData,
    fit: StoredFit,
    slug: str,
    genes: Genes,
    correction: str | None,
    *,
    held_out: Rows | None = None,
) -> Correction | None:
    """Return the correction by residuals of seen groups; None if it is not wanted, or there are too few of them.

    Residuals are those of training cells, without ``held_out`` ones unless all are. The response of a group that was
    not seen is then multiplied with its reliability over the seen groups.
    """
    if correction not in CORRECTIONS:
        raise ValueError(f"correction={correction!r} is unknown; choose one of {list(CORRECTIONS)}.")
    group_key = fit.params.get("group_key")
    if correction is None or genes.decoder is not None or fit.slots(slug).moved not in adata.obsm:
        return None
    obs = obs_columns(adata, fit.groupby, group_key)
    if group_key is None or group_key not in obs:
        return None
    names, codes = codes_of_groups(obs, group_key, "group_key")
    training = training_rows(adata, fit)
    seen_before = np.empty(0, dtype=np.intp) if held_out is None else np.intersect1d(training, held_out)
    training = training if len(seen_before) == len(training) else np.setdiff1d(training, seen_before)
    training = training[codes[training] >= 0]

    # The second half of the codes, and of the sums, is of cells that are not for training.
    n_groups = len(names)
    halves = np.where(codes < 0, -1, codes + n_groups * ~np.isin(np.arange(adata.n_obs), training))
    sums = _sums_of_source(adata, fit, slug, genes, codes=halves, n_groups=2 * n_groups)
    labelled = labelled_rows(obs, fit.groupby, fit.targets[slug])
    labelled = np.empty(0, dtype=np.intp) if labelled is None else labelled
    treated = np.intersect1d(training, labelled)
    n_target = np.bincount(codes[treated], minlength=n_groups)
    seen = np.minimum(sums[0][:n_groups, 0], n_target) >= MIN_CELLS
    if seen.sum() < MIN_GROUPS:
        return None
    after = np.zeros((n_groups, genes.adata.n_vars))
    for block in row_blocks(len(treated)):
        after += _sums(genes, treated[block], codes, n_groups)
    after = after[seen] / n_target[seen, None]

    # Of seen groups, all means are those of training cells.
    is_counted = np.concatenate([np.ones(n_groups), ~seen])[:, None]
    count, *totals = ((is_counted * part).reshape(2, n_groups, -1).sum(axis=0) for part in sums)
    features, moves, before = (total / np.maximum(count, 1) for total in totals)
    plain = moves if genes.loadings is None else moves @ genes.loadings.T.astype(np.float64)
    # Where no measured mean is below 0, none is predicted there. (Types of Kang et al. that were left out, without and
    # with this: Pearson-delta .924 and .930, relative squared error .156 and .144.)
    lowest = np.where(min(before.min(), after.min()) < 0, -np.inf, -before)
    predicted, changes = np.maximum(plain, lowest), after - before[seen]
    residuals = changes - predicted[seen]
    n_cells = 2 / (1 / count[seen, 0] + 1 / n_target[seen])
    kriging = krige(features[seen], residuals, changes, n_cells, features)
    # The mean of a group varies by noise too, with its number of cells, as in N. Of the types of Kang and Bodenmiller
    # that were left out .89 and .90 of the errors are below two standard deviations (of the noise of a group of median
    # size .87 and .85), and .98 and .93 with the sampling error of the observed means added.
    n_observed = np.bincount(codes[labelled] + 1, minlength=n_groups + 1)[1:]
    inverse = 1 / np.maximum(count[:, 0], 1)
    noise = np.median(n_cells) * (inverse + np.where(n_observed > 0, 1 / np.maximum(n_observed, 1), inverse)) / 2
    factor = np.where(seen, 1.0, kriging.reliability)[:, None]
    shifts = np.maximum(factor * (predicted + kriging.weights @ residuals), lowest) - plain
    shifts[count[:, 0] == 0] = 0
    return Correction(
        codes,
        np.vstack([shifts, np.zeros(shifts.shape[1])]).astype(np.float32),
        np.pad(kriging.covariance + np.diag(noise), (0, 1)),
        kriging.variance,
        int(seen.sum()),
    )


def _sums_of_source(
    adata: AnnData, fit: StoredFit, slug: str, genes: Genes, *, codes: Rows, n_groups: int
) -> tuple[Numbers, Numbers, Numbers, Numbers]:
    """Return sums over the source cells of each group: their number, coordinates, moves and genes, (groups, ...)."""
    x, moves = np.zeros((2, n_groups, genes.rep.n_dims))
    n_source, before = np.zeros((n_groups, 1)), np.zeros((n_groups, genes.adata.n_vars))
    for _, rows, points, moved in find_prediction(adata, fit, slug).blocks(BLOCK_ROWS):
        known = codes[rows] >= 0
        some = codes[rows[known]]
        np.add.at(x, some, points[known])
        np.add.at(moves, some, moved[known].astype(np.float64) - points[known])
        n_source[:, 0] += np.bincount(some, minlength=n_groups)
        before += _sums(genes, rows[known], codes, n_groups)
    return n_source, x, moves, before


def _sums(genes: Genes, rows: Rows, codes: Rows, n_groups: int) -> Numbers:
    """Return the sum of the measured values of some cells over each group, (groups, genes); sparse values stay so."""
    values = (
        read_coordinates(genes.adata, genes.rep, rows)
        if genes.loadings is None
        else read_expression(genes.adata, genes.layer, rows)
    )
    member = csr_matrix((np.ones(len(rows)), (codes[rows], np.arange(len(rows)))), shape=(n_groups, len(rows)))
    return np.asarray(dense_array(member @ values), dtype=np.float64)


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
            f"key_added={name!r} would overwrite adata.layers[{name!r}], which holds other values than predicted ones; "
            "choose another."
        )


def read_expression(adata: AnnData, layer: str | None, rows: Rows) -> Any:
    """Return values of these cells, shape (n, genes), dense or sparse, from memory or a file."""
    values: Any = in_memory(expression_of(adata, layer, rows))
    if values is None:
        raise ValueError(f"{_name_of(layer)} is empty; pass the layer that holds the values: {layer_names(adata)}.")
    if isinstance(values, np.ma.MaskedArray):
        values = dense_array(values)  # masked values become NaN
    if values.dtype.kind not in "fiub":
        raise ValueError(f"{_name_of(layer)} holds values of dtype {values.dtype}; expression is numbers.")
    return values


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
    rows = next(_draws(adata, layer, results.source_rows))
    cells = np.searchsorted(results.source_rows, rows)
    points = results.predicted[cells]
    # Of genes outside of the representation, the change is not known here.
    inside = (loadings != 0).any(axis=1)
    predicted = dense_array(read_expression(adata, decoded, rows)).astype(np.float64)

    # The layer does not say how it was made: by a decoder, on a scale of its own, or by x + V (T(x) - x). So this
    # computes x, and compares it with measured values. Where the sum was negative and clipped to 0, x is not known.
    change = (points - results.x[cells]).astype(np.float64) @ loadings.T
    start, rounding = predicted - change, 1e-5 * max(1.0, float(np.abs(predicted).max()))
    is_known = (predicted != 0) & inside
    starts = [start] if shift_of is None else [start, start - shift_of(rows)]

    def is_origin(other: str | None) -> bool:
        try:
            values = dense_array(read_expression(adata, other, rows))
        except ValueError:
            return False
        near = (_share(np.abs(before - values)[is_known] < rounding) for before in starts)
        return max(near) > 1 - _CHANCE

    origin = [other for other in [None, *layer_names(adata)] if is_origin(other)]
    # If these values were deleted since, zeros show the formula: it alone returns exactly V (T(x) - x) where x was 0.
    zeros = (_share(np.abs(before)[is_known & (change != 0)] < rounding) for before in starts)
    is_linear = bool(origin) or max(zeros) > _CHANCE
    if is_linear or _distance(predicted, loadings, points) <= _MAX_DISTANCE:
        _check_values(adata, rep, results.measured_rows, layer, loadings)
    if is_linear and layer not in origin:
        other = f"layer={origin[0] or 'X'!r}" if origin else "values that are gone"
        raise ValueError(
            f"adata.layers[{decoded!r}] was predicted from {other}, and {_name_of(layer)} holds others: run "
            f"sh.tl.decode again with layer={layer or 'X'!r}."
        )


def _share(chosen: NDArray[np.bool_]) -> float:
    return float(chosen.mean()) if chosen.size else 0.0


def _check_values(
    adata: AnnData, rep: Representation, rows: Rows, layer: str | None, loadings: NDArray[np.float32]
) -> None:
    """Raise a ValueError unless some of the cells have the coordinates that the loadings give for these values."""
    # Cells without coordinates are not compared: more are drawn where most cells are without.
    found, coordinates = [], []
    for drawn in _draws(adata, layer, rows):
        z = read_coordinates(adata, rep, drawn)
        finite = is_finite(z)
        found.append(drawn[finite])
        coordinates.append(z[finite])
        if 2 * sum(map(len, found)) > _CHECKED_CELLS:
            break
    rows, points = np.concatenate(found), np.concatenate(coordinates)
    distance = _distance(read_expression(adata, layer, rows), loadings, points)
    if distance <= _MAX_DISTANCE:
        return

    # Name a layer with the right values, if there is one.
    fits = []
    for other in [None, *layer_names(adata)]:
        try:
            values = read_expression(adata, other, rows)
        except ValueError:
            continue
        # Layers of predicted cells have NaN, and are no measured values.
        is_measured = np.isfinite(np.asarray(values.sum(axis=1), dtype=np.float64)).all()
        if other != layer and is_measured and _distance(values, loadings, points) <= _MAX_DISTANCE:
            fits.append(other)
    remedy = (
        f"Pass layer={fits[0] or 'X'!r}, which fits"
        if fits
        else f"Pass layer= the one that the PCA was run on: neither X nor any of adata.layers, {layer_names(adata)}, "
        "fits, so put these values there first. Or run the PCA on values that are there, and fit again"
    )
    raise ValueError(
        f"{_name_of(layer)} does not hold the values that {rep.name!r} was made from, and genes would be wrong: "
        f"{_name_of(layer)} times the loadings adata.varm[{loadings_key(adata, rep.name)!r}], minus "
        f"adata.obsm[{rep.name!r}], has to be the same in all cells; compared in {len(rows)} of them, drawn at random, "
        f"the two are {distance:.3g} times the spread of {rep.name!r} apart. {remedy}."
    )


def _draws(adata: AnnData, layer: str | None, rows: Rows) -> Iterator[Rows]:
    """Yield all of the cells, some 300 at a time: always the same draws, each from everywhere in a file, ascending."""
    rows = np.unique(rows)
    in_file = adata.isbacked or hasattr(expression_of(adata, layer, rows[:0]), "dask")  # of no cell: nothing is read
    size = _RUN_IN_FILE if in_file else 1
    runs = np.random.default_rng(0).permutation(-(-len(rows) // size))
    for first in range(0, len(runs), _CHECKED_CELLS // size):
        chosen = np.sort(runs[first : first + _CHECKED_CELLS // size])
        places = (chosen[:, None] * size + np.arange(size)).ravel()
        yield rows[places[places < len(rows)]]


def _distance(values: Any, loadings: NDArray[np.float32], points: Coordinates) -> float:
    """Return how far coordinates z are from what the loadings V give for the values x, relative to their spread.

    For a PCA, V is orthonormal and x V - z is the same for all cells. If genes were taken out since, or V comes from
    another linear model, only the scale can be checked: x changes by V z.
    """
    basis, z = loadings.astype(np.float64), points.astype(np.float64)
    # Genes.measured names cells that are not finite. Single cells with large differences are broken, not the layer.
    with np.errstate(invalid="ignore", over="ignore"):
        projected = np.asarray(values.astype(np.float64) @ basis)
        difference = projected - z
        finite = np.isfinite(difference).all(axis=1)
        centre = np.median(difference[finite], axis=0) if finite.any() else 0.0
        error = np.where(finite, ((difference - centre) ** 2).sum(axis=1), np.inf)
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
    distance = math.sqrt(float(((projected - z) ** 2).sum() / (z**2).sum()))
    return distance if distance <= _ROUNDING else max(distance, _slopes(dense_array(values)[kept], z @ basis.T))


def _slopes(values: NDArray[Any], change: NDArray[np.float64]) -> float:
    """Return how far slopes of genes on V z are from 1: the root mean square, weighted by what V z explains.

    Both have shape (n, genes); ``change`` is V z, of mean 0.
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


def _name_of(layer: str | None) -> str:
    return "adata.X" if layer is None else f"adata.layers[{layer!r}]"
