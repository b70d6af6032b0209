"""Values of single genes or dimensions, of source, predicted and observed cells."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy.special import stdtr

from scot_hycnn._anndata._conditions import Rows, labelled_rows, listed, read_groups
from scot_hycnn._anndata._fit_input import TEST
from scot_hycnn._anndata._input_warnings import look_like_counts
from scot_hycnn._anndata._representation import Expression, dense_array, expression_of, find_layer, row_blocks
from scot_hycnn._anndata._results import Results, StoredFit, group_column, read_fit, read_results
from scot_hycnn._anndata._schema import layer_names
from scot_hycnn._response import adjusted
from scot_hycnn._warn import did_you_mean

from ._correction import Correction, find_correction
from ._decode_input import (
    Decoder,
    Genes,
    check_decoded,
    columns_are_genes,
    find_genes,
    has_genes,
    in_representation,
)

Numbers = NDArray[np.float64]
# Of genes that fewer cells express, a change is hardly ever significant, and a fold change is that of a few cells.
MIN_FRACTION = 0.1
# A change that is no larger than this part of the mean is rounding of float32.
_ROUNDING = 1e-6


class Moments(NamedTuple):
    """What is known of every feature in some cells, shape (features,) each."""

    mean: Numbers
    variance: Numbers  # unbiased; 0 for one cell
    expressed: Numbers  # share of the cells that express it


@dataclass(frozen=True)
class Decoded:
    """Predicted expression of source cells, which is computed when rows of it are read."""

    genes: Genes
    results: Results
    correction: Correction | None

    def __getitem__(self, rows: Rows) -> Expression:
        places = np.searchsorted(self.results.source_rows, rows)
        return self.genes.decoded(rows, self.results.x[places], self.results.predicted[places], self.correction)


@dataclass(frozen=True)
class Values:
    """Values of all features of some cells; they are read on use, since all genes of all cells take much memory."""

    matrix: Any  # (cells, features), dense or sparse
    rows: Rows  # (n,)

    def columns(self, features: Sequence[int]) -> Numbers:
        """Return values of some features, shape (n, len(features))."""
        blocks = [self._read(self.rows[block], list(features)) for block in row_blocks(len(self.rows))]
        return np.concatenate([np.empty((0, len(features))), *blocks])

    def first(self, n: int) -> Numbers:
        """Return all values of the first n cells."""
        return self._read(self.rows[:n])

    def moments(self) -> Moments:
        """Return mean, variance and share of cells that express it, of every feature.

        A cell without transcripts has 0, which ``sc.pp.scale`` and other shifts make the smallest of all values.
        """
        # Sums are taken around the mean of the first cells: around 0 they lose the digits of a small variance.
        origin = self.first(100).mean(axis=0)
        total, squares, lowest, n_lowest = (np.full_like(origin, value) for value in (0, 0, np.inf, 0))
        for block in row_blocks(len(self.rows)):
            values = self._read(self.rows[block])
            before, lowest = lowest, np.minimum(lowest, values.min(axis=0))
            n_lowest = np.where(lowest < before, 0, n_lowest) + (values == lowest).sum(axis=0)
            values -= origin
            total += values.sum(axis=0)
            squares += (values**2).sum(axis=0)
        n = len(self.rows)
        mean = total / n
        variance = np.maximum(squares - n * mean**2, 0) / max(n - 1, 1)
        return Moments(np.asarray(origin + mean), np.asarray(variance), np.where(lowest > 0, 1, 1 - n_lowest / n))

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
    in_representation: NDArray[np.bool_]  # which of them the representation was made from
    source: Values
    predicted: Values
    observed: Values
    correction: Correction | None = None  # of the predicted means by residuals of seen groups

    def predicted_change(self) -> Numbers:
        """Return the predicted less the source mean of every feature."""
        decoded = self.predicted.matrix
        if isinstance(decoded, Decoded) and decoded.genes.loadings is not None and not decoded.genes.clip:
            # x + V (T(x) - x) is linear: no cell has to be decoded.
            places = np.searchsorted(decoded.results.source_rows, self.predicted.rows)
            moved = decoded.results.predicted[places].astype(np.float64) - decoded.results.x[places]
            shift = 0 if self.correction is None else self.correction.mean(self.predicted.rows)[0]
            return np.asarray(decoded.genes.loadings.astype(np.float64) @ moved.mean(axis=0) + shift)
        return self.predicted.moments().mean - self.source.moments().mean

    def among(self, source: Rows, observed: Rows) -> Features:
        """Return the features of some cells, by their places among the source cells and among the observed ones."""
        kinds = (self.source, source), (self.predicted, source), (self.observed, observed)
        parts = (Values(values.matrix, values.rows[chosen]) for values, chosen in kinds)
        source_values, predicted, observed_values = parts
        return replace(self, source=source_values, predicted=predicted, observed=observed_values)


def read_dimensions(results: Results) -> Features:
    """Return the dimensions of the representation as features."""
    kinds = (results.x, results.predicted, results.y)
    marks = np.ones(len(results.names), dtype=bool)
    x, predicted, y = (Values(points, np.arange(len(points))) for points in kinds)
    return Features(results.names, marks, x, predicted, y)


def read_evaluated(
    adata: AnnData, key: str | StoredFit, target: str | None, groupby: str | None = None
) -> tuple[Results, str]:
    """Read the cells that figures and tables of genes are about, and what they are called.

    These are the held-out cells if the fit was made with a split and both conditions have some, else all of them. With
    ``groupby`` that holds for each group: where one type was held out, the others are still shown.
    """
    results, fit = read_results(adata, key, target), read_fit(adata, key)
    test = held_out_rows(adata, fit)
    source, observed = np.isin(results.source_rows, test), np.isin(results.target_rows, test)
    labels = np.zeros(adata.n_obs, dtype=np.intp) if groupby is None else read_groups(adata.obs, groupby).codes
    of_source, of_target = labels[results.source_rows], labels[results.target_rows]
    # Of a group without any treated cells, held-out source cells are enough.
    has_test = np.intersect1d(of_source[source], np.append(of_target[observed], np.setdiff1d(of_source, of_target)))
    without = ~np.isin(of_source, has_test), ~np.isin(of_target, has_test)
    if all(others.all() for others in without):
        return results, "cells of the fit"
    chosen = results.among(source | without[0], observed | without[1])
    mixed = any(others.any() for others in without)
    return chosen, "cells of the fit, or held-out ones of groups that have some" if mixed else "held-out cells"


def held_out_rows(adata: AnnData, fit: StoredFit) -> Rows:
    """Return the rows that the split of the fit holds out; there are none without a split."""
    split_key = fit.params.get("split_key")
    rows = None if split_key is None else labelled_rows(adata.obs, split_key, TEST)
    return np.empty(0, dtype=np.intp) if rows is None else rows


def read_genes(
    adata: AnnData,
    results: Results,
    key: str | StoredFit,
    layer: str | None,
    decoder: Decoder | None = None,
    *,
    correction: str | None = "groups",
) -> Features:
    """Return genes as features: predicted ones from the layer of :func:`scot_hycnn.tl.decode`, or decoded on use."""
    fit = read_fit(adata, key)
    slug = fit.slug(results.target)
    are_columns = decoder is None and columns_are_genes(adata, results.rep)
    name = fit.slots(slug).layer
    is_decoded = decoder is None and not are_columns and name in adata.layers
    measured_layer = None if are_columns else find_layer(adata, results.rep, layer)
    measured: Any = adata.X if measured_layer is None else adata.layers[measured_layer]
    if measured is None and not are_columns:
        raise ValueError(f"adata.X is empty; pass the layer that holds the values: {layer_names(adata)}.")
    found, predicted = None, adata.layers[name] if is_decoded else None
    # A layer of decoded genes has the correction that it was decoded with, if there was any.
    with suppress(ValueError) if is_decoded else nullcontext():
        of = None if are_columns else layer
        genes = find_genes(adata, fit, results.rep, results.measured_rows, layer=of, decoder=decoder)
        found = find_correction(adata, fit, slug, genes, correction)
        predicted = predicted if is_decoded else Decoded(genes, results, found)
    if are_columns:
        if found is None:
            return read_dimensions(results)
        found = replace(found, codes=found.codes[results.source_rows])
        moved = replace(results, predicted=results.predicted + found.at(np.arange(len(results.x))))
        return replace(read_dimensions(moved), correction=found)
    if is_decoded:
        # Cells that were moved after decoding have NaN; the first gene shows this for all genes.
        n_without = int(np.isnan(dense_array(adata.layers[name][results.source_rows][:, [0]])).sum())
        if n_without:
            raise ValueError(
                f"adata.layers[{name!r}] lacks {n_without} of the {len(results.source_rows)} predicted cells. "
                f"Run sh.tl.decode(adata, {fit.key!r}) again."
            )
        # Predicted and measured values have to be on the same scale, or differences between them mean nothing.
        check_decoded(adata, measured_layer, name, results, None if found is None else found.at)
    kinds = (measured, results.source_rows), (predicted, results.source_rows), (measured, results.target_rows)
    marks = in_representation(adata, results.rep, decoder)
    before, after, observed = (Values(*kind) for kind in kinds)
    return Features([str(gene) for gene in adata.var_names], marks, before, after, observed, found)


def read_gene(
    adata: AnnData, results: Results, key: str, gene: str, *, with_predicted: bool
) -> tuple[Numbers, Numbers | None]:
    """Return the measured expression of one gene, shape (n_obs,), and the predicted one of source cells if wanted.

    Other cells have NaN. A gene that only ``raw`` has cannot be predicted.
    """
    measured, predicted = np.full(adata.n_obs, np.nan), np.full(adata.n_obs, np.nan)
    if with_predicted:
        if gene not in adata.var_names:
            raise ValueError(f"{gene!r} cannot be predicted.{advice_on_genes(adata, [gene])}")
        features = read_genes(adata, results, key, None)
        place = [features.names.index(gene)]
        measured[results.source_rows], measured[results.target_rows], predicted[results.source_rows] = (
            values.columns(place)[:, 0] for values in (features.source, features.observed, features.predicted)
        )
        return measured, predicted
    in_raw = gene not in adata.var_names
    matrix: Any = adata.raw.X if in_raw else adata.X
    with suppress(ValueError):  # the layer that the components were made from was deleted
        layer = None if in_raw else find_layer(adata, results.rep, None)
        matrix = matrix if layer is None else adata.layers[layer]
    if matrix is None:
        raise ValueError(f"adata.X is empty, and the expression of {gene!r} is not known.")
    place = [int((adata.raw.var_names if in_raw else adata.var_names).get_indexer_for([gene])[0])]
    measured[results.measured_rows] = Values(matrix, results.measured_rows).columns(place)[:, 0]
    return measured, None


def advice_on_genes(adata: AnnData, names: Sequence[str]) -> str:
    """Return what to do about genes that are not in ``var_names``, for the end of a message."""
    unknown = [name for name in names if name not in adata.var_names]
    in_raw = [] if adata.raw is None else [name for name in unknown if name in adata.raw.var_names]
    if in_raw:
        return (
            f" {listed(in_raw)} are in adata.raw, whose genes are not predicted: keep all genes in adata, where "
            "sc.pp.highly_variable_genes marks those for the PCA, and fit again."
        )
    return "".join(did_you_mean(name, adata.var_names) for name in unknown[:1])


def unit_of(adata: AnnData, results: Results, layer: str | None) -> str:
    """Return what values of expression are: z-scores after ``sc.pp.scale``, else plain expression."""
    # sc.pp.scale leaves the mean and the standard deviation of each gene in var, and negative values.
    if {"mean", "std"} <= {*adata.var.columns}:
        first = np.arange(min(100, adata.n_obs))
        some = dense_array(expression_of(adata, find_layer(adata, results.rep, layer), first))
        if some.dtype.kind == "f" and (some < 0).any():
            return "z-score"
    return "expression"


def has_features_of_genes(adata: AnnData, results: Results, key: str | StoredFit, layer: str | None) -> bool:
    """Return whether :func:`read_genes` has genes to read."""
    fit = read_fit(adata, key)
    is_decoded = fit.slots(fit.slug(results.target)).layer in adata.layers
    return is_decoded or has_genes(adata, results.rep, layer=layer, decoder=None)


# Pairs of source and target cells that are compared with each other, by their places in the results.
_Strata = list[tuple[Rows, Rows]]


def base_of_logarithm(adata: AnnData, features: Features) -> tuple[float | None, str]:
    """Return the base of log-transformed values, or None if they have no fold changes; and a sentence if it is odd."""
    some = features.source.first(100)
    log1p = adata.uns.get("log1p")
    if (some < 0).any():
        return None, "there are no fold changes, since some values of expression are negative (z-scores?)"
    if log1p is not None:
        return log1p.get("base") or np.e, ""
    if look_like_counts(some):
        return None, "there are no fold changes, since expression looks like counts without a logarithm (sc.pp.log1p)"
    return np.e, "fold changes are those of natural logarithms, as in scanpy, since adata.uns has no 'log1p'"


def deg_table(
    adata: AnnData,
    key: str | StoredFit,
    results: Results,
    features: Features,
    *,
    groupby: str | None = None,
    min_fraction: float = 0.0,
    base: float | None = None,
) -> pd.DataFrame:
    """Return observed and predicted changes of genes; :func:`scot_hycnn.get.deg` describes the table.

    ``base`` is that of the logarithm, None for a table without fold changes.
    """
    fit = read_fit(adata, key)
    strata = _strata(adata, results, fit, groupby)
    test, tables = held_out_rows(adata, fit), []
    for label, parts in strata.items():
        rows = [results.source_rows[source] for source, _ in parts] + [results.target_rows[y] for _, y in parts]
        table = _changes(features, label, parts, base, min_fraction)
        tables.append(table.assign(held_out=bool(np.isin(np.concatenate(rows), test).all())))
    return pd.concat(tables, ignore_index=True)


def _strata(adata: AnnData, results: Results, fit: StoredFit, groupby: str | None) -> dict[str, _Strata]:
    """Return the groups of the table with their strata; a group without observed cells is predicted all the same."""
    everyone = np.arange(len(results.source_rows)), np.arange(len(results.target_rows))
    column = group_column(adata, fit, groupby)
    if column is None:
        return {"all": [everyone]}
    labels = read_groups(adata.obs, column)
    source, target = (labels.codes[rows] for rows in (results.source_rows, results.target_rows))
    pairs = [(np.flatnonzero(source == code), np.flatnonzero(target == code)) for code in range(len(labels.names))]
    if groupby is None:
        # A variance needs two cells of each condition.
        return {"all": [pair for pair in pairs if min(map(len, pair)) > 1] or [everyone]}
    groups = {name: [pair] for name, pair in zip(labels.names, pairs, strict=True) if len(pair[0]) > 1}
    if not groups:
        raise ValueError(f"groupby={groupby!r}: no group has two cells of {results.source!r}, of which genes change.")
    return groups


def _changes(features: Features, group: str, strata: _Strata, base: float | None, min_fraction: float) -> pd.DataFrame:
    """Return the rows of one group, those of the largest observed score first."""
    n_source, n_target = (sum(len(pair[side]) for pair in strata) for side in (0, 1))
    zero = np.zeros(len(features.names))
    before, after, predicted, variance, squares = (zero.copy() for _ in range(5))
    expressed = np.zeros((2, len(zero)))
    for source, observed in strata:
        part = features.among(source, observed)
        weight, n, m = len(source) / n_source, len(source), len(observed)
        x = part.source.moments()
        # Without observed cells, the error is that of an experiment with as many treated cells as there are sources.
        y, m = (part.observed.moments(), m) if m > 1 else (Moments(np.full_like(zero, np.nan), *x[1:]), n)
        before += weight * x.mean
        after += weight * y.mean
        predicted += weight * part.predicted_change()
        expressed += weight * np.stack([x.expressed, y.expressed])
        # Standard error of a sum of independent means, and its degrees of freedom (Welch 1947, Satterthwaite 1946).
        for of_cells, size in ((x, n), (y, m)):
            share = weight**2 * of_cells.variance / size
            variance += share
            squares += share**2 / (size - 1)
    error = np.sqrt(variance)
    freedom = variance**2 / np.maximum(squares, np.finfo(float).tiny)
    table = pd.DataFrame({"gene": features.names, "group": group})
    tested = expressed.max(axis=0) >= min_fraction
    by_kind = {"observed": (after - before, after), "predicted": (predicted, np.maximum(before + predicted, 0))}
    for kind, (change, mean) in by_kind.items():
        table[f"{kind}_change"] = change
        table[f"{kind}_logfc"] = np.nan
        if base is not None:
            # As in sc.tl.rank_genes_groups: of expm1 of means of log-transformed values.
            after_and_before = (np.expm1(values * np.log(base)) + 1e-9 for values in (mean, before))
            table[f"{kind}_logfc"] = np.log2(np.divide(*after_and_before))
        # A gene that does not vary has no error: its change is 0 up to rounding, or as large as can be. How large a
        # predicted change is, only the spread of cells could tell.
        score = np.where(np.abs(change) > _ROUNDING * np.abs(before), change, 0 * change) / np.maximum(error, 1e-12)
        score = np.where((error == 0) & (kind == "predicted"), np.nan, score)
        table[f"{kind}_score"] = score
        table[f"{kind}_pval_adj"] = adjusted(np.where(tested, 2 * stdtr(freedom, -np.abs(score)), np.nan))
    # Of a correction by residuals of seen groups, for all strata together: their errors are not independent.
    rows = features.predicted.rows[np.concatenate([source for source, _ in strata])]
    table["predicted_std"] = np.nan if features.correction is None else features.correction.mean(rows)[1]
    table["source_mean"], table["fraction"] = before, expressed.max(axis=0)
    table["in_representation"] = features.in_representation
    table["predicted"] = features.in_representation | (predicted != 0)
    table["n_source"], table["n_target"] = n_source, n_target
    ranked = "observed_score" if n_target > 1 else "predicted_score"
    chosen: pd.DataFrame = table[tested].sort_values(ranked, key=np.abs, ascending=False, kind="stable")
    return chosen
