"""Cells that a fitted map is to move, and all checks of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from anndata import AnnData

from scot_hycnn._warn import warn

from ._conditions import Mask, Rows, counted, labelled_rows, listed_labels, mask_rows
from ._representation import (
    Coordinates,
    Representation,
    check_finite,
    find_representation,
    find_same_representation,
    is_finite,
    obs_columns,
    read_coordinates,
    rows_at_once,
    spans,
)
from ._results import StoredFit
from ._schema import check_slots


@dataclass(frozen=True)
class NewCells:
    """Cells that a fitted map is to move."""

    adata: AnnData
    rows: Rows  # ascending, (n,)
    rep: Representation

    def read(self) -> Coordinates:
        """Return their coordinates, shape (n, d); a ValueError names the cells that are not finite."""
        coordinates = read_coordinates(self.adata, self.rep, self.rows)
        check_finite(self.adata, self.rep, self.rows, is_finite(coordinates))
        return coordinates

    def blocks(self) -> Iterator[tuple[range, NewCells]]:
        """Yield blocks of the rows of the AnnData, with those of the cells that lie in the block."""
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
    """Find the cells that a fitted map is to move, and check where their results go.

    ``fit`` is None for a map of arrays, and ``same_file`` means that the fit is stored in this AnnData. Without a mask,
    cells with the ``label`` move, or all cells if the AnnData does not have it.
    """
    # The space of the map: the one that the fit was made in, or the one that the user names for a map of arrays.
    if fit is None:
        here = find_representation(adata, use_rep, None)
        if here.n_dims != n_dims:
            raise ValueError(
                f"The map takes {counted(n_dims, 'dimension')} and {here.name!r} has {here.n_dims}: name the right "
                "representation with use_rep, or pass the AnnData that the map comes from as model."
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

    # The cells: those of the mask, else those with the label, else all. Only the columns for this are read.
    if mask_obs is not None:
        obs = obs_columns(adata, *([mask_obs] if isinstance(mask_obs, str) else []))
        rows = np.flatnonzero(mask_rows(obs, mask_obs))
    elif fit is None or label is None:
        rows = np.arange(adata.n_obs)
    else:
        obs = obs_columns(adata, fit.groupby or label)
        labelled = labelled_rows(obs, fit.groupby, label)
        if labelled is None and fit.groupby in obs:
            warn(
                f"adata.obs[{fit.groupby!r}] has no label {label!r}, which the map is for, but "
                f"{listed_labels(obs, str(fit.groupby))}: all cells are moved. Pass mask_obs to choose some.",
            )
        rows = np.arange(adata.n_obs) if labelled is None else labelled
    if not len(rows):
        why = f"no cell is {label!r}" if mask_obs is None else "mask_obs is False everywhere"
        raise ValueError(f"There is nothing to move: {why}.")
    return NewCells(adata, rows, rep)
