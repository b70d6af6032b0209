"""Cells by the categories of a column."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from scot_hycnn._anndata import Results

Mask = NDArray[np.bool_]


def masks_by_group(adata: AnnData, groupby: str, rows: NDArray[np.intp]) -> dict[str, Mask]:
    """Which of these cells are in each group, shape (len(rows),); groups without any are left out.

    Raises
    ------
    ValueError
        If there is no such column, it holds numbers, or no cell has a label.
    """
    if groupby not in adata.obs:
        raise ValueError(f"groupby={groupby!r} is not a column of adata.obs; it has {list(adata.obs)}.")
    column: pd.Series[Any] = adata.obs[groupby]
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        raise ValueError(f"groupby={groupby!r} holds numbers; a column of labels is needed, such as cell types.")
    labels = column.astype("category").cat
    masks = {str(label): labels.codes.to_numpy()[rows] == code for code, label in enumerate(labels.categories)}
    found = {label: mask for label, mask in masks.items() if mask.any()}
    if not found:
        raise ValueError(f"No cell of the fit has a label in adata.obs[{groupby!r}].")
    return found


def paired_masks(adata: AnnData, groupby: str, results: Results) -> dict[str, tuple[Mask, Mask]]:
    """Source and target cells of the groups that have both.

    Raises
    ------
    ValueError
        If there are none.
    """
    source, target = (masks_by_group(adata, groupby, rows) for rows in (results.source_rows, results.target_rows))
    both = {label: (mask, target[label]) for label, mask in source.items() if label in target}
    if not both:
        raise ValueError(
            f"No group of adata.obs[{groupby!r}] has cells of both conditions: {results.source!r} has {list(source)}, "
            f"{results.target!r} has {list(target)}."
        )
    return both
