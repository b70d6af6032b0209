"""Source, predicted and observed cells in one AnnData."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from scot_hycnn._anndata._conditions import check_columns_are_unique
from scot_hycnn._anndata._results import read_results

ROLES = ("source", "predicted", "observed")


def transported(adata: AnnData, key: str = "hycnn_ot", target: str | None = None) -> AnnData:
    """Stack source cells, the same cells after the map, and the target cells that were observed.

    Predicted cells have coordinates and no counts, so ``X`` holds the representation: ``sc.pp.neighbors(use_rep="X")``
    and ``sc.tl.umap`` embed the three together, and ``sc.tl.rank_genes_groups`` ranks components. If the map was fitted
    on ``'X'`` or a table with names, these are genes or proteins.

    Parameters
    ----------
    adata, key, target
        Cells with a fit of :func:`scot_hycnn.tl.hycnn_ot`, its key in ``uns``, and the label of the target condition;
        may be None if there is one.

    Returns
    -------
    n source, n predicted and m observed cells, as far as they have finite coordinates. ``X`` has coordinates in the
    representation, float32, shape (2 n + m, d), which are also in ``obsm`` under its own key; ``obs`` has the columns
    of ``adata``, and ``'hycnn_ot_role'``, which is ``'source'``, ``'predicted'`` or ``'observed'``. Names of predicted
    cells are those of their source cells with ``-predicted`` at the end.

    Raises
    ------
    ValueError
        If there is no such fit or target, several targets and none named, or slots or labels are missing.

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
    # Predicted cells are the source cells once more, at other coordinates.
    rows = {"source": results.source_rows, "predicted": results.source_rows, "observed": results.target_rows}
    coordinates = np.concatenate([results.x, results.predicted, results.y]).astype(np.float32)
    stacked = AnnData(X=coordinates, obs=stacked_obs(adata, key, rows), var=pd.DataFrame(index=results.names))
    if results.rep.name != "X":
        stacked.obsm[results.rep.name] = coordinates.copy()
    return stacked


def stacked_obs(adata: AnnData, key: str, rows: Mapping[str, NDArray[np.intp]]) -> pd.DataFrame:
    """Return obs of cells by role, with the column ``'<key>_role'``; names of predicted cells end in ``-predicted``."""
    check_columns_are_unique(adata.obs, "adata.obs")
    obs: pd.DataFrame = adata.obs.iloc[np.concatenate(list(rows.values()))].copy()
    role = np.repeat(list(rows), [len(cells) for cells in rows.values()])
    obs[f"{key}_role"] = pd.Categorical(role, categories=list(rows))
    names = obs.index.astype(str)
    obs.index = pd.Index(np.where(role == "predicted", names + "-predicted", names), name=obs.index.name)
    return obs
