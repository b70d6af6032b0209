"""What a screen has beside a fit of few targets: cells of all conditions, read together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from anndata import AnnData

from ._conditions import Rows, column_of, hashes_of_names, matching, read_groups, read_labels
from ._evaluation_input import GroupLabels
from ._genes import held_out_rows
from ._representation import Coordinates, Representation, find_same_representation, is_finite, read_coordinates
from ._results import StoredFit, group_column, labelled_cells, read_fit
from ._schema import Slots
from ._transport_input import find_centres, moved_around


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
    groups: GroupLabels | None

    def read(self, rows: Rows) -> tuple[Rows, Coordinates]:
        """Return those of some cells that have finite coordinates, and these, float64."""
        points = read_coordinates(self.adata, self.rep, rows)
        finite = is_finite(points)
        return rows[finite], points[finite].astype(np.float64)

    def moved(self, slug: str, rows: Rows, x: Coordinates) -> Coordinates:
        """Return source cells after the map to one target: as they are stored, else moved now; NaN where neither is."""
        slots = Slots.named(self.fit.key, self.fit.suffix(slug))
        if slots.moved in self.adata.obsm:
            rep = Representation(slots.moved, self.rep.n_dims, "")
            return read_coordinates(self.adata, rep, rows).astype(np.float64)
        from scot_hycnn.solver import TransportMap  # noqa: PLC0415 - torch only where maps are stored alone

        fitted = TransportMap.from_dict(self.fit.models[slug])
        group_key = self.fit.params.get("group_key")
        known = {"rows": rows, "source_rows": self.all_source_rows}
        centres = find_centres(self.adata, self.rep, group_key, fitted.centres, **known)
        around = None if centres is None else centres.at(rows)
        moved = moved_around(fitted, x, around, fallback=bool(self.fit.params.get("fallback", False)))
        return np.asarray(moved, dtype=np.float64)


def read_screen_cells(adata: AnnData, key: str, groupby: str | None) -> ScreenCells:
    """Find the cells of a fit; with groups by the named column, else by that of the fit."""
    fit = read_fit(adata, key)
    rep = find_same_representation(adata, fit.rep, same_file=True)
    labels = [fit.source, *fit.targets.values()]
    if fit.groupby is None:
        found = [labelled_cells(adata, None, label) for label in labels]
    else:
        # The column is read once for all conditions.
        labelled_cells(adata, fit.groupby, fit.source)
        column = read_labels(column_of(adata.obs, fit.groupby, "groupby"), f"adata.obs[{fit.groupby!r}]")
        by_code = np.split(
            np.argsort(column.codes, kind="stable"), np.cumsum(np.bincount(column.codes + 1, minlength=1))[:-1]
        )
        codes = [places[0] if places else None for places in matching(labels, column.values)]
        # The first part has the cells without a label.
        empty = np.empty(0, dtype=np.intp)
        found = [empty if code is None or code + 1 >= len(by_code) else by_code[code + 1] for code in codes]
    # Sorted by a hash of their names, so that a sample does not depend on the order of the cells.
    hashes = hashes_of_names(adata.obs_names)
    source, *targets = (rows[np.argsort(hashes[rows], kind="stable")] for rows in found)
    is_test = np.zeros(adata.n_obs, dtype=bool)
    is_test[held_out_rows(adata, fit)] = True
    has_split = is_test[source].any()
    held_out = {
        slug: rows[is_test[rows]] if has_split and is_test[rows].any() else rows
        for slug, rows in zip(fit.targets, targets, strict=True)
    }
    name = group_column(adata, fit, groupby)
    groups = None
    if name is not None:
        read = read_groups(adata.obs, name)
        groups = GroupLabels(name, read.names, read.codes)
    shown = source[is_test[source]] if has_split else source
    all_targets = dict(zip(fit.targets, targets, strict=True))
    return ScreenCells(adata, fit, rep, shown, source, held_out, all_targets, groups)
