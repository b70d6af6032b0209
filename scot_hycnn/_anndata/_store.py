"""A .zarr store of predicted cells that grows by blocks of rows: memory does not grow with the cells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from ._files import check_writable, import_zarr, written_whole


@dataclass(frozen=True)
class Store:
    """Tables of obsm, columns of obs and layers, each with the same rows in the end.

    Parameters
    ----------
    root
        The zarr group, laid out as anndata does.
    columns
        Names in obs, in the order that they came.
    """

    root: Any
    columns: list[str] = field(default_factory=list)

    def append(self, **slots: Mapping[str, NDArray[np.float32]]) -> None:
        """Append the next rows of the tables, columns or layers of each slot; the first of them begin one."""
        self.columns.extend(name for name in slots.get("obs", ()) if name not in self.columns)
        for slot, arrays in slots.items():
            group = self.root[slot]
            for name, values in arrays.items():
                if name in group:
                    group[name].append(values)
                else:  # a chunk is a block, so that no block is written twice
                    anndata.io.write_elem(group, name, values, dataset_kwargs={"chunks": values.shape})


def check_output(output: str | Path | None, *, copy: bool) -> Path | None:
    """Check the path of a store, if there is to be one, before the work whose result it is to take.

    Raises
    ------
    FileNotFoundError
        If its folder does not exist.
    ImportError
        If zarr is not installed.
    ValueError
        If it does not end in .zarr, or exists, or a changed copy is wanted too.
    """
    if output is None:
        return None
    if copy:
        raise ValueError("output= leaves adata as it is, so there is nothing to copy; leave copy out.")
    path = Path(output)
    if path.suffix != ".zarr":
        raise ValueError(f"output={str(path)!r} must end in .zarr: predicted cells are written to a zarr store.")
    if path.exists():
        raise ValueError(f"output={str(path)!r} exists; choose another name, or delete it first.")
    check_writable(path, overwrite=False)
    import_zarr()
    return path


@contextmanager
def new_store(adata: AnnData, path: Path, *, with_genes: bool = False) -> Iterator[Store]:
    """Open a store with the names of these cells, and of the genes if wanted.

    Its path appears when all is written, or not at all.
    """
    zarr = import_zarr()
    with written_whole(path, overwrite=False) as part:
        # anndata's default; in format 3 it may join chunks to shards, which an appended block would write anew.
        zarr_format = {} if zarr.__version__.startswith("2.") else {"zarr_format": 2}
        store = Store(zarr.open_group(part, mode="w", **zarr_format))
        var = pd.DataFrame(index=adata.var_names) if with_genes else None
        anndata.io.write_elem(store.root, "/", AnnData(obs=pd.DataFrame(index=adata.obs_names), var=var))
        yield store
        store.root["obs"].attrs["column-order"] = store.columns
        zarr.consolidate_metadata(store.root.store)  # as anndata does, so that opening reads one file
