"""Source, predicted and observed cells in the space of genes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from anndata import AnnData

from scot_hycnn._anndata import Decoder, check_columns_are_unique, find_genes, read_results

from ._stacked import ROLES, stacked_obs


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

    Genes are decoded as :func:`scot_hycnn.tl.decode` does, and the result goes where any AnnData of cells and genes
    goes: ``sc.tl.rank_genes_groups(cells, "hycnn_ot_role", groups=["predicted"], reference="source")`` names the genes
    that the map changes. Predicted cells are the source cells moved: the two are paired, and tests that take them for
    independent rank genes but give no p values to publish. A gene that hardly any source cell expresses has almost no
    variance, so that a tiny predicted change ranks high: filter such genes (``sc.pp.filter_genes``) before.

    Parameters
    ----------
    adata
        Cells with a fit of :func:`scot_hycnn.tl.hycnn_ot`, and the expression that its representation was made from.
    key
        Where the fit lies in ``uns``.
    target
        Label of the target condition; may be None if there is one.
    layer
        Key of ``layers`` with measured expression: the values that the PCA was run on, which is checked as in
        :func:`scot_hycnn.tl.decode`. None takes the layer that ``uns['pca']['params']`` names, else ``X``; ``'X'``
        takes ``X``.
    decoder
        Function of points (n, d), float32, that returns the expression of these cells (n, n_vars), such as the decoder
        of scVI. ``layer`` then has to hold measured values on the decoder's scale.
    clip
        Set negative predicted values to 0. Then scanpy finds a fold change for every gene, but the mean of genes with
        many zeros is raised, which ranks them too high: leave it off to rank genes.
    roles
        Which of the cells, in this order.

    Returns
    -------
    n source, n predicted and m observed cells, with

    ``X``
        Expression, float32, dense, shape (2 n + m, n_vars): measured for source and observed cells.
    ``obs``
        As :func:`scot_hycnn.get.transported` says; the categorical column ``'hycnn_ot_role'`` holds the roles.
    ``var``
        That of ``adata``.
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
        If there is no such fit, target, layer or role, several targets and none named, slots or labels are gone, there
        is no way from the representation to genes, measured values are not those that the PCA was run on, values are
        not finite, or a decoder returns another shape.

    Notes
    -----
    Memory beyond the result does not grow with the number of cells.

    Examples
    --------
    >>> import scot_hycnn as sh
    >>> adata = sh.datasets.pbmc_planted(n_cells=400)
    >>> sh.tl.hycnn_ot(adata, "control", "IFN-beta", n_pcs=5, potential="gaussian")
    >>> cells = sh.get.predicted(adata)
    >>> cells.shape, cells.obs["hycnn_ot_role"].value_counts().to_dict()
    ((600, 765), {'source': 200, 'predicted': 200, 'observed': 200})
    """
    _check_roles(roles)
    check_columns_are_unique(adata.var, "adata.var")
    results = read_results(adata, key, target)
    genes = find_genes(adata, results.rep, results.measured_rows, layer=layer, decoder=decoder, clip=clip)
    rows = {"source": results.source_rows, "predicted": results.source_rows, "observed": results.target_rows}
    rows = {role: rows[role] for role in roles}
    points = {"source": results.x, "predicted": results.predicted, "observed": results.y}
    expression = np.empty((sum(map(len, rows.values())), adata.n_vars), dtype=np.float32)
    start = 0
    for role, cells in rows.items():
        part = expression[start : start + len(cells)]
        if role == "predicted":
            genes.fill_predicted(part, np.arange(len(cells)), results.moved)
        else:
            genes.fill_measured(part, cells)
        start += len(cells)
    stacked = AnnData(X=expression, obs=stacked_obs(adata, key, rows), var=adata.var.copy())
    if results.rep.name != "X":
        stacked.obsm[results.rep.name] = np.concatenate([points[role] for role in roles]).astype(np.float32)
    if "log1p" in adata.uns:
        stacked.uns["log1p"] = dict(adata.uns["log1p"])
    return stacked


def _check_roles(roles: Sequence[str]) -> None:
    named = [roles] if isinstance(roles, str) else list(roles)
    if isinstance(roles, str) or not named or len(set(named)) < len(named) or not set(named) <= set(ROLES):
        raise ValueError(f"roles={roles!r}; it takes a list of one or several of {list(ROLES)}, each once.")
