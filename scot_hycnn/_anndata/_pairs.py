"""Cells to fit a map between: everything that can be wrong with the input is said here."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from ._conditions import Condition, Conditions, Mask, Rows, find_conditions
from ._labels import read_groups
from ._lazy import obs_columns
from ._representation import (
    Coordinates,
    Representation,
    StoredRows,
    check_finite,
    coordinates_reader,
    find_representation,
    is_finite,
    stored_rows,
)
from ._results import slots_of_previous_fit
from ._scales import warn_of_scales
from ._slots import check_foreign, check_slots, slugs
from ._training import check_representation_is_blind, training_rows

# A fit refuses fewer cells, or fewer than twice the dimensions: no covariance, and nothing to validate on.
LEAST_CELLS = 20
# More names than these make an error message unreadable.
_SHOWN = 20
# What a missing group is called by a column that became strings on its way, through a file or by astype(str).
_MISSING = ("", "nan", "NaN", "<NA>", "NaT")


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
        Group of each training cell, if group_key names a column: integer codes, of categories that all conditions
        share.
    """

    label: str
    slug: str
    rows: Rows
    coordinates: Coordinates | StoredRows
    is_training: NDArray[np.bool_]
    groups: pd.Categorical[str] | None = None

    @property
    def n_training(self) -> int:
        """How many the fit is on."""
        return int(self.is_training.sum())

    @property
    def training_shape(self) -> tuple[int, int]:
        """Shape of the coordinates that the fit is on, without reading or copying them."""
        return self.n_training, self.coordinates.shape[1]

    @property
    def training(self) -> Coordinates | StoredRows:
        """Coordinates that the fit is on; not copied if they are all."""
        if isinstance(self.coordinates, StoredRows) or self.is_training.all():
            return self.coordinates
        return self.coordinates[self.is_training]


@dataclass(frozen=True)
class Pairs:
    """Source cells and those of each target, in one representation, and the columns that say what they are.

    ``skipped`` are the labels of targets that have too few cells, with how many.
    """

    groupby: str | None
    rep: Representation
    source: Cells
    targets: tuple[Cells, ...]
    split_key: str | None = None
    group_key: str | None = None
    skipped: tuple[tuple[str, int], ...] = ()

    def groups_with(self, target: Cells) -> tuple[pd.Categorical[str], pd.Categorical[str]] | None:
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
    skip_small: bool = False,
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
    most = _check_max_cells(max_cells, rep)
    skipped = _check_numbers(conditions, allowed, rep, skip_small=skip_small)
    without = {label for label, _ in skipped}
    targets = [target for target in conditions.targets if target.label not in without]
    labels = _free_slugs(adata, key, [target.label for target in targets])
    groups = None
    if group_key is not None:
        groups = _read_groups(obs, group_key, allowed, [conditions.source, *targets])
    reader = _Reader(adata, coordinates_reader(adata, rep), rep, allowed, most, seed, groups)
    source = reader.read(conditions.source, "", everyone=everyone[0])
    cells = [
        reader.read(condition, slug, everyone=everyone[1]) for condition, slug in zip(targets, labels, strict=True)
    ]
    warn_of_scales(adata, rep, source, cells)
    return Pairs(conditions.groupby, rep, source, tuple(cells), split_key, group_key, skipped)


def without_targets(adata: AnnData, pairs: Pairs, labels: Collection[str], key: str) -> Pairs:
    """The same cells without some targets, whose slots nothing will be written to.

    Raises
    ------
    ValueError
        If slots of the others, which may have other names now, hold what is not ours to replace.
    """
    kept = [target for target in pairs.targets if target.label not in labels]
    names = _free_slugs(adata, key, [target.label for target in kept])
    targets = tuple(replace(target, slug=slug) for target, slug in zip(kept, names, strict=True))
    return replace(pairs, targets=targets)


def _free_slugs(adata: AnnData, key: str, labels: Sequence[str]) -> dict[str, str]:
    """Slugs of the targets, after a look at what is in their slots."""
    found = slugs(labels)
    known = {name for slots in slots_of_previous_fit(adata, key) for name in (*slots.tables, *slots.columns)}
    if known or key not in adata.uns:  # a damaged fit may be replaced, and its slots are not known
        check_foreign(adata, key, found if len(found) > 1 else [""], known)
    return found


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


