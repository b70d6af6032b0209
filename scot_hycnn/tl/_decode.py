"""Expression of predicted cells."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from anndata import AnnData
from scanpy import logging as logg

from scot_hycnn._anndata import (
    BLOCK_ROWS,
    Decoder,
    Expression,
    Genes,
    StoredPrediction,
    check_layer,
    check_output,
    claim,
    find_genes,
    find_prediction,
    new_store,
    read_fit,
    write_layers,
)


def decode(
    adata: AnnData,
    key: str = "hycnn_ot",
    *,
    target: str | None = None,
    layer: str | None = None,
    decoder: Decoder | None = None,
    clip: bool = False,
    key_added: str | None = None,
    block_size: int = BLOCK_ROWS,
    output: str | Path | None = None,
    copy: bool = False,
) -> AnnData | None:
    r"""Predict the expression of source cells after treatment, from where a map has moved them.

    .. math:: x_{gene} + V\,(T(x) - x)

    for principal components with loadings V: every cell keeps what the components do not see, so that a map that moves
    nothing changes nothing. Genes that the PCA did not use (``mask_var``) have no loadings and keep their measured
    values. Where a map was fitted on ``'X'``, or on a table whose columns are the genes, T(x) is the expression.

    Parameters
    ----------
    adata
        Cells with a fit of :func:`scot_hycnn.tl.hycnn_ot`, and the expression that its representation was made from.
    key
        Where the fit lies in ``uns``.
    target
        Label of the target condition; None takes all targets of the fit.
    layer
        Key of ``layers`` with measured expression :math:`x_{gene}`: the values that the PCA was run on, which is
        checked on some hundred cells. None takes the layer that ``uns['pca']['params']`` names, else ``X``; ``'X'``
        takes ``X``.
    decoder
        Function of points (n, d), float32, that returns the expression of these cells (n, n_vars), such as the decoder
        of scVI. Its result is taken as it is, in place of the formula above.
    clip
        Set negative values, which the formula may give, to 0. This raises the mean of genes with many zeros: leave it
        off for means and for ranking genes.
    key_added
        Stem of the layers' names; None means ``key``.
    block_size
        Cells that are decoded at once; what is needed beyond the result grows with it.
    output
        Write the layers to a new .zarr store at this path instead, and leave ``adata`` as it is: a block of cells is
        read, decoded and written at a time. Cells and predictions may be in files; see
        :func:`scot_hycnn.tl.transport`.
    copy
        Return a changed copy instead of changing ``adata``.

    Returns
    -------
    None, or the copy. ``layers['hycnn_ot']`` (``'hycnn_ot_<slug>'`` if there are several targets, as in
    :func:`scot_hycnn.tl.hycnn_ot`), of ``adata`` or of the store, which has the same cells and genes: predicted
    expression of the source cells, float32, dense, shape (n_obs, n_vars); NaN for other cells and for source cells
    without a prediction.

    Raises
    ------
    FileNotFoundError
        If the folder of ``output`` does not exist.
    ImportError
        If ``output`` is given and zarr is not installed.
    TypeError
        If ``adata`` is no AnnData, or ``decoder`` no function.
    ValueError
        If there is no such fit, target or layer, slots or labels are gone, there is no way from the representation to
        genes, measured values are not those that the PCA was run on, values are not finite, a decoder returns another
        shape, ``key_added`` names a layer of other values, or ``output`` exists. The AnnData is then
        as it was, and no store is left.

    Warns
    -----
    UserWarning
        If layers are replaced.

    See Also
    --------
    scot_hycnn.get.predicted : source, predicted and observed cells as an AnnData of their own, without NaN.

    References
    ----------
    Keeping the residual of each cell: Lotfollahi, Wolf & Theis (2019), Nature Methods 16 (vector arithmetic in latent
    space), with a linear decoder.

    Examples
    --------
    >>> import numpy as np
    >>> import scot_hycnn as sh
    >>> adata = sh.datasets.pbmc_planted(n_cells=400)
    >>> sh.tl.hycnn_ot(adata, "control", "IFN-beta", potential="gaussian")
    >>> sh.tl.decode(adata, clip=True)
    >>> change = np.nanmean(adata.layers["hycnn_ot"], axis=0) - adata[:200].X.toarray().mean(axis=0)
    >>> bool(change[adata.var_names == "ISG20"] > 0)
    True
    """
    if block_size < 1:
        raise ValueError(f"block_size={block_size} must be 1 or more.")
    path = check_output(output, copy=copy)
    adata = claim(adata, copy=copy, writes=path is None)
    fit = read_fit(adata, key)
    stem = key if key_added is None else key_added
    moved = {"_".join(filter(None, (stem, fit.suffix(slug)))): slug for slug in fit.slugs(target)}
    predictions = {name: find_prediction(adata, fit, slug) for name, slug in moved.items()}
    cells = next(iter(predictions.values()))  # source cells are the same for all targets
    genes = find_genes(adata, cells.rep, cells.rows, layer=layer, decoder=decoder, clip=clip)
    if path is None:
        for name in predictions:
            check_layer(adata, name, reads=genes.layer)
    start = logg.info(f"predicting {adata.n_vars} genes{_unmoved(genes.loadings)}")
    if path is None:
        added = write_layers(adata, {name: _layer(genes, cells, block_size) for name, cells in predictions.items()})
    else:
        added = _write_store(path, genes, predictions, block_size)
    logg.info("    finished", time=start, deep=added)
    return adata if copy else None


def _layer(genes: Genes, found: StoredPrediction, block_size: int) -> Expression:
    layer, cells = np.full(found.adata.shape, np.nan, dtype=np.float32), found.read()
    genes.fill_predicted(layer, cells.rows, cells, block_size)
    return layer


def _write_store(path: Path, genes: Genes, predictions: Mapping[str, StoredPrediction], block_size: int) -> str:
    with new_store(genes.adata, path, with_genes=True) as store:
        for name, found in predictions.items():
            for span, cells in found.blocks(block_size):
                block = np.full((len(span), genes.adata.n_vars), np.nan, dtype=np.float32)
                genes.fill_predicted(block, cells.rows - span.start, cells)
                store.append(layers={name: block})
    return f"written to {str(path)!r}"


def _unmoved(loadings: np.ndarray | None) -> str:
    n_zero = 0 if loadings is None else int((loadings == 0).all(axis=1).sum())
    return f", of which {n_zero} have no loadings and stay as measured" if n_zero else ""
