"""Annotation of source, predicted and observed cells stacked."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

ROLES = ("source", "predicted", "observed")


def stacked_obs(adata: AnnData, key: str, rows: Mapping[str, NDArray[np.intp]]) -> pd.DataFrame:
    """Annotation of cells by role, in the order given.

    Parameters
    ----------
    adata
        The cells.
    key
        Name of the fit.
    rows
        Role to row numbers of its cells; of predicted cells those of the source cells that they come from.

    Returns
    -------
    The rows of ``obs`` with the categorical column ``'<key>_role'``. Names of predicted cells end in ``-predicted``.
    """
    obs: pd.DataFrame = adata.obs.iloc[np.concatenate(list(rows.values()))].copy()
    role = np.repeat(list(rows), [len(part) for part in rows.values()])
    obs[f"{key}_role"] = pd.Categorical(role, categories=list(rows))
    obs.index = [
        f"{name}-predicted" if part == "predicted" else str(name) for name, part in zip(obs.index, role, strict=True)
    ]
    return obs
