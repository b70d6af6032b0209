"""Apply fitted maps to any cells."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray
from scanpy import logging as logg

from scot_hycnn._anndata import (
    Mask,
    Moved,
    NewCells,
    Slots,
    StoredFit,
    append_moved,
    check_absent,
    check_output,
    claim,
    find_new_cells,
    new_store,
    write_moved,
)
from scot_hycnn.solver import TransportMap

from ._models import Model, open_maps
from ._threads import threads_of_scanpy

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
    output: str | Path | None = None,
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
    output
        Write the slots to a new .zarr store at this path instead, and leave ``adata`` as it is. Cells are read, moved
        and written in blocks of rows, so that millions of them in a file need little memory.
    copy
        Return a changed copy instead of changing ``adata``.

    Returns
    -------
    None, or the copy. The slots, of ``adata`` or of the store, which has the same cells, are those of
    :func:`scot_hycnn.tl.hycnn_ot`, without ``uns``: ``obsm['X_hycnn_ot_<slug>']``,
    ``obs['hycnn_ot_displacement_<slug>']``, ``obs['hycnn_ot_std_<slug>']`` and
    ``obs['hycnn_ot_out_of_support_<slug>']``; ``obsm['X_hycnn_ot_inverse_<slug>']`` if inverse.

    Raises
    ------
    FileNotFoundError
        If ``model`` is a path to nothing, or the folder of ``output`` does not exist.
    ImportError
        If ``output`` is given and zarr is not installed.
    TypeError
        If ``adata``, ``key`` or ``model`` is of another type.
    ValueError
        If there is no such fit or target, the representation is not the one of the map, an option or value
        does not fit, or ``output`` exists. The AnnData is then as it was, and no store is left.

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

    To a store, which a notebook can open without reading it:

    >>> import anndata, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     sh.tl.transport(others, model=adata, output=f"{folder}/moved.zarr")
    ...     anndata.read_zarr(f"{folder}/moved.zarr").obsm["X_hycnn_ot"].shape
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
    path = check_output(output, copy=copy)
    adata = claim(adata, copy=copy, writes=path is None)
    fit, maps = open_maps(adata, model, key, target)
    if t != 1 and key_added is None and output is None:
        check_absent(adata, key, [slug if fit is None else fit.suffix(slug) for slug in maps])
    key_added = key if key_added is None else key_added
    far = bool(fit is not None and fit.params.get("fallback", False)) if fallback is None else fallback
    moves = {}
    found: dict[tuple[str | None, int], NewCells] = {}  # all forward maps move the same cells
    for slug, transport_map in maps.items():
        label = _label(fit, slug, direction)
        which = label, transport_map.n_dims
        if which not in found:
            found[which] = find_new_cells(
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
        moves[slug if fit is None else fit.suffix(slug)] = _Move(label, found[which], transport_map, direction, t, far)
    start = datetime.now(tz=UTC)
    if path is None:
        added = write_moved(adata, {suffix: move.whole() for suffix, move in moves.items()}, key=key_added, fill=fill)
    else:
        added = _write_store(adata, path, moves, key=key_added, fill=fill)
    logg.info("    finished", time=start, deep=added)
    return adata if copy else None


@dataclass(frozen=True)
class _Move:
    """One map and the cells that it is to move.

    Parameters
    ----------
    label
        Their condition.
    cells
        The cells.
    transport_map
        The map.
    direction, t, fallback
        How.
    """

    label: str | None
    cells: NewCells
    transport_map: TransportMap
    direction: str
    t: float
    fallback: bool

    def announce(self) -> None:
        logg.info(
            f"transporting {len(self.cells.rows)} of {self.cells.adata.n_obs} cells"
            f"{'' if self.label is None else f' by the map of {self.label!r}'}, {self.direction}, on "
            f"{self.transport_map.device}"
        )

    def whole(self) -> Moved:
        self.announce()
        return self.of(self.cells)

    @threads_of_scanpy()
    def of(self, cells: NewCells) -> Moved:
        """Move some of the cells."""
        x = cells.read()
        if self.direction == "inverse":
            return Moved(cells, self.transport_map.inverse(x))
        points, std = self.transport_map.transport(x, self.t, return_std=True, fallback=self.fallback)
        far = None if self.transport_map.support is None else self.transport_map.out_of_support(x)
        return Moved(cells, points, _lengths(points - x), std, far)


def _lengths(moves: NDArray[np.floating]) -> NDArray[np.floating]:
    with np.errstate(over="ignore"):
        lengths: NDArray[np.floating] = np.linalg.norm(moves, axis=1)
    if not np.isfinite(lengths).all():
        raise ValueError("The map moves cells farther than numbers can say. The map is damaged: fit again.")
    return lengths


def _write_store(adata: AnnData, path: Path, moves: dict[str, _Move], *, key: str, fill: str) -> str:
    with new_store(adata, path) as store:
        for suffix, move in moves.items():
            move.announce()
            for span, cells in move.cells.blocks():
                append_moved(store, span, move.of(cells), slots=Slots.named(key, suffix), fill=fill)
    return f"written to {str(path)!r}"


def _label(fit: StoredFit | None, slug: str, direction: str) -> str | None:
    if fit is None:
        return None
    return fit.source if direction == "forward" else fit.targets[slug]
