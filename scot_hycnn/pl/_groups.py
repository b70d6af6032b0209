"""Cells by the categories of a column."""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from scot_hycnn._anndata import Labels, Results, column_of, listed, read_groups

from ._panels import MOST_SHOWN

Members = NDArray[np.intp]  # places of cells among those that were asked for


def read_groupby(adata: AnnData, groupby: str) -> Labels:
    """Read a column of labels.

    Raises
    ------
    TypeError
        If ``groupby`` is a list.
    ValueError
        If there is no such column, or it holds numbers or too many labels.
    """
    dtype = column_of(adata.obs, groupby, "groupby").dtype
    if pd.api.types.is_numeric_dtype(dtype) and not pd.api.types.is_bool_dtype(dtype):
        raise ValueError(
            f"groupby={groupby!r} holds numbers; a column of labels is needed, such as cell types. If the numbers name "
            f"groups: adata.obs[{groupby!r}] = adata.obs[{groupby!r}].astype('category')."
        )
    return read_groups(adata.obs, groupby)


def members_by_group(adata: AnnData, groupby: str, rows: NDArray[np.intp]) -> dict[str, Members]:
    """Places of the cells of each group in ``rows``; groups without any are left out.

    Raises
    ------
    TypeError
        If ``groupby`` is a list.
    ValueError
        If there is no such column, it holds numbers or more groups than a figure can show, or no cell has a label.
    """
    labels = read_groupby(adata, groupby)
    codes = labels.codes[rows]
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(len(labels.values) + 1))
    found = np.flatnonzero(np.diff(starts))
    if not len(found):
        raise ValueError(f"No cell of the fit has a label in adata.obs[{groupby!r}].")
    if len(found) > MOST_SHOWN:
        raise ValueError(
            f"groupby={groupby!r} has {len(found):,} distinct values among the cells of the fit, and a figure shows at "
            f"most {MOST_SHOWN} groups: groupby takes a column of categories, such as cell types."
        )
    return {labels.names[i]: order[starts[i] : starts[i + 1]] for i in found}


def paired_members(adata: AnnData, groupby: str, results: Results) -> dict[str, tuple[Members, Members]]:
    """Source and target cells of the groups that have both.

    Raises
    ------
    TypeError
        If ``groupby`` is a list.
    ValueError
        If there are none.
    """
    source, target = (members_by_group(adata, groupby, rows) for rows in (results.source_rows, results.target_rows))
    both = {label: (members, target[label]) for label, members in source.items() if label in target}
    if not both:
        raise ValueError(
            f"No group of adata.obs[{groupby!r}] has cells of both conditions: {results.source!r} has "
            f"{listed(source)}, {results.target!r} has {listed(target)}."
        )
    return both
