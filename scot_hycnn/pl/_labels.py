"""Columns of obs: groups of cells, and colours of cells and of labels."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.colors import to_hex, to_rgba
from numpy.typing import NDArray

from scot_hycnn._anndata._conditions import MAX_ENTRIES, Labels, column_of, listed, read_groups
from scot_hycnn._anndata._results import Results, StoredFit, group_column
from scot_hycnn._response import MIN_CELLS
from scot_hycnn._warn import joined, warn

# Okabe & Ito (2008): readers with any kind of colour vision can distinguish these colours.
SOURCE, PREDICTED, OBSERVED = "#0072B2", "#D55E00", "#009E73"
BACKGROUND = "#D9D9D9"
# The colour of the names of groups in which no response is seen, and what explains it.
QUIET_GREY, QUIET = "#8C8C8C", "grey names: no response is seen"
_OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")

Members = NDArray[np.intp]  # positions of cells among the rows that were asked for


def palette_of(adata: AnnData, column: str, labels: Labels) -> list[str]:
    """Return a colour for each label: scanpy's palette in uns if it can be used (a warning says if not), else ours."""
    n, key = len(labels.values), f"{column}_colors"
    if key in adata.uns:
        try:
            rgba = [to_rgba(color) for color in list(adata.uns[key])[:n]]
            # 'none' is a colour for matplotlib, but nobody sees it.
            n_visible = sum(color[3] > 0 for color in rgba)
            problem = "" if n_visible == n else f"has {n_visible} visible colours for {n} categories"
        except (TypeError, ValueError) as error:
            problem = f"cannot be used as a list of colours ({error})"
        if not problem:
            return [to_hex(color) for color in rgba]
        warn(
            f"adata.uns[{key!r}] {problem}, so other colours are drawn. Store one matplotlib colour for each category "
            "there, or delete it."
        )
    # The palettes that can be distinguished best come first; more than 20 colours run along a continuous map.
    if n <= len(_OKABE_ITO):
        return list(_OKABE_ITO[:n])
    if n <= 20:
        return [to_hex(color) for color in mpl.colormaps["tab10" if n <= 10 else "tab20"](np.arange(n))]
    return [to_hex(color) for color in mpl.colormaps["turbo"](np.linspace(0, 1, n))]


def members_by_group(adata: AnnData, groupby: str, rows: NDArray[np.intp]) -> dict[str, Members]:
    """Return the positions in ``rows`` of the cells of each group; groups without cells are left out."""
    # read_groups would take each different number, such as a score of a cell, for a group. Integers may name groups.
    if pd.api.types.is_float_dtype(column_of(adata.obs, groupby, "groupby").dtype):
        raise ValueError(
            f"groupby={groupby!r} holds numbers; a column of labels is needed, such as cell types. If the numbers name "
            f"groups: adata.obs[{groupby!r}] = adata.obs[{groupby!r}].astype('category')."
        )
    labels = read_groups(adata.obs, groupby)
    codes = labels.codes[rows]
    found = np.unique(codes[codes >= 0])
    if not len(found):
        raise ValueError(f"No cell of the fit has a label in adata.obs[{groupby!r}].")
    if len(found) > MAX_ENTRIES:
        raise ValueError(
            f"groupby={groupby!r} has {len(found):,} distinct values among the cells of the fit, and a figure shows at "
            f"most {MAX_ENTRIES} groups: groupby takes a column of categories, such as cell types."
        )
    return {labels.names[code]: np.flatnonzero(codes == code) for code in found}


def groups_to_draw(
    adata: AnnData, fit: StoredFit, groupby: str | None, rows: NDArray[np.intp]
) -> tuple[str, dict[str, Members], dict[str, str]]:
    """Return a column of groups, that of the fit for None, with members and colour of each group."""
    groupby = group_column(adata, fit, groupby)
    if groupby is None:
        raise ValueError(
            f"groupby=None takes the group_key of the fit, and {fit.key!r} was fitted without one: pass groupby= a "
            f"column of adata.obs, which has {listed(adata.obs.columns)}."
        )
    members, labels = members_by_group(adata, groupby, rows), read_groups(adata.obs, groupby)
    return groupby, members, dict(zip(labels.names, palette_of(adata, groupby, labels), strict=True))


def large_groups(sizes: Mapping[str, int]) -> tuple[list[str], str]:
    """Return the groups of as many cells as tl.evaluate scores, or all if there are none, and a note on the others."""
    # Means of a few cells are mostly chance.
    small = [label for label, size in sizes.items() if size < MIN_CELLS]
    if not 0 < len(small) < len(sizes):
        return list(sizes), ""
    note = f"left out, with fewer than {MIN_CELLS} cells: {joined(small, 5)}"
    return [label for label in sizes if label not in small], note


def paired_members(
    adata: AnnData, groupby: str, results: Results, responds: Mapping[str, bool]
) -> tuple[dict[str, tuple[Members, Members]], set[str], list[str]]:
    """Return source and target cells of the groups with enough of both, those that respond first; the others; notes.

    ``responds`` says in which large groups a response is seen, as ``responses_of`` returns it. The first note explains
    the grey names of groups without a response, and the second one names small groups.
    """
    source, target = (members_by_group(adata, groupby, rows) for rows in (results.source_rows, results.target_rows))
    both = {label: (members, target[label]) for label, members in source.items() if label in target}
    if not both:
        raise ValueError(
            f"No group of adata.obs[{groupby!r}] has cells of both conditions: {results.source!r} has "
            f"{listed(source)}, {results.target!r} has {listed(target)}."
        )
    large, note = large_groups({label: min(map(len, cells)) for label, cells in both.items()})
    quiet = {label for label in large if not responds.get(label, True)}
    groups = {label: both[label] for label in sorted(large, key=quiet.__contains__)}
    return groups, quiet, [QUIET if quiet else "", note]
