"""Coordinates of cells: which representation, its rows as an array, and the fingerprint by which it is recognised."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from scot_hycnn._warn import counted, did_you_mean, warn

from ._conditions import Rows, is_integer, listed
from ._schema import layer_names

Coordinates = NDArray[np.floating[Any]]  # (cells, dimensions)
Expression = NDArray[np.float32]  # (cells, genes)

# One block that is read at once: 50,000 rows of 50 dimensions are 10 MB; blocks of wide tables have fewer rows.
MAX_ROWS, MIN_ROWS, MAX_VALUES = 50_000, 1_000, 10_000_000

# Cells that are dense at once: of 20,000 genes these are 80 MB.
BLOCK_ROWS = 1000

# scanpy's key for principal components, and the one that its newer versions use.
_PCA = ("X_pca", "pca")


@dataclass(frozen=True)
class Representation:
    """The space of a map: a key of obsm or 'X', and how many of its first columns are used."""

    name: str
    n_dims: int
    # SHA-256 of what gives the columns their meaning: loadings and names of the genes for principal components, names
    # of the genes for 'X'. Empty for other representations.
    fingerprint: str


def find_representation(adata: AnnData, use_rep: str | None, n_pcs: int | None) -> Representation:
    """Find the representation that the user means, with its first ``n_pcs`` columns."""
    name = next((name for name in _PCA if name in adata.obsm), None) if use_rep is None else use_rep
    if name is None:
        raise ValueError(
            "No principal components: run sc.pp.pca(adata) first, or pass use_rep; adata.obsm has "
            f"{listed(adata.obsm)}."
        )
    if name != "X" and name not in adata.obsm:
        advice = "; run sc.pp.pca(adata) first" if name in _PCA else ""
        raise ValueError(
            f"use_rep={name!r} is not in adata.obsm{advice}; adata.obsm has {listed(adata.obsm)}, and use_rep='X' "
            f"takes adata.X.{did_you_mean(name, adata.obsm)}"
        )
    # No row is read here: X of a view of a file would be read as a whole.
    if name == "X" and expression_of(adata, None, np.arange(0)) is None:
        raise ValueError(f"use_rep='X', but adata.X is empty; adata.obsm has {listed(adata.obsm)}.")
    shape = adata.shape if name == "X" else adata.obsm[name].shape
    if len(shape) != 2:
        raise ValueError(
            f"adata.obsm[{name!r}] has shape {shape}; a representation is a table of cells and dimensions."
        )
    n_columns = int(shape[1])
    if n_pcs is not None and name == "X":
        raise ValueError(f"n_pcs={n_pcs} takes the first components, and use_rep='X' has none; leave n_pcs out.")
    if n_pcs is not None and not (is_integer(n_pcs) and 1 <= n_pcs <= n_columns):
        raise ValueError(
            f"n_pcs={n_pcs!r} must be an integer from 1 to {n_columns}, the columns of adata.obsm[{name!r}]."
        )
    n_dims = n_columns if n_pcs is None else int(n_pcs)
    digest = hashlib.sha256("\n".join(map(str, adata.var_names)).encode())
    key = None if name == "X" else loadings_key(adata, name)
    if key is not None:
        loadings = np.asarray(in_memory(adata.varm[key]))[:, :n_dims]
        digest.update(np.ascontiguousarray(loadings, dtype="<f4").tobytes())
    return Representation(name, n_dims, digest.hexdigest() if name == "X" or key is not None else "")


def find_same_representation(adata: AnnData, fitted: Representation, *, same_file: bool) -> Representation:
    """Find the representation that a map was fitted in, and check that it means the same here.

    If the map comes from the same file, a missing fingerprint needs no warning.
    """
    aliases = (fitted.name, *_PCA) if fitted.name in _PCA else (fitted.name,)
    name = next((alias for alias in aliases if alias == "X" or alias in adata.obsm), None)
    if name is None:
        raise ValueError(
            f"The map was fitted on adata.obsm[{fitted.name!r}], which these cells lack: project them onto it first; "
            f"adata.obsm has {listed(adata.obsm)}."
        )
    # The fit may have used the first columns of a wider table (n_pcs); for genes there is no such choice.
    is_wider = name != "X" and adata.obsm[name].shape[-1] > fitted.n_dims
    here = find_representation(adata, name, fitted.n_dims if is_wider else None)
    if here.n_dims != fitted.n_dims:
        raise ValueError(
            f"The map was fitted in {counted(fitted.n_dims, 'dimension')} of {fitted.name!r}, and these cells have "
            f"{here.n_dims}: project them onto the training representation first."
        )
    if fitted.fingerprint and here.fingerprint:
        if fitted.fingerprint != here.fingerprint:
            raise ValueError(
                f"{name!r} of these cells has other loadings or genes (by name, or in another order) than the one that "
                "the map was fitted in: project these cells with the training cells' PCs. If genes were renamed after "
                "the fit, give adata.var_names the former names. If genes were removed, and the coordinates are still "
                "the same, apply sh.get.model(adata).transport to them."
            )
    elif not same_file:
        warn(
            f"There is no fingerprint to check whether {name!r} of these cells is the space that the map was fitted in "
            "(no loadings in adata.varm, or a map without AnnData); make sure that it is."
        )
    return here


def loadings_key(adata: AnnData, name: str) -> str | None:
    """Return the key of varm that holds a representation's loadings, if there are any."""
    # sc.pp.pca writes X_pca with PCs, and with key_added the same key in obsm and varm.
    candidates = {"X_pca": ("PCs",), "pca": ("pca", "PCs")}.get(name, (name,))
    return next((key for key in candidates if key in adata.varm), None)


