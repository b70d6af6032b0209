"""Cells that lie far from all others: debris, doublets or broken values that would carry a fit away."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from sklearn.metrics.pairwise import euclidean_distances

Array = NDArray[np.float64]
Rows = NDArray[np.intp]

# A cell is far if the COMPANY-th nearest cell, itself counted, is farther away than REACH times the median distance of
# cells from their median, and than LONELIER times what is usual among the nearest cells that are not so far. As many
# as COMPANY make a group; in clouds of less than a hundred cells a twentieth of them does, since tails are thin there.
# With REACH 3 no cell of clean Gaussian clouds is far (20 to 10,000 cells in 1 to 100 dimensions), and of four real
# data sets at most one in a thousand, while a cell at 30 standard deviations is, in up to 50 dimensions. LONELIER
# spares the tails of wide and of heavy-tailed populations, which thin out step by step.
COMPANY = 5
REACH = 3.0
# Nor is a cell far that is nearer than so many robust standard deviations: with few cells, late components are spanned
# by pairs of cells at eight, which carry nothing away.
NEAREST = 12.0
LONELIER = 2.0
# A component whose middle half hardly varies, such as a marker of a rare type, must not make its other cells far.
SMALLEST_SCALE = 0.1
# Most cells have company among so many random ones, which saves nearly all of the distances to all cells.
_SAMPLES = (2_000, 20_000)
# Beyond this, in units of the spread, only the direction of a cell is kept: products of larger numbers lose distances.
_BEYOND = 1e6
# Distances that are held at once: 8 MB.
_MOST_DISTANCES = 1_000_000


def far_cells(cells: Array, *, n_kept: int = 0) -> Rows:
    r"""Find cells with (almost) no other cell anywhere near.

    The mean and the covariance of a cloud are at the mercy of a single cell that is far enough away, and so is every
    step of training that draws it. Rare cell types are far from the rest too, but not alone: so a cell counts as far
    where it has no company (see COMPANY, REACH, NEAREST and LONELIER). Components are first divided by their robust
    spread (interquartile range), and radii are taken from the median: neither follows a few cells.

    Parameters
    ----------
    cells
        Shape (n, d), finite.
    n_kept
        If fewer cells than this would be left, no cell counts as far: there is no rest to be far from.

    Returns
    -------
    Row numbers of the far cells, ascending.
    """
    low, centre, high = np.quantile(cells, [0.25, 0.5, 0.75], axis=0)
    spread = (high - low) / 1.349  # of a normal distribution the standard deviation
    typical = np.sqrt(np.mean(spread**2))
    if not typical > 0:
        # More than half of the cells are the same point.
        typical = np.median(np.abs(cells - centre)[np.any(cells != centre, axis=1)]) if (cells != centre).any() else 1.0
    scaled = np.clip((cells - centre) / np.maximum(spread, SMALLEST_SCALE * typical), -_BEYOND, _BEYOND)
    radius = np.sqrt((scaled**2).sum(1))
    typical_radius = np.median(radius)
    reach = max(REACH * typical_radius, NEAREST)
    # Half of all cells are within the median radius: whoever is nearer to the centre than this has them in reach.
    (candidates,) = np.nonzero(radius > reach - typical_radius)
    company = min(COMPANY, max(len(cells) // 20, 2))
    rng = np.random.default_rng(0)
    for size in _SAMPLES:
        if len(candidates) * len(cells) > _MOST_DISTANCES and len(cells) > size:
            sample = scaled[rng.choice(len(cells), size, replace=False)]
            candidates = candidates[~_has_company(scaled, candidates, sample, reach, company)]
    # From all that follows only these cells are lonely enough, exactly.
    distance = _distance(scaled, candidates, scaled, company)
    lonely, distance = candidates[distance > reach], distance[distance > reach]
    others = np.delete(np.arange(len(cells)), lonely)
    far = [
        row for row, own in zip(lonely, distance, strict=True) if own > LONELIER * _usual(scaled, row, others, company)
    ]
    return np.array(far if len(cells) - len(far) >= n_kept else [], dtype=np.intp)


def _blocks(rows: Rows, n_others: int) -> Iterator[Rows]:
    size = max(_MOST_DISTANCES // n_others, 1)
    return (rows[start : start + size] for start in range(0, len(rows), size))


def _has_company(scaled: Array, rows: Rows, others: Array, reach: float, company: int) -> NDArray[np.bool_]:
    """Whether each cell of these rows has so many others within reach; by matrix products, which are fast."""
    found = [
        (euclidean_distances(scaled[own], others, squared=True) < 0.99 * reach**2).sum(1) >= company
        for own in _blocks(rows, len(others))
    ]
    return np.concatenate([np.empty(0, dtype=bool), *found])


def _distance(scaled: Array, rows: Rows, others: Array, k: int) -> Array:
    """Distance of each cell of these rows to the k-th nearest of others, shape (len(rows),)."""
    found = [np.partition(cdist(scaled[own], others), k - 1, axis=1)[:, k - 1] for own in _blocks(rows, len(others))]
    return np.concatenate([np.empty(0), *found])


def _usual(scaled: Array, row: np.intp, others: Rows, company: int) -> float:
    """Median, over the nearest of other cells, of their own distance to the cell at that rank."""
    if not len(others):
        return 0.0
    away = cdist(scaled[row][None], scaled[others])[0]
    nearest = others[np.argpartition(away, min(company, len(others)) - 1)[:company]]
    return float(np.median(_distance(scaled, nearest, scaled, company)))
