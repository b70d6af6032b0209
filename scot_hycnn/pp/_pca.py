"""Principal components of the training cells."""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd
import scanpy as sc
from anndata import AnnData
from numpy.typing import NDArray
from scanpy import logging as logg
from scipy import sparse

from scot_hycnn._anndata._conditions import Mask, is_integer, mask_rows
from scot_hycnn._anndata._fit_input import fingerprint, training_rows
from scot_hycnn._anndata._representation import dense_array, name_of
from scot_hycnn._anndata._schema import check_key, layer_names
from scot_hycnn._anndata._write import claim, commit
from scot_hycnn._warn import joined

_Matrix = Any  # (cells, genes), an array or a sparse matrix

# Rows that are in float64 at once: of 20,000 dense genes these are 160 MB.
_BLOCK = 1000


def pca(
    adata: AnnData,
    n_comps: int = 50,
    *,
    split_key: str | None = None,
    mask_obs: Mask | None = None,
    layer: str | None = None,
    mask_var: str | NDArray[np.bool_] | None = None,
    key_added: str | None = None,
    rng: int | np.random.Generator | None = 0,
    copy: bool = False,
) -> AnnData | None:
    r"""Fit principal components on the training cells, and project all cells onto them.

    .. math:: z = V^\top (x - \mu)

    with loadings V and mean :math:`\mu` of the training cells alone: test cells change neither, nor the coordinates
    of the training cells. ``sc.pp.pca`` on these cells finds V, without making sparse values dense.

    Highly variable genes of all cells leak test cells too; choose them on the training cells
    (``sc.pp.highly_variable_genes(adata[adata.obs['split'] == 'train'], inplace=False)``), or pass a fixed set.

    Parameters
    ----------
    adata
        Annotated cells, log-normalised.
    n_comps
        Number of components k, below the number of training cells and of genes.
    split_key
        Column of ``obs`` as :func:`scot_hycnn.pp.split` writes it: the cells labelled ``'train'`` are training cells.
    mask_obs
        Training cells, as a boolean array or the name of a boolean column of ``obs``. With ``split_key`` too, training
        cells are those in both; with neither, all are, as in ``sc.pp.pca``.
    layer
        Key of ``layers`` to take in place of ``X``.
    mask_var
        Genes to use, as a boolean array or the name of a boolean column of ``var``, in which a missing value means
        False. None uses ``var['highly_variable']`` if it exists, else all genes.
    key_added
        Key of ``obsm``, ``varm`` and ``uns``, as in ``sc.pp.pca``; the mean then goes to ``var['<key_added>_mean']``.
        Slots that exist are replaced, with a warning.
    rng
        Seed of the start vector, or a generator that gives one.
    copy
        Return a changed copy instead of changing ``adata``.

    Returns
    -------
    None, or the copy. The slots are those of ``sc.pp.pca``: ``obsm['X_pca']``, coordinates z of all cells, float32,
    shape (n_obs, k); ``varm['PCs']``, loadings V, shape (n_vars, k), zero for unused genes; and ``uns['pca']``, with
    ``n_training``, ``training_fingerprint`` (of their names) and ``split_key`` besides scanpy's ``params``. Also
    ``var['pca_mean']``, the mean of every gene over the training cells, float64, which a projection of new cells has to
    subtract.

    Raises
    ------
    TypeError
        If ``adata`` is no AnnData, or holds its values in a file or as a dask array.
    ValueError
        If a column or layer does not exist or does not fit, a value is not finite, no value varies, or ``n_comps`` is
        too large for the training cells. Then nothing is changed.

    Examples
    --------
    >>> import scot_hycnn as sh
    >>> adata = sh.datasets.pbmc_planted(n_cells=400)
    >>> sh.pp.split(adata, stratify=["condition", "cell_type"])
    >>> sh.pp.pca(adata, n_comps=10, split_key="split", key_added="X_train_pca")
    >>> adata.obsm["X_train_pca"].shape, adata.uns["X_train_pca"]["params"]["n_training"]
    ((400, 10), 320)
    """
    adata = claim(adata, copy=copy)
    key = "X_pca" if key_added is None else key_added
    check_key(key)
    is_training = training_rows(adata.obs, split_key, mask_obs)
    matrix = _read(adata, layer)
    mask = "highly_variable" if mask_var is None and "highly_variable" in adata.var else mask_var
    genes = np.ones(adata.n_vars, dtype=bool) if mask is None else mask_rows(adata.var, mask, "mask_var", "adata.var")
    mask = mask if mask is None or isinstance(mask, str) else genes
    n_training, n_genes = int(is_training.sum()), int(genes.sum())
    most = min(n_training, n_genes) - 1
    if most < 1:
        raise ValueError(f"PCA needs at least 2 training cells and 2 genes; there are {n_training} and {n_genes}.")
    if not is_integer(n_comps) or not 1 <= n_comps <= most:
        raise ValueError(
            f"n_comps={n_comps!r} must be an integer from 1 to {most}: {n_training} training cells and {n_genes} genes "
            "have no more components."
        )

    # One NaN or infinite value makes the sum of its cell not finite.
    bad = np.flatnonzero(~np.isfinite(np.asarray(matrix.sum(axis=1, dtype=np.float64)).ravel()))
    if len(bad):
        first = joined([repr(str(name)) for name in adata.obs_names[bad]], 5)
        raise ValueError(f"The values have NaN or infinity in {len(bad)} of {adata.n_obs} cells: {first}; impute them.")
    # Without variance no direction is the largest, and solvers fail or return any.
    training = matrix[is_training]
    first_cell = dense_array(training[:1][:, genes])
    if not any((dense_array(block[:, genes]) != first_cell).any() for _, block in _blocks(training)):
        raise ValueError(
            f"The values do not vary: all {n_training} training cells are the same in the {n_genes} genes that are "
            "used."
        )

    start = logg.info(f"principal components of {n_training} training cells, for all {adata.n_obs} cells")
    # scanpy runs on an AnnData with new names, since those of the user may be duplicated.
    var = pd.DataFrame({mask: genes} if isinstance(mask, str) else None, index=pd.RangeIndex(adata.n_vars).astype(str))
    fitted = AnnData(training, var=var)
    seed = int(rng) if isinstance(rng, Integral) else int(np.random.default_rng(rng).integers(2**31))
    sc.pp.pca(fitted, n_comps=n_comps, mask_var=mask, key_added="pca", random_state=seed)
    # Sparse matrices of float32 add up in float32, whatever dtype is asked for, so blocks are converted first.
    mean = np.asarray(sum(np.asarray(block.sum(axis=0)).ravel() for _, block in _blocks(training)) / n_training)

    # z = V'(x - mu) of all cells.
    basis = np.asarray(fitted.varm["pca"], dtype=np.float64)
    coordinates = np.empty((adata.n_obs, n_comps), dtype=np.float32)
    for rows, block in _blocks(matrix):
        coordinates[rows] = block @ basis - mean @ basis

    params = {**fitted.uns["pca"]["params"], "n_training": n_training}
    params["training_fingerprint"] = fingerprint(adata.obs_names[is_training])
    params |= {name: value for name, value in {"layer": layer, "split_key": split_key}.items() if value is not None}
    slots = {
        "obsm": {key: coordinates},
        "varm": {key_added or "PCs": fitted.varm["pca"]},
        "var": {f"{key_added or 'pca'}_mean": mean},
        "uns": {key_added or "pca": {**fitted.uns["pca"], "params": params}},
    }
    added = commit(adata, slots)
    logg.info("    finished", time=start, deep=added)
    return adata if copy else None


