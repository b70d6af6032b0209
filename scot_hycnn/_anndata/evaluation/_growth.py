"""Weights and growth of cells, as a fit with ``unbalanced`` has written them."""

from __future__ import annotations

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from scot_hycnn._anndata._conditions import read_groups
from scot_hycnn._anndata._representation import in_memory, read_coordinates
from scot_hycnn._anndata._results import GroupGrowth, StoredFit, labelled_cells
from scot_hycnn._neighbours import mean_of_neighbours

from ._evaluation_input import HeldOut

# Cells of the fit whose weights those of other cells are taken from.
_MAX_KNOWN = 4000
# Cells that count more than this quantile of all weights are drawn like those that count as much.
_TOP_WEIGHT = 0.99


def has_growth(adata: AnnData, fit: StoredFit, slug: str) -> bool:
    """Whether the columns that a fit with ``unbalanced`` writes are there."""
    slots = fit.slots(slug)
    return slots.weight in adata.obs and slots.growth in adata.obs


def growth_of_cells(adata: AnnData, fit: StoredFit, slug: str) -> NDArray[np.float64]:
    """Return the growth of each source cell of the fit, (n_obs,), NaN for other cells; a ValueError without it."""
    name = fit.slots(slug).growth
    if not has_growth(adata, fit, slug):
        penalty = fit.models[slug]["validation"].get("unbalanced") if fit.models else None
        why = (
            "the fit was made without unbalanced: pass unbalanced=0.3 or unbalanced='auto' to sh.tl.hycnn_ot"
            if penalty is None
            else "unbalanced='auto' chose the balanced fit, by which every cell grows by 1"
            if np.isinf(penalty)
            else "the column was removed: fit again"
        )
        raise ValueError(f"adata.obs has no growth of cells {name!r}; {why}.")
    return np.asarray(in_memory(adata.obs[name]), dtype=np.float64)


def growth_by_group(adata: AnnData, fit: StoredFit, slug: str, groupby: str) -> list[GroupGrowth]:
    """Return the growth of each group that has source cells, the smallest first.

    The interval is that of a ratio of two shares, by the sampling of cells: the variance of its logarithm is
    :math:`1/n_g - 1/n + 1/m_g - 1/m`, with m_g the growth times n_g m/n.
    """
    growth = growth_of_cells(adata, fit, slug)
    weight = np.asarray(in_memory(adata.obs[fit.slots(slug).weight]), dtype=np.float64)
    is_source = np.isfinite(growth)
    n, m = int(is_source.sum()), int((np.isfinite(weight) & ~is_source).sum())
    unit = float(fit.params.get("growth", 1.0))
    labels, rows = read_groups(adata.obs, groupby), []
    for code, name in enumerate(labels.names):
        of_group = growth[is_source & (labels.codes == code)]
        if len(of_group):
            mean = float(of_group.mean())
            target = max(mean / unit * len(of_group) * m / n, 0.5)
            spread = 1.96 * np.sqrt(max(1 / len(of_group) - 1 / n + 1 / target - 1 / m, 0.0))
            low, high = float(mean * np.exp(-spread)), float(mean * np.exp(spread))
            rows.append(GroupGrowth(name, len(of_group), mean, low, high))
    return sorted(rows, key=lambda row: row.growth)


def transported_part(
    adata: AnnData, fit: StoredFit, slug: str, cells: HeldOut, rng: np.random.Generator
) -> tuple[HeldOut, list[str]]:
    """Return evaluated cells drawn by their weights, if the fit has weights, and a note that says so.

    Cells that took no part in the fit have the mean weight of their nearest neighbours in it.
    """
    penalty = fit.models[slug]["validation"].get("unbalanced") if fit.models else None
    if penalty is None or np.isinf(penalty):
        return cells, []
    label = fit.targets[slug]
    if not has_growth(adata, fit, slug):
        column = fit.slots(slug).weight
        note = f"All cells are scored for {label!r}, also those without a counterpart: adata.obs has no {column!r}."
        return cells, [note]
    weight = np.asarray(in_memory(adata.obs[fit.slots(slug).weight]), dtype=np.float64)
    drawn = []
    for name, rows, points in ((fit.source, cells.source_rows, cells.x), (label, cells.target_rows, cells.y)):
        known = labelled_cells(adata, fit.groupby, name)
        known = np.sort(rng.permutation(known[np.isfinite(weight[known])])[:_MAX_KNOWN])
        chance, others = weight[rows], ~np.isfinite(weight[rows])
        if others.any():
            chance[others] = mean_of_neighbours(
                points[others], read_coordinates(adata, cells.rep, known), weight[known]
            )
        drawn.append(rng.random(len(rows)) < chance / np.quantile(chance, _TOP_WEIGHT))
    n, m = len(cells.x), len(cells.y)
    part = cells.among(*drawn)
    counts = f"{len(part.x):,} of {n:,} source cells and {len(part.y):,} of {m:,} target cells"
    by = f"drawn in proportion to their weights (unbalanced={penalty:g})"
    return part, [f"The scores for {label!r} are those of the transported mass: {counts}, {by}."]
