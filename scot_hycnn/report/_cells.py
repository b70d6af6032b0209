"""What the page shows of cells and genes: a sample of cells in a plane, how far groups move, which genes change."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from scot_hycnn._anndata._conditions import MAX_ENTRIES, Labels, Rows, read_groups
from scot_hycnn._anndata._results import Results, StoredFit, group_column
from scot_hycnn._anndata.genes._genes import MIN_FRACTION, deg_table, has_features_of_genes, read_genes
from scot_hycnn.pl._figure import correlation
from scot_hycnn.pl._labels import members_by_group, palette_of
from scot_hycnn.pl._plane import Positions, arrows_of, positions

# Positions are integers from 0 to this number, which is finer than any screen.
_STEPS = 4000
_N_GRID = 10
# A column with more labels than these is not taken for groups unless the user names it.
_MAX_GROUPS = 40


class Grouping(NamedTuple):
    """A column of obs with groups of cells, a colour for each label, and in which of them a target has a response."""

    column: str
    labels: Labels
    palette: list[str]
    responds: Mapping[str, bool] = {}


def find_grouping(adata: AnnData, fit: StoredFit, groupby: str | None, evaluated: Collection[str]) -> Grouping | None:
    """Return the groups of the named column, else of the fit's ``group_key``, else of the first column with labels.

    A column that has all groups that were ``evaluated`` comes first, so that the page shows these.
    """
    if groupby is not None:
        # It raises a ValueError if a figure cannot show these groups.
        members_by_group(adata, groupby, np.arange(adata.n_obs))
    else:
        group_key, taken = fit.params.get("group_key"), (fit.groupby, fit.params.get("split_key"))
        counts = {name: _n_groups(adata, name, group_key) for name in adata.obs.columns}
        # A fit may balance more groups than a page can show.
        if 1 <= counts.get(group_key, 0) <= MAX_ENTRIES:
            groupby = group_key
        else:
            usable = [name for name, n in counts.items() if 2 <= n <= _MAX_GROUPS and name not in taken]
            covering = [
                name for name in usable if evaluated and set(evaluated) <= {*read_groups(adata.obs, name).names}
            ]
            groupby = next(iter(covering + usable), None)
    if groupby is None:
        return None
    labels = read_groups(adata.obs, groupby)
    return Grouping(groupby, labels, palette_of(adata, groupby, labels))


def _n_groups(adata: AnnData, name: Any, group_key: str | None) -> int:
    """Return the number of groups that cells belong to; 0 if a column holds no labels, or if its name is not unique."""
    # Several columns of one name are a table, which has no dtype. Groups of the fit may be numbers.
    dtype: Any = getattr(adata.obs[name], "dtype", None)
    is_text = isinstance(dtype, pd.CategoricalDtype) or pd.api.types.is_string_dtype(dtype)
    if dtype is None or not (is_text or name == group_key):
        return 0
    try:
        codes = read_groups(adata.obs, name).codes
    except (TypeError, ValueError):
        return 0
    return len(np.unique(codes[codes >= 0]))


def describe_cells(
    adata: AnnData, fit: StoredFit, key: str, results: Results, *, basis: str | None, groups: Grouping | None, n: int
) -> dict[str, Any]:
    """Return positions and values of at most n of the source and n of the target cells, drawn at random."""
    rng = np.random.default_rng(0)
    source, target = (
        np.sort(rng.choice(len(rows), min(n, len(rows)), replace=False))
        for rows in (results.source_rows, results.target_rows)
    )
    source_rows, target_rows = results.source_rows[source], results.target_rows[target]
    notes: dict[str | None, str] = {}
    if basis is not None:
        note = "Predicted cells lie among the measured cells most like them: arrows show the direction, not the size."
        notes[basis] = note
    if results.rep.n_dims > 1:
        notes[None] = f"The two of {results.rep.n_dims} dimensions that the map changes most; arrows are exact."
    moving = None
    if groups is not None:
        # Groups in which no response is seen have no arrow.
        quiet = [code for code, name in enumerate(groups.labels.names) if not groups.responds.get(name, True)]
        codes_of_source = groups.labels.codes[results.source_rows]
        moving = np.where(np.isin(codes_of_source, quiet), -1, codes_of_source)
    planes = []
    for name, note in notes.items():
        place = positions(adata, results, key, basis=name, n_neighbors=None)
        n_lost = int((~place.placed).sum())
        lost = f" Predicted cells that would lie between islands of cells are left out: {n_lost:,}." if n_lost else ""
        planes.append(_plane(place, source, target, moving, f"{note}{lost}"))
    group = None
    if groups is not None:
        codes = {"source": groups.labels.codes[source_rows], "observed": groups.labels.codes[target_rows]}
        group = {"name": groups.column, "labels": list(groups.labels.names), "colors": groups.palette, **codes}
    slots = fit.slots(fit.slug(results.target))
    std, support = (
        adata.obs[column].to_numpy(dtype=float)[source_rows] if column in adata.obs else None
        for column in (slots.std, slots.out_of_support)
    )
    return {
        "n": [len(results.source_rows), len(results.target_rows)],
        "shown": [len(source), len(target)],
        "planes": planes,
        "group": group,
        "displacement": np.linalg.norm(results.predicted[source] - results.x[source], axis=1).astype(float),
        "std": std,
        "support": support,
    }


def _plane(place: Positions, source: Rows, target: Rows, groups: NDArray[np.intp] | None, note: str) -> dict[str, Any]:
    """Return positions of some cells, and arrows of all, as integers: they take a third of the space of decimals."""
    predicted = place.predicted[source]
    everyone = np.concatenate([place.x[source], predicted[place.placed[source]], place.y[target]])
    arrows = np.hstack(arrows_of(place, groups, _N_GRID)[:2]).reshape(-1, 2)
    low, high = everyone.min(axis=0), everyone.max(axis=0)
    scale = _STEPS / np.where(high > low, high - low, 1)
    points = {"source": place.x[source], "predicted": predicted, "observed": place.y[target], "arrows": arrows}
    steps = {name: np.rint((values - low) * scale).astype(int) for name, values in points.items()}
    steps["predicted"][~place.placed[source]] = -1  # the page draws no cell there
    return {"axes": place.names, "note": note, **{name: values.ravel() for name, values in steps.items()}}


def describe_moves(adata: AnnData, fit: StoredFit, results: Results, groups: Grouping | None) -> dict[str, Any]:
    """Return how far all cells and those of each group move, the farthest group first, and how many are unlike the fit.

    Groups also say whether they respond.
    """
    lengths = np.linalg.norm(results.predicted - results.x, axis=1).astype(float)
    name, is_far = fit.slots(fit.slug(results.target)).out_of_support, None
    if name in adata.obs:
        is_far = adata.obs[name].to_numpy(dtype=float)[results.source_rows] > 1
    rows: list[dict[str, Any]] = []
    if groups is not None:
        of_source, of_target = (groups.labels.codes[some] for some in (results.source_rows, results.target_rows))
        for code in np.unique(of_source[of_source >= 0]):
            members, label = of_source == code, groups.labels.names[code]
            row = {"label": label, "n": [int(members.sum()), int((of_target == code).sum())]}
            row["quantiles"] = np.percentile(lengths[members], [5, 25, 50, 75, 95]).tolist()
            row["far"] = None if is_far is None else float(is_far[members].mean())
            rows.append(row | {"color": groups.palette[code], "responds": groups.responds.get(label, False)})
    rows.sort(key=lambda row: -row["quantiles"][2])
    far = None if is_far is None else float(is_far.mean())
    return {"groups": rows, "far": far, "median": float(np.median(lengths))}


def describe_genes(
    adata: AnnData, fit: StoredFit, results: Results, *, layer: str | None, n_genes: int
) -> dict[str, Any] | str:
    """Return the genes with the largest scores between observed and source cells, or why there are no genes."""
    if not has_features_of_genes(adata, results, fit, layer):
        return (
            f"There is no way from {results.rep.name!r} to genes in this file. Fit on principal components with their "
            f"loadings, or run sh.tl.decode(adata, {fit.key!r}, decoder=...) with a model's decoder."
        )
    features = read_genes(adata, results, fit, layer)
    table = deg_table(adata, fit, results, features)
    expressed = table[table["fraction"] >= MIN_FRACTION]
    columns = ["gene", "source_mean", "observed_change", "predicted_change", "observed_score"]
    observed, predicted = (table[f"{kind}_change"].to_numpy(dtype=float) for kind in ("observed", "predicted"))
    return {
        "rows": (table if expressed.empty else expressed)[columns].head(n_genes).to_numpy(dtype=object).tolist(),
        "n": len(table),
        "within": group_column(adata, fit, None),
        # With two genes it is 1 or -1.
        "r": correlation(predicted, observed) if len(table) > 2 else float("nan"),
        "kind": "proteins or genes of the map" if results.rep.name == "X" else "genes",
    }