def _read(adata: AnnData, layer: str | None) -> _Matrix:
    if layer is not None and layer not in adata.layers:
        raise ValueError(f"layer={layer!r} is not in adata.layers; it has {layer_names(adata)}.")
    matrix: _Matrix = adata.X if layer is None else adata.layers[layer]
    where = name_of(layer)
    if matrix is None:
        raise ValueError(f"{where} is empty; pass the layer that holds the values: {layer_names(adata)}.")
    if not (sparse.issparse(matrix) or isinstance(matrix, np.ndarray)):
        raise TypeError(
            f"{where} is of type {type(matrix).__name__}; pca needs values in memory: adata = adata.to_memory()."
        )
    if isinstance(matrix, np.ma.MaskedArray):
        matrix = dense_array(matrix)  # masked values become NaN, which is an error
    if matrix.dtype.kind not in "fiub":
        raise TypeError(f"{where} holds values of dtype {matrix.dtype}; pca needs numbers.")
    return matrix.tocsr() if hasattr(matrix, "tocsr") else matrix


def _blocks(matrix: _Matrix) -> Iterator[tuple[slice, _Matrix]]:
    """Yield slices of rows, and these rows in float64."""
    for start in range(0, matrix.shape[0], _BLOCK):
        rows = slice(start, start + _BLOCK)
        yield rows, matrix[rows].astype(np.float64)
