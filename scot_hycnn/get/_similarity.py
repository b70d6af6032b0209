"""Which conditions act alike."""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData

from scot_hycnn._anndata._fit_input import check_counts
from scot_hycnn._anndata.evaluation._screen_input import read_screen_cells
from scot_hycnn._response import adjusted
from scot_hycnn._warn import SIGNIFICANT

from ._summary import moved_cells, p_of_response


def similarity(
    adata: AnnData, key: str | None = None, *, groupby: str | None = None, max_cells: int = 500
) -> pd.DataFrame:
    r"""Compare the maps of all conditions with each other, on the source cells.

    Two maps :math:`T_a` and :math:`T_b` from the same source are compared cell by cell, by

    .. math::
        d(a, b)    &= \left(E\,|T_a(x) - T_b(x)|^2\right)^{1/2}, \\
        \cos(a, b) &= \frac{E\,\langle \Delta_a, \Delta_b\rangle}{(E\,|\Delta_a|^2\; E\,|\Delta_b|^2)^{1/2}}, \qquad
        \Delta_a = T_a(x) - x.

    The distance compares what happens to every cell, and the cosine the directions in which the cells move, whatever
    the strength: two doses of a drug are far apart and have a cosine near 1. It is 0 for drugs that act on different
    cells, and -1 only if each cell moves the opposite way. The cosine of conditions that change nothing is one of
    noise; the columns under ``'response'`` say which these are.

    Parameters
    ----------
    adata, key
        Cells with a fit of :func:`scot_hycnn.tl.hycnn_ot` or :func:`scot_hycnn.tl.hycnn_screen`, and its key in
        ``uns``; None takes ``'hycnn_screen'`` if there is one, else ``'hycnn_ot'``.
    groupby
        Column of ``obs`` such as cell types, within which the test compares cells, as in
        :func:`scot_hycnn.get.summary`; None takes the ``group_key`` of the fit.
    max_cells
        Compare on at most this number of source cells, held-out ones if the fit has a split. Which ones depends on
        their names alone.

    Returns
    -------
    One row for each condition, and columns of two levels: ``table['distance']``, in units of the representation, and
    ``table['cosine']`` are tables of conditions x conditions; ``table['response']`` has the ``p_value`` of a
    permutation test for a response, ``p_adjusted``, corrected for the number of conditions (Benjamini and Hochberg),
    and ``seen``, whether the latter is at most 0.05.

    Raises
    ------
    ValueError
        If there is no such fit, its cells have no labels any more, or ``max_cells`` is below 2.

    References
    ----------
    Benjamini & Hochberg (1995), J. R. Statist. Soc. B 57, 289-300.

    Examples
    --------
    >>> import scot_hycnn as sh
    >>> adata = sh.datasets.screen_planted(n_conditions=6, n_cells=40)
    >>> drugs = adata.obs["condition"].cat.categories[1:].tolist()
    >>> sh.tl.hycnn_ot(adata, "control", drugs, n_pcs=5, potential="gaussian", predict=False)
    >>> alike = sh.get.similarity(adata)
    >>> alike["cosine"].shape, bool(alike["cosine"].loc["drug A, 1 uM, 24 h", "drug A, 10 uM, 24 h"] > 0.6)
    ((6, 6), True)
    """
    check_counts(2, max_cells=max_cells)
    cells = read_screen_cells(adata, key, groupby)
    rows, x = cells.read(cells.source_rows[:max_cells])
    # The slots of a fit with plates have other source cells for each condition.
    anew = bool(cells.fit.params.get("plate_key"))
    moved = (moved_cells(cells, slug, rows, x, anew=anew) for slug in cells.fit.targets)
    moves = np.stack([(one - x).astype(np.float32) for one in moved])
    moves = moves[:, np.isfinite(moves).all(axis=(0, 2))]
    if not moves.shape[1]:
        raise ValueError(f"No source cell was moved by all maps; run sh.tl.transport(adata, {cells.fit.key!r}) again.")
    # Inner products of all maps at once, E <T_a(x) - x, T_b(x) - x>, give the squared distances.
    flat = moves.reshape(len(moves), -1)
    products = (flat @ flat.T).astype(np.float64) / moves.shape[1]
    squared = np.diag(products)
    distance = np.sqrt(np.maximum(squared[:, None] + squared - 2 * products, 0))
    np.fill_diagonal(distance, 0)
    # A map that moves nothing has no direction. Means over all cells would not do: of drugs for monocytes and for T
    # cells, of datasets.screen_planted, the mean displacements have a cosine of -0.9, and the cells one of 0.1.
    with np.errstate(invalid="ignore"):
        cosine = np.clip(products / np.sqrt(squared[:, None] * squared), -1, 1)
    names = pd.Index(list(cells.fit.targets.values()), name="condition")
    p_value = np.array([p_of_response(cells, slug) for slug in cells.fit.targets])
    p_adjusted = adjusted(p_value)
    response = pd.DataFrame({"p_value": p_value, "p_adjusted": p_adjusted, "seen": p_adjusted <= SIGNIFICANT}, names)
    tables = {name: pd.DataFrame(values, names, names) for name, values in (("distance", distance), ("cosine", cosine))}
    return pd.concat(tables | {"response": response}, axis=1)
