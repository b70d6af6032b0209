"""Warnings of representations in which a few features decide the map, looked for in a sample of the training cells."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray
from scipy.sparse import issparse

from ._conditions import Rows
from ._decode_input import find_layer
from ._lazy import in_memory
from ._representation import (
    Representation,
    StoredRows,
    dense_array,
    expression_of,
    feature_names,
    loadings_key,
    read_coordinates,
)

if TYPE_CHECKING:
    from ._pairs import Cells

Numbers = NDArray[np.float64]

# Cells of each side, and targets among which they are drawn; fewer cells where there are thousands of features.
_CELLS, _TARGETS, _VALUES = 500, 10, 2_000_000
# Cells whose expression is read to see whether principal components are those of counts.
_CELLS_OF_X = 50

# Log-normalised genes, proteins in arcsinh and the genes behind their principal components (Kang, Bodenmiller, Adnet):
# a tenth of the features, ten at most, holds .06 to .39 of the variance. On raw scales (UMI counts, CyTOF intensities,
# the components of both, features in units of their own): .73 to .99.
_FEW, _FRACTION, _NEARLY_ALL = 10, 0.1, 0.9
# Two dimensions of which one is three times as wide are no mistake: half of the others are to vary less than a tenth.
_NARROW = 0.01
# Components without loadings: of log-normalised data the first holds up to .7 of the variance of a few.
_FIRST_COMPONENT = 0.95

_NEIGHBOURS = re.compile(r"umap|t-?sne|draw_graph|diffmap|phate|pacmap|trimap|forceatlas", re.IGNORECASE)
# Parameters by which scanpy's uns tells embeddings that have other names (key_added): of sc.tl.umap, sc.tl.tsne.
_SIGNS_OF_NEIGHBOURS = ({"a", "b"}, {"perplexity"})


def warn_of_scales(adata: AnnData, rep: Representation, source: Cells, targets: Sequence[Cells]) -> None:
    """Warn, before any work, if a representation is no space in which distances mean something.

    Looked at are at most 1,000 training cells, drawn at random.

    Parameters
    ----------
    adata
        The cells.
    rep
        Their space.
    source, targets
        What the fit is on.

    Warns
    -----
    UserWarning
        If it is an embedding of neighbours, holds counts or components of them, or a few of its features, or of the
        genes behind its components, hold nearly all of the variance. Of these, the first that is the case.
    """
    finding = _finding(adata, rep, source, targets)
    if finding is not None:
        warnings.warn(finding, UserWarning, stacklevel=4)


def _finding(adata: AnnData, rep: Representation, source: Cells, targets: Sequence[Cells]) -> str | None:
    where = "adata.X" if rep.name == "X" else f"adata.obsm[{rep.name!r}]"
    if _is_of_neighbours(adata, rep.name):
        return (
            f"{where} is an embedding of neighbours, made to be looked at: distances in it are no differences of "
            "expression, so the map has no meaning beyond the picture. Fit on principal components "
            "(use_rep='X_pca'), and show the predicted cells in this embedding with sh.tl.project."
        )
    rng = np.random.default_rng(0)
    drawn = list(_draw(source, targets, rep, rng))
    sample = [_coordinates(adata, rep, cells, chosen) for cells, chosen in drawn]
    if look_like_counts(np.concatenate(sample)):
        return (
            f"{where} looks like counts, or counts divided by a cell's total, without a logarithm: few abundant "
            f"features decide the map. {_LOG_NORMALISE}"
        )
    rows = np.concatenate([cells.rows[chosen] for cells, chosen in drawn])
    if rep.name != "X" and (layer := _counts_behind(adata, rep, rng.permutation(rows)[:_CELLS_OF_X])):
        return (
            f"{where} are principal components of {layer}, which looks like counts, or counts divided by a cell's "
            f"total, without a logarithm: few abundant genes decide the map. {_LOG_NORMALISE}"
        )
    return _few_features(adata, rep, _pooled(sample), where)


_LOG_NORMALISE = (
    "Log-normalise first (sc.pp.normalize_total(adata), sc.pp.log1p(adata); proteins: arcsinh), run "
    "sc.pp.pca(adata), and fit on X_pca."
)


def _is_of_neighbours(adata: AnnData, name: str) -> bool:
    if name == "X":
        return False
    noted = adata.uns.get(name, adata.uns.get(name.removeprefix("X_")))
    params = noted.get("params") if isinstance(noted, Mapping) else None
    signs = set(params) if isinstance(params, Mapping) else set()
    return bool(_NEIGHBOURS.search(name)) or any(sign <= signs for sign in _SIGNS_OF_NEIGHBOURS)


def _draw(
    source: Cells, targets: Sequence[Cells], rep: Representation, rng: np.random.Generator
) -> Iterator[tuple[Cells, Rows]]:
    """Conditions, and which of their cells are looked at: of the source as many as of some targets together."""
    n_cells = min(_CELLS, max(_CELLS_OF_X, _VALUES // rep.n_dims))
    some = [targets[i] for i in np.sort(rng.permutation(len(targets))[:_TARGETS])]
    for cells, size in ((source, n_cells), *((target, -(-n_cells // len(some))) for target in some)):
        yield cells, np.sort(rng.permutation(np.flatnonzero(cells.is_training))[:size])


def _coordinates(adata: AnnData, rep: Representation, cells: Cells, chosen: Rows) -> Numbers:
    """What is in memory is not read again."""
    if isinstance(cells.coordinates, StoredRows):
        return read_coordinates(adata, rep, cells.rows[chosen]).astype(np.float64)
    return cells.coordinates[chosen].astype(np.float64)


def look_like_counts(values: NDArray[Any]) -> bool:
    """Whether features of cells, shape (n, d), are counts, or each cell's counts times one number."""
    if not np.isfinite(values).all() or (values < 0).any():
        return False
    if (values == np.round(values)).all():
        return bool(values.max(initial=0) > 2)  # not a table of yes and no
    # The smallest count of a cell is nearly always 1, so the others are multiples of it; logarithms of them are not.
    smallest = np.where(values > 0, values, np.inf).min(axis=1, keepdims=True)
    multiples = (values / smallest)[values > 1.5 * smallest]
    return bool(len(multiples) >= len(values) and (np.abs(multiples - np.round(multiples)) < 0.01).mean() > 0.9)


