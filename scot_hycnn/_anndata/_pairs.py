"""Cells to fit a map between: everything that can be wrong with the input is said here."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from ._conditions import (
    Condition,
    Mask,
    Rows,
    find_conditions,
    group_labels,
    labelled_rows,
    listed_labels,
    mask_rows,
)
from ._representation import (
    Coordinates,
    Representation,
    check_finite,
    find_representation,
    find_same_representation,
    is_finite,
    read_coordinates,
)
from ._slots import check_foreign, check_slots, slugs
from ._stored import StoredFit, slots_of_previous_fit
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
        Shape (n, d), finite.
    is_training
        Which of them a fit may see (mask_obs, split_key), shape (n,).
    groups
        Group of each training cell, if group_key names a column.
    """

    label: str
    slug: str
    rows: Rows
    coordinates: Coordinates
    is_training: NDArray[np.bool_]
    groups: NDArray[np.str_] | None = None

    @property
    def training(self) -> Coordinates:
        """Coordinates that a fit may see."""
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
    key: str,
    fill: str,
) -> Pairs:
    """Read what a fit needs; see :func:`scot_hycnn.tl.hycnn_ot` for the parameters.

    Cells outside the training cells are read too, to be transported, but not those without finite coordinates.

    Returns
    -------
    Arrays that share no memory with the AnnData.

    Raises
    ------
    ValueError
        If labels, representation, mask or keys do not fit the AnnData, or coordinates of training cells are not
        finite.
    """
    conditions = find_conditions(adata.obs, source_key, target_key, groupby)
    rep = find_representation(adata, use_rep, n_pcs)
    check_slots(adata, key, fill, rep.name)
    allowed = training_rows(adata.obs, split_key, mask_obs)
    check_representation_is_blind(adata, rep.name, split_key)
    labels = slugs([target.label for target in conditions.targets])
    known = [name for slots in slots_of_previous_fit(adata, key) for name in (*slots.tables, *slots.columns)]
    if known or key not in adata.uns:  # a damaged fit may be replaced, and its slots are not known
        check_foreign(adata, key, labels if len(labels) > 1 else [""], known)
    source, *targets = (
        _read_cells(adata, condition, slug, rep, allowed=allowed, group_key=group_key)
        for condition, slug in zip((conditions.source, *conditions.targets), ("", *labels), strict=True)
    )
    for cells in (source, *targets):
        _check_number(cells, conditions.groupby, rep, is_masked=not allowed.all())
    return Pairs(conditions.groupby, rep, source, tuple(targets), split_key, group_key)


def _check_number(cells: Cells, groupby: str | None, rep: Representation, *, is_masked: bool) -> None:
    """All conditions before any is fitted: the last of many must not end hours of work."""
    n_cells, needed = len(cells.training), max(LEAST_CELLS, 2 * rep.n_dims)
    if n_cells < needed:
        where = "boolean columns of adata.obs" if groupby is None else f"adata.obs[{groupby!r}]"
        fewer = "Use another representation" if rep.name == "X" else "Use fewer components (n_pcs)"
        raise ValueError(
            f"{cells.label!r} of {where} has {n_cells} cells{' to fit on' if is_masked else ''}; at least {needed} "
            f"are needed ({LEAST_CELLS}, and twice the {rep.n_dims} dimensions of {rep.name!r}). {fewer} or more cells."
        )


def _read_cells(
    adata: AnnData,
    condition: Condition,
    slug: str,
    rep: Representation,
    *,
    allowed: NDArray[np.bool_],
    group_key: str | None,
) -> Cells:
    coordinates = read_coordinates(adata, rep, condition.rows)
    finite, is_training = is_finite(coordinates), allowed[condition.rows]
    check_finite(adata, rep, condition.rows[is_training], finite[is_training])
    groups = None if group_key is None else group_labels(adata.obs, group_key, condition.rows[is_training])
    return Cells(condition.label, slug, condition.rows[finite], coordinates[finite], is_training[finite], groups)


@dataclass(frozen=True)
class NewCells:
    """Cells that a fitted map is to move.

    Parameters
    ----------
    rows
        Row numbers in the AnnData, shape (n,).
    coordinates
        Shape (n, d), finite.
    rep
        Their space.
    """

    rows: Rows
    coordinates: Coordinates
    rep: Representation


def read_new_cells(
    adata: AnnData,
    fit: StoredFit | None,
    label: str | None,
    *,
    n_dims: int,
    use_rep: str | None,
    mask_obs: Mask | None,
    same_file: bool,
    key: str,
    fill: str,
) -> NewCells:
    """Read the cells that a fitted map is to move.

    Parameters
    ----------
    adata
        Any cells.
    fit
        Where the map comes from; None for a map without AnnData.
    label
        The condition to move, if the AnnData knows it; None for all cells.
    n_dims
        Dimension of the map.
    use_rep, mask_obs
        See :func:`scot_hycnn.tl.transport`.
    same_file
        Whether the fit is stored in this AnnData.
    key, fill
        Where results will go.

    Raises
    ------
    ValueError
        If the representation is missing or not the map's, mask or keys do not fit, or a value is not finite.
    """
    if fit is None:
        here = find_representation(adata, use_rep, None)
        if here.n_dims != n_dims:
            raise ValueError(
                f"The map takes {n_dims} dimensions and {here.name!r} has {here.n_dims}: name the right representation "
                "with use_rep, or pass the AnnData that the map comes from as model."
            )
        fitted = Representation(here.name, n_dims, "")
    else:
        fitted = fit.rep
        if use_rep not in (None, fitted.name):
            raise ValueError(
                f"use_rep={use_rep!r}, but the map was fitted on {fitted.name!r}; put the cells' coordinates in that "
                f"space into adata.obsm[{fitted.name!r}]."
            )
    rep = find_same_representation(adata, fitted, same_file=same_file)
    check_slots(adata, key, fill, rep.name)
    if mask_obs is not None:
        rows = np.flatnonzero(mask_rows(adata.obs, mask_obs))
    else:
        labelled = None if fit is None or label is None else labelled_rows(adata.obs, fit.groupby, label)
        if labelled is None and fit is not None and fit.groupby in adata.obs:
            warnings.warn(
                f"adata.obs[{fit.groupby!r}] has no label {label!r}, which the map is for, but "
                f"{listed_labels(adata.obs, str(fit.groupby))}: all cells are moved. Pass mask_obs to choose some.",
                UserWarning,
                stacklevel=3,
            )
        rows = np.arange(adata.n_obs) if labelled is None else labelled
    if not len(rows):
        why = f"no cell is {label!r}" if mask_obs is None else "mask_obs is False everywhere"
        raise ValueError(f"There is nothing to move: {why}.")
    coordinates = read_coordinates(adata, rep, rows)
    check_finite(adata, rep, rows, is_finite(coordinates))
    return NewCells(rows, coordinates, rep)
