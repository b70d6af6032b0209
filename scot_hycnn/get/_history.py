"""Course of a fit."""

from __future__ import annotations

import pandas as pd
from anndata import AnnData

from scot_hycnn._anndata._results import read_fit


def history(adata: AnnData, key: str = "hycnn_ot", target: str | None = None) -> pd.DataFrame:
    """Return losses and scores during training.

    Parameters
    ----------
    adata, key, target
        Cells with a fit of :func:`scot_hycnn.tl.hycnn_ot`, its key in ``uns``, and the label of the target condition;
        None means all.

    Returns
    -------
    One row a check and target: ``target``, ``step``, ``seconds`` since the start, and the losses and scores
    that the training method records. Empty if nothing was trained.

    Raises
    ------
    ValueError
        If there is no such fit or target, or it is damaged.

    Examples
    --------
    >>> import scot_hycnn as sh
    >>> adata = sh.datasets.pbmc_planted(n_cells=400)
    >>> sh.tl.hycnn_ot(adata, "control", "IFN-beta", n_pcs=3, max_steps=20, hidden=(8, 8), n_ensemble=2)
    >>> sh.get.history(adata)[["target", "step"]].tail(1).to_dict("records")
    [{'target': 'IFN-beta', 'step': 20}]
    """
    fit = read_fit(adata, key)
    frames = []
    for slug in fit.slugs(target):
        frame = pd.DataFrame(fit.models[slug]["history"])
        frame.insert(0, "target", fit.targets[slug])
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)
