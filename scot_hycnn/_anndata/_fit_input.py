"""What a fit reads of an AnnData: the cells of source and targets, checked before any work."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from scot_hycnn._warn import counted, joined, warn

from ._conditions import (
    Mask,
    Rows,
    column_of,
    find_conditions,
    groups_by_columns,
    is_integer,
    labelled_rows,
    listed_labels,
    mask_rows,
)
from ._input_warnings import differing_proportions, warning_of_scale
from ._representation import (
    Coordinates,
    Representation,
    StoredRows,
    check_finite,
    find_representation,
    obs_columns,
    read_coordinates,
    source_of,
)
from ._schema import check_slots

TRAIN, TEST = "train", "test"
# A fit needs at least 20 cells of each condition, and at least 2 d: for a covariance, and to validate on.
_MIN_CELLS = 20


@dataclass(frozen=True)
class ConditionCells:
    """Cells of one condition."""

    label: str
    rows: Rows  # in the AnnData, shape (n,)
    coordinates: Coordinates | StoredRows  # shape (n, d), finite; StoredRows where cells in a file are not moved
    is_training: NDArray[np.bool_]  # which cells the fit uses (mask_obs, split_key, max_cells), shape (n,)
    training: Coordinates | StoredRows  # their coordinates, not copied if they are all
    groups: Any  # their groups, categories of pandas, or an array of two columns with units first; or None


@dataclass(frozen=True)
class FitInput:
    """Cells of source and targets, in one representation, and the columns of obs that were read."""

    groupby: str | None
    where: str  # what messages call the column, or columns, of the labels
    rep: Representation
    source: ConditionCells
    targets: tuple[ConditionCells, ...]
    split_key: str | None
    # What is left out and the groups within it, or the groups alone, or nothing.
    group_columns: tuple[str, ...]
    skipped: tuple[tuple[str, int], ...]  # targets with too few cells: label, and number of cells
    composition: str | None  # a message if proportions of groups differ and the fit has no groups


def read_fit_input(
    adata: AnnData,
    source_key: Hashable,
    target_key: Hashable | Sequence[Hashable],
    *,
    groupby: str | None,
    use_rep: str | None,
    n_pcs: int | None,
    mask_obs: Mask | None,
    split_key: str | None,
    group_columns: tuple[str, ...],
    max_cells: int | None,
    seed: int,
    reads_all: tuple[bool, bool],
    key: str,
    fill: str,
    skip_small: bool,
) -> FitInput:
    """Read the cells of a fit; :func:`scot_hycnn.tl.hycnn_ot` has the parameters.

    ``reads_all`` says whether all source cells and all target cells are read, since they will be moved, or only those
    that the fit uses. Arrays share no memory with the AnnData.
    """
    # Which cells: everything that needs no coordinates is checked before any are read.
    named = (split_key, mask_obs, *group_columns)
    obs = obs_columns(adata, groupby, *(name for name in named if isinstance(name, str)))
    groupby, conditions = find_conditions(obs, source_key, target_key, groupby)
    where = "boolean columns of adata.obs" if groupby is None else f"adata.obs[{groupby!r}]"
    rep = find_representation(adata, use_rep, n_pcs)
    check_slots(adata, key, fill, rep.name)
    allowed = training_rows(obs, split_key, mask_obs)
    min_cells = max(_MIN_CELLS, 2 * rep.n_dims)
    if max_cells is not None and not (is_integer(max_cells) and max_cells >= min_cells):
        raise ValueError(
            f"max_cells={max_cells!r} must be an integer of at least {min_cells} ({_MIN_CELLS}, and twice the "
            f"{counted(rep.n_dims, 'dimension')} of {rep.name!r}), or None for all cells."
        )
    if leak := sentence_of_leak(adata, rep.name, split_key, "the fit"):
        warn(leak)
    skipped = _small_targets(conditions, allowed, rep, where, skip_small=skip_small)
    conditions = {label: rows for label, rows in conditions.items() if label not in dict(skipped)}
    groups: Any = None
    if group_columns:
        needed = np.concatenate([rows[allowed[rows]] for rows in conditions.values()])
        names, codes, parts = groups_by_columns(obs, group_columns, needed=needed, what="fit on")
        groups = pd.Categorical.from_codes(codes, categories=pd.Index(names)) if parts is None else parts[codes]

    # Coordinates, one condition after the other.
    table, read = source_of(adata, rep), list[ConditionCells]()
    in_file = hasattr(table, "dask") or type(table).__module__.partition(".")[0] in ("h5py", "zarr")
    for label, of_label in conditions.items():
        training = of_label[allowed[of_label]]
        if max_cells is not None and len(training) > max_cells:
            # One generator for each condition: its sample does not depend on which others are fitted beside it.
            training = np.sort(np.random.default_rng(seed).choice(training, int(max_cells), replace=False))
        rows = of_label if reads_all[bool(read)] else training  # the source is the first
        coordinates: Coordinates | StoredRows = StoredRows(label, rep, table, rows)
        # Cells in a file that are not moved stay there until they are fitted on.
        if rows is not training or not in_file:
            coordinates = read_coordinates(table, rep, rows)
            finite = np.asarray(np.isfinite(coordinates).all(axis=1))
            if not finite.all():
                check_finite(adata, rep, rows[allowed[rows]], finite[allowed[rows]])
                # Cells that the fit may not use may lack coordinates: they are not moved.
                rows, coordinates = rows[finite], coordinates[finite]
        chosen = np.isin(rows, training)
        some = coordinates if isinstance(coordinates, StoredRows) or chosen.all() else coordinates[chosen]
        read.append(
            ConditionCells(label, rows, coordinates, chosen, some, None if groups is None else groups[training])
        )

    warning = warning_of_scale(adata, rep, [cells.rows[cells.is_training] for cells in read])
    if warning is not None:
        warn(warning)
    differing = None
    # A type may be held out of one condition; beside that, all cells show more than the training cells do.
    for chosen in () if group_columns else (allowed, training_rows(obs, None, mask_obs)):
        some_cells = {label: rows[chosen[rows]] for label, rows in conditions.items()}
        differing = differing or differing_proportions(obs, some_cells, (groupby, split_key))
    composition = None if differing is None else differing[1]
    return FitInput(groupby, where, rep, read[0], tuple(read[1:]), split_key, group_columns, skipped, composition)


def _small_targets(
    conditions: Mapping[str, Rows], allowed: NDArray[np.bool_], rep: Representation, where: str, *, skip_small: bool
) -> tuple[tuple[str, int], ...]:
    """Return the targets that are skipped, with their numbers of cells; a ValueError names those that may not be."""
    # All conditions are checked before any is fitted: the last of many targets must not end hours of work.
    min_cells = max(_MIN_CELLS, 2 * rep.n_dims)
    counts = [(label, int(allowed[rows].sum())) for label, rows in conditions.items()]
    small_source = [(label, n) for label, n in counts[:1] if n < min_cells]
    small_targets = [(label, n) for label, n in counts[1:] if n < min_cells]
    all_small = len(small_targets) == len(counts) - 1
    refused = small_source + ([] if skip_small and not all_small else small_targets)
    if not refused:
        return tuple(small_targets)
    named = joined([f"{label!r} ({n})" for label, n in refused])
    fewer = "Use another representation" if rep.name == "X" else "Use fewer components (n_pcs)"
    skip = "" if small_source or all_small else " skip_small=True leaves such targets out and fits the others."
    few = f"{'has' if len(refused) == 1 else 'have'} too few cells{'' if allowed.all() else ' to fit on'}"
    raise ValueError(
        f"{counted(len(refused), 'condition')} of {where} {few}: {named}; at least {min_cells} are needed "
        f"({_MIN_CELLS}, and twice the {counted(rep.n_dims, 'dimension')} of {rep.name!r}). {fewer} or more "
        f"cells.{skip}"
    )


def training_rows(obs: pd.DataFrame, split_key: str | None, mask_obs: Mask | None) -> NDArray[np.bool_]:
    """Return which cells a computation may use, shape (n_obs,): in the mask, and labelled 'train' in ``split_key``."""
    allowed = np.ones(len(obs), dtype=bool) if mask_obs is None else mask_rows(obs, mask_obs)
    if split_key is None:
        return allowed
    rows = rows_of_split(obs, split_key, TRAIN, " Run sh.pp.split(adata) first.")
    return allowed & np.isin(np.arange(len(obs)), rows)


def rows_of_split(obs: pd.DataFrame, split_key: str, label: str, advice: str) -> Rows:
    """Return the row numbers of the training or the test cells of a split; it is an error if there are none."""
    column_of(obs, split_key, "split_key", advice=advice)
    rows = labelled_rows(obs, split_key, label)
    if rows is None or not len(rows):
        raise ValueError(
            f"split_key={split_key!r}: no cell of adata.obs[{split_key!r}] is labelled {label!r}; it has "
            f"{listed_labels(obs, split_key)}. sh.pp.split(adata) writes such a column."
        )
    return rows


def fingerprint(names: pd.Index[str]) -> str:
    """Return a SHA-256 of the names of cells in any order, by which the same choice of cells is recognised."""
    return hashlib.sha256("\n".join(sorted(map(str, names))).encode()).hexdigest()


def sentence_of_leak(adata: AnnData, name: str, split_key: str | None, into: str) -> str | None:
    """Return a warning if uns says that the components were not fitted on the training cells of the split alone."""
    made = adata.uns.get({"X_pca": "pca"}.get(name, name))
    params = made.get("params") if isinstance(made, dict) else None
    if split_key is None or not isinstance(params, dict):
        return None
    obs = obs_columns(adata, split_key)
    if params.get("training_fingerprint") == fingerprint(obs.index[training_rows(obs, split_key, None)]):
        return None
    return (
        f"{name!r} was not fitted on the training cells of adata.obs[{split_key!r}] alone, so held-out cells leak into "
        f"{into}; run sh.pp.pca(adata, split_key={split_key!r}) first."
    )


def check_counts(minimum: int = 1, /, **counts: Any) -> None:
    """Raise a ValueError for an option that is not an integer of at least ``minimum``."""
    for name, value in counts.items():
        if not is_integer(value) or value < minimum:
            raise ValueError(f"{name}={value!r} must be an integer of {minimum} or more.")
