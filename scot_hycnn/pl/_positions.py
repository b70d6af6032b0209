"""Where cells lie in a plane."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from scot_hycnn._anndata import Results, read_embedding

Points = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Positions:
    """Source cells, the same cells moved, and target cells in a plane.

    Parameters
    ----------
    x, predicted, y
        Shape (n, 2), (n, 2), (m, 2).
    names
        Of the two axes.
    """

    x: Points
    predicted: Points
    y: Points
    names: list[str]


def positions(adata: AnnData, results: Results, basis: str | None, n_neighbors: int) -> Positions:
    """Find the cells' positions in an embedding, or in the first two dimensions of the representation.

    An embedding such as UMAP has no place for new cells. There a point of the representation is projected to the
    median position of its nearest source and target cells (a mean would lie in the void between two clusters), and a
    predicted cell is drawn at the source cell's own position plus the difference of the two projections: a cell that
    does not move keeps its place.

    Raises
    ------
    ValueError
        If the embedding does not exist, or the plane lacks a dimension.
    """
    if basis is None or results.rep.name in (basis, f"X_{basis}"):
        if results.rep.n_dims < 2:
            raise ValueError(f"The map of {results.rep.name!r} has one dimension; pass basis to plot it in a plane.")
        x, predicted, y = (points[:, :2] for points in (results.x, results.predicted, results.y))
        return Positions(x, predicted, y, results.names[:2])
    x, names = read_embedding(adata, basis, results.source_rows)
    y, _ = read_embedding(adata, basis, results.target_rows)
    known = np.concatenate([results.x, results.y])
    neighbors = NearestNeighbors(n_neighbors=min(n_neighbors, len(known))).fit(known)
    plane = np.concatenate([x, y])
    before, after = (
        np.median(plane[neighbors.kneighbors(points, return_distance=False)], axis=1)
        for points in (results.x, results.predicted)
    )
    return Positions(x, x + (after - before), y, names)


def check_counts(**counts: object) -> None:
    """Check numbers that count something.

    Raises
    ------
    ValueError
        If one is not a whole number of 1 or more.
    """
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise ValueError(f"{name}={value!r} must be a whole number of 1 or more.")
