"""Coordinates of cells: which representation, its rows as an array, and how to recognise it again."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from ._labels import Rows, listed
from ._lazy import in_memory

Coordinates = NDArray[np.floating[Any]]  # (cells, dimensions)

# Most that is read at once: 50,000 rows of 50 dimensions are 10 MB, and wide tables take fewer rows.
MOST_ROWS, LEAST_ROWS, MOST_VALUES = 50_000, 1_000, 10_000_000

# scanpy's key for principal components, and the one that its newer versions use.
_PCA = ("X_pca", "pca")


@dataclass(frozen=True)
class Representation:
    """The space that a map lives in.

    Parameters
    ----------
    name
        Key of obsm, or 'X'.
    n_dims
        Number of its first columns that are used.
    fingerprint
        SHA-256 of what gives the columns their meaning: loadings and names of the genes for principal
        components, names of the genes for 'X'. Empty where nothing does (other representations).
    """

    name: str
    n_dims: int
    fingerprint: str


def find_representation(adata: AnnData, use_rep: str | None, n_pcs: int | None) -> Representation:
    """Find the representation that the user means.

    Raises
    ------
    ValueError
        If it does not exist, or has fewer than ``n_pcs`` columns.
    """
    name = _choose_name(adata, use_rep)
    n_columns = _n_columns(adata, name)
    if n_pcs is not None and name == "X":
        raise ValueError(f"n_pcs={n_pcs} takes the first components, and use_rep='X' has none; leave n_pcs out.")
    is_whole = isinstance(n_pcs, Integral) and not isinstance(n_pcs, bool)
    if n_pcs is not None and not (is_whole and 1 <= n_pcs <= n_columns):
        raise ValueError(
            f"n_pcs={n_pcs!r} must be a whole number from 1 to {n_columns}, the columns of adata.obsm[{name!r}]."
        )
    n_dims = n_columns if n_pcs is None else int(n_pcs)
    return Representation(name, n_dims, _fingerprint(adata, name, n_dims))


def find_same_representation(adata: AnnData, fitted: Representation, *, same_file: bool) -> Representation:
    """Find the representation that a map was fitted in, and check that it means the same here.

    Parameters
    ----------
    adata
        Cells to transport.
    fitted
        The space of the map.
    same_file
        Whether the map comes from this AnnData: then an unknown fingerprint is no news.

    Raises
    ------
    ValueError
        If it is missing, too narrow, or made of other loadings or genes.

    Warns
    -----
    UserWarning
        If there is nothing to check the meaning of the columns by.
    """
    aliases = _PCA if fitted.name in _PCA else (fitted.name,)
    name = next((alias for alias in (fitted.name, *aliases) if alias == "X" or alias in adata.obsm), None)
    if name is None:
        raise ValueError(
            f"The map was fitted on adata.obsm[{fitted.name!r}], which these cells lack: project them onto the "
            f"training representation first; adata.obsm has {listed(adata.obsm)}."
        )
    n_columns = _n_columns(adata, name)
    # The fit may have used the first columns of a wider table (n_pcs); for genes there is no such choice.
    if n_columns < fitted.n_dims or (name == "X" and n_columns != fitted.n_dims):
        raise ValueError(
            f"The map was fitted in {fitted.n_dims} dimensions of {fitted.name!r}, and these cells have "
            f"{n_columns}: project them onto the training representation first."
        )
    here = Representation(name, fitted.n_dims, _fingerprint(adata, name, fitted.n_dims))
    _check_fingerprint(fitted, here, same_file=same_file)
    return here


@dataclass(frozen=True)
class StoredRows:
    """Coordinates of some cells that are in a file: an array-like that is read whenever it becomes an array.

    Parameters
    ----------
    label
        Whose they are.
    rep
        Their space.
    table
        What holds them: a Dask, zarr or HDF5 array.
    rows
        Their row numbers there, ascending, shape (n,).
    """

    label: str
    rep: Representation
    table: Any
    rows: Rows

    @property
    def shape(self) -> tuple[int, int]:
        """Cells and dimensions."""
        return len(self.rows), self.rep.n_dims

    @property
    def size(self) -> int:
        """How many numbers they are."""
        return len(self.rows) * self.rep.n_dims

    def __len__(self) -> int:
        return len(self.rows)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Coordinates:
        read = _table_reader(self.table, self.rep)
        coordinates = _read_blocks(read, self.rep, self.rows)
        bad = self.rows[~is_finite(coordinates)]
        if len(bad):
            raise ValueError(
                f"The representation {self.rep.name!r} has NaN or infinite values in {len(bad)} of {len(self)} cells "
                f"of {self.label!r}, the first in row {bad[0]}. Impute them, or leave these cells out with mask_obs."
            )
        return coordinates if dtype is None else coordinates.astype(dtype, copy=False)

    def __reduce__(self) -> tuple[Any, ...]:
        # Workers read from Dask's arrays; an open HDF5 file cannot go to them, so its values do.
        if hasattr(self.table, "dask"):
            return StoredRows, (self.label, self.rep, self.table, self.rows)
        return np.asarray, (np.asarray(self),)


def stored_rows(adata: AnnData, rep: Representation, rows: Rows, label: str) -> StoredRows | None:
    """Coordinates of some cells without reading them, if they are in a file; ``rows`` ascend."""
    if rep.name == "X":
        return None
    table = _table(adata, rep.name)
    in_file = hasattr(table, "dask") or type(table).__module__.partition(".")[0] in ("h5py", "zarr")
    return StoredRows(label, rep, table, rows) if in_file else None


def read_coordinates(adata: AnnData, rep: Representation, rows: Rows) -> Coordinates:
    """Read the coordinates of some cells, from memory or a file, in blocks: beyond the result, memory is that of one.

    Returns
    -------
    Shape (len(rows), n_dims), float32 or float64, contiguous; a copy.

    Raises
    ------
    ValueError
        If they are not numbers.
    """
    return coordinates_reader(adata, rep)(rows)


def coordinates_reader(adata: AnnData, rep: Representation) -> Callable[[Rows], Coordinates]:
    """Return what reads the coordinates of some cells, for many conditions: the table is found once."""
    reader = _reader(adata, rep)

    def read(rows: Rows) -> Coordinates:
        # Files are read forwards, each row once.
        ascending, places = (rows, None) if (np.diff(rows) > 0).all() else np.unique(rows, return_inverse=True)
        coordinates = _read_blocks(reader, rep, ascending)
        return coordinates if places is None else coordinates[places]

    return read


def _read_blocks(read: Callable[[Rows], NDArray[Any]], rep: Representation, rows: Rows) -> Coordinates:
    """Read rows, which ascend."""
    size, coordinates = rows_at_once(rep), np.empty((0, rep.n_dims))
    for start in range(0, max(len(rows), 1), size):
        block = read(rows[start : start + size])
        if block.dtype.kind not in "fiub":
            raise ValueError(
                f"The representation {rep.name!r} holds values of dtype {block.dtype}; only numbers can be transported."
            )
        if start == 0:
            kind = np.float32 if block.dtype in (np.float16, np.float32) else np.float64
            coordinates = np.empty((len(rows), rep.n_dims), dtype=kind)
        coordinates[start : start + size] = block
    return coordinates


def rows_at_once(rep: Representation) -> int:
    """Rows that a block has in memory."""
    return min(MOST_ROWS, max(LEAST_ROWS, MOST_VALUES // rep.n_dims))


def spans(n_rows: int, rows: Rows, size: int) -> Iterator[tuple[range, Rows]]:
    """Row numbers of all cells, block by block, and those of some cells, which ascend, among them."""
    for start in range(0, n_rows, size):
        span = range(start, min(start + size, n_rows))
        first, last = np.searchsorted(rows, (span.start, span.stop))
        yield span, rows[first:last]


def is_finite(coordinates: Coordinates) -> NDArray[np.bool_]:
    """Which cells, shape (n,), have only finite coordinates."""
    return np.asarray(np.isfinite(coordinates).all(axis=1))


def check_finite(adata: AnnData, rep: Representation, rows: Rows, finite: NDArray[np.bool_]) -> None:
    """Name the cells whose coordinates are not finite.

    Raises
    ------
    ValueError
        If there are any.
    """
    bad = rows[~finite]
    if len(bad):
        first = ", ".join(repr(str(name)) for name in adata.obs_names[bad[:5]])
        raise ValueError(
            f"The representation {rep.name!r} has NaN or infinite values in {len(bad)} of {len(rows)} cells: "
            f"{first}{' ...' if len(bad) > 5 else ''}. Impute them, or leave these cells out with mask_obs."
        )


def feature_names(adata: AnnData, rep: Representation) -> list[str]:
    """Names of the columns: genes for 'X', the table's own if it has some, else PC1, PC2 ..."""
    if rep.name == "X":
        return [str(name) for name in adata.var_names]
    table = _table(adata, rep.name)
    if hasattr(table, "columns"):
        return [str(name) for name in table.columns[: rep.n_dims]]
    prefix = "PC" if rep.name in _PCA else rep.name.removeprefix("X_")
    return [f"{prefix}{i + 1}" for i in range(rep.n_dims)]


