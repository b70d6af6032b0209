"""Read what a lazily read AnnData holds in a file; neither Dask nor xarray is imported where nothing is lazy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from anndata import AnnData


def in_memory(value: Any) -> Any:
    """Read a lazy value, or those in a dict, into memory; return any other value as it is."""
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