def find_layer(adata: AnnData, rep: Representation, layer: str | None) -> str | None:
    """Return the layer of measured expression, None for X."""
    if layer is None:
        # scanpy writes the layer that a PCA was run on under the PCA's own key.
        pca: Any = in_memory(adata.uns.get("pca" if rep.name == "X_pca" else rep.name, {}))
        params = pca.get("params") if isinstance(pca, dict) else None
        layer = params.get("layer") if isinstance(params, dict) else None
        if layer is not None and (not isinstance(layer, str) or layer not in adata.layers):
            raise ValueError(
                f"The PCA was run on layer {layer!r}, which adata.layers lacks; it has {layer_names(adata)}. "
                "Pass layer= the one with the same values, or layer='X'."
            )
    elif layer not in adata.layers and layer != "X":
        raise ValueError(f"layer={layer!r} is not in adata.layers; it has {layer_names(adata)}, and 'X' is adata.X.")
    return layer if layer in adata.layers else None


def feature_names(adata: AnnData, rep: Representation) -> list[str]:
    """Return names of the columns: genes for 'X', the table's own names if it has some, else PC1, PC2, UMAP1 ..."""
    if rep.name == "X":
        return [str(name) for name in adata.var_names]
    table = source_of(adata, rep)
    if hasattr(table, "columns"):
        return [str(name) for name in table.columns[: rep.n_dims]]
    return [f"{stem_of(rep.name)}{i + 1}" for i in range(rep.n_dims)]


def stem_of(name: str) -> str:
    """Return what stands before the numbers of the dimensions of a table in obsm: PC also for 'X_train_pca'."""
    stem = name.removeprefix("X_")
    return {"pca": "PC", "umap": "UMAP", "tsne": "tSNE"}.get(stem.split("_")[-1], stem)


def space_of(rep: Representation) -> str:
    """Return in print where distances are measured: 'expression', 'PCs', or the name of a table in obsm."""
    stem = stem_of(rep.name)
    return "expression" if rep.name == "X" else "PCs" if stem == "PC" else stem


def source_of(adata: AnnData, rep: Representation) -> Any:
    """Return what :func:`read_coordinates` reads from: the table in obsm, or the AnnData itself for 'X'."""
    if rep.name == "X":
        return adata
    table: Any = adata.obsm[rep.name]
    # Sparse matrices of the COO and other formats cannot be indexed by row.
    return table.tocsr() if hasattr(table, "tocsr") else table