def loadings_key(adata: AnnData, name: str) -> str | None:
    """Key of varm that holds a representation's loadings, if there are any."""
    # sc.pp.pca writes X_pca with PCs, and with key_added the same key in obsm and varm.
    candidates = {"X_pca": ("PCs",), "pca": ("pca", "PCs")}.get(name, (name,))
    return next((key for key in candidates if key in adata.varm), None)


def _choose_name(adata: AnnData, use_rep: str | None) -> str:
    has = f"adata.obsm has {listed(adata.obsm)}"
    if use_rep is None:
        name = next((name for name in _PCA if name in adata.obsm), None)
        if name is None:
            raise ValueError(f"No principal components: run sc.pp.pca(adata) first, or pass use_rep; {has}.")
        return name
    if use_rep != "X" and use_rep not in adata.obsm:
        advice = "; run sc.pp.pca(adata) first" if use_rep in _PCA else ""
        raise ValueError(f"use_rep={use_rep!r} is not in adata.obsm{advice}; {has}, and use_rep='X' takes adata.X.")
    # Of no cell: X of a view of a file would be read.
    if use_rep == "X" and expression_of(adata, None, np.arange(0)) is None:
        raise ValueError(f"use_rep='X', but adata.X is empty; {has}.")
    return use_rep


def _n_columns(adata: AnnData, name: str) -> int:
    shape = adata.shape if name == "X" else adata.obsm[name].shape
    if len(shape) != 2:
        raise ValueError(
            f"adata.obsm[{name!r}] has shape {shape}; a representation is a table of cells and dimensions."
        )
    return int(shape[1])


