"""Apply fitted maps to any cells."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from anndata import AnnData
from scanpy import logging as logg

from scot_hycnn._anndata._conditions import Mask, Rows, labelled_rows
from scot_hycnn._anndata._files import SUFFIXES, read_uns
from scot_hycnn._anndata._representation import Representation, obs_columns, rows_at_once, spans
from scot_hycnn._anndata._results import StoredFit, fit_of_origin, read_fit
from scot_hycnn._anndata._schema import Slots, slugs, unseen_slot
from scot_hycnn._anndata._transport_input import Moved, Mover, find_mover, find_new_cells, moved_by, read_new_cells
from scot_hycnn._anndata._write import check_output, claim, new_store, slots_of_moved, write_moved
from scot_hycnn._anndata.evaluation._screen_input import stored_screen
from scot_hycnn._warn import joined
from scot_hycnn.solver import Screen, TransportMap

from ._fitting import threads_of_scanpy

DIRECTIONS = ("forward", "inverse")
Model: TypeAlias = AnnData | TransportMap | str | Path


def transport(
    adata: AnnData,
    key: str = "hycnn_ot",
    *,
    target: str | None = None,
    covariates: Mapping[str, Any] | None = None,
    model: Model | None = None,
    direction: str = "forward",
    t: float = 1.0,
    fallback: bool | None = None,
    use_rep: str | None = None,
    mask_obs: Mask | None = None,
    group_key: str | None = None,
    fill: str = "nan",
    key_added: str | None = None,
    output: str | Path | None = None,
    copy: bool = False,
) -> AnnData | None:
    r"""Move cells of this or any other AnnData by a fitted map, all the way or part of it.

    Parameters
    ----------
    adata
        Cells to move, in the representation that the map was fitted in.
    key
        Key of the fit in ``uns`` (the ``key_added`` of :func:`scot_hycnn.tl.hycnn_ot`).
    target
        Label of the target condition; None applies the maps to all targets of the fit.
    covariates
        Value of each covariate of a screen, such as ``{"minutes": 20, "protein": "SRC"}``, for a condition that was not
        measured (see :func:`scot_hycnn.tl.hycnn_screen`), in place of ``target``.
    model
        Source of the map, if it is not in ``adata``: another AnnData that holds a fit, a path to one (.h5ad, .zarr), a
        :class:`scot_hycnn.solver.TransportMap`, or a path to a saved one.
    direction
        ``'forward'`` moves source cells by T, ``'inverse'`` target cells by :math:`T^{-1}`.
    t
        Part of the way, in [0, 1]: :math:`(1-t)\,x + t\,T(x)`, the displacement interpolation. Forward only.
    fallback
        Use the Gaussian map, or of a fit with ``leave_out='groups'`` a shift, for cells that are far from the training
        source cells; see :func:`scot_hycnn.tl.hycnn_ot`. Forward only; None takes the option of the fit.
    use_rep
        Representation, for a ``model`` that comes without AnnData.
    mask_obs
        Move these cells: a boolean array, or the name of a boolean column of ``obs``. None moves the cells with the
        source's label (target's, if inverse), or all cells if the AnnData has no such column or label.
    group_key
        Column of ``obs`` with the group of each cell, for a centred map (see
        :class:`scot_hycnn.solver.TransportMap`); None takes the column of the fit. (A column named by ``leave_out``,
        such as ``'donor'``, is read under its own name.) A group that the fit has not seen is
        moved around the mean of its own source cells: those with the source's label, or the cells that are moved if
        there are none.
    fill
        Content of the rows of all other cells: ``'nan'``, or ``'identity'`` for their own coordinates.
    key_added
        Stem of the keys; None means ``key``. Part of the way (``t`` below 1) needs another stem than a full prediction,
        which :mod:`scot_hycnn.get` and :mod:`scot_hycnn.pl` read.
    output
        Write the slots to a new .zarr store at this path, and do not change ``adata``. Cells are read, moved and
        written in blocks of rows, so millions of them in a file need little memory.
    copy
        Return a changed copy instead of changing ``adata``.

    Returns
    -------
    None, or the copy. The slots, of ``adata`` or of the store, are those of :func:`scot_hycnn.tl.hycnn_ot` without
    ``uns``: ``obsm['X_hycnn_ot_<slug>']`` and the columns of ``obs``; ``obsm['X_hycnn_ot_inverse_<slug>']`` if inverse.
    With ``covariates`` these make the slug, such as ``minutes_20_protein_SRC``, and
    ``uns['<key>_unseen_<slug>']`` has the ``distance`` to the nearest condition of the screen, in units of the usual
    distance between these.

    Raises
    ------
    FileNotFoundError, ImportError
        If ``model`` is a path to nothing, or ``output`` needs a folder or zarr, which are not there.
    TypeError
        If ``adata``, ``key`` or ``model`` is of another type.
    ValueError
        If a fit, target, option or value does not exist or fit, the representation is not the map's, a centred map
        lacks the group of a cell, ``covariates`` are far from those of all conditions of the screen, or ``output``
        exists. Then nothing is changed or written.

    Warns
    -----
    UserWarning
        If slots are replaced, or it is unknown whether the representation is the map's.

    References
    ----------
    McCann (1997), Adv. Math. 128, 153-179 (displacement interpolation).

    Examples
    --------
    >>> import scot_hycnn as sh
    >>> adata = sh.datasets.pbmc_planted(n_cells=400)
    >>> sh.tl.hycnn_ot(adata, "control", "IFN-beta", potential="gaussian")

    Other cells, half of the way:

    >>> others = sh.datasets.pbmc_planted(n_cells=60, rng=1)
    >>> sh.tl.transport(others, model=adata, t=0.5, key_added="half")
    >>> others.obsm["X_half"].shape
    (60, 30)
    """
    if direction not in DIRECTIONS:
        raise ValueError(f"direction={direction!r} is unknown; choose one of {list(DIRECTIONS)}.")
    if direction == "inverse" and (t != 1 or covariates is not None or fallback):
        given = f"t={t}, covariates={covariates} and fallback={fallback}"
        raise ValueError(f"{given} go with direction='forward' only; leave them out.")
    if isinstance(key, AnnData):
        raise TypeError("The second argument, key, is an AnnData; pass it as model=.")
    # A store is checked before any cell is moved.
    path = check_output(output, copy=copy)
    adata = claim(adata, copy=copy, writes=path is None)

    fit, maps, unseen = _find_maps(adata, model, key, target, covariates)
    suffixes = {slug: slug if fit is None or slug in unseen else fit.suffix(slug) for slug in maps}
    # get and pl read the slots of a full prediction, so cells that moved part of the way need others.
    taken = [slot for slot in (Slots.named(key, suffix).moved for suffix in suffixes.values()) if slot in adata.obsm]
    if t != 1 and key_added is None and output is None and taken:
        raise ValueError(
            f"t={t} would replace the full prediction {taken[0]!r}; pass for instance key_added='{key}_half'."
        )
    key_added = key if key_added is None else key_added
    if fallback is None:
        fallback = fit is not None and bool(fit.params.get("fallback", False))

    # All forward maps move the source cells, which are found once; an inverse map moves the cells of its target.
    label_of = {} if fit is None else fit.targets if direction == "inverse" else dict.fromkeys(maps, fit.source)
    labels = {slug: label_of.get(slug) for slug in maps}
    options: dict[str, Any] = {"use_rep": use_rep, "mask_obs": mask_obs, "same_file": model is None}
    options |= {"n_dims": next(iter(maps.values())).n_dims, "key": key_added, "fill": fill}
    cells = {label: find_new_cells(adata, fit, label, **options) for label in dict.fromkeys(labels.values())}
    rep = next(iter(cells.values()))[0]
    rows = {slug: cells[label][1] for slug, label in labels.items()}
    movers = _movers(adata, fit, maps, rep, rows, group_key)

    start, moved = datetime.now(tz=UTC), dict[str, Moved]()
    # In memory all cells of a map are moved at once and written last; to a store they are moved and written in blocks.
    with threads_of_scanpy(), nullcontext() if path is None else new_store(adata, path) as store:
        for slug, mover in movers.items():
            some, suffix = rows[slug], suffixes[slug]
            by, device = "" if labels[slug] is None else f" by the map of {labels[slug]!r}", maps[slug].device
            logg.info(f"transporting {len(some)} of {adata.n_obs} cells{by}, {direction}, on {device}")
            if store is None:
                x = read_new_cells(adata, rep, some)
                moved[suffix] = moved_by(mover, x, some, direction, t=t, fallback=fallback)
                _log_unlike(adata, moved[suffix], fit, group_key)
                continue
            for span, block in spans(adata.n_obs, some, rows_at_once(rep)):
                x = read_new_cells(adata, rep, block)
                part = moved_by(mover, x, block, direction, t=t, fallback=fallback)
                store.append(**slots_of_moved(adata, rep, part, Slots.named(key_added, suffix), fill=fill, span=span))
    if path is None:
        uns = {unseen_slot(key_added, slug): entry for slug, entry in unseen.items()}
        added = write_moved(adata, rep, moved, key=key_added, fill=fill, uns=uns)
    else:
        added = f"written to {str(path)!r}"
    logg.info("    finished", time=start, deep=added)
    return adata if copy else None


def _log_unlike(adata: AnnData, moved: Moved, fit: StoredFit | None, group_key: str | None) -> None:
    """Say which groups are unlike the cells of the fit, if the map was chosen for cells of the same groups."""
    if fit is None or moved.out_of_support is None or fit.params.get("leave_out", "cells") != "cells":
        return
    column = fit.params.get("group_key") if group_key is None else group_key
    obs = obs_columns(adata, *([] if column is None else [column]))
    # A column that stands twice names no groups.
    by_group = column in obs and obs[column].ndim == 1
    labels = obs[column].astype(str).to_numpy()[moved.rows] if by_group else np.zeros(len(moved.rows))
    median = pd.Series(moved.out_of_support).groupby(labels).median()
    unlike = [str(label) for label in median.index[median > 1]]
    if unlike:
        which = f"the groups {joined([repr(label) for label in unlike], 5)}" if by_group else "the cells"
        logg.warning(
            f"{which} are unlike those that the map was fitted on: half of these cells have an out-of-support score "
            "above 1, where 5 % are usual. The map was not chosen for such cells. For types, donors or cell lines that "
            "were not in the fit, fit with group_key and leave_out='groups', or leave_out='donor'."
        )


def _find_maps(
    adata: AnnData, model: Model | None, key: str, target: str | None, covariates: Mapping[str, Any] | None
) -> tuple[StoredFit | None, dict[str, TransportMap], dict[str, dict[str, Any]]]:
    """Return the fit that the maps come from, None for a map of arrays, the maps by slug, and what is unseen of them.

    The latter is what is written about a condition that was not measured, by its slug.
    """
    if isinstance(model, (str, Path)):
        path = Path(model)
        model = read_uns(path) if path.suffix in SUFFIXES else TransportMap.load(path)
    if covariates is not None:
        return _find_unseen(adata if model is None else model, key, target, covariates)
    if isinstance(model, TransportMap):
        if target is not None:
            raise ValueError(f"target={target!r} chooses among the maps of an AnnData; model is a single map.")
        return fit_of_origin(model.origin, key) if model.origin else None, {"": model}, {}
    if model is not None and not isinstance(model, AnnData):
        raise TypeError(
            f"model is of type {type(model).__name__}; it takes a TransportMap, an AnnData that holds a fit, or a path."
        )
    fit = read_fit(adata if model is None else model, key)
    return fit, {slug: TransportMap.from_dict(fit.models[slug]) for slug in fit.slugs(target)}, {}


def _find_unseen(
    holder: object, key: str, target: str | None, covariates: Mapping[str, Any]
) -> tuple[StoredFit, dict[str, TransportMap], dict[str, dict[str, Any]]]:
    """Return the fit of a screen, its map for a condition that it has not seen, and what is written about this."""
    if target is not None:
        raise ValueError(f"covariates= name a condition without cells, and target={target!r} one with cells; pass one.")
    if not isinstance(holder, AnnData):
        raise TypeError("covariates= need a screen: model takes an AnnData that holds one, or a path to it.")
    fit = read_fit(holder, key)
    fitted, distance = Screen.from_dict(stored_screen(holder, key)).at(covariates)
    names = {name: f"{one:g}" if isinstance(one, (int, float)) else str(one) for name, one in covariates.items()}
    # The vector of an embedding is no part of a key.
    label = " ".join(f"{name} {text}" if np.ndim(covariates[name]) == 0 else name for name, text in names.items())
    *_, slug = slugs([*fit.targets.values(), label])  # differs from those of all conditions that were measured
    logg.info(f"{label} is {distance:.2g} usual distances between conditions away from the nearest one of the screen")
    about = {"distance": distance, "names": np.array(list(names), np.str_), "values": np.array(list(names.values()))}
    return fit, {slug: fitted}, {slug: about}


def _movers(  # noqa: PLR0917
    adata: AnnData,
    fit: StoredFit | None,
    maps: Mapping[str, TransportMap],
    rep: Representation,
    rows: Mapping[str, Rows],
    group_key: str | None,
) -> dict[str, Mover]:
    """Return what moves the cells: a centred map takes the mean of a new group from its source cells, if it has any."""
    columns: tuple[str | None, ...] = (group_key,)
    found = None
    if fit is not None:
        columns = fit.group_columns if group_key is None else (*fit.group_columns[:-1], group_key)
        found = labelled_rows(obs_columns(adata, fit.groupby or fit.source), fit.groupby, fit.source)
    movers = {}
    for slug, some in rows.items():
        source_rows = some if found is None or not len(found) else found
        movers[slug] = find_mover(maps[slug], adata, rep, columns, rows=some, source_rows=source_rows)
    return movers
