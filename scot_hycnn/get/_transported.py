"""Source, predicted and observed cells in one AnnData."""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData

from scot_hycnn._anndata import read_results

from ._stacked import stacked_obs


def transported(adata: AnnData, key: str = "hycnn_ot", target: str | None = None) -> AnnData:
    """Stack source cells, the same cells moved by the map, and the target cells that were observed.

    Predicted cells have coordinates and no counts, so the representation takes the place of the expression values:
    ``sc.pp.neighbors(use_rep="X")`` and ``sc.tl.umap`` embed the three together, and ``sc.tl.rank_genes_groups`` ranks
    its components. Where maps were fitted on ``'X'`` or a table with names, these are the genes or proteins themselves.

    Parameters
    ----------
    adata
        Cells with a fit of :func:`scot_hycnn.tl.hycnn_ot`.
    key
        Where it lies in ``uns``.
    target
        Label of the target condition; may be None if there is one.

    Returns
    -------
    n source, n predicted and m observed cells, with

    ``X``
        Coordinates in the representation, float32, shape (2 n + m, d). ``var_names`` are PC1, PC2 ..., or the genes.
    ``obs``
        The columns of ``adata``; predicted cells have those of the source cells they come from. The categorical
        column ``'hycnn_ot_role'`` says ``'source'``, ``'predicted'`` or ``'observed'``. Names of predicted cells
        end in ``-predicted``.
    ``obsm``
        The same coordinates under the representation's own key, unless that is ``'X'``.

    Cells without finite coordinates or prediction are left out.

    Raises
    ------
    ValueError
        If there is no such fit or target, several targets and none named, or slots or labels are gone.

    Examples
    --------
    >>> import scot_hycnn as sh
    >>> adata = sh.datasets.pbmc_planted(n_cells=400)
    >>> sh.tl.hycnn_ot(adata, "control", "IFN-beta", n_pcs=5, potential="gaussian")
    >>> cells = sh.get.transported(adata)
    >>> cells.shape, cells.obs["hycnn_ot_role"].value_counts().to_dict()
    ((600, 5), {'source': 200, 'predicted': 200, 'observed': 200})
    """
    results = read_results(adata, key, target)
    rows = {"source": results.source_rows, "predicted": results.source_rows, "observed": results.target_rows}
    obs = stacked_obs(adata, key, rows)
    coordinates = np.concatenate([results.x, results.predicted, results.y]).astype(np.float32)
    stacked = AnnData(X=coordinates, obs=obs, var=pd.DataFrame(index=results.names))
    if results.rep.name != "X":
        stacked.obsm[results.rep.name] = coordinates.copy()
    return stacked
