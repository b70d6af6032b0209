"""Expression of predicted cells."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from anndata import AnnData
from scanpy import logging as logg

from scot_hycnn._anndata._representation import BLOCK_ROWS, Expression
from scot_hycnn._anndata._results import Prediction, find_prediction, read_fit
from scot_hycnn._anndata._schema import loadings_slot, mark_slot, mean_std_slot
from scot_hycnn._anndata._write import check_output, claim, commit, new_store, placed
from scot_hycnn._anndata.genes._correction import Correction, find_correction
from scot_hycnn._anndata.genes._decode_input import Decoder, Genes, check_layer, find_genes


def decode(
    adata: AnnData,
    key: str = "hycnn_ot",
    *,
    target: str | None = None,
    layer: str | None = None,
    decoder: Decoder | None = None,
    clip: bool = False,
    correction: str | None = "groups",
    key_added: str | None = None,
    block_size: int = BLOCK_ROWS,
    output: str | Path | None = None,
    copy: bool = False,
) -> AnnData | None:
    r"""Predict the expression of source cells after treatment, from where a map has moved them.

    .. math:: x_{gene} + V\,(T(x) - x)

    for principal components with loadings V. Every cell keeps the part that the components do not explain, so a map
    that moves nothing changes nothing. Genes that the PCA did not use, such as those that are not highly variable, have
    no loadings: their rows of V are the coefficients of ridge regression of the gene on the components, fitted on the
    training cells of the fit (source and targets) and never on held-out ones, with the penalty of the smallest
    generalised cross-validation for each gene. If the map was fitted on ``'X'``, or on a table whose columns are the
    genes, T(x) is the expression.

    Parameters
    ----------
    adata
        Cells with a fit of :func:`scot_hycnn.tl.hycnn_ot`, and the expression that its representation was made from.
    key
        Key of the fit in ``uns``.
    target
        Label of the target condition; None takes all targets of the fit.
    layer
        Key of ``layers`` with measured expression :math:`x_{gene}`, the values that the PCA was run on, which is
        checked. None takes the layer that ``uns['pca']['params']`` names, else ``X``; ``'X'`` takes ``X``.
    decoder
        Function of points (n, d), float32, that returns the expression of these cells (n, n_vars), such as the decoder
        of scVI. It replaces the formula above.
    correction
        ``'groups'`` adds to the predicted mean of each group of the fit's ``group_key`` what the residuals of the
        groups that were seen in both conditions say about a group with its control cells (kriging):

        .. math::
            k(q, Q)\,(K + N)^{-1} R, \quad k(q, q') = 1 + \frac{\langle q, q' \rangle}{\overline{|q|^2}},
            \quad N_{kk} = \frac{\operatorname{median}(n)}{n_k}.

        A residual :math:`r_k` is the mean of the treated training cells of group k minus the mean that the map predicts
        from its control training cells; q is the mean of the control cells in the representation, minus the mean of the
        seen groups, weighted by :math:`\sqrt{n_k}`; and :math:`n_k` is the harmonic mean of the numbers of cells. With
        ``leave_out='donor'`` and types as groups, each type of each donor has a residual, and q is that of its type,
        which may be seen in other donors. The whole change of a group (or type) that was not seen is multiplied with
        the reliability of the mean response of the seen groups, which is near 0 where they have none. Where leaving out
        each seen group shows that the residuals of the others do not predict its own, they are not used. If no measured
        mean of a gene is below 0, as in log-normalised counts, no mean is predicted there. The map itself is not
        changed: its certificate holds. This needs four groups of ten training cells of each condition in ``adata``, so
        cells of a new file are joined to them after :func:`scot_hycnn.tl.transport`, by ``anndata.concat([adata, new],
        merge="same", uns_merge="first")``. With fewer groups, a ``decoder``, or None there is no correction.
    clip
        Set negative values, which the formula may give, to 0. This raises the mean of genes with many zeros, so it is
        not for means or for ranking genes.
    key_added
        Stem of the layers' names; None means ``key``. Layers that exist are replaced, with a warning.
    block_size
        Rows of ``adata`` that are decoded at once; memory beyond the result grows with it.
    output
        Write the layers block by block to a new .zarr store at this path, and do not change ``adata``, whose values may
        be in a file.
    copy
        Return a changed copy instead of changing ``adata``.

    Returns
    -------
    None, or the copy. ``layers['hycnn_ot']`` (``'hycnn_ot_<slug>'`` if there are several targets) of ``adata`` or of
    the store: predicted expression of the source cells, float32, dense, shape (n_obs, n_vars), else NaN. With a
    correction, ``obs['hycnn_ot_mean_std']`` is the standard deviation of the predicted mean of the cell's group, the
    root mean square over genes. If there are genes that the PCA did not use, ``var['hycnn_ot_in_representation']`` says
    which it did use, and ``varm['hycnn_ot_loadings']`` is V, float32, shape (n_vars, d), by which genes of a part of
    the cells are predicted as those of all cells.

    Raises
    ------
    ImportError
        If ``output`` needs zarr, which is not installed.
    TypeError
        If ``adata`` is no AnnData, or ``decoder`` no function.
    ValueError
        If a fit, target, slot or label is missing, there is no way from the representation to genes, values are not
        those that the PCA was run on or not finite, a decoder returns another shape, or ``key_added`` or ``output``
        would replace something else. Then nothing is changed or written.

    References
    ----------
    Lotfollahi, Wolf & Theis (2019), Nature Methods 16 (vector arithmetic in latent space), here with a linear decoder
    and the residual of every cell. Golub, Heath & Wahba (1979), Technometrics 21 (generalised cross-validation).
    Rasmussen & Williams (2006), Gaussian processes for machine learning, ch. 2 and 5 (kriging, leaving one out).

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
    names = {slug: "_".join(filter(None, (stem, fit.suffix(slug)))) for slug in fit.slugs(target)}
    predictions = {name: find_prediction(adata, fit, slug) for slug, name in names.items()}
    cells = next(iter(predictions.values()))  # source cells are the same for all targets
    genes = find_genes(adata, fit, cells.rep, cells.rows, layer=layer, decoder=decoder, clip=clip)
    if path is None:
        for name in predictions:
            check_layer(adata, name, reads=genes.layer)

    corrections = {name: find_correction(adata, fit, slug, genes, correction) for slug, name in names.items()}
    n_seen = max(0 if found is None else found.n_seen for found in corrections.values())
    start = logg.info(genes.summary + (f", corrected by the residuals of {n_seen} groups" if n_seen else ""))
    if genes.problem:
        logg.warning(genes.problem)
    # All layers are complete before the first is written; a store gets them block by block.
    if path is None:
        layers = {name: np.empty(adata.shape, dtype=np.float32) for name in predictions}
        for name, prediction in predictions.items():
            for span, block in _decoded(genes, prediction, corrections[name], block_size):
                layers[name][span.start : span.stop] = block
        stds = {
            mean_std_slot(name): placed(found.std(predictions[name].rows), predictions[name].rows, range(adata.n_obs))
            for name, found in corrections.items()
            if found is not None
        }
        slots: dict[str, dict[str, Any]] = {"layers": layers, "obs": stds}
        # By the coefficients that were learned from training cells, a part of the cells can be decoded later.
        were_learned = genes.loadings is not None and not genes.in_representation.all() and genes.is_predicted.all()
        if were_learned and loadings_slot(key) not in adata.varm:
            slots |= {"var": {mark_slot(key): genes.in_representation}, "varm": {loadings_slot(key): genes.loadings}}
        added = commit(adata, slots)
    else:
        with new_store(adata, path, with_genes=True) as store:
            for name, prediction in predictions.items():
                for _, block in _decoded(genes, prediction, corrections[name], block_size):
                    store.append(layers={name: block})
        added = f"written to {str(path)!r}"
    logg.info("    finished", time=start, deep=added)
    return adata if copy else None


def _decoded(
    genes: Genes, prediction: Prediction, correction: Correction | None, size: int
) -> Iterator[tuple[range, Expression]]:
    """Yield blocks of rows of the AnnData with their predicted expression; it is NaN where no cell is predicted."""
    n_predicted = 0
    for span, rows, x, points in prediction.blocks(size):
        block = np.full((len(span), genes.adata.n_vars), np.nan, dtype=np.float32)
        if len(rows):
            block[rows - span.start] = genes.decoded(rows, x, points, correction)
            n_predicted += len(rows)
        yield span, block
    prediction.check_some(n_predicted)
