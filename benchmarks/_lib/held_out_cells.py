"""Read real cells and hold some of them out: a fold of the cells, or all cells of a type.

The PCA, like everything else, is fitted on the cells that are not held out. The data sets are read from the folder that
SCOT_HYCNN_DATA names.
"""

from __future__ import annotations

import functools
import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import anndata
import numpy as np
from sklearn.decomposition import PCA
from sklearn.model_selection import StratifiedKFold

N_FOLDS = 5
# File, source, target and number of principal components of each response; 0 stands for the proteins themselves.
RESPONSES = {
    "kang_ifnb": ("kang_ifnb.h5ad", "control", "IFN-beta", 50),
    "bodenmiller_bcr": ("bodenmiller_cytof.h5ad", "unstimulated", "BCR/FcR-XL", 0),
    "bodenmiller_pma": ("bodenmiller_cytof.h5ad", "unstimulated", "PMA/Ionomycin", 0),
    "bodenmiller_vanadate": ("bodenmiller_cytof.h5ad", "unstimulated", "vanadate", 0),
}
# Cell types that are left out one after the other. A name is the start of a label: 'B' of Bodenmiller is IgM+ and IgM-.
_KANG_TYPES = ("B", "CD4 T", "CD8 T", "CD14 Mono", "CD16 Mono", "NK", "DC")
GROUPS = {response: _KANG_TYPES if response == "kang_ifnb" else ("B",) for response in RESPONSES}
# Cell types that are left out together, by the file.
LINEAGES = {
    "kang_ifnb.h5ad": {
        "B lineage": ("B",),
        "T lineage": ("CD4 T", "CD8 T", "T activated"),
        "NK lineage": ("NK",),
        "myeloid lineage": ("CD14 Mono", "CD16 Mono", "DC", "pDC"),
    },
    "bodenmiller_cytof.h5ad": {
        "B lineage": ("B IgM+", "B IgM-"),
        "T lineage": ("CD4 T", "CD8 T"),
        "NK lineage": ("NK",),
        "myeloid lineage": ("Mono CD14+", "CD14- HLADR+", "DC"),
        "other cells": ("CD14+ surface-", "CD14- HLADR-", "surface-"),
    },
}
# Fewer than for folds: with a type left out 20 to 50 components gave the same scores, and more gave worse ones.
N_PCS_GROUPS = 30

Array = np.ndarray


@dataclass(frozen=True)
class Held:
    """Cells to fit on and cells held out, in the representation that the cells to fit on define.

    Parameters
    ----------
    x, y
        Source and target cells to fit on, shape (n, d) and (m, d).
    x_held, y_held
        Source and target cells held out.
    labels, labels_held
        Cell type of each cell of x and of y, and of those held out.
    loadings
        Of the features on the representation, shape (d, features).
    control, observed
        Expression of the held-out source and target cells, shape (cells, features).
    """

    x: Array
    y: Array
    x_held: Array
    y_held: Array
    labels: tuple[Array, Array]
    labels_held: tuple[Array, Array]
    loadings: Array
    control: Array
    observed: Array


@functools.cache
def _read(file: str) -> anndata.AnnData:
    """Read one data set; counts are log-normalised by the library size of all genes."""
    adata = anndata.read_h5ad(Path(os.environ["SCOT_HYCNN_DATA"]) / file)
    if "total_counts_all_genes" in adata.obs:
        size = adata.obs["total_counts_all_genes"].to_numpy()[:, None]
        adata.X = np.log1p(adata.X.toarray() / size * 1e4).astype(np.float32)
    return adata


def cells_of(response: str) -> anndata.AnnData:
    """Return the cells of both conditions of a response."""
    file, source, target, _ = RESPONSES[response]
    adata = _read(file)
    return adata[adata.obs["condition"].isin([source, target])]


def _hold(response: str, adata: anndata.AnnData, held: Array, n_pcs: int) -> Held:
    """Hold some rows out."""
    expression = np.asarray(adata.X)
    cells, loadings = expression, np.eye(expression.shape[1])
    if n_pcs:
        pca = PCA(n_pcs, random_state=0).fit(expression[~held])
        cells, loadings = pca.transform(expression), pca.components_
    labels = adata.obs["cell_type"].astype(str).to_numpy()
    is_source = (adata.obs["condition"] == RESPONSES[response][1]).to_numpy()
    return Held(
        x=cells[~held & is_source],
        y=cells[~held & ~is_source],
        x_held=cells[held & is_source],
        y_held=cells[held & ~is_source],
        labels=(labels[~held & is_source], labels[~held & ~is_source]),
        labels_held=(labels[held & is_source], labels[held & ~is_source]),
        loadings=loadings,
        control=expression[held & is_source],
        observed=expression[held & ~is_source],
    )


@functools.lru_cache(maxsize=1)
def fold(response: str, number: int) -> Held:
    """Hold out one of five folds, stratified by cell type and condition; numbers from 5 on have other divisions."""
    adata = cells_of(response)
    strata = adata.obs["condition"].astype(str) + adata.obs["cell_type"].astype(str)
    folds = StratifiedKFold(N_FOLDS, shuffle=True, random_state=number // N_FOLDS)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        _, rows = list(folds.split(strata, strata))[number % N_FOLDS]
    held = np.zeros(len(adata), dtype=bool)
    held[rows] = True
    return _hold(response, adata, held, RESPONSES[response][3])


@functools.lru_cache(maxsize=1)
def left_out(response: str, group: str) -> Held:
    """Hold out all cells of a type or of a lineage, in both conditions."""
    adata = cells_of(response)
    labels = adata.obs["cell_type"].astype(str)
    of_lineage = LINEAGES[RESPONSES[response][0]].get(group, ())
    held = ((labels == group) | labels.str.startswith(f"{group} Ig") | labels.isin(of_lineage)).to_numpy()
    return _hold(response, adata, held, min(RESPONSES[response][3], N_PCS_GROUPS))


def types_of(response: str, min_cells: int = 10) -> list[str]:
    """Return the cell types with so many cells in both conditions."""
    adata = cells_of(response)
    counts = adata.obs.groupby(["cell_type", "condition"], observed=True).size().unstack(fill_value=0).min(axis=1)
    return [str(name) for name in counts.index[counts >= min_cells]]
