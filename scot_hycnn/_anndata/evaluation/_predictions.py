"""Predicted cells of any method: what the user names is read, checked, and placed in the representation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from anndata import AnnData
from numpy.typing import ArrayLike, NDArray

from scot_hycnn._anndata._conditions import Labels, Rows, listed
from scot_hycnn._anndata._representation import (
    Coordinates,
    Expression,
    Representation,
    dense_array,
    is_finite,
    read_coordinates,
    read_expression,
    row_blocks,
)
from scot_hycnn._anndata._schema import layer_names
from scot_hycnn._anndata.genes._decode_input import Genes
from scot_hycnn._response import MIN_CELLS
from scot_hycnn._warn import counted, did_you_mean, joined

from ._evaluation_input import HeldOut

# Cells that somebody's method predicts: the name of a layer or of a key of obsm, the cells, or a function that takes
# the coordinates (n, d) of source cells and returns their predicted coordinates (n, d) or genes (n, genes).
Prediction: TypeAlias = "str | AnnData | Callable[[Coordinates], ArrayLike]"
Predictions: TypeAlias = "Prediction | Sequence[str] | Mapping[str, Prediction]"


@dataclass(frozen=True)
class Predicted:
    """k predicted cells of one method."""

    points: NDArray[np.float64]  # in the representation, (k, d)
    # Expression of some of the cells, by their places, if the method predicts genes; else genes follow from the points.
    genes: Callable[[Rows], Expression] | None = None
    # Group of each cell, if the cells are not the evaluated source cells; -1 where it is not known.
    codes: Rows | None = None


def named_predictions(predictions: Predictions, taken: Iterable[str]) -> dict[str, Prediction]:
    """Return predictions by the names of their rows; one that is no string is called 'prediction'."""
    if isinstance(predictions, Mapping):
        named = dict(predictions)
    elif isinstance(predictions, (list, tuple)):
        named = {name: name for name in predictions}
    else:
        named = {predictions if isinstance(predictions, str) else "prediction": predictions}
    for name, prediction in named.items():
        if not isinstance(prediction, (str, AnnData)) and not callable(prediction):
            raise TypeError(
                f"The prediction {name!r} is of type {type(prediction).__name__}; it takes the name of a layer or of a "
                "key of obsm, an AnnData, or a function of coordinates."
            )
    wrong = [name for name in named if not isinstance(name, str) or not name or name in taken]
    if wrong or not named:
        raise ValueError(
            f"predictions={named!r}: the names of rows have to be new texts, other than {listed(taken)}; a dict gives "
            "names, such as predictions={'mine': 'layer'}."
        )
    return named


def read_predictions(
    adata: AnnData,
    named: Mapping[str, Prediction],
    cells: HeldOut,
    genes: Genes | None,
    *,
    layer: str | None,
    labels: Labels | None,
) -> tuple[dict[str, Predicted], list[str]]:
    """Read the predictions of the evaluated source cells, or of other cells; notes say which scores these lack."""
    found, notes = {}, []
    for name, prediction in named.items():
        if isinstance(prediction, str):
            read = _stored(adata, name, prediction, cells, genes)
        elif isinstance(prediction, AnnData):
            read, of_cells = _of_cells(adata, name, prediction, cells, genes, layer=layer, labels=labels)
            notes += of_cells
        else:
            read = _returned(adata, name, prediction, cells, genes)
        finite = is_finite(read.points)
        if not finite.all():
            whose = cells.source_rows if read.codes is None else np.arange(len(finite))
            names = adata.obs_names if read.codes is None else prediction.obs_names  # type: ignore[union-attr]
            raise ValueError(
                f"The prediction {name!r} has NaN or infinite values for {int((~finite).sum())} of {len(finite)} "
                f"cells, the first {str(names[whose[~finite][0]])!r}: predict them too, or leave them out with "
                "mask_obs."
            )
        found[name] = read
    return found, notes


def _stored(adata: AnnData, name: str, key: str, cells: HeldOut, genes: Genes | None) -> Predicted:
    """Read a layer, or coordinates in obsm, of the evaluated source cells."""
    if key in adata.layers and key in adata.obsm:
        raise ValueError(f"The prediction {key!r} is a layer and a key of obsm: rename one of them.")
    if key in adata.layers:
        return _of_genes(name, lambda places: _expression(adata, key, cells.source_rows[places]), cells, genes)
    if key not in adata.obsm:
        near = did_you_mean(key, [*layer_names(adata), *adata.obsm])
        raise ValueError(
            f"The prediction {key!r} is neither a layer ({listed(layer_names(adata))}) nor a key of obsm "
            f"({listed(adata.obsm)}).{near}"
        )
    return Predicted(_coordinates(adata, key, cells.rep, cells.source_rows, name))


def _of_cells(
    adata: AnnData,
    name: str,
    predicted: AnnData,
    cells: HeldOut,
    genes: Genes | None,
    *,
    layer: str | None,
    labels: Labels | None,
) -> tuple[Predicted, list[str]]:
    """Read an AnnData: the evaluated source cells, found by their names, or other cells, which are unpaired."""
    wanted = adata.obs_names[cells.source_rows]
    if not predicted.obs_names.is_unique:
        raise ValueError(f"The prediction {name!r} has several cells of one name: run .obs_names_make_unique() on it.")
    rows = predicted.obs_names.get_indexer(wanted)
    n_found = int((rows >= 0).sum())
    if 0 < n_found < len(rows):
        first = [str(cell) for cell in wanted[rows < 0][:3]]
        raise ValueError(
            f"The prediction {name!r} lacks {len(rows) - n_found} of the {len(rows)} evaluated source cells, the first "
            f"{listed(first)}: predict all, leave the others out with mask_obs, or give new cells other names."
        )
    is_paired, notes = n_found == len(rows), []
    codes = None
    if not is_paired:
        rows = np.arange(predicted.n_obs)
        if len(rows) < MIN_CELLS:
            raise ValueError(f"The prediction {name!r} has {counted(len(rows), 'cell')}; {MIN_CELLS} are needed.")
        codes = np.full(len(rows), -1)
        if labels is not None and labels.column in predicted.obs:
            place = {group: code for code, group in enumerate(labels.names)}
            codes = np.array([place.get(str(group), -1) for group in predicted.obs[labels.column]], dtype=np.intp)
        others = f"{name!r}: its {len(rows):,} cells are no source cells of adata, and are scored as a cloud"
        if labels is not None and (codes < 0).all():
            others += f"; it has no scores of groups, since its obs has no groups of {labels.column!r}"
        notes.append(f"{others}.")

    columns = predicted.var_names.get_indexer(adata.var_names)
    has_coordinates = cells.rep.name != "X" and cells.rep.name in predicted.obsm
    if (columns < 0).any() and not ((columns < 0).all() and has_coordinates):
        missing = [str(gene) for gene in adata.var_names[columns < 0]]
        raise ValueError(
            f"The prediction {name!r} lacks {len(missing)} of {adata.n_vars} genes: {joined(missing, 5)}. Predict them "
            "too, or evaluate adata[:, adata.var_names.isin(prediction.var_names)], with components of these genes."
        )
    if (columns < 0).any():
        points = _coordinates(predicted, cells.rep.name, cells.rep, rows, name)
        if not is_paired and genes is not None:
            notes.append(f"{name!r}: unpaired coordinates have no scores of genes; predict genes for these.")
        return Predicted(points, codes=codes), notes
    of = layer if layer in predicted.layers else None
    read = _of_genes(name, lambda places: _expression(predicted, of, rows[places])[:, columns], cells, genes, codes)
    return read, notes


def _returned(adata: AnnData, name: str, function: Any, cells: HeldOut, genes: Genes | None) -> Predicted:
    """Call a function on the coordinates of the evaluated source cells."""
    returned: Any = function(cells.x.copy())
    try:
        returned = returned.detach().cpu() if hasattr(returned, "detach") else returned  # a tensor of PyTorch
        values = dense_array(returned).astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"The prediction {name!r} returned no array of numbers: {error}") from error
    n, d = cells.x.shape
    if values.shape == (n, d):
        return Predicted(values)
    if values.shape == (n, adata.n_vars):
        return _of_genes(name, lambda rows: values[rows].astype(np.float32), cells, genes)
    raise ValueError(
        f"The prediction {name!r} returned shape {values.shape} for source cells of shape {(n, d)}; it has to return "
        f"coordinates, {(n, d)}, or genes, {(n, adata.n_vars)}."
    )


def _coordinates(adata: AnnData, key: str, rep: Representation, rows: Rows, name: str) -> NDArray[np.float64]:
    shape = np.shape(adata.obsm[key])
    if len(shape) != 2 or shape[1] != rep.n_dims:
        raise ValueError(
            f"The prediction {name!r} has shape {shape}, and {rep.name!r} has {counted(rep.n_dims, 'dimension')}: "
            "predict all of them. Genes belong into a layer or an AnnData."
        )
    return read_coordinates(adata, replace(rep, name=key), rows).astype(np.float64)


def _of_genes(
    name: str, expression: Callable[[Rows], Expression], cells: HeldOut, genes: Genes | None, codes: Rows | None = None
) -> Predicted:
    """Place predicted genes in the representation, as its PCA places measured ones."""
    if genes is None or (genes.decoder is not None):
        raise ValueError(
            f"The prediction {name!r} is one of genes, and there is no way from genes to {cells.rep.name!r}: evaluate "
            "in principal components (sc.pp.pca keeps their loadings), or predict coordinates."
        )
    n = len(cells.x) if codes is None else len(codes)
    if genes.loadings is None:  # the dimensions are the genes
        return Predicted(expression(np.arange(n)).astype(np.float64), expression, codes)
    # Coordinates by least squares: V is orthonormal for principal components, and 0 for genes that they do not use.
    inside = np.where(genes.in_representation[:, None], genes.loadings, 0).astype(np.float64)
    back = np.linalg.pinv(inside).T
    points, offset = np.empty((n, cells.rep.n_dims)), np.zeros(cells.rep.n_dims)
    for block in [] if codes is None else row_blocks(len(cells.x)):
        # The mean that the PCA subtracted, from source cells, which have measured genes and coordinates.
        offset += (cells.x[block] - genes.measured(cells.source_rows[block]) @ back).sum(axis=0) / len(cells.x)
    for block in row_blocks(n):
        places = np.arange(n)[block]
        if codes is None:
            # What the components do not explain in a measured cell stays where it is: no change moves no cell.
            change = expression(places).astype(np.float64) - genes.measured(cells.source_rows[block])
            points[block] = cells.x[block] + change @ back
        else:
            points[block] = expression(places).astype(np.float64) @ back + offset
    return Predicted(points, expression, codes)


def _expression(adata: AnnData, layer: str | None, rows: Rows) -> Expression:
    """Read predicted genes of some cells."""
    return dense_array(read_expression(adata, layer, rows)).astype(np.float32)
