"""Results in other forms."""

from __future__ import annotations

import numpy as np
import pytest
import scanpy as sc

import scot_hycnn as sh


@pytest.fixture
def adata():
    adata = sh.datasets.pbmc_planted(n_cells=200)
    sh.tl.hycnn_ot(adata, "control", "IFN-beta", n_pcs=5, max_steps=12, hidden=(8, 8), n_ensemble=2)
    return adata


def several(adata):
    labels = adata.obs["condition"].astype(str).to_numpy()
    labels[np.flatnonzero(labels == "IFN-beta")[::2]] = "IFN/gamma"
    adata.obs["condition"] = labels
    sh.tl.hycnn_ot(adata, "control", ["IFN-beta", "IFN/gamma"], n_pcs=5, key_added="two", max_steps=5, hidden=(4,))


def test_transported_stacks_three_kinds_of_cells(adata):
    cells = sh.get.transported(adata)
    control = (adata.obs["condition"] == "control").to_numpy()
    assert cells.obs["hycnn_ot_role"].cat.categories.tolist() == ["source", "predicted", "observed"]
    parts = {role: cells[cells.obs["hycnn_ot_role"] == role] for role in ("source", "predicted", "observed")}
    np.testing.assert_array_equal(parts["source"].X, adata.obsm["X_pca"][control, :5])
    np.testing.assert_array_equal(parts["predicted"].X, adata.obsm["X_hycnn_ot"][control])
    np.testing.assert_array_equal(parts["observed"].X, adata.obsm["X_pca"][~control, :5])
    np.testing.assert_array_equal(cells.obsm["X_pca"], cells.X)
    assert cells.var_names.tolist() == ["PC1", "PC2", "PC3", "PC4", "PC5"]
    assert cells.obs_names.is_unique
    assert parts["predicted"].obs_names[0] == parts["source"].obs_names[0] + "-predicted"
    assert (parts["predicted"].obs["cell_type"].to_numpy() == parts["source"].obs["cell_type"].to_numpy()).all()


@pytest.mark.filterwarnings("ignore")  # scanpy's and numba's own
def test_transported_feeds_scanpy(adata):
    cells = sh.get.transported(adata)
    sc.pp.neighbors(cells, use_rep="X_pca", n_neighbors=5)
    sc.tl.rank_genes_groups(cells, "hycnn_ot_role", groups=["predicted"], reference="source", method="t-test")
    assert set(cells.uns["rank_genes_groups"]["names"]["predicted"]) == set(cells.var_names)


def test_transported_genes(adata):
    few = adata[:, :6].copy()
    few.X = few.X.toarray() + np.random.default_rng(0).random(few.shape, dtype=np.float32)
    sh.tl.hycnn_ot(few, "control", "IFN-beta", use_rep="X", potential="gaussian", key_added="genes")
    cells = sh.get.transported(few, "genes")
    assert cells.var_names.tolist() == few.var_names.tolist()
    assert "genes_role" in cells.obs
    assert not cells.obsm


def test_identity_fill_changes_nothing(adata):
    sh.tl.transport(adata, key_added="full", fill="identity")
    adata.uns["full"] = adata.uns["hycnn_ot"]
    np.testing.assert_array_equal(sh.get.transported(adata, "full").X, sh.get.transported(adata).X)


def test_history_is_tidy(adata):
    table = sh.get.history(adata)
    assert table.columns[:2].tolist() == ["target", "step"]
    assert table["step"].is_monotonic_increasing
    assert table["step"].iloc[-1] == 12
    several(adata)
    both = sh.get.history(adata, "two")
    assert both["target"].unique().tolist() == ["IFN-beta", "IFN/gamma"]
    assert sh.get.history(adata, "two", "IFN/gamma")["target"].unique().tolist() == ["IFN/gamma"]


def test_history_of_the_gaussian_map_is_empty(adata):
    sh.tl.hycnn_ot(adata, "control", "IFN-beta", potential="gaussian", key_added="gauss")
    assert sh.get.history(adata, "gauss").empty


def test_model_is_the_map(adata):
    control = (adata.obs["condition"] == "control").to_numpy()
    moved = sh.get.model(adata).transport(adata.obsm["X_pca"][control, :5])
    np.testing.assert_array_equal(moved, adata.obsm["X_hycnn_ot"][control])
    several(adata)
    assert sh.get.model(adata, "two", "IFN/gamma").n_dims == 5


@pytest.mark.parametrize("get", [sh.get.transported, sh.get.history, sh.get.model])
def test_no_fit(get):
    with pytest.raises(ValueError, match=r"it has no fits\. Run sh.tl.hycnn_ot first"):
        get(sh.datasets.pbmc_planted(n_cells=20))


@pytest.mark.parametrize("get", [sh.get.transported, sh.get.model])
def test_several_targets_need_a_name(adata, get):
    several(adata)
    with pytest.raises(ValueError, match=r"several targets; pass target= one of \['IFN-beta', 'IFN/gamma'\]"):
        get(adata, "two")
    with pytest.raises(ValueError, match="target='IL-2' is not a target"):
        get(adata, "two", "IL-2")


def test_what_transported_needs(adata):
    lost = adata.copy()
    del lost.obsm["X_hycnn_ot"]
    with pytest.raises(ValueError, match=r"lacks 'X_hycnn_ot'; run sh.tl.transport\(adata, 'hycnn_ot'\)"):
        sh.get.transported(lost)
    del adata.obs["condition"]
    with pytest.raises(ValueError, match=r"No cells are labelled 'control' in adata.obs\['condition'\]"):
        sh.get.transported(adata)
