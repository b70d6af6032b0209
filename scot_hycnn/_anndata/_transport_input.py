"""Cells that a fitted map is to move, all checks of them, and the cells that it has moved."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from scot_hycnn._warn import counted, joined, warn

from ._conditions import (
    GroupsOfCells,
    Mask,
    Rows,
    groups_by_columns,
    labelled_rows,
    listed,
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
    obs_columns,
    read_coordinates,
    rows_at_once,
    spans,
)
from ._results import StoredFit
from ._schema import check_slots


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
) -> tuple[Representation, Rows]:
    """Find the cells that a fitted map is to move, and their representation; check where their results go.

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
                f"{listed_labels(obs, str(fit.groupby))}: all cells are moved. Pass mask_obs to choose some."
            )
        rows = np.arange(adata.n_obs) if labelled is None else labelled
    if not len(rows):
        why = f"no cell is {label!r}" if mask_obs is None else "mask_obs is False everywhere"
        raise ValueError(f"There is nothing to move: {why}.")
    return rep, rows


def read_new_cells(adata: AnnData, rep: Representation, rows: Rows) -> Coordinates:
    """Return coordinates of cells to move, shape (n, d); a ValueError names the cells that are not finite."""
    coordinates = read_coordinates(adata, rep, rows)
    check_finite(adata, rep, rows, is_finite(coordinates))
    return coordinates


# ---- centred maps: each cell moves around the mean of the source cells of its group


def check_groups_of_cells(
    adata: AnnData, columns: Sequence[str | None], rows: Rows, source_rows: Rows, known: Collection[str] = ()
) -> GroupsOfCells:
    """Return the groups of cells by one column of obs, or by two, whose first has units; or raise a ValueError.

    Each of the cells to move, ``rows``, needs a group that is ``known`` to the map or has cells among ``source_rows``.
    """
    obs = obs_columns(adata, *columns)
    for name in columns:
        if name is None or name not in obs:
            lacks = "group_key names no column" if name is None else f"adata.obs has no column {name!r}"
            # The column that leave_out named, the first of two, is read under its own name.
            is_unit = name is not None and len(columns) == 2 and name == columns[0]
            advice = f"Add it: the {name} of each cell." if is_unit else "Pass group_key, a column of adata.obs."
            raise ValueError(
                "The map is centred: it moves each cell around the mean of the source cells of its group, and "
                f"{lacks}. {advice} adata.obs has {listed(obs.columns)}."
            )
    groups = groups_by_columns(obs, columns, needed=rows, what="move by a centred map")
    names, codes = groups.names, groups.codes
    unknown = [code for code in np.setdiff1d(codes[rows], codes[source_rows]) if names[code] not in known]
    if unknown:
        raise ValueError(
            f"The groups {joined([repr(names[code]) for code in unknown])} of adata.obs[{columns[-1]!r}] are new to "
            "this centred map: add their source cells, whose mean it needs, or leave these groups out with mask_obs."
        )
    return groups


