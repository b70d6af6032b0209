"""Checks of the cells that a fit gets: numbers, sizes, finite values, and cells that lie far from all others."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from scot_hycnn._warn import counted, joined

Array = NDArray[np.float64]
Rows = NDArray[np.intp]

# Covariances and their eigenvalues need squares.
MAX_VALUE = 1e100
# What messages call the source cells.
SOURCE = "x (source)"
# Kinds of problems that more cells would solve: a screen can leave such targets out.
FEW_CELLS, FEW_IN_GROUPS = "too few cells", "too few cells in their groups"

# A cell is far if the COMPANY-th nearest cell, itself counted, is farther away than REACH times the median distance of
# cells from their median, and than LONELIER times what is usual among the nearest cells that are not so far. As many
# as COMPANY make a group; in clouds of less than a hundred cells a twentieth of them does, since tails are thin there.
# With REACH 3 no cell of clean Gaussian clouds is far (20 to 10,000 cells in 1 to 100 dimensions), and of four real
# data sets at most one in a thousand, while a cell at 30 standard deviations is, in up to 50 dimensions. LONELIER
# spares the tails of wide and of heavy-tailed populations, which thin out step by step.
COMPANY = 5
REACH = 3.0
LONELIER = 2.0
# A cell within so many robust standard deviations is never far: with few cells, late components are spanned by two
# cells at eight each, which do not carry a fit away.
MIN_REACH = 12.0
# A component whose middle half hardly varies, such as a marker of a rare type, must not make its other cells far.
MIN_SCALE = 0.1
# Most cells have company among so many random ones, which saves nearly all of the distances to all cells.
_SAMPLE_SIZES = (2_000, 20_000)
# Beyond this, in units of the spread, only the direction of a cell is kept: products of larger numbers lose distances.
_MAX_SCALED = 1e6
# Products of cells with cells beyond which a sample is searched first.
_MANY_DISTANCES = 1_000_000


class UnusableError(ValueError):
    """A cloud of cells, or its groups, cannot be used; ``kind`` is the same for all clouds with the same problem."""

    def __init__(self, message: str, kind: str, found: str) -> None:
        # All three are arguments of the exception, since its pickle, which Dask sends, keeps these alone.
        super().__init__(message, kind, found)
        self.kind, self.found = kind, found

    def __str__(self) -> str:
        return str(self.args[0])


def raise_together(problems: Sequence[tuple[str, UnusableError]], n_targets: int, *, advice: str = "") -> None:
    """Raise one ValueError that names all targets of a screen with a problem, by its kind."""
    sentences = []
    for kind in dict.fromkeys(problem.kind for _, problem in problems):
        alike = [(name, problem) for name, problem in problems if problem.kind == kind]
        named = joined([f"{name} ({problem.found})" for name, problem in alike])
        name, problem = alike[0]
        first = str(problem) if name in str(problem) else f"{name}: {problem}"
        sentences.append(
            first if len(alike) == 1 else f"{len(alike)} of {n_targets} targets have {kind}: {named}. {first}"
        )
    raise ValueError(" ".join([*sentences, *filter(None, [advice])])) from problems[0][1]


def is_integer(value: object, *, minimum: int) -> bool:
    """Return whether a value is an integer of 64 bits, at least the minimum, and no bool."""
    return isinstance(value, Integral) and not isinstance(value, bool) and minimum <= int(value) < 2**63


def min_cells(n_dims: int) -> int:
    """Return the number of cells of a cloud that a fit needs: for a covariance, and for validation."""
    return max(20, 2 * n_dims)


def without_mask(cells: Any) -> Any:
    """Return masked numbers with NaN in place of the mask, which NumPy drops silently, and others as they are."""
    if isinstance(cells, np.ma.MaskedArray) and cells.dtype.kind in "fiub":
        return np.ma.filled(cells.astype(np.result_type(cells.dtype, np.float32)), np.nan)
    return cells


def as_table(cells: Any, name: str, n_dims: int | None = None) -> NDArray[Any]:
    """Return cells, of an array, a list or a tensor, as numbers of shape (n, d).

    Raise an UnusableError if there are none, they have other dimensions than the source, if these are given, or they
    are too few, not finite, or too large to square.
    """
    if hasattr(cells, "detach"):  # a tensor may be on a GPU, in bfloat16, or part of a graph; NumPy refuses all three
        cells = cells.detach().cpu()
        cells = cells.float().numpy() if cells.dtype.is_floating_point and cells.dtype.itemsize < 4 else cells.numpy()
    table = np.asarray(without_mask(cells))
    if table.ndim != 2 or table.shape[1] < 1 or table.dtype.kind not in "fiub":
        raise UnusableError(
            f"{name} must be numbers of shape (cells, dimensions); it has shape {table.shape} and dtype {table.dtype}.",
            kind="no table of numbers",
            found=f"shape {table.shape}, dtype {table.dtype}",
        )
    if n_dims is not None and table.shape[1] != n_dims:
        raise UnusableError(
            f"x (source) has {counted(n_dims, 'dimension')} and {name} {table.shape[1]}; both need the same "
            "representation.",
            kind="other dimensions than the source",
            found=counted(table.shape[1], "dimension"),
        )
    needed = min_cells(table.shape[1])
    if len(table) < needed:
        raise UnusableError(
            f"{name} has {counted(len(table), 'cell')} in {counted(table.shape[1], 'dimension')}; at least {needed} "
            "are needed (20, and twice the dimensions). Use fewer components (n_pcs) or more cells.",
            kind=FEW_CELLS,
            found=counted(len(table), "cell"),
        )
    bad = ~np.isfinite(table).all(1)
    if bad.any():
        raise UnusableError(
            f"{name} has NaN or infinite values in {int(bad.sum())} of {len(table)} rows, the first in row "
            f"{int(np.argmax(bad))}; remove or impute them.",
            kind="NaN or infinite values",
            found=counted(int(bad.sum()), "row"),
        )
    largest = max(float(table.max()), -float(table.min()))
    if largest > MAX_VALUE:
        raise UnusableError(
            f"{name} has values up to {largest:.1g}, and {MAX_VALUE:.0g} is the most that can be squared safely. "
            "Divide both clouds by the same number.",
            kind="values too large to be squared",
            found=f"{largest:.1g}",
        )
    return table


def far_cells(cells: Any) -> Rows:
    """Return the rows of cells with (almost) no other cell anywhere near; none if too few cells would be left."""
    # Debris, doublets or broken values: a single cell that is far enough away determines the mean and the covariance
    # of a cloud, and every training step that draws it. Rare cell types are far from the other cells too, but not
    # alone: so a cell counts as far if it has no company (see COMPANY, REACH, MIN_REACH and LONELIER).
    cells = np.asarray(cells, dtype=np.float64)
    # Components are divided by their robust spread (interquartile range), and radii are taken from the median: neither
    # follows a few cells.
    low, centre, high = np.quantile(cells, [0.25, 0.5, 0.75], axis=0)
    spread = (high - low) / 1.349  # of a normal distribution the standard deviation
    typical = np.sqrt(np.mean(spread**2))
    if not typical > 0:
        # More than half of the cells are the same point.
        differs = np.any(cells != centre, axis=1)
        typical = np.median(np.abs(cells - centre)[differs]) if differs.any() else 1.0
    scaled = np.clip((cells - centre) / np.maximum(spread, MIN_SCALE * typical), -_MAX_SCALED, _MAX_SCALED)
    radius = np.sqrt((scaled**2).sum(1))
    typical_radius = np.median(radius)
    reach = max(REACH * typical_radius, MIN_REACH)
    # Half of all cells are within the median radius: a cell that is nearer to the centre than this reaches them.
    (candidates,) = np.nonzero(radius > reach - typical_radius)
    company = min(COMPANY, max(len(cells) // 20, 2))
    rng = np.random.default_rng(0)
    for size in _SAMPLE_SIZES:
        if len(candidates) * len(cells) > _MANY_DISTANCES and len(cells) > size:
            sample = scaled[rng.choice(len(cells), size, replace=False)]
            # The margin is for the rounding of distances by matrix products.
            candidates = candidates[_distance(scaled[candidates], sample, company) >= 0.99 * reach]
    if not len(candidates):
        return np.empty(0, dtype=np.intp)
    distance = _distance(scaled[candidates], scaled, company)
    lonely, distance = candidates[distance > reach], distance[distance > reach]
    others = np.delete(np.arange(len(cells)), lonely)
    if not len(lonely) or not len(others):
        return np.empty(0, dtype=np.intp)
    # The usual distance is the median over the nearest of the other cells.
    nearest = NearestNeighbors(n_neighbors=min(company, len(others)), algorithm="brute").fit(scaled[others])
    neighbours = others[nearest.kneighbors(scaled[lonely], return_distance=False)]
    usual: Array = np.median(_distance(scaled[neighbours.ravel()], scaled, company).reshape(neighbours.shape), axis=1)
    far: Rows = lonely[distance > LONELIER * usual]
    return far if len(cells) - len(far) >= min_cells(cells.shape[1]) else far[:0]


def _distance(points: Array, others: Array, k: int) -> Array:
    """Return the distance of each point to the k-th nearest of others, shape (n,)."""
    distances, _ = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(others).kneighbors(points)
    return np.asarray(distances[:, -1])
