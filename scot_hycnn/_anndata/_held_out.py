"""Cells to evaluate a fit on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from ._conditions import Labels, Mask, Rows, column_of, labelled_rows, listed_labels, mask_rows, read_groups
from ._fit_input import TEST, TRAIN, fingerprint_of_split
from ._representation import Coordinates, Representation, find_same_representation, is_finite, read_coordinates
from ._results import labelled_cells
from ._stored import StoredFit

_Chosen = NDArray[np.bool_]  # (n_obs,)


@dataclass(frozen=True)
class HeldOut:
    """Cells of source and one target that a fit is evaluated on.

    Parameters
    ----------
    rep
        The space of the coordinates.
    source_rows, target_rows
        Row numbers in the AnnData, ascending, shape (n,) and (m,).
    x, y
        Coordinates, shape (n, d) and (m, d), finite.
    """

    rep: Representation
    source_rows: Rows
    target_rows: Rows
    x: Coordinates
    y: Coordinates

    def among(self, source: _Chosen, target: _Chosen) -> HeldOut:
        """Some of the cells; boolean arrays (n,) and (m,)."""
        return HeldOut(self.rep, self.source_rows[source], self.target_rows[target], self.x[source], self.y[target])


def held_out_cells(
    adata: AnnData, fit: StoredFit, *, mask_obs: Mask | None, split_key: str | None
) -> tuple[_Chosen, list[str]]:
    """Choose the cells to evaluate on, and say whether the fit has seen some; see :func:`scot_hycnn.metrics.evaluate`.

    Raises
    ------
    ValueError
        If the column, its label or the mask does not exist or does not fit.
    """
    recorded = fit.params.get("split_key")
    if split_key is None and mask_obs is None:
        split_key = recorded
    if split_key is None and mask_obs is None:
        note = (
            f"All cells are evaluated, also those that the fit {fit.key!r} was made from, which flatters it. To hold "
            "cells out: sh.pp.split(adata), sh.pp.pca(adata, split_key='split'), sh.tl.hycnn_ot(..., "
            "split_key='split'), and evaluate again."
        )
        return np.ones(adata.n_obs, dtype=bool), [note]
    chosen = np.ones(adata.n_obs, dtype=bool) if mask_obs is None else mask_rows(adata.obs, mask_obs)
    if split_key is not None:
        chosen = chosen & _test_cells(adata.obs, split_key)
    n_seen, notes = _n_seen(adata, fit, chosen, recorded)
    if n_seen:
        notes.append(
            f"At least {n_seen} of the {int(chosen.sum())} evaluated cells are cells that the fit {fit.key!r} was made "
            "from, which flatters it; evaluate on the cells that were held out of the fit."
        )
    return chosen, notes


def read_held_out(adata: AnnData, fit: StoredFit, slug: str, chosen: _Chosen) -> HeldOut:
    """Read the chosen cells of source and one target. Those without finite coordinates are left out.

    Raises
    ------
    ValueError
        If labels are gone, or the representation is another.
    """
    rep = find_same_representation(adata, fit.rep, same_file=True)
    parts = []
    for label in (fit.source, fit.targets[slug]):
        rows = labelled_cells(adata, fit.groupby, label)
        rows = rows[chosen[rows]]
        coordinates = read_coordinates(adata, rep, rows)
        finite = is_finite(coordinates)
        parts.append((rows[finite], coordinates[finite]))
    (x_rows, x), (y_rows, y) = parts
    return HeldOut(rep, x_rows, y_rows, x, y)


class CellGroups(Mapping[str, _Chosen]):
    """Label to cells of each group, boolean array (n_obs,), after ``'all'`` with all cells.

    It holds one code a cell, and makes an array when it is asked for: arrays of many groups would take groups x cells.

    Parameters
    ----------
    n_obs
        How many cells there are.
    labels
        Of the groups.
    """

    def __init__(self, n_obs: int, labels: Labels | None) -> None:
        self._n_obs, self._labels = n_obs, labels
        # Categories without a cell are no groups.
        found = [] if labels is None else [i for i in range(len(labels.values)) if len(labels.rows(i))]
        self._places = {"all": -1} | {labels.names[i]: i for i in found if labels is not None}

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __getitem__(self, label: str) -> _Chosen:
        place = self._places[label]
        if place < 0 or self._labels is None:
            return np.ones(self._n_obs, dtype=bool)
        chosen = np.zeros(self._n_obs, dtype=bool)
        chosen[self._labels.rows(place)] = True
        return chosen


def groups_of_cells(obs: pd.DataFrame, groupby: str | None) -> CellGroups:
    """Label to cells of each group, after ``'all'`` with all cells.

    Raises
    ------
    TypeError
        If ``groupby`` is a list.
    ValueError
        If there is no such column, a group is called ``'all'``, or there are too many groups.
    """
    labels = None if groupby is None else read_groups(obs, groupby)
    if labels is not None and "all" in labels.names:
        raise ValueError(f"adata.obs[{groupby!r}] has a group 'all', which means all cells here; rename it.")
    return CellGroups(len(obs), labels)


def _test_cells(obs: pd.DataFrame, split_key: str) -> _Chosen:
    column_of(obs, split_key, "split_key", advice=" If the cells to evaluate on have no label, pass them as mask_obs.")
    rows = labelled_rows(obs, split_key, TEST)
    if rows is None or not len(rows):
        raise ValueError(
            f"split_key={split_key!r}: no cell of adata.obs[{split_key!r}] is labelled {TEST!r}; it has "
            f"{listed_labels(obs, split_key)}."
        )
    chosen = np.zeros(len(obs), dtype=bool)
    chosen[rows] = True
    return chosen


def _n_seen(adata: AnnData, fit: StoredFit, chosen: _Chosen, split_key: str | None) -> tuple[int, list[str]]:
    """How many of the chosen cells the fit has seen: by its split, else at least so many by their numbers."""
    parts = {"source": fit.source, **fit.targets}
    rows = {slug: labelled_cells(adata, fit.groupby, label) for slug, label in parts.items()}
    if split_key is not None and split_key in adata.obs:
        notes = _notes_of_split(adata, fit, split_key)
        training = labelled_rows(adata.obs, split_key, TRAIN)
        of_fit = np.concatenate(list(rows.values()))
        return 0 if training is None else int(chosen[np.intersect1d(training, of_fit)].sum()), notes
    n_seen = 0
    for slug, cells in rows.items():
        n = fit.n_training.get(slug, 0)
        if n <= len(cells):  # with fewer cells, these are not the ones that the fit was made from
            n_seen += max(0, n + int(chosen[cells].sum()) - len(cells))
    return n_seen, []


def _notes_of_split(adata: AnnData, fit: StoredFit, split_key: str) -> list[str]:
    """Say where the column was written anew after the fit: its test cells may be cells that the fit has seen."""
    params = fit.params
    if params.get("split_key") != split_key or params.get("n_obs") != adata.n_obs:
        return []
    if params.get("split_fingerprint") == fingerprint_of_split(adata.obs, split_key):
        return []
    note = (
        f"adata.obs[{split_key!r}] has other training cells than when {fit.key!r} was fitted, so cells that "
        "the fit has seen may be evaluated; run sh.tl.hycnn_ot again on this split."
    )
    return [note]
