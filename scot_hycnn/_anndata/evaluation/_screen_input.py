"""What a screen has beside a fit of few targets: cells of all conditions, read together."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from scot_hycnn._anndata._conditions import (
    Labels,
    Rows,
    codes_of_groups,
    column_of,
    hashes_of_names,
    listed,
    matching,
    read_groups,
    rows_of_labels,
)
from scot_hycnn._anndata._fit_input import FitInput
from scot_hycnn._anndata._representation import (
    Representation,
    find_same_representation,
    in_memory,
    obs_columns,
    read_coordinates,
    read_finite,
)
from scot_hycnn._anndata._results import StoredFit, group_column, labelled_cells, read_fit
from scot_hycnn._anndata._schema import SCREEN, is_fit
from scot_hycnn._anndata.genes._genes import held_out_rows
from scot_hycnn._neighbours import MISSING
from scot_hycnn._response import MIN_CELLS, N_COMPARED, NoChange, adjusted
from scot_hycnn._warn import SIGNIFICANT


@dataclass(frozen=True)
class ScreenCells:
    """Cells of all conditions of a fit, in an order by their names: the first of them are a random sample."""

    adata: AnnData
    fit: StoredFit
    rep: Representation
    source_rows: Rows  # held-out cells if the fit has a split
    all_source_rows: Rows
    target_rows: dict[str, Rows]  # slug to held-out cells if there are some of source and target
    all_target_rows: dict[str, Rows]
    groups: Labels | None
    tested: dict[str, dict[str, tuple[float, float]]] = field(default_factory=dict)  # slug to what p_of_groups found

    def read(self, rows: Rows) -> tuple[Rows, NDArray[np.float64]]:
        """Return those of some cells that have finite coordinates, and these, float64."""
        rows, points = read_finite(self.adata, self.rep, rows)
        return rows, points.astype(np.float64)

    def stored(self, slug: str, rows: Rows) -> NDArray[np.float64] | None:
        """Return source cells after the map to one target, NaN where they were not moved; None without the slot."""
        slot = self.fit.slots(slug).moved
        if slot not in self.adata.obsm:
            return None
        moved = Representation(slot, self.rep.n_dims, "")
        return read_coordinates(self.adata, moved, rows).astype(np.float64)

    def p_of_groups(self, slug: str) -> dict[str, tuple[float, float]]:
        """Return p values of the test for a response: of each large group, and corrected over these groups."""
        if slug in self.tested:
            return self.tested[slug]
        found: dict[str, float] = {}
        names, codes = ((), np.empty(0)) if self.groups is None else (self.groups.names, self.groups.codes)
        for code, name in enumerate(names):
            x, y = (rows[codes[rows] == code] for rows in (self.all_source_rows, self.all_target_rows[slug]))
            # More source cells for each observed one would hardly make the test sharper, and slower.
            x, y = (self.read(rows)[1] for rows in (x[: min(N_COMPARED, 3 * len(y))], y[:N_COMPARED]))
            if min(len(x), len(y)) >= MIN_CELLS:
                found[name] = float(NoChange.test(x, y, None, np.random.default_rng(0)).p_value)
        corrected = adjusted(np.array(list(found.values()))).tolist()
        self.tested[slug] = dict(zip(found, zip(found.values(), corrected, strict=True), strict=True))
        return self.tested[slug]

    def responses(self, slug: str) -> dict[str, bool]:
        """Return whether a response is seen in each large group, by this test."""
        return {name: corrected <= SIGNIFICANT for name, (_, corrected) in self.p_of_groups(slug).items()}


def read_screen_cells(adata: AnnData, key: str | StoredFit | None, groupby: str | None) -> ScreenCells:
    """Find the cells of a fit, of a screen if no key is given; with groups by the named column, else by that of it."""
    if key is None:
        key = "hycnn_screen" if "hycnn_screen" in adata.uns else "hycnn_ot"
    fit = read_fit(adata, key)
    rep = find_same_representation(adata, fit.rep, same_file=True)
    labelled_cells(adata, fit.groupby, fit.source)  # raises an error without source cells
    labels, empty = [fit.source, *fit.targets.values()], np.empty(0, dtype=np.intp)
    found = [empty if rows is None else rows for rows in rows_of_labels(adata.obs, fit.groupby, labels)]
    # Sorted by a hash of their names, so that a sample does not depend on the order of the cells.
    hashes = hashes_of_names(adata.obs_names)
    source, *targets = (rows[np.argsort(hashes[rows], kind="stable")] for rows in found)
    is_test = np.zeros(adata.n_obs, dtype=bool)
    is_test[held_out_rows(adata, fit)] = True
    has_split = is_test[source].any()
    all_targets = dict(zip(fit.targets, targets, strict=True))
    held_out = {
        slug: rows[is_test[rows]] if has_split and is_test[rows].any() else rows for slug, rows in all_targets.items()
    }
    name = group_column(adata, fit, groupby)
    groups = None if name is None else read_groups(adata.obs, name)
    shown = source[is_test[source]] if has_split else source
    return ScreenCells(adata, fit, rep, shown, source, held_out, all_targets, groups)


def responses_of(adata: AnnData, key: str, target: str, groupby: str) -> dict[str, bool]:
    """Return whether a response is seen in each large group, by the test of :func:`scot_hycnn.get.summary`."""
    cells = read_screen_cells(adata, key, groupby)
    return cells.responses(cells.fit.slug(target))


# ---- what is known of each condition


def read_covariates(adata: AnnData, keys: Sequence[str], conditions: Mapping[str, Rows]) -> dict[str, list[Any]]:
    """Return the value of each covariate in each condition: numbers, or names; a ValueError if one has several."""
    obs, found = obs_columns(adata, *keys), dict[str, list[Any]]()
    for key in keys:
        column = column_of(obs, key, "covariate_keys")
        is_category = isinstance(column.dtype, pd.CategoricalDtype)
        kind = column.cat.categories.dtype if is_category else column.dtype
        is_number = pd.api.types.is_numeric_dtype(kind) and not pd.api.types.is_bool_dtype(kind)
        values = []
        for label, rows in conditions.items():
            different = column.iloc[rows].unique()
            if len(different) != 1 or pd.isna(different[0]):
                raise ValueError(
                    f"covariate_keys={key!r}: adata.obs[{key!r}] has {listed(different)} in the cells of {label!r}, "
                    "and a covariate has one value in each condition: make a condition of each value."
                )
            values.append(float(different[0]) if is_number else str(different[0]))
        found[key] = values
    return found


def controls_of_plates(adata: AnnData, plate_key: str, cells: FitInput) -> dict[str, NDArray[np.bool_]]:
    """Return which source cells are on the plates of each target, (n,), by label; one array for each set of plates."""
    names, codes = codes_of_groups(obs_columns(adata, plate_key), plate_key, "plate_key")
    found: dict[tuple[int, ...], NDArray[np.bool_]] = {}
    controls, needed = dict[str, NDArray[np.bool_]](), max(20, 2 * cells.rep.n_dims)
    for target in cells.targets:
        plates = tuple(np.unique(codes[target.rows[target.is_training]]).tolist())
        if plates not in found:
            found[plates] = np.isin(codes[cells.source.rows], plates)
        n_controls = int(found[plates][cells.source.is_training].sum())
        if plates[0] < 0 or n_controls < needed:
            raise ValueError(
                f"plate_key={plate_key!r}: cells of {target.label!r} are on "
                f"{listed([names[code] if code >= 0 else 'no plate' for code in plates])}, with {n_controls} cells of "
                f"{cells.source.label!r} to fit on; at least {needed} are needed on the plates of each condition."
            )
        controls[target.label] = found[plates]
    return controls


def read_embedding(adata: AnnData, embedding: str | pd.DataFrame | None, labels: Sequence[str]) -> Any:
    """Return a vector for each condition, shape (K, p), from a table in uns or a table; None if there is none."""
    if embedding is None:
        return None
    where = f"adata.uns[{embedding!r}]" if isinstance(embedding, str) else "embedding_key"
    if isinstance(embedding, str) and embedding not in adata.uns:
        raise ValueError(f"embedding_key={embedding!r} is not in adata.uns; it has {listed(adata.uns)}.")
    table: Any = in_memory(adata.uns[embedding]) if isinstance(embedding, str) else embedding
    if isinstance(table, Mapping):
        table = pd.DataFrame.from_dict({name: np.ravel(vector) for name, vector in table.items()}, orient="index")
    if not isinstance(table, pd.DataFrame):
        raise TypeError(f"{where} is of type {type(table).__name__}; it takes a DataFrame, or a dict of vectors.")
    table = table.set_axis(table.index.astype(str))
    lacking = [label for label in labels if label not in table.index]
    if lacking or not table.index.is_unique:
        what = f"has no row for {listed(lacking)}" if lacking else "has several rows for one condition"
        raise ValueError(f"{where} {what}; it needs one row for each condition, and it has {listed(table.index)}.")
    return table.loc[list(labels)].to_numpy(dtype=np.float64)


def other_conditions(adata: AnnData, source_key: Hashable, groupby: str) -> list[Any]:
    """Return all labels of a column that have cells, but the source's."""
    labels = read_groups(obs_columns(adata, groupby), groupby)
    used = set(labels.codes.tolist())
    found = [value for code, value in enumerate(labels.values) if code in used]
    is_source = matching([source_key], found)[0]
    others = [value for place, value in enumerate(found) if place not in is_source and str(value) not in MISSING]
    if not others:
        raise ValueError(f"adata.obs[{groupby!r}] has no condition beside {source_key!r}.")
    return others


def stored_screen(adata: AnnData, key: str) -> Mapping[str, Any]:
    """Return the state of the screen under a key of uns."""
    fits = {name: value for name, value in adata.uns.items() if is_fit(value) and SCREEN in value}
    if key not in fits:
        raise ValueError(
            f"adata.uns[{key!r}] is no screen; run sh.tl.hycnn_screen first. adata.uns has the screens {list(fits)}."
        )
    state: Mapping[str, Any] = in_memory(fits[key][SCREEN])
    return state
