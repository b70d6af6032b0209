"""Cells that a fit is evaluated on, and the scores as they are stored in uns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from ._conditions import Mask, Rows, labelled_rows, mask_rows, read_groups
from ._fit_input import TEST, TRAIN, fingerprint_of_split, rows_of_split
from ._representation import Coordinates, Representation, find_same_representation, is_finite, read_coordinates
from ._results import StoredFit, labelled_cells
from ._schema import check_key, evaluation_slot

_Chosen = NDArray[np.bool_]  # (n_obs,)

_LABELS = ("target", "group", "method", "metric")
_NUMBERS = ("value", "low", "high", "vs_gaussian", "vs_gaussian_low", "vs_gaussian_high", "n_source", "n_target")
EVALUATION_COLUMNS = (*_LABELS, *_NUMBERS)
# Bandwidths of the MMD: a table of a row for each target and group, and as many columns as any of them has bandwidths.
_GAMMA, _GAMMA_LABELS = "mmd_gamma", ("mmd_gamma_target", "mmd_gamma_group")


# ---- cells


@dataclass(frozen=True)
class HeldOut:
    """Cells of source and one target that a fit is evaluated on, with finite coordinates."""

    rep: Representation
    source_rows: Rows  # ascending, (n,)
    target_rows: Rows  # ascending, (m,)
    x: Coordinates  # (n, d)
    y: Coordinates  # (m, d)

    def among(self, source: _Chosen, target: _Chosen) -> HeldOut:
        """Return some of the cells; the arguments are boolean arrays (n,) and (m,)."""
        return HeldOut(self.rep, self.source_rows[source], self.target_rows[target], self.x[source], self.y[target])


def held_out_cells(
    adata: AnnData, fit: StoredFit, *, mask_obs: Mask | None, split_key: str | None
) -> tuple[_Chosen, list[str]]:
    """Choose the cells to evaluate on, (n_obs,); notes say whether they include training cells of the fit."""
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
        advice = " If the cells to evaluate on have no label, pass them as mask_obs."
        chosen = chosen & np.isin(np.arange(adata.n_obs), rows_of_split(adata.obs, split_key, TEST, advice))

    notes = []
    parts = {"source": fit.source, **fit.targets}
    cells = {slug: labelled_cells(adata, fit.groupby, label) for slug, label in parts.items()}
    if recorded is not None and recorded in adata.obs:
        # The split of the fit says which its training cells are, if it was not written anew since.
        params = fit.params
        if params.get("n_obs") == adata.n_obs and params.get("split_fingerprint") != fingerprint_of_split(
            adata.obs, recorded
        ):
            notes.append(
                f"adata.obs[{recorded!r}] has other training cells than when {fit.key!r} was fitted, so training cells "
                "of the fit may be evaluated; run sh.tl.hycnn_ot again on this split."
            )
        training = labelled_rows(adata.obs, recorded, TRAIN)
        of_fit = np.concatenate(list(cells.values()))
        n_seen = 0 if training is None else int(chosen[np.intersect1d(training, of_fit)].sum())
    else:
        # Without a split the numbers give a lower bound: n training cells and m evaluated ones of k cells share n+m-k.
        # With fewer than n cells, these are not the ones that the fit was made from.
        n_seen = 0
        for slug, rows in cells.items():
            n = fit.n_training.get(slug, 0)
            if n <= len(rows):
                n_seen += max(0, n + int(chosen[rows].sum()) - len(rows))
    if n_seen:
        notes.append(
            f"The fit {fit.key!r} was made from at least {n_seen} of the {int(chosen.sum())} evaluated cells, which "
            "flatters it; evaluate on the cells that were held out of the fit."
        )
    return chosen, notes


def read_held_out(adata: AnnData, fit: StoredFit, slug: str, chosen: _Chosen) -> HeldOut:
    """Read the chosen cells of source and one target; those without finite coordinates are left out."""
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


def groups_of_cells(obs: pd.DataFrame, groupby: str | None) -> dict[str, Rows]:
    """Return the rows of the cells of each group of a column, after ``'all'`` with all cells."""
    rows = {"all": np.arange(len(obs))}
    if groupby is not None:
        labels = read_groups(obs, groupby)
        if "all" in labels.names:
            raise ValueError(f"adata.obs[{groupby!r}] has a group 'all', which means all cells here; rename it.")
        # Categories without a cell are no groups.
        by_name = {name: np.flatnonzero(labels.codes == i) for i, name in enumerate(labels.names)}
        rows |= {name: found for name, found in by_name.items() if len(found)}
    return rows


# ---- scores


def check_evaluation_slot(adata: AnnData, key: str) -> None:
    """Raise a ValueError if ``key`` is no valid key, or uns holds something else than scores there."""
    check_key(key)
    slot = evaluation_slot(key)
    before: Any = adata.uns.get(slot, {"metric": None})
    if not isinstance(before, Mapping) or "metric" not in before:
        raise ValueError(
            f"key_added={key!r} would replace adata.uns[{slot!r}], which scot_hycnn did not write; choose another."
        )


def evaluation_as_arrays(scores: pd.DataFrame) -> dict[str, NDArray[Any]]:
    """Return scores as plain arrays, which every file format holds."""
    arrays: dict[str, NDArray[Any]] = {name: scores[name].to_numpy(dtype=np.str_) for name in _LABELS}
    arrays |= {name: scores[name].to_numpy() for name in _NUMBERS}
    by_target: Mapping[str, Mapping[str, list[float]]] = scores.attrs.get(_GAMMA, {})
    gammas = {(target, group): row for target, groups in by_target.items() for group, row in groups.items()}
    if gammas:
        targets, groups = (np.array(names, dtype=np.str_) for names in zip(*gammas, strict=True))
        arrays |= dict(zip(_GAMMA_LABELS, (targets, groups), strict=True))
        arrays[_GAMMA] = pd.DataFrame(list(gammas.values()), dtype=np.float64).to_numpy()  # shorter rows end in NaN
    return arrays


def read_evaluation(adata: AnnData, key: str) -> pd.DataFrame:
    """Read the scores that :func:`scot_hycnn.tl.evaluate` has stored; see :func:`scot_hycnn.get.evaluation`."""
    slot = evaluation_slot(key)
    if slot not in adata.uns:
        found = [name.removesuffix("_evaluation") for name in map(str, adata.uns) if name.endswith("_evaluation")]
        has = f"it has those of {found}: pass key= one of them" if found else "run sh.tl.evaluate first"
        raise ValueError(f"adata.uns has no evaluation {slot!r}; {has}.")
    content: Any = adata.uns[slot]
    if not isinstance(content, Mapping):
        raise _damaged(slot, f"is of type {type(content).__name__} instead of a dict")
    lacking = [name for name in EVALUATION_COLUMNS if name not in content]
    if lacking:
        raise _damaged(slot, f"lacks {lacking}")

    columns = {name: _array(slot, name, content[name]) for name in EVALUATION_COLUMNS}
    shapes = {name: column.shape for name, column in columns.items()}
    if len(set(shapes.values())) != 1 or columns["value"].ndim != 1 or not len(columns["value"]):
        raise _damaged(slot, f"has no rows, or columns of different shapes ({shapes})")
    for name in _NUMBERS:
        if columns[name].dtype.kind not in "fiu":
            raise _damaged(slot, f"has {name!r} of dtype {columns[name].dtype} instead of numbers")
    # Strings come back from files as objects, or of a dtype that casts to no other.
    labels = {name: [str(label) for label in columns[name].tolist()] for name in _LABELS}
    table = pd.DataFrame({**columns, **labels})

    # Bandwidths by target and group; scores of older versions have none.
    gammas: dict[str, dict[str, list[float]]] = {}
    if all(name in content for name in (_GAMMA, *_GAMMA_LABELS)):
        targets, groups, rows = (_array(slot, name, content[name]) for name in (*_GAMMA_LABELS, _GAMMA))
        if rows.ndim != 2 or rows.dtype.kind != "f" or {targets.shape, groups.shape} != {rows.shape[:1]}:
            raise _damaged(slot, f"has {_GAMMA!r} that is no table of numbers with a label for each row")
        for target, group, row in zip(targets.tolist(), groups.tolist(), rows, strict=True):
            gammas.setdefault(str(target), {})[str(group)] = row[np.isfinite(row)].tolist()
    table.attrs[_GAMMA] = gammas
    return table


def _array(slot: str, name: str, values: Any) -> NDArray[Any]:
    try:
        return np.asarray(values)
    except ValueError:  # lists of different lengths
        raise _damaged(slot, f"has {name!r}, which is no column") from None


def _damaged(slot: str, what: str) -> ValueError:
    return ValueError(f"adata.uns[{slot!r}] {what}: it is damaged, run sh.tl.evaluate again.")