def read_coordinates(source: Any, rep: Representation, rows: Rows) -> Coordinates:
    """Read a copy of the coordinates of some cells, shape (n, d), float32 or float64, from memory or a file.

    ``source`` is an AnnData, or the table of :func:`source_of` where many conditions are read from it.
    """
    table = source_of(source, rep) if isinstance(source, AnnData) else source
    # Files are read forwards, each row once, and in blocks: beyond the result only one block is in memory.
    ascending, places = (rows, None) if (np.diff(rows) > 0).all() else np.unique(rows, return_inverse=True)
    size, coordinates = rows_at_once(rep), np.empty((0, rep.n_dims))
    for start in range(0, max(len(ascending), 1), size):
        part = ascending[start : start + size]
        if isinstance(table, AnnData):
            block = dense_array(expression_of(table, None, part))
        elif hasattr(table, "iloc"):
            block = dense_array(in_memory(table.iloc[part]).iloc[:, : rep.n_dims])
        else:
            block = dense_array(table[part, : rep.n_dims])
        if block.dtype.kind not in "fiub":
            raise ValueError(
                f"The representation {rep.name!r} holds values of dtype {block.dtype}; only numbers can be moved."
            )
        if start == 0:
            kind = np.float32 if block.dtype in (np.float16, np.float32) else np.float64
            coordinates = np.empty((len(ascending), rep.n_dims), dtype=kind)
        coordinates[start : start + size] = block
    return coordinates if places is None else coordinates[places]


@dataclass(frozen=True)
class StoredRows:
    """Coordinates of some cells of a condition in a file: an array-like that is read whenever it becomes an array."""

    label: str
    rep: Representation
    table: Any  # a Dask, zarr or HDF5 array
    rows: Rows  # ascending

    @property
    def shape(self) -> tuple[int, int]:
        """Cells and dimensions."""
        return len(self.rows), self.rep.n_dims

    @property
    def size(self) -> int:
        """Number of values."""
        return len(self.rows) * self.rep.n_dims

    def __len__(self) -> int:
        return len(self.rows)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Coordinates:
        coordinates = read_coordinates(self.table, self.rep, self.rows)
        bad = self.rows[~is_finite(coordinates)]
        if len(bad):
            raise ValueError(
                f"The representation {self.rep.name!r} has NaN or infinite values in {len(bad)} of {len(self)} cells "
                f"of {self.label!r}, the first in row {bad[0]}. Impute them, or leave these cells out with mask_obs."
            )
        return coordinates if dtype is None else coordinates.astype(dtype, copy=False)

    def __reduce__(self) -> tuple[Any, ...]:
        # Workers read from Dask arrays. An open HDF5 file cannot be sent to them, so its values are.
        if hasattr(self.table, "dask"):
            return StoredRows, (self.label, self.rep, self.table, self.rows)
        return np.asarray, (np.asarray(self),)


