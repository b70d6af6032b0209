"""Small cells, and a way to see that an AnnData has not changed."""

from __future__ import annotations

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
    loadings = np.linalg.qr(np.random.default_rng(7).normal(size=(6, d)))[0]
    residual = rng.random((len(obs), 6))
    residual -= residual @ loadings @ loadings.T  # what no component sees
    adata = AnnData((x_pca @ loadings.T + residual + 10).astype(np.float32), obs=obs)
    adata.obsm["X_pca"] = x_pca.astype(np.float32)
    adata.varm["PCs"] = loadings.astype(np.float32)
    adata.uns["pca"] = {"variance": np.ones(d)}
    adata.layers["counts"] = adata.X.copy()
    return adata


@pytest.fixture
def cells():
    return make_cells()


@pytest.fixture
def fast():
    return dict(FAST)


@pytest.fixture(scope="session")
def new_cells():
    return make_cells