def _counts_behind(adata: AnnData, rep: Representation, rows: Rows) -> str | None:
    """Name of the counts that have these components, if they are some: X·PCs is X_pca but for its mean."""
    loadings = _loadings(adata, rep)
    try:
        layer = find_layer(adata, rep, None)
    except ValueError:  # the layer that the PCA was run on is gone
        return None
    if loadings is None or not _has_rows(adata, layer):
        return None
    rows = np.sort(rows)
    expression = dense_array(expression_of(adata, layer, rows))
    if expression.dtype.kind not in "fiu" or not look_like_counts(expression):
        return None
    coordinates = read_coordinates(adata, rep, rows).astype(np.float64)
    rest = expression.astype(np.float64) @ loadings - coordinates
    squares = [((table - table.mean(axis=0)) ** 2).sum() for table in (rest, coordinates)]
    return ("adata.X" if layer is None else f"adata.layers[{layer!r}]") if squares[0] < 1e-3 * squares[1] else None


def _has_rows(adata: AnnData, layer: str | None) -> bool:
    """Whether there is expression, and a few cells of it can be read without all others."""
    if layer is None and adata.isbacked:  # X of a view would be read
        return "X" in adata.file and adata.file["X"].attrs.get("encoding-type") != "csc_matrix"
    values: Any = adata.X if layer is None else adata.layers[layer]
    if hasattr(values, "numblocks"):  # of Dask
        return bool(values.numblocks[0] > 1 or values.numblocks[1] == 1)
    return values is not None and (getattr(values, "format", None) != "csc" or issparse(values))


def _loadings(adata: AnnData, rep: Representation) -> Numbers | None:
    key = None if rep.name == "X" else loadings_key(adata, rep.name)
    loadings = None if key is None else np.asarray(in_memory(adata.varm[key]))[:, : rep.n_dims]
    is_usable = loadings is not None and loadings.shape[1] == rep.n_dims and np.isfinite(loadings).all()
    return np.asarray(loadings, dtype=np.float64) if is_usable else None


def _pooled(sample: Sequence[Numbers]) -> Numbers:
    """Coordinates about their condition's median, without extremes: no response and no far cell is to count."""
    pooled = np.concatenate([coordinates - np.median(coordinates, axis=0) for coordinates in sample])
    return np.asarray(np.clip(pooled, *np.quantile(pooled, [0.01, 0.99], axis=0)))


def _few_features(adata: AnnData, rep: Representation, pooled: Numbers, where: str) -> str | None:
    loadings = _loadings(adata, rep)
    if loadings is None:
        variance, names, what = pooled.var(axis=0), feature_names(adata, rep), f"columns of {where}"
    else:
        # V C V^T on its diagonal: the variance of each gene, as far as the components see it.
        variance = ((loadings @ np.cov(pooled, rowvar=False).reshape(2 * (rep.n_dims,))) * loadings).sum(axis=1)
        names, what = [str(name) for name in adata.var_names], f"features behind {where}"
    order = np.argsort(-variance)[: int((variance > 0).sum())]
    if len(order) < 2:
        return None
    share = np.cumsum(variance[order]) / variance[order].sum()
    is_pca = loadings is None and "pca" in rep.name.lower()
    few, enough = (1, _FIRST_COMPONENT) if is_pca else (min(_FEW, int(np.ceil(_FRACTION * len(share)))), _NEARLY_ALL)
    others = variance[order[few:]]
    if share[few - 1] < enough or np.median(others) > _NARROW * variance[order[0]]:
        return None
    n = int(np.searchsorted(share, enough)) + 1
    named = ", ".join(repr(names[i]) for i in order[: min(n, 3)])
    return (
        f"{n} of the {len(share)} varying {what} {'holds' if n == 1 else 'hold'} {share[n - 1]:.1%} of the variance "
        f"({named}{' ...' if n > 3 else ''}): the others hardly count in the map. Bring the features to one scale "
        "first: log-normalise genes (sc.pp.normalize_total, sc.pp.log1p), take arcsinh of proteins, scale features of "
        "other kinds (sc.pp.scale); then run sc.pp.pca(adata) again, and fit on X_pca."
    )