def _table(adata: AnnData, name: str) -> Any:
    table: Any = adata.obsm[name]
    # Sparse matrices of the COO kind and others cannot be indexed by row.
    return table.tocsr() if hasattr(table, "tocsr") else table


def _reader(adata: AnnData, rep: Representation) -> Callable[[Rows], NDArray[Any]]:
    """Return what reads rows, given in ascending order."""
    if rep.name == "X":
        return lambda rows: dense_array(expression_of(adata, None, rows))
    return _table_reader(_table(adata, rep.name), rep)


def _table_reader(table: Any, rep: Representation) -> Callable[[Rows], NDArray[Any]]:
    if hasattr(table, "iloc"):
        return lambda rows: dense_array(in_memory(table.iloc[rows]).iloc[:, : rep.n_dims])
    return lambda rows: dense_array(table[rows, : rep.n_dims])


def expression_of(adata: AnnData, layer: str | None, rows: Rows) -> Any:
    """X, or a layer, of some cells, as it is stored; of a file these rows and no others are read."""
    if adata.isbacked or adata.is_view:
        part = adata[rows]
        return part.X if layer is None else part.layers[layer]
    # Not from a view: anndata's views lose the mask of masked arrays, and cannot be made if a column stands twice.
    matrix: Any = adata.X if layer is None else adata.layers[layer]
    return None if matrix is None else matrix[rows]


def dense_array(values: Any) -> NDArray[Any]:
    """Read what may be sparse, in a file, masked, or a table of pandas' own numbers; what is missing becomes NaN."""
    values = in_memory(values)
    if isinstance(values, pd.DataFrame):
        return _numbers(values)
    if isinstance(values, np.ma.MaskedArray):
        return np.asarray(np.ma.filled(values.astype(np.result_type(values.dtype, np.float32)), np.nan))
    return np.asarray(values.toarray() if hasattr(values, "toarray") else values)


def _numbers(table: pd.DataFrame) -> NDArray[Any]:
    """Values of a table with columns of numbers and booleans, of NumPy, pandas or Arrow."""
    kinds = [getattr(dtype, "numpy_dtype", getattr(dtype, "subtype", dtype)) for dtype in table.dtypes]
    if not kinds or not all(isinstance(kind, np.dtype) and kind.kind in "fiub" for kind in kinds):
        return np.asarray(table)
    kind = np.result_type(*kinds)
    if all(isinstance(dtype, np.dtype) for dtype in table.dtypes):
        return table.to_numpy(dtype=kind)
    kind = np.result_type(kind, np.float32)  # whole numbers and booleans of pandas may be missing
    return np.column_stack([table.iloc[:, i].to_numpy(dtype=kind, na_value=np.nan) for i in range(len(kinds))])


def _fingerprint(adata: AnnData, name: str, n_dims: int) -> str:
    digest = hashlib.sha256("\n".join(map(str, adata.var_names)).encode())
    if name == "X":
        return digest.hexdigest()
    key = loadings_key(adata, name)
    if key is None:
        return ""
    digest.update(np.ascontiguousarray(np.asarray(in_memory(adata.varm[key]))[:, :n_dims], dtype="<f4").tobytes())
    return digest.hexdigest()


def _check_fingerprint(fitted: Representation, here: Representation, *, same_file: bool) -> None:
    if fitted.fingerprint and here.fingerprint:
        if fitted.fingerprint != here.fingerprint:
            raise ValueError(
                f"{here.name!r} of these cells has other loadings or genes (by name, or in another order) than the one "
                "that the map was fitted in, so its columns may mean something else: project these cells with "
                "the training cells' PCs (the same genes, in the same order). If genes were renamed after the fit, "
                "give adata.var_names the former names. If genes were removed, and the coordinates are still the same, "
                "apply sh.get.model(adata).transport to them."
            )
    elif not same_file:
        warnings.warn(
            f"Nothing says whether {here.name!r} of these cells is the space that the map was fitted in "
            "(no loadings in adata.varm, or a map without AnnData); make sure that it is.",
            UserWarning,
            stacklevel=5,
        )
