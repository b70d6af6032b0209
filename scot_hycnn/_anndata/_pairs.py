"""Cells to fit a map between: everything that can be wrong with the input is said here."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from ._conditions import Condition, Mask, Rows, find_conditions, group_labels
from ._lazy import obs_columns
from ._representation import (
    Coordinates,
    Representation,
    StoredRows,
    check_finite,
    find_representation,
    is_finite,
    read_coordinates,
    stored_rows,
)
from ._scales import warn_of_scales
from ._slots import check_foreign, check_slots, slugs
from ._stored import slots_of_previous_fit
from ._training import check_representation_is_blind, training_rows

# A fit refuses fewer cells, or fewer than twice the dimensions: no covariance, and nothing to validate on.
LEAST_CELLS = 20


@dataclass(frozen=True)
class Cells:
    """Coordinates of one condition's cells.

    Parameters
    ----------
    label, slug
        The condition's name, and the form of it that slots carry.
    rows
        Row numbers in the AnnData, shape (n,).
    coordinates
        Shape (n, d), finite; of cells in a file that are not to be moved, what reads them.
    is_training
        Which of them the fit is on: those that it may see (mask_obs, split_key), or a sample of these (max_cells);
        shape (n,).
    groups
        Group of each training cell, if group_key names a column.
    """

    label: str
    slug: str
    rows: Rows
    coordinates: Coordinates | StoredRows
    is_training: NDArray[np.bool_]
    groups: NDArray[np.str_] | None = None

    @property
    def n_training(self) -> int:
        """How many the fit is on."""
        return int(self.is_training.sum())

    @property
    def training(self) -> Coordinates | StoredRows:
        """Coordinates that the fit is on; not copied if they are all."""
        if isinstance(self.coordinates, StoredRows) or self.is_training.all():
            return self.coordinates
        return self.coordinates[self.is_training]


@dataclass(frozen=True)
class Pairs:
    """Source cells and those of each target, in one representation, and the columns that say what they are."""

    groupby: str | None
    rep: Representation
    source: Cells
    targets: tuple[Cells, ...]
    split_key: str | None = None
    group_key: str | None = None

    def groups_with(self, target: Cells) -> tuple[NDArray[np.str_], NDArray[np.str_]] | None:
        """Groups of the training cells of source and target."""
        if self.source.groups is None or target.groups is None:
            return None
        return self.source.groups, target.groups


def read_pairs(
    adata: AnnData,
    source_key: Hashable,
    target_key: Hashable | Sequence[Hashable],
    *,
    groupby: str | None,
    use_rep: str | None,
    n_pcs: int | None,
    mask_obs: Mask | None,
    split_key: str | None,
    group_key: str | None,
    max_cells: int | None,
    seed: int,
    everyone: tuple[bool, bool],
    key: str,
    fill: str,
) -> Pairs:
    """Read what a fit needs; see :func:`scot_hycnn.tl.hycnn_ot` for the parameters.

    Which cells is decided before any coordinates are read. ``everyone`` says whether all source cells and all target
    cells are read, to be moved, or only those that the fit is on; those without finite coordinates are left out.

    Returns
    -------
    Arrays that share no memory with the AnnData.

    Raises
    ------
    ValueError
        If labels, representation, mask or keys do not fit the AnnData, or coordinates of training cells are not
        finite.
    """
    obs = obs_columns(adata, groupby, *(name for name in (split_key, group_key, mask_obs) if isinstance(name, str)))
    conditions = find_conditions(obs, source_key, target_key, groupby)
    rep = find_representation(adata, use_rep, n_pcs)
    check_slots(adata, key, fill, rep.name)
    allowed = training_rows(obs, split_key, mask_obs)
    check_representation_is_blind(adata, rep.name, split_key)
    labels = slugs([target.label for target in conditions.targets])
    known = [name for slots in slots_of_previous_fit(adata, key) for name in (*slots.tables, *slots.columns)]
    if known or key not in adata.uns:  # a damaged fit may be replaced, and its slots are not known
        check_foreign(adata, key, labels if len(labels) > 1 else [""], known)
    reader = _Reader(adata, obs, rep, allowed, _check_max_cells(max_cells, rep), seed, group_key)
    for condition in (conditions.source, *conditions.targets):
        _check_number(condition, allowed, conditions.groupby, rep)
    source = reader.read(conditions.source, "", everyone=everyone[0])
    targets = [
        reader.read(condition, slug, everyone=everyone[1])
        for condition, slug in zip(conditions.targets, labels, strict=True)
    ]
    warn_of_scales(adata, rep, source, targets)
    return Pairs(conditions.groupby, rep, source, tuple(targets), split_key, group_key)


def _needed(rep: Representation) -> int:
    return max(LEAST_CELLS, 2 * rep.n_dims)


def _check_max_cells(max_cells: Any, rep: Representation) -> int | None:
    if max_cells is None:
        return None
    if isinstance(max_cells, Integral) and not isinstance(max_cells, bool) and int(max_cells) >= _needed(rep):
        return int(max_cells)
    raise ValueError(
        f"max_cells={max_cells!r} must be a whole number of at least {_needed(rep)} ({LEAST_CELLS}, and twice the "
        f"{rep.n_dims} dimensions of {rep.name!r}), or None for all cells."
    )


def _check_number(condition: Condition, allowed: NDArray[np.bool_], groupby: str | None, rep: Representation) -> None:
    """All conditions before any is fitted: the last of many must not end hours of work."""
    n_cells, needed = int(allowed[condition.rows].sum()), _needed(rep)
    if n_cells < needed:
        where = "boolean columns of adata.obs" if groupby is None else f"adata.obs[{groupby!r}]"
        fewer = "Use another representation" if rep.name == "X" else "Use fewer components (n_pcs)"
        raise ValueError(
            f"{condition.label!r} of {where} has {n_cells} cells{'' if allowed.all() else ' to fit on'}; at least "
            f"{needed} are needed ({LEAST_CELLS}, and twice the {rep.n_dims} dimensions of {rep.name!r}). {fewer} or "
            "more cells."
        )


@dataclass(frozen=True)
class _Reader:
    """Reads conditions one by one.

    Parameters
    ----------
    adata, obs
        The cells, and their annotation in memory.
    rep
        Their space.
    allowed
        Which a fit may see, shape (n_obs,).
    max_cells
        How many of them it takes of one condition, at most.
    seed
        Of the sample.
    group_key
        Column of groups.
    """

    adata: AnnData
    obs: pd.DataFrame
    rep: Representation
    allowed: NDArray[np.bool_]
    max_cells: int | None
    seed: int
    group_key: str | None

    def read(self, condition: Condition, slug: str, *, everyone: bool) -> Cells:
        training = self._training(condition)
        groups = None if self.group_key is None else group_labels(self.obs, self.group_key, training)
        in_file = None if everyone else stored_rows(self.adata, self.rep, training, condition.label)
        if in_file is not None:
            return Cells(condition.label, slug, training, in_file, np.ones(len(training), dtype=bool), groups)
        rows = condition.rows if everyone else training
        coordinates = read_coordinates(self.adata, self.rep, rows)
        finite, allowed = is_finite(coordinates), self.allowed[rows]
        check_finite(self.adata, self.rep, rows[allowed], finite[allowed])
        if not finite.all():
            rows, coordinates = rows[finite], coordinates[finite]
        return Cells(condition.label, slug, rows, coordinates, np.isin(rows, training), groups)

    def _training(self, condition: Condition) -> Rows:
        """Rows that the fit is on; each condition's are the same whichever others are fitted beside it."""
        rows = condition.rows[self.allowed[condition.rows]]
        if self.max_cells is None or len(rows) <= self.max_cells:
            return rows
        return np.sort(np.random.default_rng(self.seed).choice(rows, self.max_cells, replace=False))
