"""Fixtures for all tests."""

from __future__ import annotations

import os

# Threads of PyTorch that wait for each other sleep. On cores that others use too, they would take ten times the time.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import hashlib
import pickle
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from scipy import sparse

mpl.use("Agg")
# Workers of pytest run side by side on one core each; more threads would wait for each other and be much slower.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def one_thread():
    """Set the number of threads again, in case the test before has changed it."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of the real data sets; without SCOT_HYCNN_DATA the test is skipped."""
    folder = os.environ.get("SCOT_HYCNN_DATA")
    if not folder:
        pytest.skip("SCOT_HYCNN_DATA is not set: it names the folder with the real data sets")
    return Path(folder)


def content(adata: AnnData) -> dict[str, str]:
    """Return a hash for every slot, so that a comparison names the slots that differ."""
    slots = {name: getattr(adata, name) for name in ("obs", "var", "is_view", "isbacked", "filename")}
    slots["X"] = None if adata.isbacked else adata.X
    slots["names"] = (adata.obs_names, adata.var_names)
    slots["raw"] = adata.raw if adata.raw is None else (adata.raw.X, adata.raw.var, dict(adata.raw.varm))
    for name in ("layers", "obsm", "varm", "obsp", "varp", "uns"):
        slots[name] = list(getattr(adata, name))
        slots |= {f"{name}/{key}": value for key, value in getattr(adata, name).items()}
    return {name: _hash(value) for name, value in slots.items()}


def _hash(value: object) -> str:
    if isinstance(value, Mapping):
        value = {key: _hash(inner) for key, inner in value.items()}
    elif isinstance(value, tuple):
        value = [_hash(inner) for inner in value]
    elif isinstance(value, np.ndarray):
        # The bytes of an array of objects are addresses, which say nothing of the values.
        values = repr(value.tolist()) if value.dtype == object else np.asarray(value).tobytes()
        value = (value.dtype.str, value.shape, values)
    elif sparse.issparse(value):
        value = [type(value).__name__, value.shape, *map(_hash, (value.tocoo().data, *value.tocoo().coords))]
    elif isinstance(value, pd.Index):
        value = (str(value.dtype), value.name, value.tolist())
    elif isinstance(value, pd.DataFrame):
        kinds = {name: _kind(column) for name, column in value.items()}
        value = value.index.tolist(), {name: (kinds[name], column.tolist()) for name, column in value.items()}
        value = str(value)  # as text NaN is equal to NaN
    return hashlib.sha256(pickle.dumps(value)).hexdigest()


def _kind(column: pd.Series) -> str:
    categories = [column.cat.categories.tolist(), column.cat.ordered] if column.dtype == "category" else ""
    return f"{column.dtype} {categories}"


@pytest.fixture
def content_of():
    """Return a function that gives a hash for every slot of an AnnData."""
    return content


@pytest.fixture
def unchanged():
    """Return a context manager that checks that an AnnData is byte for byte as it was."""

    @contextmanager
    def check(adata):
        before = content(adata)
        yield
        assert content(adata) == before

    return check