def find_mover(
    fitted: Any, adata: AnnData, rep: Representation, columns: Sequence[str | None], *, rows: Rows, source_rows: Rows
) -> Mover:
    """Return what moves the cells in these rows by a map.

    For a centred map it has the centres that the map knows, and of a new group the mean of its ``source_rows``.
    """
    known: Mapping[str, NDArray[np.float64]] = fitted.centres
    if not known:
        return Mover(fitted)
    names, codes, parts = check_groups_of_cells(adata, columns, rows, source_rows, known)
    points, counts = np.zeros((len(names), rep.n_dims)), np.zeros(len(names))
    wanted = [code for code in np.unique(codes[rows]) if names[code] not in known]
    needed, baselines = wanted, fitted.baselines
    if baselines is not None:  # that of a new unit takes all its groups
        needed = [*wanted, *np.flatnonzero(~np.isin(parts[:, 0], list(baselines.units)))]
    # One pass in blocks of rows: cells may lie in a file.
    for _, some in spans(adata.n_obs, source_rows[np.isin(codes[source_rows], needed)], rows_at_once(rep)):
        if len(some):
            cells = read_coordinates(adata, rep, some)
            finite = is_finite(cells)
            np.add.at(points, codes[some[finite]], cells[finite])
            np.add.at(counts, codes[some[finite]], 1)
    empty = [names[code] for code in wanted if not counts[code]]
    if empty:
        raise ValueError(
            f"The groups {joined(list(map(repr, empty)))} have no source cell with finite coordinates, whose mean the "
            "centred map needs: impute them, or leave these groups out with mask_obs."
        )
    points /= np.maximum(counts, 1)[:, None]
    origins = None
    if baselines is not None:
        origins = np.zeros_like(points)
        for unit in np.unique(parts[:, 0]):
            of_unit = parts[:, 0] == unit
            some = of_unit & (counts > 0)
            if unit in baselines.units:
                origins[of_unit] = baselines.units[unit]
            elif some.any():
                origins[of_unit] = baselines.of_unit(points[some], counts[some], parts[some, 1])
        points -= origins
    points = np.stack([known.get(name, point) for name, point in zip(names, points, strict=True)])
    return Mover(fitted, codes, points, origins)


@dataclass(frozen=True)
class Mover:
    """A map, which moves cells as a TransportMap does: each around the centre of its group if the map is centred."""

    fitted: Any
    codes: Rows | None = None  # place of each cell's group among the centres, (n_obs,); None for all other maps
    centres: NDArray[np.float64] | None = None  # (groups, d)
    origins: NDArray[np.float64] | None = None  # baselines of the units of these groups, (groups, d), if it has any

    def apply(self, method: str, x: Any, rows: Rows, **options: Any) -> Any:
        """Return what ``transport`` or ``inverse`` of the map does for the cells in these rows, with coordinates x."""
        if self.codes is None or self.centres is None:
            return getattr(self.fitted, method)(x, **options)
        around = self.centres[:, None] if self.origins is None else np.stack([self.centres, self.origins], axis=1)
        if not len(rows):
            return getattr(self.fitted.around(*around[0]), method)(x, **options)
        order = np.argsort(self.codes[rows], kind="stable")
        groups, starts = np.unique(self.codes[rows][order], return_index=True)
        parts = [
            getattr(self.fitted.around(*around[group]), method)(x[some], **options)
            for group, some in zip(groups, np.split(order, starts[1:]), strict=True)
        ]
        back = np.argsort(order)
        if isinstance(parts[0], tuple):
            return tuple(np.concatenate(one)[back] for one in zip(*parts, strict=True))
        return np.concatenate(parts)[back]


@dataclass(frozen=True)
class Moved:
    """Cells that a map has moved; the inverse map has neither displacement nor what comes after it."""

    rows: Rows  # ascending, (n,)
    points: Coordinates  # (n, d)
    displacement: Coordinates | None = None  # length of the move, (n,)
    std: Coordinates | None = None  # standard deviation over the ensemble, (n,)
    out_of_support: Coordinates | None = None  # distance from the training cells; None for maps stored without these


def moved_by(
    mover: Mover, x: Any, rows: Rows, direction: str = "forward", *, t: float = 1.0, fallback: bool = False
) -> Moved:
    """Move cells with coordinates x, forward all the way or the part t of it, or by the inverse map."""
    if direction == "inverse":
        return Moved(rows, np.asarray(mover.apply("inverse", x, rows)))
    scores = {"return_std": True, "return_out_of_support": mover.fitted.support is not None}  # not in older versions
    points, *columns = mover.apply("transport", x, rows, t=t, fallback=fallback, **scores)
    # A damaged map can move cells so far that the squares in the norm overflow.
    with np.errstate(over="ignore"):
        displacement = np.linalg.norm(points - x, axis=1)
    if not np.isfinite(displacement).all():
        raise ValueError("The map moves cells farther than numbers can say. The map is damaged: fit again.")
    return Moved(rows, points, displacement, *columns)
