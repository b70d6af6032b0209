"""Scores of a fit."""

from __future__ import annotations

import pandas as pd
from anndata import AnnData

from scot_hycnn._anndata.evaluation._evaluation_input import read_evaluation


def evaluation(adata: AnnData, key: str = "hycnn_ot") -> pd.DataFrame:
    """Return the scores that :func:`scot_hycnn.tl.evaluate` has stored.

    Parameters
    ----------
    adata
        Cells with scores in ``uns``.
    key
        Key of the fit, or the ``key_added`` of its evaluation: scores lie in ``uns['<key>_evaluation']``.

    Returns
    -------
    One row a target, group, method and metric, with the columns of :func:`scot_hycnn.metrics.evaluate`.
    ``attrs['mmd_gamma']`` has the bandwidths of the MMD by target and group.

    Raises
    ------
    ValueError
        If there are none, or they are damaged.

    Examples
    --------
    >>> import numpy as np
    >>> import scot_hycnn as sh
    >>> adata = sh.datasets.pbmc_planted(n_cells=400)
    >>> train = np.random.default_rng(0).random(400) < 0.7
    >>> sh.tl.hycnn_ot(adata, "control", "IFN-beta", mask_obs=train, n_pcs=5, potential="gaussian")
    >>> sh.tl.evaluate(adata, mask_obs=~train, n_bootstrap=20)
    >>> sh.get.evaluation(adata)["method"].unique().tolist()
    ['identity', 'mean_shift', 'gaussian', 'hycnn_ot', 'replicate', 'ceiling']
    """
    return read_evaluation(adata, key)
