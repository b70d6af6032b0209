"""One row for each condition of a fit: does it respond, and is the response predicted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from scot_hycnn._anndata._conditions import Rows
from scot_hycnn._anndata._fit_input import check_counts
from scot_hycnn._anndata._transport_input import find_mover
from scot_hycnn._anndata.evaluation._growth import growth_by_group, has_growth
from scot_hycnn._anndata.evaluation._screen_input import ScreenCells, read_screen_cells
from scot_hycnn._response import (
    AS_REPLICATE,
    MIN_CELLS,
    N_COMPARED,
    NO_RESPONSE,
    NOT_PREDICTED,
    NOT_SCORED,
    PARTLY,
    TOO_FEW,
    NoChange,
    adjusted,
    energy_of_parts,
)
from scot_hycnn._warn import SIGNIFICANT
from scot_hycnn.metrics._samples import mean_between, mean_within

EVERYONE = "all"
# Half splits for the replicate.
_N_SPLITS = 100
_NUMBERS = ("displacement", "no_change", "predicted", "replicate", "p_value", "p_adjusted")


def summary(
    adata: AnnData, key: str | None = None, *, groupby: str | None = None, max_cells: int = 300
) -> pd.DataFrame:
    r"""Return one row for each condition, and for each group of cells where groups are known, with a verdict.

    The verdict has two steps. First, does the condition change anything? Source and observed cells are compared by a
    permutation test of their energy distance, within groups if these are known, and the p values are corrected for the
    number of conditions, or of groups of a condition (Benjamini and Hochberg). Second, is the response predicted? The
    energy distance of predicted and observed cells is compared with that of source and observed cells, and with a
    replicate.

    Parameters
    ----------
    adata, key
        Cells with a fit of :func:`scot_hycnn.tl.hycnn_ot` or :func:`scot_hycnn.tl.hycnn_screen`, and its key in
        ``uns``; None takes ``'hycnn_screen'`` if there is one, else ``'hycnn_ot'``.
    groupby
        Column of ``obs`` such as cell types. None takes the ``group_key`` of the fit, and no groups if it has none.
    max_cells
        Measure distances on at most this number of source and of observed cells, in each group. Which ones depends on
        the names of the cells alone.

    Returns
    -------
    One row for each condition (group ``'all'``), in the order of the fit, and one for each of its groups, with the
    columns

    ``condition``, ``group``
        Names. With groups, energy distances in the row ``'all'`` are means over its groups, weighted by their shares of
        the source cells, so that a shift of proportions is not taken for a response.
    ``n_source``, ``n_target``, ``held_out``, ``outcome``, ``displacement``
        Numbers of cells, and whether they were held out of the fit, by its split; the
        :class:`scot_hycnn.solver.Outcome` of the map; the median length of T(x) - x.
    ``no_change``, ``predicted``, ``replicate``
        Energy distance of the observed cells to the source cells and to the predicted cells, and the one that 95 % of
        replicates stay below: random halves of the observed cells, whose distance is scaled to the numbers of cells
        that are compared (it is proportional to 1/n + 1/m if both are of one distribution). Its expected value is 0.
    ``explained``
        1 - predicted / no_change, the share of the response that is predicted; NaN without a response, and where
        ``no_change`` is at most ``replicate``.
    ``p_value``, ``p_adjusted``
        Of the test for a response, with all cells, held out or not. The latter is corrected over conditions in rows
        ``'all'``, and over the groups of each condition in their rows. All figures and the report use the same test.
    ``growth``, ``growth_low``, ``growth_high``
        With ``unbalanced``, the growth of a group (see :func:`scot_hycnn.pl.growth`) and its 95 % interval; else NaN.
    ``verdict``
        ``'no response'`` if the adjusted p value is above 0.05. Otherwise ``'responds, too few cells to score'`` if
        ``no_change`` is at most ``replicate``: then no change would count as well as a replicate, too. Otherwise
        ``'predicted as well as a replicate'`` if ``predicted`` is at most ``replicate``, ``'partly predicted'`` if it
        is below ``no_change``, and ``'not predicted'``. ``'too few cells'`` stands for fewer than ten source or
        observed cells.

    Raises
    ------
    ValueError
        If there is no such fit, its cells have no labels any more, or ``max_cells`` is below 10.

    References
    ----------
    Székely & Rizzo (2013), J. Stat. Plan. Inference 143 (the distance and its test). Benjamini & Hochberg (1995), J. R.
    Statist. Soc. B 57, 289-300.

    Examples
    --------
    >>> import scot_hycnn as sh
    >>> adata = sh.datasets.screen_planted(n_conditions=6, n_cells=30)
    >>> drugs = adata.obs["condition"].cat.categories[1:].tolist()
    >>> sh.tl.hycnn_ot(adata, "control", drugs, n_pcs=5, potential="gaussian", predict=False)
    >>> table = sh.get.summary(adata)
    >>> table.shape[0], table["group"].unique().tolist()
    (6, ['all'])
    """
    check_counts(MIN_CELLS, max_cells=max_cells)
    return table_of(read_screen_cells(adata, key, groupby), max_cells)


def table_of(cells: ScreenCells, max_cells: int = 300) -> pd.DataFrame:
    """Return the table of :func:`summary`, of cells that were found."""
    members = {EVERYONE: cells.source_rows}
    names: dict[int, str] = {}
    if cells.groups is not None:
        codes = cells.groups.codes
        names = {code: cells.groups.names[code] for code in np.unique(codes[cells.source_rows]) if code >= 0}
        members |= {name: cells.source_rows[codes[cells.source_rows] == code] for code, name in names.items()}
    sources = {}
    for name, rows_of_group in members.items():
        some, x = cells.read(rows_of_group[:max_cells])
        within = mean_within(x, np.sqrt) if len(x) > 1 else np.nan
        sources[name] = _Source(len(rows_of_group), some, x, within)
    # All samples of source cells are moved together, once for each condition.
    moved_rows = np.unique(np.concatenate([source.rows for source in sources.values()]))
    _, moved_x = cells.read(moved_rows)
    rows = []
    for slug, target_rows in cells.target_rows.items():
        parts = {EVERYONE: target_rows}
        if cells.groups is not None:
            parts |= {name: target_rows[cells.groups.codes[target_rows] == code] for code, name in names.items()}
        moved = moved_cells(cells, slug, moved_rows, moved_x)
        measured, replicates = {}, {}
        for name, of_target in parts.items():
            of_source = moved[np.searchsorted(moved_rows, sources[name].rows)]
            y = cells.read(of_target[:max_cells])[1]
            measured[name], replicates[name] = _measure(sources[name], of_source, y)
        measured[EVERYONE]["p_value"] = p_of_response(cells, slug)
        for name, p_values in cells.p_of_groups(slug).items():
            if name in measured:
                measured[name] |= dict(zip(("p_value", "p_adjusted"), p_values, strict=True))
        of_groups = [name for name in measured if name != EVERYONE and np.isfinite(measured[name]["no_change"])]
        if of_groups:
            shares = np.array([sources[name].n_cells for name in of_groups], dtype=np.float64)
            for column in ("no_change", "predicted"):
                values = [measured[name][column] for name in of_groups]
                measured[EVERYONE][column] = float(np.average(values, weights=shares))
            replicates[EVERYONE] = np.average([replicates[name] for name in of_groups], axis=0, weights=shares)
        for name, numbers in measured.items():
            numbers["replicate"] = float(np.quantile(replicates[name], 0.95))
            sizes = sources[name].n_cells, len(parts[name])
            is_held_out = len(target_rows) < len(cells.all_target_rows[slug])
            labels = (cells.fit.targets[slug], name, *sizes, is_held_out, cells.fit.models[slug]["outcome"])
            rows.append((*labels, *(numbers[column] for column in _NUMBERS)))
    columns = ["condition", "group", "n_source", "n_target", "held_out", "outcome", *_NUMBERS]
    table = pd.DataFrame(rows, columns=columns)
    table[["growth", "growth_low", "growth_high"]] = np.nan
    for slug, label in cells.fit.targets.items():
        if cells.groups is not None and has_growth(cells.adata, cells.fit, slug):
            for group, _, *growth in growth_by_group(cells.adata, cells.fit, slug, cells.groups.column):
                of_group = (table["condition"] == label) & (table["group"] == group)
                table.loc[of_group, ["growth", "growth_low", "growth_high"]] = growth
    return _with_verdicts(table)


@dataclass(frozen=True)
class _Source:
    """Source cells that all conditions are compared with: a sample, and their mean distance."""

    n_cells: int
    rows: Rows
    x: NDArray[np.float64]
    within: float


def _measure(
    source: _Source, moved: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[dict[str, float], NDArray[np.float64]]:
    """Return displacement and distances of one condition and group, NaN where cells are too few, and of replicates."""
    measured, replicates = dict.fromkeys(_NUMBERS, np.nan), np.full(_N_SPLITS, np.nan)
    has_moved = np.isfinite(moved).all(axis=1)
    x, moved = source.x[has_moved], moved[has_moved]
    if len(x):
        measured["displacement"] = float(np.median(np.linalg.norm(moved - x, axis=1)))
    if min(len(x), len(y)) < MIN_CELLS:
        return measured, replicates
    between_y, m = cdist(y, y), len(y)
    within_y = between_y.sum() / (m * (m - 1))
    within_x = source.within if has_moved.all() else mean_within(x, np.sqrt)
    measured["no_change"] = 2 * mean_between(x, y, np.sqrt) - within_x - within_y
    measured["predicted"] = 2 * mean_between(moved, y, np.sqrt) - mean_within(moved, np.sqrt) - within_y
    # Halves of the observed cells, the same at every call. Under one distribution the statistic is degenerate, and
    # its distribution is that of a fixed variable times 1/n + 1/m (Székely & Rizzo 2013, sec. 5).
    rng = np.random.default_rng(0)
    halves = rng.permuted(np.tile(np.arange(m) < m // 2, (_N_SPLITS, 1)), axis=1).astype(np.float64)
    scale = (1 / len(x) + 1 / m) / (1 / (m // 2) + 1 / (m - m // 2))
    return measured, scale * energy_of_parts(between_y, halves)


def moved_cells(
    cells: ScreenCells, slug: str, rows: Rows, x: NDArray[np.float64], *, anew: bool = False
) -> NDArray[np.float64]:
    """Return source cells after the map to one target: as they are stored, else, or ``anew``, moved now."""
    stored = None if anew else cells.stored(slug, rows)
    if stored is not None:
        return stored
    from scot_hycnn.solver.model._map import TransportMap  # noqa: PLC0415 - torch only where maps are stored alone

    fit, known = cells.fit, {"rows": rows, "source_rows": cells.all_source_rows}
    fitted = TransportMap.from_dict(fit.models[slug])
    mover = find_mover(fitted, cells.adata, cells.rep, fit.group_columns, **known)
    moved = mover.apply("transport", x, rows, fallback=bool(fit.params.get("fallback", False)))
    return np.asarray(moved, dtype=np.float64)


def p_of_response(cells: ScreenCells, slug: str) -> float:
    """Return the p value of the test for a response: that of the fit, else of all cells; NaN if they are too few."""
    known = cells.fit.models[slug]["validation"].get("p_no_change", np.nan)
    # A fit without groups may have taken a shift of their proportions for a response.
    column = None if cells.groups is None else cells.groups.column
    if np.isfinite(known) and column == cells.fit.params.get("group_key"):
        return float(known)
    (rows_x, x), (rows_y, y) = (
        cells.read(rows[:N_COMPARED]) for rows in (cells.all_source_rows, cells.all_target_rows[slug])
    )
    if min(len(x), len(y)) < MIN_CELLS:
        return float("nan")
    codes = None
    if cells.groups is not None:
        codes = cells.groups.codes[rows_x], cells.groups.codes[rows_y]
    return float(NoChange.test(x, y, codes, np.random.default_rng(0)).p_value)


def _with_verdicts(table: pd.DataFrame) -> pd.DataFrame:
    """Add what follows from the numbers."""
    is_all = table["group"] == EVERYONE
    table.loc[is_all, "p_adjusted"] = adjusted(table.loc[is_all, "p_value"].to_numpy())
    responds = table["p_adjusted"] <= SIGNIFICANT
    explained = 1 - table["predicted"] / table["no_change"]
    # The test uses the cells of all groups, and sees responses that are lost in the noise of a distance.
    is_scored = table["no_change"] > table["replicate"].clip(lower=0)
    table["explained"] = explained.where(responds & is_scored)
    conditions: list[Any] = [
        table["no_change"].isna() | table["p_adjusted"].isna(),
        ~responds,
        ~is_scored,
        table["predicted"] <= table["replicate"],
        table["predicted"] < table["no_change"],
    ]
    table["verdict"] = np.select(conditions, [TOO_FEW, NO_RESPONSE, NOT_SCORED, AS_REPLICATE, PARTLY], NOT_PREDICTED)
    last = ["explained", "p_value", "p_adjusted", "verdict"]
    return table[[*(name for name in table.columns if name not in last), *last]]
