"""Apply fitted maps to any cells."""

from __future__ import annotations

from anndata import AnnData
from scanpy import logging as logg

from scot_hycnn._anndata import Mask, Moved, NewCells, StoredFit, check_absent, claim, read_new_cells, write_moved
from scot_hycnn.solver import TransportMap

from ._models import Model, open_maps

DIRECTIONS = ("forward", "inverse")


def transport(
    adata: AnnData,
    key: str = "hycnn_ot",
    *,
    target: str | None = None,
    model: Model | None = None,
    direction: str = "forward",
    t: float = 1.0,
    fallback: bool | None = None,
    use_rep: str | None = None,
    mask_obs: Mask | None = None,
    fill: str = "nan",
    key_added: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    r"""Move cells by a fitted map: cells of this or any other AnnData, all the way or part of it.

    Parameters
    ----------
    adata
        Cells to move, in the representation that the map was fitted in.
    key
        Where :func:`scot_hycnn.tl.hycnn_ot` has put its fit in ``uns`` (its ``key_added``).
    target
        Label of the target condition; None applies the maps to all targets of the fit.
    model
        Where the map comes from, if not from ``adata`` itself: another AnnData that holds a fit, a path to one (.h5ad,
        .zarr), a :class:`scot_hycnn.solver.TransportMap`, or a path to a saved one.
    direction
        ``'forward'`` moves source cells by T, ``'inverse'`` target cells by :math:`T^{-1}`.
    t
        Part of the way, in [0, 1]: :math:`(1-t)\,x + t\,T(x)`, the displacement interpolation. Forward only.
    fallback
        Go over to the Gaussian map where a cell is far from the training source cells; see
        :func:`scot_hycnn.tl.hycnn_ot`. Forward only; None does as the fit did.
    use_rep
        Representation, for a ``model`` that comes without AnnData. Otherwise the fit knows.
    mask_obs
        Move these cells: a boolean array, or the name of a boolean column of ``obs``. None moves the cells that carry
        the source's label (target's, if inverse) in the column that the fit was made from, and all cells
        if the AnnData has no such column or label.
    fill
        What rows of other cells hold: ``'nan'``, or ``'identity'`` for their own coordinates.
    key_added
        Stem of the keys; None means ``key``. Part of the way (``t`` below 1) needs a stem of its own where a full
        prediction is, which :mod:`scot_hycnn.get` and :mod:`scot_hycnn.pl` would otherwise take it for.
    copy
        Return a changed copy instead of changing ``adata``.

    Returns
    -------
    None, or the copy. The slots are those of :func:`scot_hycnn.tl.hycnn_ot`, without ``uns``:
    ``obsm['X_hycnn_ot_<slug>']``, ``obs['hycnn_ot_displacement_<slug>']``, ``obs['hycnn_ot_std_<slug>']`` and
    ``obs['hycnn_ot_out_of_support_<slug>']``;
    ``obsm['X_hycnn_ot_inverse_<slug>']`` if inverse.

    Raises
    ------
    FileNotFoundError
        If ``model`` is a path to nothing.
    TypeError
        If ``adata``, ``key`` or ``model`` is of another type.
    ValueError
        If there is no such fit or target, the representation is not the one of the map, or an option or value
        does not fit. The AnnData is then as it was.

    Warns
    -----
    UserWarning
        If slots are replaced, or nothing tells whether the representation is the map's.

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
    if direction == "inverse" and t != 1:
        raise ValueError(f"t={t} goes with direction='forward' only; leave it out.")
    if direction == "inverse" and fallback:
        raise ValueError("fallback=True goes with direction='forward' only; leave it out.")
    if isinstance(key, AnnData):
        raise TypeError("The second argument, key, is an AnnData; pass it as model=.")
    adata = claim(adata, copy=copy)
    fit, maps = open_maps(adata, model, key, target)
    if t != 1 and key_added is None:
        check_absent(adata, key, [slug if fit is None else fit.suffix(slug) for slug in maps])
    key_added = key if key_added is None else key_added
    moved = {}
    for slug, transport_map in maps.items():
        label = _label(fit, slug, direction)
        cells = read_new_cells(
            adata,
            fit,
            label,
            n_dims=transport_map.n_dims,
            use_rep=use_rep,
            mask_obs=mask_obs,
            same_file=model is None,
            key=key_added,
            fill=fill,
        )
        start = logg.info(
            f"transporting {len(cells.rows)} of {adata.n_obs} cells"
            f"{'' if label is None else f' by the map of {label!r}'}, {direction}, on {transport_map.device}"
        )
        far = bool(fit is not None and fit.params.get("fallback", False)) if fallback is None else fallback
        moved[slug if fit is None else fit.suffix(slug)] = _move(cells, transport_map, direction, t, far)
    added = write_moved(adata, moved, key=key_added, fill=fill)
    logg.info("    finished", time=start, deep=added)
    return adata if copy else None


def _label(fit: StoredFit | None, slug: str, direction: str) -> str | None:
    if fit is None:
        return None
    return fit.source if direction == "forward" else fit.targets[slug]


def _move(cells: NewCells, transport_map: TransportMap, direction: str, t: float, fallback: bool) -> Moved:
    if direction == "inverse":
        return Moved(cells, transport_map.inverse(cells.coordinates), None)
    x = cells.coordinates
    points, std = transport_map.transport(x, t, return_std=True, fallback=fallback)
    return Moved(cells, points, std, None if transport_map.support is None else transport_map.out_of_support(x))
