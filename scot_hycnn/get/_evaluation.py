"""Scores of a fit."""

from __future__ import annotations

import pandas as pd
from anndata import AnnData

from scot_hycnn._anndata import read_evaluation


def evaluation(adata: AnnData, key: str = "hycnn_ot") -> pd.DataFrame:
    """Scores that :func:`scot_hycnn.tl.evaluate` has stored.

    Parameters
    ----------
    adata
        Cells with scores in ``uns``.
    key
        Of the fit that was evaluated (or the ``key_added`` of its evaluation): scores lie in
        ``uns['<key>_evaluation']``.

    Returns
    -------
    One row a target, group, method and metric, with the columns ``target``, ``group``, ``method``, ``metric``,
    ``value``, ``low``, ``high``, ``n_source`` and ``n_target``; :func:`scot_hycnn.metrics.evaluate` says what they are.

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
    ['identity', 'mean_shift', 'gaussian', 'hycnn_ot', 'floor']
    """
    return read_evaluation(adata, key)
