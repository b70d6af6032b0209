"""Source, predicted and observed cells of a fit, for those who look at results."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from anndata import AnnData

from ._conditions import Rows, labelled_rows
from ._representation import (
    Coordinates,
    Representation,
    feature_names,
    find_same_representation,
    is_finite,
    read_coordinates,
)
from ._stored import read_fit


@dataclass(frozen=True)
class Results:
    """Where source cells were and went, and where the target cells are.

    Parameters
    ----------
    source, target
        Labels.
    rep
        The space of the coordinates.
    names
        Of its dimensions.
    source_rows, target_rows
        Row numbers in the AnnData, shape (n,) and (m,).
    x, predicted, y
        Source cells, the same cells moved, target cells: shape (n, d), (n, d), (m, d). All finite.
    """

    source: str
    target: str
    rep: Representation
    names: list[str]
    source_rows: Rows
    target_rows: Rows
    x: Coordinates
    predicted: Coordinates
    y: Coordinates


def read_results(adata: AnnData, key: str, target: str | None) -> Results:
    """Read one target's cells.

    Raises
    ------
    ValueError
        If there is no such fit or target, its slots or labels are gone, or the representation is another.
    """
    fit = read_fit(adata, key)
    slug = fit.slug(target)
    slot = fit.slots(slug).moved
    if slot not in adata.obsm:
        raise ValueError(f"adata.obsm lacks {slot!r}; run sh.tl.transport(adata, {key!r}) to write it again.")
    source, moved = find_same_representation(adata, fit.rep, same_file=True), Representation(slot, fit.rep.n_dims, "")
    x_rows = _labelled(adata, fit.groupby, fit.source)
    y_rows = _labelled(adata, fit.groupby, fit.targets[slug])
    predicted, y = read_coordinates(adata, moved, x_rows), read_coordinates(adata, source, y_rows)
    has_both, has_y = is_finite(predicted), is_finite(y)
    return Results(
        source=fit.source,
        target=fit.targets[slug],
        rep=source,
        names=feature_names(adata, source),
        source_rows=x_rows[has_both],
        target_rows=y_rows[has_y],
        x=read_coordinates(adata, source, x_rows[has_both]),
        predicted=predicted[has_both],
        y=y[has_y],
    )


def read_embedding(adata: AnnData, basis: str, rows: Rows) -> tuple[Coordinates, list[str]]:
    """Read the first two columns of an embedding such as 'X_umap' (or 'umap'), and their names.

    Raises
    ------
    ValueError
        If there is none of that name, or it has one column.
    """
    name = next((name for name in (basis, f"X_{basis}") if name in adata.obsm), None)
    if name is None:
        raise ValueError(f"basis={basis!r} is not in adata.obsm; it has {list(adata.obsm)}.")
    if adata.obsm[name].shape[1] < 2:
        raise ValueError(f"basis={basis!r} has {adata.obsm[name].shape[1]} column; a plot needs two.")
    stem = name.removeprefix("X_")
    stem = {"pca": "PC", "umap": "UMAP", "tsne": "tSNE"}.get(stem, stem)
    return read_coordinates(adata, Representation(name, 2, ""), rows), [f"{stem}1", f"{stem}2"]


def _labelled(adata: AnnData, groupby: str | None, label: str) -> Rows:
    rows = labelled_rows(adata.obs, groupby, label)
    if rows is None or not np.size(rows):
        where = f"adata.obs[{label!r}]" if groupby is None else f"adata.obs[{groupby!r}]"
        raise ValueError(f"No cells are labelled {label!r} in {where}, which the fit was made from.")
    return rows
