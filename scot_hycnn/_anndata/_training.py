"""Which cells a computation may see."""

from __future__ import annotations

import hashlib
import warnings

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from ._conditions import Mask, labelled_rows, listed_labels, mask_rows
from ._labels import column_of
from ._lazy import obs_columns

TRAIN, TEST = "train", "test"


def training_rows(obs: pd.DataFrame, split_key: str | None, mask_obs: Mask | None) -> NDArray[np.bool_]:
    """Boolean array (n_obs,) of the training cells.

    Parameters
    ----------
    obs
        Annotation of the cells.
    split_key
        Column as :func:`scot_hycnn.pp.split` writes it: cells labelled ``'train'`` are training cells.
    mask_obs
        Boolean column or array. With both, training cells are those in both; with neither, all are.

    Raises
    ------
    ValueError
        If the column, its label or the mask does not exist or does not fit.
    """
    allowed = np.ones(len(obs), dtype=bool) if mask_obs is None else mask_rows(obs, mask_obs)
    if split_key is None:
        return allowed
    column_of(obs, split_key, "split_key", advice=" Run sh.pp.split(adata) first.")
    rows = labelled_rows(obs, split_key, TRAIN)
    if rows is None or not len(rows):
        raise ValueError(
            f"split_key={split_key!r}: no cell of adata.obs[{split_key!r}] is labelled {TRAIN!r}; it has "
            f"{listed_labels(obs, split_key)}. sh.pp.split(adata) writes such a column."
        )
    training = np.zeros(len(obs), dtype=bool)
    training[rows] = True
    return np.asarray(training & allowed)


def fingerprint(names: pd.Index[str]) -> str:
    """SHA-256 of the names of cells in any order, by which the same choice of cells is known again."""
    return hashlib.sha256("\n".join(sorted(map(str, names))).encode()).hexdigest()


def fingerprint_of_split(obs: pd.DataFrame, split_key: str) -> str:
    """Fingerprint of the training cells of a split."""
    return fingerprint(obs.index[training_rows(obs, split_key, None)])


def check_representation_is_blind(adata: AnnData, name: str, split_key: str | None) -> None:
    """Warn where principal components have seen the cells that a split holds out.

    Warns
    -----
    UserWarning
        If ``uns`` says how the components were made, and it was not from this split's training cells.
    """
    made = adata.uns.get({"X_pca": "pca"}.get(name, name))
    if split_key is None or not isinstance(made, dict) or not isinstance(made.get("params"), dict):
        return
    found = made["params"].get("training_fingerprint")
    if not isinstance(found, str) or found != fingerprint_of_split(obs_columns(adata, split_key), split_key):
        warnings.warn(
            f"{name!r} was not fitted on the training cells of adata.obs[{split_key!r}] alone, so held-out cells leak "
            f"into the fit; run sh.pp.pca(adata, split_key={split_key!r}) first.",
            UserWarning,
            stacklevel=4,
        )
