"""Is there a response at all? A permutation test on the cells as they are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

Array = NDArray[np.float64]

# Cells of each condition that are compared: with 500 the test takes some hundredths of a second.
N_COMPARED = 500
N_PERMUTATIONS = 199


def compared_rows(n_cells: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Rows of the cells to compare, at random: all of few cells."""
    return rng.permutation(n_cells)[:N_COMPARED]


def response(
    x: Array, y: Array, groups: tuple[NDArray[np.intp], NDArray[np.intp]] | None, rng: np.random.Generator
) -> tuple[float, float]:
    r"""Compare source and target cells by their energy distance, and with random divisions of the same cells.

    Under the hypothesis that the treatment does nothing, labels of condition are exchangeable. With groups they are
    exchanged within these alone, so that groups of other proportions are not taken for a response.

    Parameters
    ----------
    x, y
        Source and target cells, shape (n, d) and (m, d): time grows with the square of their number, so of many cells
        those of :func:`compared_rows`.
    groups
        Group code of each cell, or None.
    rng
        Source of randomness.

    Returns
    -------
    The energy distance (U-statistic), in the units of the cells, and the p value of the permutation test.

    References
    ----------
    Székely & Rizzo (2013), Energy statistics, J. Stat. Plan. Inference 143, sec. 7 (test by permutations).
    """
    both, n_cells = np.concatenate([x, y]), len(x) + len(y)
    is_source = np.arange(n_cells) < len(x)
    codes = np.zeros(n_cells, dtype=np.intp) if groups is None else np.concatenate(groups)
    # In the order of groups, labels stay within their group where the cells are sorted by group and then at random.
    by_group = np.argsort(codes, kind="stable")
    divisions = np.empty((N_PERMUTATIONS + 1, n_cells))
    divisions[0] = is_source
    for division in divisions[1:]:
        division[np.lexsort((rng.random(n_cells), codes))] = is_source[by_group]
    distances = _energy_distances(cdist(both, both), divisions)
    return float(distances[0]), float((distances >= distances[0]).mean())


def _energy_distances(distances: Array, divisions: Array) -> Array:
    """Of each division, (divisions, cells) of ones (source) and zeros, with the distances between all cells."""
    n, m = divisions[0].sum(), (1 - divisions[0]).sum()
    to_source = divisions @ distances
    within_source = (to_source * divisions).sum(1)
    between = to_source.sum(1) - within_source
    within_target = distances.sum() - within_source - 2 * between
    return np.asarray(2 * between / (n * m) - within_source / (n * (n - 1)) - within_target / (m * (m - 1)))
