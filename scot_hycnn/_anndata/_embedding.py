"""Embeddings such as UMAP, and where in them predicted cells are."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from anndata import AnnData
from sklearn.neighbors import KNeighborsRegressor

from ._conditions import Rows, listed
from ._representation import Coordinates, Representation, is_finite, read_coordinates
from ._results import Results
from ._schema import check_key
from ._stored import read_fit

Origin: TypeAlias = dict[str, str | int]

# Of UMAPs of planted PBMCs and of Kang's made with the moved cells in them, the positions of those are found best with
# 5 (root mean square error .031 and .13 of the map's radius; with 30 neighbours .036 and .15, with the median of 30
# .116 and .17).
N_NEIGHBORS = 5


def find_embedding(adata: AnnData, basis: str) -> Representation:
    """Find an embedding such as 'X_umap' (or 'umap').

    Raises
    ------
    ValueError
        If there is none of that name, or it has one column.
    """
    name = next((name for name in (basis, f"X_{basis}") if name in adata.obsm), None)
    if name is None:
        raise ValueError(f"basis={basis!r} is not in adata.obsm; it has {listed(adata.obsm)}.")
    n_columns = adata.obsm[name].shape[1]
    if n_columns < 2:
        raise ValueError(f"basis={basis!r} has {n_columns} column; a plot needs two.")
    return Representation(name, n_columns, "")


def read_embedding(adata: AnnData, embedding: Representation, rows: Rows) -> Coordinates:
    """Read positions of measured cells.

    Raises
    ------
    ValueError
        If a cell has none.
    """
    positions = read_coordinates(adata, embedding, rows)
    n_without = int((~is_finite(positions)).sum())
    if n_without:
        raise ValueError(
            f"adata.obsm[{embedding.name!r}] has no finite position for {n_without} of {len(rows)} cells of the fit; "
            "compute the embedding of all cells."
        )
    return positions


def embedding_axes(embedding: Representation) -> list[str]:
    """Names of the first two axes."""
    stem = embedding.name.removeprefix("X_")
    stem = {"pca": "PC", "umap": "UMAP", "tsne": "tSNE"}.get(stem, stem)
    return [f"{stem}1", f"{stem}2"]


def place_predicted(adata: AnnData, results: Results, embedding: Representation, n_neighbors: int) -> Coordinates:
    """Place predicted cells in an embedding, which has no place for new cells.

    Inverse distance weighting (Shepard 1968, Proc. 23rd ACM National Conference, 517-524): the mean position of the
    nearest source and target cells, found in the representation and weighted by one over their distance. A cell that
    does not move keeps its place, since its own distance is 0.

    Returns
    -------
    Shape (n, columns of the embedding).

    Raises
    ------
    ValueError
        If a measured cell has no position.
    """
    known = np.concatenate([results.x, results.y])
    places = read_embedding(adata, embedding, np.concatenate([results.source_rows, results.target_rows]))
    neighbors = KNeighborsRegressor(min(n_neighbors, len(known)), weights="distance").fit(known, places)
    return np.asarray(neighbors.predict(results.predicted))


def projection_name(adata: AnnData, stem: str, key: str, target: str) -> str:
    """Name of the projection of one target's cells, a key of uns; scanpy takes it as a basis, ``obsm['X_<name>']``."""
    fit = read_fit(adata, key)
    return "_".join(filter(None, (stem, fit.suffix(fit.slug(target)))))


def projection_stem(embedding: Representation, key: str) -> str:
    """Stem of the names of a fit's projections: 'umap_hycnn_ot'."""
    return f"{embedding.name.removeprefix('X_')}_{key}"


def check_projection(adata: AnnData, name: str) -> None:
    """Check where a projection is to go, before any work is done.

    Raises
    ------
    ValueError
        If ``name`` cannot be a key, or something is there that is no projection.
    """
    check_key(name)
    if _stored(adata, name) is None:
        taken = [f"{f'X_{name}'!r} (adata.obsm)"] * (f"X_{name}" in adata.obsm)
        taken += [f"{name!r} (adata.uns)"] * (name in adata.uns)
        if taken:
            raise ValueError(
                f"{' and '.join(taken)} would be replaced, which sh.tl.project did not write; pass another key_added, "
                "or delete them."
            )


def describe_projection(adata: AnnData, results: Results, embedding: Representation, n_neighbors: int) -> Origin:
    """What a projection was made of, to be stored beside it: the fit or the embedding may change."""
    return {
        "basis": embedding.name,
        "n_neighbors": int(n_neighbors),
        "fingerprint": _fingerprint(adata, results, embedding),
    }


def read_projection(adata: AnnData, results: Results, embedding: Representation, key: str) -> Coordinates | None:
    """Read predicted cells' positions that :func:`scot_hycnn.tl.project` has stored; None if there are none.

    Warns
    -----
    UserWarning
        If fit or embedding have changed since, which makes the stored positions worthless.
    """
    name = projection_name(adata, projection_stem(embedding, key), key, results.target)
    stored = _stored(adata, name)
    if stored is None or f"X_{name}" not in adata.obsm:
        return None
    if stored["fingerprint"] != _fingerprint(adata, results, embedding):
        warnings.warn(
            f"adata.obsm['X_{name}'] was made from another fit or embedding than the present one, and is not used; "
            f"run sh.tl.project(adata, {embedding.name.removeprefix('X_')!r}, {key!r}) again.",
            UserWarning,
            stacklevel=4,
        )
        return None
    return read_coordinates(adata, Representation(f"X_{name}", embedding.n_dims, ""), results.source_rows)


def _stored(adata: AnnData, name: str) -> Mapping[str, Any] | None:
    stored = adata.uns.get(name)
    is_ours = isinstance(stored, Mapping) and {"basis", "n_neighbors", "fingerprint"} <= stored.keys()
    return stored if is_ours and isinstance(stored["fingerprint"], str) else None


def _fingerprint(adata: AnnData, results: Results, embedding: Representation) -> str:
    digest = hashlib.sha256()
    rows = np.concatenate([results.source_rows, results.target_rows])
    for table in (results.x, results.predicted, results.y, read_embedding(adata, embedding, rows)):
        digest.update(np.ascontiguousarray(table, dtype="<f4").tobytes())
    return digest.hexdigest()
