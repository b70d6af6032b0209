"""Source, predicted and observed cells in the space of genes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray
from scanpy import logging as logg
from sklearn.neighbors import NearestNeighbors

from scot_hycnn._anndata._conditions import check_columns_are_unique
from scot_hycnn._anndata._representation import in_memory, row_blocks
from scot_hycnn._anndata._results import Results, StoredFit, read_fit, read_results, training_rows
from scot_hycnn._anndata.genes._correction import find_correction
from scot_hycnn._anndata.genes._decode_input import Decoder, find_genes

from ._transported import ROLES, stacked_obs

# Predicted cells borrow from one of so many nearest treated cells, at random: with the nearest alone, a few
# treated cells stand for many, and 182 instead of 117 genes were significant (observed: 108; Kang, CD14, rank test).
_N_MATCHES = 5


def predicted(
    adata: AnnData,
    key: str = "hycnn_ot",
    target: str | None = None,
    *,
    layer: str | None = None,
    decoder: Decoder | None = None,
    clip: bool = False,
    correction: str | None = "groups",
    noise: str | None = None,
    rng: int | np.random.Generator | None = 0,
    roles: Sequence[str] = ROLES,
) -> AnnData:
    """Stack source cells, their predicted expression after treatment, and the target cells that were observed.

    Genes are decoded as in :func:`scot_hycnn.tl.decode`. The result is for means, embeddings and figures of cells. It
    is not for tests on single cells: a predicted cell keeps its own deviation from the representation, so its zeros
    become small numbers of either sign, by which any rank test finds almost every gene. For lists of genes there is
    :func:`scot_hycnn.get.deg`. If a tool needs cells, ``noise="residuals"`` gives them the spread and the zeros of
    treated cells.

    Parameters
    ----------
    adata, key
        Cells with a fit of :func:`scot_hycnn.tl.hycnn_ot` and the expression that its representation was made from, and
        the key of the fit in ``uns``.
    target
        Label of the target condition; may be None if there is one.
    layer, decoder, clip, correction
        As for :func:`scot_hycnn.tl.decode`. With a decoder, ``layer`` has to hold measured values on its scale.
        Predicted cells with ``noise`` are not corrected: they keep the residual of a treated cell.
    noise
        ``'residuals'`` replaces the deviation of every cell by that of a treated training cell near T(x), one of the
        five nearest, and its values are 0 where that cell's are: :math:`x_{match} + V (T(x) - z_{match})`. Negative
        values become 0. None keeps the cell's own deviation.
    rng
        Seed or generator for ``noise``.
    roles
        Roles of the cells to return, in their order.

    Returns
    -------
    n source, n predicted and m observed cells, as far as they have finite coordinates and a prediction. ``X`` is
    expression, float32, dense, shape (2 n + m, n_vars), measured for source and observed cells. ``obs`` and ``var`` are
    as in ``adata``, with the roles in ``obs['hycnn_ot_role']``, and with ``var['in_representation']``, the genes that
    the representation was made from. ``obsm`` has the coordinates in the representation, and ``uns`` has ``'log1p'``,
    on which scanpy's fold changes depend.

    Raises
    ------
    ValueError
        As for :func:`scot_hycnn.tl.decode`, or if several targets exist and none is named, a role or ``noise`` is
        unknown, or there are no loadings or no treated training cells for the noise.

    Notes
    -----
    Held-out cells of Kang (20 %; two splits), t tests of predicted against source cells by
    ``sc.tl.rank_genes_groups``: 497 to 512 genes have an adjusted p below 0.05, where 133 to 143 do in observed cells,
    and 1 to 13 of the top 50 are those of the observed cells. With ``noise="residuals"`` it is 146 to 154 genes, and 43
    to 46 of the top 50. For a type of which no cell was seen treated (CD14 monocytes held out), cells borrow from other
    types: 636 genes with noise, where 316 change in observed cells, and 42 of the top 50.

    Examples
    --------
    >>> import scot_hycnn as sh
    >>> adata = sh.datasets.pbmc_planted(n_cells=400)
    >>> sh.tl.hycnn_ot(adata, "control", "IFN-beta", n_pcs=5, potential="gaussian")
    >>> cells = sh.get.predicted(adata)
    >>> cells.shape, cells.obs["hycnn_ot_role"].value_counts().to_dict()
    ((600, 765), {'source': 200, 'predicted': 200, 'observed': 200})
    """
    if isinstance(roles, str) or not len(roles) or len(set(roles)) < len(roles) or not set(roles) <= set(ROLES):
        raise ValueError(f"roles={roles!r}; it takes a list of one or several of {list(ROLES)}, each once.")
    if noise not in (None, "residuals"):
        raise ValueError(f"noise={noise!r} is unknown; choose 'residuals' or None.")
    check_columns_are_unique(adata.var, "adata.var")
    # Measured values are checked against the coordinates before any gene is predicted from them.
    results, fit = read_results(adata, key, target), read_fit(adata, key)
    genes = find_genes(adata, fit, results.rep, results.measured_rows, layer=layer, decoder=decoder, clip=clip)
    shifts = find_correction(adata, fit, fit.slug(results.target), genes, correction) if noise is None else None
    rows = {"source": results.source_rows, "predicted": results.source_rows, "observed": results.target_rows}
    points = {"source": results.x, "predicted": results.predicted, "observed": results.y}
    rows = {role: rows[role] for role in roles}
    # A predicted cell is a measured one, moved by V (T(x) - z): its own source cell, or a treated cell near T(x).
    start_rows, z = results.source_rows, results.x
    if noise is not None:
        if genes.loadings is None:
            raise ValueError(f"noise={noise!r} needs the loadings of principal components; leave it out.")
        start_rows, z = _matches(adata, fit, results, rng)
    if "predicted" in roles:
        logg.info(
            f"{genes.summary}; predicted cells are for means and figures"
            + ("" if noise else ": for lists of genes use sh.get.deg, or pass noise='residuals'")
        )
        if genes.problem:
            logg.warning(genes.problem)

    # Values are read and written in blocks: beyond the result, memory does not grow with the cells.
    expression = np.empty((sum(map(len, rows.values())), adata.n_vars), dtype=np.float32)
    start = 0
    for role, cells in rows.items():
        part = expression[start : start + len(cells)]
        for block in row_blocks(len(cells)):
            if role == "predicted":
                # Files are read forwards, each row once.
                unique, places = np.unique(start_rows[block], return_inverse=True)
                measured = None if genes.loadings is None else genes.measured(unique)[places]
                shift = None if shifts is None else shifts.at(results.source_rows[block])
                part[block] = genes.predicted(measured, z[block], results.predicted[block], shift)
                if noise is not None and measured is not None:
                    part[block] = np.where(measured == 0, 0, np.maximum(part[block], 0))
            else:
                part[block] = genes.measured(cells[block])
        start += len(cells)

    var = in_memory(adata.var).assign(in_representation=genes.in_representation)
    stacked = AnnData(X=expression, obs=stacked_obs(adata, key, rows), var=var)
    if results.rep.name != "X":
        stacked.obsm[results.rep.name] = np.concatenate([points[role] for role in roles]).astype(np.float32)
    if "log1p" in adata.uns:
        stacked.uns["log1p"] = dict(adata.uns["log1p"])
    return stacked


def _matches(
    adata: AnnData, fit: StoredFit, results: Results, rng: int | np.random.Generator | None
) -> tuple[NDArray[np.intp], NDArray[np.floating[Any]]]:
    """Return for every predicted cell the row and the coordinates of a treated training cell near it."""
    usable = np.isin(results.target_rows, training_rows(adata, fit))
    rows, y = results.target_rows[usable], results.y[usable]
    if not len(rows):
        raise ValueError(
            f"noise='residuals' needs treated cells that the fit was made from, and none of the "
            f"{len(results.target_rows)} cells of {results.target!r} here is one."
        )
    n_matches = min(_N_MATCHES, len(rows))
    near = NearestNeighbors(n_neighbors=n_matches).fit(y).kneighbors(results.predicted, return_distance=False)
    chosen = np.take_along_axis(near, np.random.default_rng(rng).integers(n_matches, size=(len(near), 1)), axis=1)[:, 0]
    return rows[chosen], y[chosen]