def rows_at_once(rep: Representation) -> int:
    """Return the number of rows of one block."""
    return min(MAX_ROWS, max(MIN_ROWS, MAX_VALUES // rep.n_dims))


def spans(n_rows: int, rows: Rows, size: int) -> Iterator[tuple[range, Rows]]:
    """Yield blocks of all row numbers, each with those of ``rows``, which ascend, that are in it."""
    for start in range(0, n_rows, size):
        span = range(start, min(start + size, n_rows))
        first, last = np.searchsorted(rows, (span.start, span.stop))
        yield span, rows[first:last]


def row_blocks(n_rows: int, size: int = BLOCK_ROWS) -> list[slice]:
    """Return slices that cover the rows."""
    return [slice(start, start + size) for start in range(0, n_rows, size)]


def is_finite(coordinates: Coordinates) -> NDArray[np.bool_]:
    """Return which cells, shape (n,), have only finite coordinates."""
    return np.asarray(np.isfinite(coordinates).all(axis=1))


def read_finite(adata: AnnData, rep: Representation, rows: Rows) -> tuple[Rows, Coordinates]:
    """Return those of some cells that have finite coordinates, (n,), and these, (n, d)."""
    coordinates = read_coordinates(adata, rep, rows)
    finite = is_finite(coordinates)
    return rows[finite], coordinates[finite]


def check_finite(adata: AnnData, rep: Representation, rows: Rows, finite: NDArray[np.bool_]) -> None:
    """Raise a ValueError that names the cells whose coordinates are not finite, if there are any."""
    bad = rows[~finite]
    if len(bad):
        first = ", ".join(repr(str(name)) for name in adata.obs_names[bad[:5]])
        raise ValueError(
            f"The representation {rep.name!r} has NaN or infinite values in {len(bad)} of {len(rows)} cells: "
            f"{first}{' ...' if len(bad) > 5 else ''}. Impute them, or leave these cells out with mask_obs."
        )


def expression_of(adata: AnnData, layer: str | None, rows: Rows) -> Any:
    """Return X, or a layer, of some cells, as it is stored; of a file only these rows are read."""
    if adata.isbacked or adata.is_view:
        part = adata[rows]
        return part.X if layer is None else part.layers[layer]
    # Not through a view: views of anndata lose the mask of masked arrays, and fail if two columns have one name.
    matrix: Any = adata.X if layer is None else adata.layers[layer]
    return None if matrix is None else matrix[rows]


def read_expression(adata: AnnData, layer: str | None, rows: Rows) -> Any:
    """Return values of these cells, shape (n, genes), dense or sparse, from memory or a file."""
    values: Any = in_memory(expression_of(adata, layer, rows))
    if values is None:
        raise ValueError(f"{name_of(layer)} is empty; pass the layer that holds the values: {layer_names(adata)}.")
    if isinstance(values, np.ma.MaskedArray):
        values = dense_array(values)  # masked values become NaN
    if values.dtype.kind not in "fiub":
        raise ValueError(f"{name_of(layer)} holds values of dtype {values.dtype}; expression is numbers.")
    return values


def name_of(layer: str | None) -> str:
    """Return what messages call X (None) or a layer."""
    return "adata.X" if layer is None else f"adata.layers[{layer!r}]"


def dense_array(values: Any) -> NDArray[Any]:
    """Return values of any storage (sparse, lazy, masked, a pandas table) as an array; a missing value becomes NaN."""
    values = in_memory(values)
    if isinstance(values, pd.DataFrame):
        # Columns of pandas, Arrow and sparse numbers have the type that NumPy calls theirs.
        kinds = [getattr(dtype, "numpy_dtype", getattr(dtype, "subtype", dtype)) for dtype in values.dtypes]
        are_numbers = all(isinstance(kind, np.dtype) and kind.kind in "fiub" for kind in kinds)
        if are_numbers and not all(isinstance(dtype, np.dtype) for dtype in values.dtypes):
            # Integers and booleans of pandas may be missing, which only floats can hold.
            return values.to_numpy(dtype=np.result_type(np.float32, *kinds), na_value=np.nan)
        # Numbers beside booleans would become objects.
        return values.to_numpy(dtype=np.result_type(*kinds)) if are_numbers and kinds else values.to_numpy()
    if isinstance(values, np.ma.MaskedArray):
        return np.asarray(np.ma.filled(values.astype(np.result_type(values.dtype, np.float32)), np.nan))
    return np.asarray(values.toarray() if hasattr(values, "toarray") else values)


def in_memory(value: Any) -> Any:
    """Read a lazy value, or those in a dict, into memory; return any other value as it is."""
    # Neither Dask nor xarray is imported here: where nothing is lazy, they may be absent.
    if hasattr(value, "to_memory"):  # tables of anndata, and its sparse matrices in files
        return value.to_memory()
    if isinstance(value, Mapping):
        return {key: in_memory(entry) for key, entry in value.items()}
    # A Dask array is computed in threads of this process: on a worker of a cluster, the default scheduler would submit
    # a task and wait for it.
    return value.compute(scheduler="threads") if hasattr(value, "compute") else value


def obs_columns(adata: AnnData, *names: object) -> pd.DataFrame:
    """Return obs as a DataFrame; of a lazy one only the named columns, if all of them exist."""
    obs: Any = adata.obs
    if isinstance(obs, pd.DataFrame):
        return obs
    # All columns are read where one is None (it has yet to be found) or absent (the message names those that exist).
    exist = all(isinstance(name, str) and name in obs for name in names)
    frame: pd.DataFrame = (obs[list(dict.fromkeys(names))] if exist else obs).to_memory()
    return frame
