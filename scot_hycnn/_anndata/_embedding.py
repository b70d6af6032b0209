"""Embeddings such as UMAP, and the positions of predicted cells in them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from anndata import AnnData
from sklearn.neighbors import KNeighborsRegressor

from scot_hycnn._warn import did_you_mean, warn

from ._conditions import Rows, listed
from ._representation import Coordinates, Representation, is_finite, read_coordinates, stem_of
from ._results import Results, StoredFit, read_fit
from ._schema import check_key

# Positions were compared with UMAPs of planted PBMCs and of Kang's that were made with the moved cells in them: root
# mean square errors are .031 and .13 of the map's radius with 5 neighbours, .036 and .15 with 30, and .116 and .17 with
# the median of 30.
N_NEIGHBORS = 5


def find_embedding(adata: AnnData, basis: str) -> Representation:
    """Find an embedding such as 'X_umap' (or 'umap') with at least two columns."""
    name = next((name for name in (basis, f"X_{basis}") if name in adata.obsm), None)
    if name is None:
        near = did_you_mean(basis, adata.obsm)
        raise ValueError(f"basis={basis!r} is not in adata.obsm; it has {listed(adata.obsm)}.{near}")
    n_columns = adata.obsm[name].shape[1]
    if n_columns < 2:
        raise ValueError(f"basis={basis!r} has {n_columns} column; a plot needs two.")
    return Representation(name, n_columns, "")


def embedding_axes(embedding: Representation) -> list[str]:
    """Return names of the first two axes."""
    return [f"{stem_of(embedding.name)}{i}" for i in (1, 2)]


def read_embedding(adata: AnnData, embedding: Representation, rows: Rows) -> Coordinates:
    """Return positions of measured cells, all finite, shape (n, columns of the embedding)."""
    positions = read_coordinates(adata, embedding, rows)
    n_without = int((~is_finite(positions)).sum())
    if n_without:
        raise ValueError(
            f"adata.obsm[{embedding.name!r}] has no finite position for {n_without} of {len(rows)} cells of the fit; "
            "compute the embedding of all cells."
        )
    return positions


def place_predicted(adata: AnnData, results: Results, embedding: Representation, n_neighbors: int) -> Coordinates:
    """Return positions of predicted cells, shape (n, columns of the embedding); see :func:`scot_hycnn.tl.project`."""
    measured = np.concatenate([results.x, results.y])
    positions = read_embedding(adata, embedding, results.measured_rows)
    # Inverse distance weighting (Shepard 1968): the mean position of the nearest measured cells, weighted by one over
    # their distance in the representation. A cell that does not move has distance 0 to itself and keeps its position.
    neighbors = KNeighborsRegressor(min(n_neighbors, len(measured)), weights="distance").fit(measured, positions)
    return np.asarray(neighbors.predict(results.predicted))


def projection_name(fit: StoredFit, slug: str, embedding: Representation, stem: str | None = None) -> str:
    """Return the key of uns for one target's projection, such as 'umap_hycnn_ot'; obsm has 'X_<key>'."""
    # scanpy takes 'X_<key>' in obsm as the basis '<key>'.
    stem = f"{embedding.name.removeprefix('X_')}_{fit.key}" if stem is None else stem
    return "_".join(filter(None, (stem, fit.suffix(slug))))


def check_projection(adata: AnnData, name: str) -> None:
    """Raise a ValueError if ``name`` is no valid key, or something else than a projection would be replaced."""
    check_key(name)
    taken = [f"{f'X_{name}'!r} (adata.obsm)"] * (f"X_{name}" in adata.obsm)
    taken += [f"{name!r} (adata.uns)"] * (name in adata.uns)
    if taken and _stored(adata, name) is None:
        raise ValueError(
            f"{' and '.join(taken)} would be replaced, which sh.tl.project did not write; pass another key_added."
        )


def read_projection(adata: AnnData, results: Results, embedding: Representation, key: str) -> Coordinates | None:
    """Return positions that :func:`scot_hycnn.tl.project` has stored, shape (n, columns); None if there are none."""
    fit = read_fit(adata, key)
    name = projection_name(fit, fit.slug(results.target), embedding)
    stored = _stored(adata, name)
    if stored is None or f"X_{name}" not in adata.obsm:
        return None
    if stored["fingerprint"] != projection_fingerprint(adata, results, embedding):
        warn(
            f"adata.obsm['X_{name}'] was made from another fit or embedding than the present one, and is not used; "
            f"run sh.tl.project(adata, {embedding.name.removeprefix('X_')!r}, {key!r}) again.",
        )
        return None
    return read_coordinates(adata, Representation(f"X_{name}", embedding.n_dims, ""), results.source_rows)


def _stored(adata: AnnData, name: str) -> Mapping[str, Any] | None:
    stored = adata.uns.get(name)
    is_ours = isinstance(stored, Mapping) and {"basis", "n_neighbors", "fingerprint"} <= stored.keys()
    return stored if is_ours and isinstance(stored["fingerprint"], str) else None


def projection_fingerprint(adata: AnnData, results: Results, embedding: Representation) -> str:
    """Return a SHA-256 of the coordinates of the fit and the positions of its cells."""
    # In float32, so that a file that stores fewer digits gives the same fingerprint.
    digest = hashlib.sha256()
    positions = read_embedding(adata, embedding, results.measured_rows)
    for table in (results.x, results.predicted, results.y, positions):
        digest.update(np.ascontiguousarray(table, dtype="<f4").tobytes())
    return digest.hexdigest()
