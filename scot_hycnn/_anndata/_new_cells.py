"""Cells that a fitted map is to move: everything that can be wrong with them is said here."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from anndata import AnnData

from ._conditions import Mask, Rows, labelled_rows, listed_labels, mask_rows
from ._lazy import obs_columns
from ._representation import (
    Coordinates,
    Representation,
    check_finite,
    find_representation,
    find_same_representation,
    is_finite,
    read_coordinates,
    rows_at_once,
    spans,
)
from ._schema import check_slots
from ._stored import StoredFit


@dataclass(frozen=True)
class NewCells:
    """Cells that a fitted map is to move.

    Parameters
    ----------
    adata
        Where they are.
    rows
        Their row numbers there, ascending, shape (n,).
    rep
        Their space.
    """

    adata: AnnData
    rows: Rows
    rep: Representation

    def read(self) -> Coordinates:
        """Read their coordinates, shape (n, d).

        Raises
        ------
        ValueError
            If a value is not finite.
        """
        coordinates = read_coordinates(self.adata, self.rep, self.rows)
        check_finite(self.adata, self.rep, self.rows, is_finite(coordinates))
        return coordinates

    def blocks(self) -> Iterator[tuple[range, NewCells]]:
        """Row numbers of all cells, block by block, and those of the cells among them."""
        for span, rows in spans(self.adata.n_obs, self.rows, rows_at_once(self.rep)):
            yield span, replace(self, rows=rows)


def find_new_cells(
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
    """Find the cells that a fitted map is to move.

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
        If the representation is missing or not the map's, or mask or keys do not fit.
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
    chosen_by = mask_obs if fit is None or mask_obs is not None else fit.groupby or label
    obs = obs_columns(adata, *([chosen_by] if isinstance(chosen_by, str) else []))
    if mask_obs is not None:
        rows = np.flatnonzero(mask_rows(obs, mask_obs))
    else:
        labelled = None if fit is None or label is None else labelled_rows(obs, fit.groupby, label)
        if labelled is None and fit is not None and fit.groupby in obs:
            warnings.warn(
                f"adata.obs[{fit.groupby!r}] has no label {label!r}, which the map is for, but "
                f"{listed_labels(obs, str(fit.groupby))}: all cells are moved. Pass mask_obs to choose some.",
                UserWarning,
                stacklevel=3,
            )
        rows = np.arange(adata.n_obs) if labelled is None else labelled
    if not len(rows):
        why = f"no cell is {label!r}" if mask_obs is None else "mask_obs is False everywhere"
        raise ValueError(f"There is nothing to move: {why}.")
    return NewCells(adata, rows, rep)
