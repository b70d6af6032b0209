"""A small fit with decoded genes and made-up scores, for figures and the report; figures are closed after each test."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest

import scot_hycnn as sh
from scot_hycnn._anndata.evaluation._evaluation_input import EVALUATION_COLUMNS

# Of Kang's cells, rounded; pearson_delta of the identity is not defined.
SCORES = {
    "energy_distance": {
        "identity": 7.07,
        "mean_shift": 0.667,
        "gaussian": 0.031,
        "hycnn_ot": -0.0035,
        "replicate": -0.01,
    },
    "pearson_delta": {"identity": np.nan, "mean_shift": 0.9, "gaussian": 0.93, "hycnn_ot": 0.96, "replicate": 0.99},
    "trace_ratio": {"identity": 0.8, "mean_shift": 0.8, "gaussian": 1.01, "hycnn_ot": 0.98, "replicate": 1.0},
}


def with_interval(value):
    return value, value - 0.01, value + 0.01


def made_up_scores(groups=("all", "B cells", "T cells"), targets=("IFN-beta",)):
    rows = [
        (
            target,
            group,
            method,
            metric,
            *with_interval(value),
            *with_interval(value - methods["gaussian"]),
            200,
            200,
            0.9,
            np.nan,
        )
        for target in targets
        for group in groups
        for metric, methods in SCORES.items()
        for method, value in methods.items()
    ]
    return {name: np.array(column) for name, column in zip(EVALUATION_COLUMNS, zip(*rows, strict=True), strict=True)}


@pytest.fixture
def scores():
    return SCORES


@pytest.fixture
def new_scores():
    return made_up_scores


@pytest.fixture(scope="session")
def fitted():
    adata = sh.datasets.pbmc_planted(n_cells=400)
    sh.tl.hycnn_ot(adata, "control", "IFN-beta", n_pcs=5, max_steps=20, hidden=(8, 8), n_ensemble=2)
    # Any embedding serves; a real UMAP takes seconds.
    adata.obsm["X_umap"] = np.tanh(adata.obsm["X_pca"][:, :2] / 10)
    # What sh.tl.decode would write: predicted genes of control cells, here 0.5 above the measured ones.
    adata.layers["hycnn_ot"] = np.full(adata.shape, np.nan, np.float32)
    adata.layers["hycnn_ot"][:200] = adata.X[:200].toarray() + 0.5
    adata.uns["hycnn_ot_evaluation"] = made_up_scores()
    return adata


@pytest.fixture
def adata(fitted):
    yield fitted.copy()
    plt.close("all")


@pytest.fixture
def control(adata):
    return (adata.obs["condition"] == "control").to_numpy()