def _check_numbers(
    conditions: Conditions, allowed: NDArray[np.bool_], rep: Representation, *, skip_small: bool
) -> tuple[tuple[str, int], ...]:
    """All conditions before any is fitted: the last of many must not end hours of work.

    Returns
    -------
    Targets that have too few cells and are to be skipped, with how many.

    Raises
    ------
    ValueError
        If the source, or a target that may not be skipped, has too few cells; all of them are named.
    """
    needed = _needed(rep)

    def too_few(some: Sequence[Condition]) -> list[tuple[str, int]]:
        counts = [(condition.label, int(allowed[condition.rows].sum())) for condition in some]
        return [(label, n_cells) for label, n_cells in counts if n_cells < needed]

    of_source, of_targets = too_few([conditions.source]), too_few(conditions.targets)
    all_targets = len(of_targets) == len(conditions.targets)
    small = of_source + ([] if skip_small and not all_targets else of_targets)
    if not small:
        return tuple(of_targets)
    where = "boolean columns of adata.obs" if conditions.groupby is None else f"adata.obs[{conditions.groupby!r}]"
    fewer = "Use another representation" if rep.name == "X" else "Use fewer components (n_pcs)"
    to_fit_on = "" if allowed.all() else " to fit on"
    if len(small) == 1:
        ((label, n_cells),) = small
        found = f"{label!r} of {where} has {n_cells} cells{to_fit_on}"
    else:
        named = ", ".join(f"{label!r} ({n_cells})" for label, n_cells in small[:_SHOWN])
        more = f" and {len(small) - _SHOWN} more" if len(small) > _SHOWN else ""
        found = f"{len(small)} conditions of {where} have too few cells{to_fit_on}: {named}{more}"
    skip = "" if of_source or all_targets else " skip_small=True leaves such targets out and fits the others."
    raise ValueError(
        f"{found}; at least {needed} are needed ({LEAST_CELLS}, and twice the "
        f"{rep.n_dims} dimensions of {rep.name!r}). {fewer} or more cells.{skip}"
    )


def _read_groups(
    obs: pd.DataFrame, group_key: str, allowed: NDArray[np.bool_], conditions: Sequence[Condition]
) -> pd.Categorical[str]:
    """Group of every cell by name, as integer codes; shape (n_obs,).

    Raises
    ------
    ValueError
        If there is no such column, or it is empty for some of the cells to fit on.
    """
    labels = read_groups(obs, group_key, "group_key")
    codes = np.where(np.append(np.isin(labels.names, _MISSING), True)[labels.codes], -1, labels.codes)
    rows = np.concatenate([condition.rows[allowed[condition.rows]] for condition in conditions])
    empty = rows[codes[rows] < 0]
    if len(empty):
        raise ValueError(
            f"adata.obs[{group_key!r}] is empty for {len(empty)} of {len(rows)} cells to fit on, the first "
            f"{obs.index[empty[0]]!r}; name their group, or leave them out with mask_obs."
        )
    return pd.Categorical.from_codes(codes, categories=pd.Index(labels.names))


@dataclass(frozen=True)
class _Reader:
    """Reads conditions one by one.

    Parameters
    ----------
    adata
        The cells.
    coordinates
        What reads those of some of them.
    rep
        Their space.
    allowed
        Which a fit may see, shape (n_obs,).
    max_cells
        How many of them it takes of one condition, at most.
    seed
        Of the sample.
    groups
        Of all cells, if they have groups.
    """

    adata: AnnData
    coordinates: Callable[[Rows], Coordinates]
    rep: Representation
    allowed: NDArray[np.bool_]
    max_cells: int | None
    seed: int
    groups: pd.Categorical[str] | None

    def read(self, condition: Condition, slug: str, *, everyone: bool) -> Cells:
        training = self._training(condition)
        groups = None if self.groups is None else self.groups[training]
        in_file = None if everyone else stored_rows(self.adata, self.rep, training, condition.label)
        if in_file is not None:
            return Cells(condition.label, slug, training, in_file, np.ones(len(training), dtype=bool), groups)
        rows = condition.rows if everyone else training
        coordinates = self.coordinates(rows)
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
