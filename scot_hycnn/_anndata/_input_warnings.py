"""Warnings, before a fit, of representations in which a few features decide the map, and of proportions of groups."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy.sparse import issparse

from scot_hycnn._warn import joined

from ._conditions import Rows, read_labels
from ._representation import (
    Representation,
    dense_array,
    expression_of,
    feature_names,
    find_layer,
    in_memory,
    loadings_key,
    name_of,
    read_coordinates,
)

Numbers = NDArray[np.float64]

# Cells of each side in the sample, and targets among which they are drawn; fewer cells if there are many features.
_CELLS, _TARGETS, _VALUES = 500, 10, 2_000_000
# Cells whose expression is read to find out whether principal components are those of counts.
_CELLS_OF_X = 50

# On log-normalised genes, proteins in arcsinh and the genes behind their principal components (Kang, Bodenmiller,
# Adnet), a tenth of the features, ten at most, holds .06 to .39 of the variance. On raw scales (UMI counts, CyTOF
# intensities, the components of both, features in different units) it holds .73 to .99.
_FEW, _FRACTION, _NEARLY_ALL = 10, 0.1, 0.9
# Two dimensions of which one is three times as wide are fine: half of the others must vary less than a tenth of it.
_NARROW = 0.01
# For components without loadings: on log-normalised data the first holds up to .7 of the variance of a few components.
_FIRST_COMPONENT = 0.95

_NEIGHBOURS = re.compile(r"umap|t-?sne|draw_graph|diffmap|phate|pacmap|trimap|forceatlas", re.IGNORECASE)
# Parameters in uns by which embeddings with other names (key_added) are recognised: of sc.tl.umap, of sc.tl.tsne.
_PARAMS_OF_NEIGHBOURS = ({"a", "b"}, {"perplexity"})

# Columns with more labels are not compared: they name cells or clones rather than types.
_MAX_LABELS = 100
# Proportions differ if this share of the cells would have to change group, and more than chance lets: 200 random
# divisions give mean and spread, and so many standard deviations above the mean happen once in 700 (two groups, the
# worst case). If it is half of the cells, the groups are those of conditions: batches, or clusters of one condition.
_MIN_MOVED, _MAX_MOVED, _N_DIVISIONS, _N_DEVIATIONS = 0.05, 0.5, 200, 4.0
_MAX_NAMED = 3

_LOG_NORMALISE = (
    "Log-normalise first (sc.pp.normalize_total(adata), sc.pp.log1p(adata); proteins: arcsinh), run "
    "sc.pp.pca(adata), and fit on X_pca."
)


def warning_of_scale(adata: AnnData, rep: Representation, training: Sequence[Rows]) -> str | None:
    """Return a warning if distances mean little, judged from at most 1,000 training cells.

    ``training`` are the rows of the training cells of the source and of each target.
    """
    where = "adata.X" if rep.name == "X" else f"adata.obsm[{rep.name!r}]"
    entry = adata.uns.get(rep.name, adata.uns.get(rep.name.removeprefix("X_")))
    params = entry.get("params") if isinstance(entry, Mapping) else None
    names = set(params) if isinstance(params, Mapping) else set()
    is_of_neighbours = _NEIGHBOURS.search(rep.name) or any(found <= names for found in _PARAMS_OF_NEIGHBOURS)
    if rep.name != "X" and is_of_neighbours:
        return (
            f"{where} is an embedding of neighbours, made for figures: distances in it are no differences of "
            "expression, so the map has no meaning beyond the picture. Fit on principal components "
            "(use_rep='X_pca'), and show the predicted cells in this embedding with sh.tl.project."
        )
    # The sample has as many source cells as cells of some targets together. Cells are drawn at random, since files are
    # often sorted by batch.
    rng = np.random.default_rng(0)
    n_cells = min(_CELLS, max(_CELLS_OF_X, _VALUES // rep.n_dims))
    some = [training[1 + i] for i in np.sort(rng.permutation(len(training) - 1)[:_TARGETS])]
    sizes = [n_cells] + len(some) * [-(-n_cells // len(some))]
    drawn = [np.sort(rng.permutation(rows)[:size]) for rows, size in zip([training[0], *some], sizes, strict=True)]
    sample = [read_coordinates(adata, rep, rows).astype(np.float64) for rows in drawn]
    if look_like_counts(np.concatenate(sample)):
        return (
            f"{where} looks like counts, or counts divided by a cell's total, without a logarithm: few abundant "
            f"features decide the map. {_LOG_NORMALISE}"
        )
    # Components are judged by the genes behind them, where loadings of the right shape say which these are.
    key, loadings = None if rep.name == "X" else loadings_key(adata, rep.name), None
    if key is not None:
        found = np.asarray(in_memory(adata.varm[key]))[:, : rep.n_dims]
        is_usable = found.shape[1] == rep.n_dims and np.isfinite(found).all()
        loadings = found.astype(np.float64) if is_usable else None
    rows = np.sort(rng.permutation(np.concatenate(drawn))[:_CELLS_OF_X])
    if loadings is not None and (layer := _counts_behind(adata, rep, loadings, rows)):
        return (
            f"{where} are principal components of {layer}, which looks like counts, or counts divided by a cell's "
            f"total, without a logarithm: few abundant genes decide the map. {_LOG_NORMALISE}"
        )
    return _few_features(adata, rep, loadings, sample, where)


def look_like_counts(values: NDArray[Any]) -> bool:
    """Return whether features of cells, shape (n, d), are counts, or the counts of each cell times one number."""
    if not np.isfinite(values).all() or (values < 0).any():
        return False
    if (values == np.round(values)).all():
        return bool(values.max(initial=0) > 2)  # smaller ones are a table of yes and no
    # The smallest count of a cell is nearly always 1, so the others are multiples of it; logarithms of them are not.
    smallest = np.where(values > 0, values, np.inf).min(axis=1, keepdims=True)
    multiples = (values / smallest)[values > 1.5 * smallest]
    return bool(len(multiples) >= len(values) and (np.abs(multiples - np.round(multiples)) < 0.01).mean() > 0.9)


def _counts_behind(adata: AnnData, rep: Representation, loadings: Numbers, rows: Rows) -> str | None:
    """Return the name of the counts that have these components, if there are any."""
    try:
        layer = find_layer(adata, rep, None)
    except ValueError:  # the layer that the PCA was run on is gone
        return None
    # Columns of a compressed file, or of Dask chunks over all cells, would be read as a whole for a few rows.
    if layer is None and adata.isbacked:  # X of a view would be read
        is_readable = "X" in adata.file and adata.file["X"].attrs.get("encoding-type") != "csc_matrix"
    else:
        values: Any = adata.X if layer is None else adata.layers[layer]
        is_readable = values is not None and (getattr(values, "format", None) != "csc" or issparse(values))
        if hasattr(values, "numblocks"):
            is_readable = bool(values.numblocks[0] > 1 or values.numblocks[1] == 1)
    if not is_readable:
        return None
    expression = dense_array(expression_of(adata, layer, rows))
    if expression.dtype.kind not in "fiu" or not look_like_counts(expression):
        return None
    # X·PCs is X_pca but for the mean, if the components are those of X.
    coordinates = read_coordinates(adata, rep, rows).astype(np.float64)
    residual = expression.astype(np.float64) @ loadings - coordinates
    if residual.var(axis=0).sum() >= 1e-3 * coordinates.var(axis=0).sum():
        return None
    return name_of(layer)


def _few_features(
    adata: AnnData, rep: Representation, loadings: Numbers | None, sample: Sequence[Numbers], where: str
) -> str | None:
    """Return a warning if a few features, or the genes behind the components, hold nearly all of the variance."""
    # Each condition is centred at its median, and extremes are cut: neither a response nor a far cell may count.
    centred = np.concatenate([coordinates - np.median(coordinates, axis=0) for coordinates in sample])
    centred = np.clip(centred, *np.quantile(centred, [0.01, 0.99], axis=0))
    if loadings is None:
        variance, names, what = centred.var(axis=0), feature_names(adata, rep), f"columns of {where}"
    else:
        # The diagonal of V C V^T is the variance of each gene, as far as the components contain it.
        covariance = np.cov(centred, rowvar=False).reshape(2 * (rep.n_dims,))
        variance = ((loadings @ covariance) * loadings).sum(axis=1)
        names, what = [str(name) for name in adata.var_names], f"features behind {where}"
    order = np.argsort(-variance)[: int((variance > 0).sum())]
    if len(order) < 2:
        return None
    share = np.cumsum(variance[order]) / variance[order].sum()
    is_pca = loadings is None and "pca" in rep.name.lower()
    few, enough = (1, _FIRST_COMPONENT) if is_pca else (min(_FEW, int(np.ceil(_FRACTION * len(share)))), _NEARLY_ALL)
    if share[few - 1] < enough or np.median(variance[order[few:]]) > _NARROW * variance[order[0]]:
        return None
    n = int(np.searchsorted(share, enough)) + 1
    named = ", ".join(repr(names[i]) for i in order[: min(n, 3)])
    return (
        f"{n} of the {len(share)} varying {what} {'holds' if n == 1 else 'hold'} {share[n - 1]:.1%} of the variance "
        f"({named}{' ...' if n > 3 else ''}): the others hardly count in the map. Bring the features to one scale "
        "first: log-normalise genes (sc.pp.normalize_total, sc.pp.log1p), take arcsinh of proteins, scale features of "
        "other kinds (sc.pp.scale); then run sc.pp.pca(adata) again, and fit on X_pca."
    )


def differing_proportions(
    obs: pd.DataFrame, conditions: Mapping[str, Rows], taken: Sequence[str | None]
) -> tuple[str, str] | None:
    """Return the column of labels whose proportions differ most clearly between the conditions, and a sentence on it.

    ``conditions`` are the rows of the cells of each, those of the source first. Columns that are ``taken`` for
    something else are left out. None if no proportions differ.
    """
    found: dict[str, tuple[float, str, str]] = {}  # how clearly; between which conditions; the groups that differ most
    labels_of: dict[str, Rows] = {}
    (source, *targets), rows = conditions, list(conditions.values())
    for name in obs.columns if obs.columns.is_unique else ():
        is_text = isinstance(obs[name].dtype, pd.CategoricalDtype) or pd.api.types.is_string_dtype(obs[name].dtype)
        if name in taken or not is_text:
            continue
        try:
            labels = read_labels(obs[name].iloc[np.concatenate(rows)], f"adata.obs[{name!r}]")
        except ValueError:  # lists and other values that are no labels
            continue
        if not 2 <= len(np.unique(labels.codes[labels.codes >= 0])) <= _MAX_LABELS:
            continue
        parts = np.split(labels.codes, np.cumsum([len(some) for some in rows])[:-1])
        counts = [np.bincount(codes[codes >= 0], minlength=len(labels.values)) for codes in parts]
        evidence = []  # by how many standard deviations proportions differ more than by chance, and by which share
        for of_target in counts[1:]:
            # The total variation distance: a map must carry at least this share of the cells into another group.
            n_source, n_target = max(int(counts[0].sum()), 1), max(int(of_target.sum()), 1)
            moved, deviations = 0.5 * float(np.abs(counts[0] / n_source - of_target / n_target).sum()), 0.0
            if counts[0].any() and of_target.any() and _MIN_MOVED <= moved <= _MAX_MOVED:
                total, rng = counts[0] + of_target, np.random.default_rng(0)
                drawn = rng.multivariate_hypergeometric(total, n_source, _N_DIVISIONS, method="marginals")
                by_chance = 0.5 * np.abs(drawn / n_source - (total - drawn) / n_target).sum(axis=1)
                deviations = float((moved - by_chance.mean()) / max(by_chance.std(), 1e-12))
            evidence.append((deviations, moved))
        n_targets = sum(deviations > _N_DEVIATIONS for deviations, _ in evidence)
        if not n_targets:
            continue
        most = max(range(len(evidence)), key=lambda number: evidence[number][0])
        deviations, moved = evidence[most]
        before, after = (counts[i] / counts[i].sum() for i in (0, 1 + most))
        order = np.argsort(-np.abs(after - before), kind="stable")[:_MAX_NAMED]
        arrow = "\N{RIGHTWARDS ARROW}"
        changes = ", ".join(f"{labels.names[i]!r} {before[i]:.0%} {arrow} {after[i]:.0%}" for i in order)
        several = f" and {n_targets} of {len(targets)} targets, most in" if len(targets) > 1 else " and"
        between = f"proportions of adata.obs[{name!r}] differ between {source!r}{several} {targets[most]!r}"
        advice = f"pass group_key={name!r}, unless the treatment changes the labels themselves"
        moved_by_map = f"A map of all cells carries at least {moved:.0%} of them into another group"
        labels_of[str(name)] = labels.codes
        found[str(name)] = deviations, between, f"{changes}. {moved_by_map}: {advice}"
    if not found:
        return None

    # Of types and their subtypes the types are taken: they differ in fewer ways by chance, and each has more cells.
    def refines(fine: Rows, coarse: Rows) -> bool:
        """Return whether one column divides the groups of another one into smaller groups."""
        have_both = (fine >= 0) & (coarse >= 0)
        pairs = np.unique(np.stack([fine[have_both], coarse[have_both]]), axis=1).shape[1]
        return bool(pairs == len(np.unique(fine[have_both])) > len(np.unique(coarse[have_both])))

    coarse = [name for name in found if not any(refines(labels_of[name], labels_of[other]) for other in found)]
    clearest = max(coarse or found, key=lambda name: found[name][0])
    others = joined([repr(name) for name in found if name != clearest])
    _, between, changes = found[clearest]
    return clearest, f"{between}{f' (so do those of {others})' if others else ''}: {changes}"
