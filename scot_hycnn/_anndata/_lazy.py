"""What a lazily read AnnData stands for, in memory; neither Dask nor xarray is imported where nothing is lazy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from anndata import AnnData


def in_memory(value: Any) -> Any:
    """Read what stands for a file's content; anything else, and every entry of a dict that is, stays as it is."""
    if hasattr(value, "to_memory"):  # tables of anndata, and its sparse matrices in files
        return value.to_memory()
    if isinstance(value, Mapping):
        return {key: in_memory(entry) for key, entry in value.items()}
    # Dask arrays. In this process' own threads: on a worker of a cluster the default would be a task that waits for it.
    return value.compute(scheduler="threads") if hasattr(value, "compute") else value


def obs_columns(adata: AnnData, *names: object) -> pd.DataFrame:
    """Return obs as a DataFrame.

    Parameters
    ----------
    adata
        The cells.
    names
        Columns that are needed: where obs is in a file, no others are read. All are read if one is None, for a column
        that has yet to be found, or does not exist, for the message that says which do.
    """
    obs: Any = adata.obs
    if isinstance(obs, pd.DataFrame):
        return obs
    are_there = all(isinstance(name, str) and name in obs for name in names)
    frame: pd.DataFrame = (obs[list(dict.fromkeys(names))] if are_there else obs).to_memory()
    return frame
