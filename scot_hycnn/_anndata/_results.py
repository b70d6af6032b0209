"""Source, predicted and observed cells of a fit, for those who look at results."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from anndata import AnnData

from ._conditions import Rows, labelled_rows, listed, listed_labels
from ._lazy import obs_columns
from ._representation import (
    Coordinates,
    Representation,
    feature_names,
    find_same_representation,
    is_finite,
    read_coordinates,
    spans,
)
from ._stored import StoredFit, read_fit


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

    @property
    def measured_rows(self) -> Rows:
        """Row numbers of source and target cells, shape (n + m,)."""
        return np.concatenate([self.source_rows, self.target_rows])

    @property
    def moved(self) -> Prediction:
        """Source cells and where they went."""
        return Prediction(self.rep, self.source_rows, self.x, self.predicted)


@dataclass(frozen=True)
class Prediction:
    """Source cells and where they went.

    Parameters
    ----------
    rep
        The space of the coordinates.
    rows
        Row numbers in the AnnData, shape (n,).
    x, points
        Where the cells were and are, shape (n, d), finite.
    """

    rep: Representation
    rows: Rows
    x: Coordinates
    points: Coordinates


@dataclass(frozen=True)
class StoredPrediction:
    """Source cells that a map has moved, and where their coordinates are.

    Parameters
    ----------
    adata
        The cells.
    rep, moved
        Where they were and are.
    rows
        Row numbers in the AnnData, ascending, shape (n,).
    """

    adata: AnnData
    rep: Representation
    moved: Representation
    rows: Rows

    def read(self) -> Prediction:
        """Read those with a prediction.

        Raises
        ------
        ValueError
            If there are none.
        """
        found = _with_prediction(self)
        if not len(found.rows):
            raise ValueError(
                f"None of the {len(self.rows)} source cells has finite coordinates in adata.obsm[{self.moved.name!r}]: "
                "other cells were moved. Run sh.tl.transport, or fit, again."
            )
        return found

    def blocks(self, size: int) -> Iterator[tuple[range, Prediction]]:
        """Row numbers of all cells of the AnnData, block by block, and the source cells among them."""
        for span, rows in spans(self.adata.n_obs, self.rows, size):
            yield span, _with_prediction(replace(self, rows=rows))


def find_prediction(adata: AnnData, fit: StoredFit, slug: str) -> StoredPrediction:
    """Find the source cells that the map to one target has moved.

    Raises
    ------
    ValueError
        If slots or labels are gone, or the representation is another.
    """
    slot = fit.slots(slug).moved
    if slot not in adata.obsm:
        raise ValueError(f"adata.obsm lacks {slot!r}; run sh.tl.transport(adata, {fit.key!r}) to write it again.")
    shape = np.shape(adata.obsm[slot])
    if len(shape) != 2 or shape[1] != fit.rep.n_dims:
        raise ValueError(
            f"adata.obsm[{slot!r}] has shape {shape}, and the fit {fit.key!r} has {fit.rep.n_dims} dimensions: one of "
            f"them is damaged. Run sh.tl.transport(adata, {fit.key!r}), or sh.tl.hycnn_ot, again."
        )
    source, moved = find_same_representation(adata, fit.rep, same_file=True), Representation(slot, fit.rep.n_dims, "")
    return StoredPrediction(adata, source, moved, labelled_cells(adata, fit.groupby, fit.source))


def read_results(adata: AnnData, key: str, target: str | None) -> Results:
    """Read one target's cells.

    Raises
    ------
    ValueError
        If there is no such fit or target, its slots or labels are gone, or the representation is another.
    """
    fit = read_fit(adata, key)
    slug = fit.slug(target)
    moved = find_prediction(adata, fit, slug).read()
    y_rows = labelled_cells(adata, fit.groupby, fit.targets[slug])
    y = read_coordinates(adata, moved.rep, y_rows)
    has_y = is_finite(y)
    return Results(
        source=fit.source,
        target=fit.targets[slug],
        rep=moved.rep,
        names=feature_names(adata, moved.rep),
        source_rows=moved.rows,
        target_rows=y_rows[has_y],
        x=moved.x,
        predicted=moved.points,
        y=y[has_y],
    )


def labelled_cells(adata: AnnData, groupby: str | None, label: str) -> Rows:
    column = label if groupby is None else groupby
    obs = obs_columns(adata, column)
    rows = labelled_rows(obs, groupby, label)
    if rows is None or not np.size(rows):
        has = f"adata.obs has {listed(obs.columns)}" if column not in obs else f"it has {listed_labels(obs, column)}"
        raise ValueError(
            f"No cells are labelled {label!r} in adata.obs[{column!r}], which the fit was made from; {has}. Name the "
            "cells as they were then, or fit again."
        )
    return rows


def _with_prediction(stored: StoredPrediction) -> Prediction:
    points = read_coordinates(stored.adata, stored.moved, stored.rows)
    finite = is_finite(points)
    rows = stored.rows[finite]
    return Prediction(stored.rep, rows, read_coordinates(stored.adata, stored.rep, rows), points[finite])
