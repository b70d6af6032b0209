"""Small cells, and a way to see that an AnnData has not changed."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

FAST = {"max_steps": 12, "hidden": (8, 8), "n_ensemble": 2}


def make_cells(n: int = 60, d: int = 3, *, seed: int = 0) -> AnnData:
    """n control and n treated cells in shuffled order, with 10 of no condition."""
    rng = np.random.default_rng(seed)
    condition = rng.permutation(np.repeat(["control", "IFN-beta", None], [n, n, 10]))
    x_pca = rng.normal(size=(len(condition), d)) * np.arange(1, d + 1)
    x_pca[condition == "IFN-beta"] += 3.0
    obs = pd.DataFrame({"condition": pd.Categorical(condition, categories=["control", "IFN-beta"])})
    obs["n_counts"] = rng.integers(100, size=len(obs))
    obs.index = [f"cell{i}" for i in range(len(obs))]
    adata = AnnData(rng.random((len(obs), 6)).astype(np.float32), obs=obs)
    adata.obsm["X_pca"] = x_pca.astype(np.float32)
    adata.varm["PCs"] = np.linalg.qr(np.random.default_rng(7).normal(size=(6, d)))[0].astype(np.float32)
    adata.uns["pca"] = {"variance": np.ones(d)}
    adata.layers["counts"] = adata.X.copy()
    return adata


def content(adata: AnnData) -> dict[str, str]:
    """A hash for every slot, so that a comparison names the ones that differ."""
    slots = {"X": adata.X, "obs": adata.obs, "var": adata.var, "is_view": adata.is_view}
    for name in ("layers", "obsm", "varm", "obsp", "varp", "uns"):
        slots[name] = list(getattr(adata, name))
        slots |= {f"{name}/{key}": value for key, value in getattr(adata, name).items()}
    return {name: _hash(value) for name, value in slots.items()}


def _hash(value: object) -> str:
    if isinstance(value, Mapping):
        value = {key: _hash(inner) for key, inner in value.items()}
    elif isinstance(value, np.ndarray):
        value = (value.dtype.str, value.shape, np.asarray(value).tobytes())
    elif isinstance(value, pd.DataFrame):
        value = value.index.tolist(), {name: (str(column.dtype), column.tolist()) for name, column in value.items()}
        value = str(value)  # NaN prints the same, and is never equal to itself
    return hashlib.sha256(pickle.dumps(value)).hexdigest()


@pytest.fixture
def cells():
    return make_cells()


@pytest.fixture
def fast():
    return dict(FAST)


@pytest.fixture
def new_cells():
    return make_cells


@pytest.fixture
def unchanged():
    """Context manager that checks that an AnnData is byte for byte as it was."""
    from contextlib import contextmanager

    @contextmanager
    def check(adata):
        before = content(adata)
        yield
        assert content(adata) == before

    return check
