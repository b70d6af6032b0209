"""Source, predicted and observed cells in the space of genes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from anndata import AnnData

from scot_hycnn._anndata._conditions import check_columns_are_unique
from scot_hycnn._anndata._decode_input import Decoder, find_genes, row_blocks
from scot_hycnn._anndata._results import read_results

from ._transported import ROLES, stacked_obs


def predicted(
    adata: AnnData,
    key: str = "hycnn_ot",
    target: str | None = None,
    *,
    layer: str | None = None,
    decoder: Decoder | None = None,
    clip: bool = False,
    roles: Sequence[str] = ROLES,
) -> AnnData:
    """Stack source cells, their predicted expression after treatment, and the target cells that were observed.

    Genes are decoded as in :func:`scot_hycnn.tl.decode`, and any scanpy function takes the result:
    ``sc.tl.rank_genes_groups(cells, "hycnn_ot_role", groups=["predicted"], reference="source")`` names the genes that
    the map changes. Its p values are not valid, since predicted cells are the source cells after the map and the tests
    are for independent cells. Filter genes that few cells express (``sc.pp.filter_genes``) before: they have almost no
    variance, so a tiny predicted change ranks high.

    Parameters
    ----------
    adata
        Cells with a fit of :func:`scot_hycnn.tl.hycnn_ot`, and the expression that its representation was made from.
    key
        Key of the fit in ``uns``.
    target
        Label of the target condition; may be None if there is one.
    layer, decoder
        As for :func:`scot_hycnn.tl.decode`. With a decoder, ``layer`` has to hold measured values on its scale.
    clip
        Set negative predicted values to 0. Then scanpy finds a fold change for every gene, but genes with many zeros
        rank too high, since their mean is raised.
    roles
        Roles of the cells to return, in their order.

    Returns
    -------
    n source, n predicted and m observed cells, with

    ``X``
        Expression, float32, dense, shape (2 n + m, n_vars): measured for source and observed cells.
    ``obs``, ``var``
        As in ``adata``; the categorical column ``'hycnn_ot_role'`` holds the roles.
    ``obsm``
        Coordinates in the representation under its own key, unless that is ``'X'``.
    ``uns``
        ``'log1p'``, if ``adata`` has it: scanpy's fold changes depend on it.

    Cells without finite coordinates or prediction are left out.

    Raises
    ------
    TypeError
        If ``decoder`` is no function.
    ValueError
        As for :func:`scot_hycnn.tl.decode`, or if several targets exist and none is named, or a role is unknown.

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
    check_columns_are_unique(adata.var, "adata.var")
    # Measured values are checked against the coordinates before any gene is predicted from them.
    results = read_results(adata, key, target)
    genes = find_genes(adata, results.rep, results.measured_rows, layer=layer, decoder=decoder, clip=clip)
    rows = {"source": results.source_rows, "predicted": results.source_rows, "observed": results.target_rows}
    points = {"source": results.x, "predicted": results.predicted, "observed": results.y}
    rows = {role: rows[role] for role in roles}

    # Values are read and written in blocks: beyond the result, memory does not grow with the cells.
    expression = np.empty((sum(map(len, rows.values())), adata.n_vars), dtype=np.float32)
    start = 0
    for role, cells in rows.items():
        part = expression[start : start + len(cells)]
        for block in row_blocks(len(cells)):
            if role == "predicted":
                measured = None if genes.loadings is None else genes.measured(cells[block])
                part[block] = genes.predicted(measured, results.x[block], results.predicted[block])
            else:
                part[block] = genes.measured(cells[block])
        start += len(cells)

    stacked = AnnData(X=expression, obs=stacked_obs(adata, key, rows), var=adata.var.copy())
    if results.rep.name != "X":
        stacked.obsm[results.rep.name] = np.concatenate([points[role] for role in roles]).astype(np.float32)
    if "log1p" in adata.uns:
        stacked.uns["log1p"] = dict(adata.uns["log1p"])
    return stacked
