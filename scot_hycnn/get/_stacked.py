"""Annotation of source, predicted and observed cells stacked."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from scot_hycnn._anndata import check_columns_are_unique

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

    Raises
    ------
    ValueError
        If two columns of ``obs`` have one name.
    """
    check_columns_are_unique(adata.obs, "adata.obs")
    obs: pd.DataFrame = adata.obs.iloc[np.concatenate(list(rows.values()))].copy()
    role = np.repeat(list(rows), [len(part) for part in rows.values()])
    obs[f"{key}_role"] = pd.Categorical(role, categories=list(rows))
    names = [
        f"{name}-predicted" if part == "predicted" else str(name) for name, part in zip(obs.index, role, strict=True)
    ]
    obs.index = pd.Index(names, name=obs.index.name)
    return obs
