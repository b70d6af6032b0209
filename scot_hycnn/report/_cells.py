"""Cells of the page: a sample of them in one or two planes, and how far groups move."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from scot_hycnn._anndata import Results, StoredFit, read_groups
from scot_hycnn.pl._colors import palette_of
from scot_hycnn.pl._field import arrows_of
from scot_hycnn.pl._groups import members_by_group
from scot_hycnn.pl._panels import MOST_SHOWN
from scot_hycnn.pl._positions import Positions, positions

# Positions are whole numbers up to this: finer than any screen.
_STEPS = 4000
_N_GRID = 18
# More labels than these are no groups that a reader tells apart.
_MOST_GROUPS = 40

Rows = NDArray[np.intp]


def find_groups(adata: AnnData, fit: StoredFit, groupby: str | None) -> str | None:
    """Column with groups: the one that is named, else the fit's own, else the first one of obs with labels.

    Raises
    ------
    TypeError
        If ``groupby`` is a list.
    ValueError
        If there is no column of that name, or it holds numbers or too many labels.

    Warns
    -----
    UserWarning
        If the palette of the groups in uns cannot be used.
    """
    if groupby is None:
        others = (fit.groupby, fit.params.get("split_key"))
        recorded = fit.params.get("group_key")
        columns = [(name, _n_labels(adata, name)) for name in adata.obs if name not in others or name == recorded]
        recorded = fit.params.get("group_key")
        columns = [(name, _n_labels(adata, name)) for name in adata.obs if name not in others or name == recorded]
        # A fit may balance more groups than a page can show.
        first = [name for name, n in columns if name == recorded and 1 <= n <= MOST_SHOWN]
        groupby = next((str(name) for name in first + [name for name, n in columns if 2 <= n <= _MOST_GROUPS]), None)
    else:
        members_by_group(adata, groupby, np.arange(adata.n_obs))
    if groupby is not None:
        palette_of(adata, groupby, read_groups(adata.obs, groupby), stacklevel=5)
    return groupby


def _n_labels(adata: AnnData, name: Any) -> int:
    """Number of groups that cells are in; 0 of a column that holds something else, or stands twice."""
    dtypes = [dtype for other, dtype in adata.obs.dtypes.items() if other == name]
    if not all(isinstance(dtype, pd.CategoricalDtype) or pd.api.types.is_string_dtype(dtype) for dtype in dtypes):
        return 0
    try:
        codes = read_groups(adata.obs, name).codes
    except (TypeError, ValueError):
        return 0
    return len(np.unique(codes[codes >= 0]))


def _sample(results: Results, n: int) -> Results:
    """At most n source and n target cells, drawn at random and in their order."""
    rng = np.random.default_rng(0)
    source, target = (
        np.sort(rng.choice(len(rows), min(n, len(rows)), replace=False))
        for rows in (results.source_rows, results.target_rows)
    )
    return replace(
        results,
        source_rows=results.source_rows[source],
        target_rows=results.target_rows[target],
        x=results.x[source],
        predicted=results.predicted[source],
        y=results.y[target],
    )


def describe_cells(
    adata: AnnData, fit: StoredFit, key: str, results: Results, *, basis: str | None, group: str | None, n: int
) -> dict[str, Any]:
    """Points, groups and what the map says of each of a sample of cells."""
    shown = _sample(results, n)
    slots = fit.slots(fit.slug(results.target))
    columns = {"std": slots.std, "support": slots.out_of_support}
    return {
        "n": [len(results.source_rows), len(results.target_rows)],
        "shown": [len(shown.source_rows), len(shown.target_rows)],
        "planes": _planes(adata, key, results, shown, basis),
        "group": None if group is None else _group(adata, group, shown),
        "displacement": np.linalg.norm(shown.predicted - shown.x, axis=1).astype(float),
        **{
            name: adata.obs[column].to_numpy(dtype=float)[shown.source_rows] if column in adata.obs else None
            for name, column in columns.items()
        },
    }


def _planes(adata: AnnData, key: str, results: Results, shown: Results, basis: str | None) -> list[dict[str, Any]]:
    planes = []
    if basis is not None:
        # Of all cells: the places of predicted ones are found among all that were measured.
        place = positions(adata, results, key, basis=basis, n_neighbors=None)
        source, target = (
            np.isin(all_rows, rows)
            for all_rows, rows in (
                (results.source_rows, shown.source_rows),
                (results.target_rows, shown.target_rows),
            )
        )
        place = Positions(place.x[source], place.predicted[source], place.y[target], place.names)
        note = "Predicted cells lie among the measured cells most like them: arrows show the direction, not the size."
        planes.append(_plane(place, note))
    if results.rep.n_dims > 1:
        place = positions(adata, shown, key, basis=None, n_neighbors=None)
        planes.append(_plane(place, f"The first two of {results.rep.n_dims} dimensions of the map; arrows are exact."))
    return planes


def _plane(place: Positions, note: str) -> dict[str, Any]:
    everyone = np.concatenate([place.x, place.predicted, place.y])
    low, high = everyone.min(axis=0), everyone.max(axis=0)
    scale = _STEPS / np.where(high > low, high - low, 1)

    def whole(points: NDArray[np.floating[Any]]) -> list[int]:
        return [int(step) for step in np.rint((points - low) * scale).ravel()]

    starts, ends = arrows_of(place.x, place.predicted, _N_GRID)
    return {
        "axes": place.names,
        "note": note,
        "source": whole(place.x),
        "predicted": whole(place.predicted),
        "observed": whole(place.y),
        "arrows": whole(np.concatenate([starts, ends], axis=1).reshape(-1, 2)),
    }


def _group(adata: AnnData, group: str, shown: Results) -> dict[str, Any]:
    labels = read_groups(adata.obs, group)
    return {
        "name": group,
        "labels": list(labels.names),
        "colors": palette_of(adata, group, labels, stacklevel=None),
        "source": labels.codes[shown.source_rows],
        "observed": labels.codes[shown.target_rows],
    }


def describe_groups(
    adata: AnnData, results: Results, group: str | None, support: NDArray[np.floating[Any]] | None
) -> list[dict[str, Any]]:
    """How far the cells of each group move, all of them: the group that moves farthest first.

    Parameters
    ----------
    adata
        The cells.
    results
        Of the fit.
    group
        Column of obs; None for no groups.
    support
        Out-of-support score of every cell of adata.
    """
    if group is None:
        return []
    lengths = np.linalg.norm(results.predicted - results.x, axis=1).astype(float)
    labels = read_groups(adata.obs, group)
    if (labels.codes[results.source_rows] < 0).all():
        return []
    observed = labels.codes[results.target_rows]
    counts = dict(zip(labels.names, np.bincount(observed[observed >= 0], minlength=len(labels.names)), strict=True))
    legend = dict(zip(labels.names, palette_of(adata, group, labels, stacklevel=None), strict=True))
    rows = []
    for label, members in members_by_group(adata, group, results.source_rows).items():
        low, first, middle, third, high = np.percentile(lengths[members], [5, 25, 50, 75, 95])
        far = None if support is None else float((support[results.source_rows[members]] > 1).mean())
        rows.append(
            {
                "label": label,
                "n": [len(members), int(counts[label])],
                "quantiles": [low, first, middle, third, high],
                "far": far,
                "color": legend[label],
            }
        )
    return sorted(rows, key=lambda row: -row["quantiles"][2])
