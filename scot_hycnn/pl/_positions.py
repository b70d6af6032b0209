"""Where cells lie in a plane."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from scot_hycnn._anndata import (
    N_NEIGHBORS,
    Results,
    embedding_axes,
    find_embedding,
    place_predicted,
    read_embedding,
    read_projection,
)

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


def positions(adata: AnnData, results: Results, key: str, *, basis: str | None, n_neighbors: int | None) -> Positions:
    """Find the cells' positions in an embedding, or in the first two dimensions of the representation.

    An embedding such as UMAP has no place for predicted cells: they are where :func:`scot_hycnn.tl.project` has put
    them, unless a number of neighbours asks for another projection.

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
    embedding = find_embedding(adata, basis)
    x, y = (read_embedding(adata, embedding, rows)[:, :2] for rows in (results.source_rows, results.target_rows))
    stored = read_projection(adata, results, embedding, key) if n_neighbors is None else None
    if stored is None:
        stored = place_predicted(adata, results, embedding, N_NEIGHBORS if n_neighbors is None else n_neighbors)
    return Positions(x, stored[:, :2], y, embedding_axes(embedding))
