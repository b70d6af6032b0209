"""Results of a fit in other forms."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from anndata import AnnData
from scipy.sparse import random_array

import scot_hycnn as sh

ROLES = ["source", "predicted", "observed"]


@pytest.fixture(scope="module")
def fitted():
    """Cells with a short fit, and one of two targets under the key 'two'."""
    adata = sh.datasets.pbmc_planted(n_cells=200)
    sh.tl.hycnn_ot(adata, "control", "IFN-beta", n_pcs=5, max_steps=12, hidden=(8, 8), n_ensemble=2)
    labels = adata.obs["condition"].astype(str).to_numpy()
    labels[np.flatnonzero(labels == "IFN-beta")[::2]] = "IFN/gamma"
    adata.obs["two"] = labels
    sh.tl.hycnn_ot(
        adata, "control", ["IFN-beta", "IFN/gamma"], groupby="two", n_pcs=5, key_added="two", potential="gaussian"
    )
    return adata


@pytest.fixture
def adata(fitted):
    return fitted.copy()


@pytest.fixture(scope="module")
def control(fitted):
    return (fitted.obs["condition"] == "control").to_numpy()


@pytest.fixture(scope="module")
def few(fitted):
    """A fit on the expression of six genes."""
    few = fitted[:, :6].copy()
    few.X = few.X.toarray() + np.random.default_rng(0).random(few.shape, dtype=np.float32)
    sh.tl.hycnn_ot(
        few, "control", "IFN-beta", groupby="condition", use_rep="X", potential="gaussian", key_added="genes"
    )
    return few


def by_role(cells):
    return {role: cells[cells.obs["hycnn_ot_role"] == role] for role in cells.obs["hycnn_ot_role"].cat.categories}


# ---- transported and predicted


def test_transported_stacks_three_kinds_of_cells(fitted, control):
    cells = sh.get.transported(fitted)
    parts = by_role(cells)
    assert list(parts) == ROLES
    np.testing.assert_array_equal(parts["source"].X, fitted.obsm["X_pca"][control, :5])
    np.testing.assert_array_equal(parts["predicted"].X, fitted.obsm["X_hycnn_ot"][control])
    np.testing.assert_array_equal(parts["observed"].X, fitted.obsm["X_pca"][~control, :5])
    np.testing.assert_array_equal(cells.obsm["X_pca"], cells.X)
    assert cells.var_names.tolist() == ["PC1", "PC2", "PC3", "PC4", "PC5"]
    assert cells.obs_names.is_unique
    assert parts["predicted"].obs_names[0] == parts["source"].obs_names[0] + "-predicted"
    assert (parts["predicted"].obs["cell_type"].to_numpy() == parts["source"].obs["cell_type"].to_numpy()).all()


def test_predicted_has_the_same_cells_with_genes(adata, control):
    cells = sh.get.predicted(adata)
    parts = by_role(cells)
    np.testing.assert_array_equal(parts["source"].X, adata.X[control].toarray())
    np.testing.assert_array_equal(parts["observed"].X, adata.X[~control].toarray())
    sh.tl.decode(adata)
    np.testing.assert_array_equal(parts["predicted"].X, adata.layers["hycnn_ot"][control])
    assert cells.X.dtype == np.float32
    assert cells.var["in_representation"].all()
    pd.testing.assert_frame_equal(cells.var.drop(columns="in_representation"), adata.var)
    coordinates = sh.get.transported(adata)
    pd.testing.assert_frame_equal(cells.obs, coordinates.obs)
    np.testing.assert_array_equal(cells.obsm["X_pca"], coordinates.X)


def test_some_of_the_roles(fitted):
    some, full = by_role(sh.get.predicted(fitted, roles=["observed", "predicted"])), by_role(sh.get.predicted(fitted))
    assert list(some) == ["observed", "predicted"]
    for role, part in some.items():
        assert part.obs_names.tolist() == full[role].obs_names.tolist()
        np.testing.assert_array_equal(part.X, full[role].X)
        np.testing.assert_array_equal(part.obsm["X_pca"], full[role].obsm["X_pca"])


def test_maps_of_expression(few):
    cells = sh.get.transported(few, "genes")
    assert cells.var_names.tolist() == few.var_names.tolist()
    assert "genes_role" in cells.obs
    assert not cells.obsm
    np.testing.assert_array_equal(sh.get.predicted(few, "genes").X, cells.X)


def test_a_decoder_replaces_loadings_for_predicted_cells_only(fitted):
    cells = sh.get.predicted(fitted, decoder=lambda points: np.full((len(points), 765), 2.0))
    role = cells.obs["hycnn_ot_role"]
    assert (cells[role == "predicted"].X == 2).all()
    np.testing.assert_array_equal(cells[role != "predicted"].X, fitted.X.toarray())


def test_identity_fill_changes_nothing(adata):
    sh.tl.transport(adata, key_added="full", fill="identity")
    adata.uns["full"] = adata.uns["hycnn_ot"]
    np.testing.assert_array_equal(sh.get.transported(adata, "full").X, sh.get.transported(adata).X)


@pytest.mark.filterwarnings("ignore")  # warnings of scanpy and numba
def test_scanpy_ranks_the_genes_with_the_largest_planted_change(adata, control):
    adata.obsm["X_hycnn_ot"] = adata.obsm["X_planted"][:, :5]
    adata.uns["log1p"] = {"base": 2}
    cells = sh.get.predicted(adata, clip=True)  # clipped values have a fold change of every gene
    assert cells.uns["log1p"] == {"base": 2}
    sc.tl.rank_genes_groups(cells, "hycnn_ot_role", groups=["predicted"], reference="source", method="t-test")
    table = sc.get.rank_genes_groups_df(cells, "predicted").set_index("names")
    assert np.isfinite(table["logfoldchanges"]).all()
    change = (adata.obsm["X_hycnn_ot"] - adata.obsm["X_pca"][:, :5])[control].mean(axis=0) @ adata.varm["PCs"][:, :5].T
    first = pd.Series(change, index=adata.var_names)[table.index[:20]]
    assert first.mean() > 2 * np.abs(change).mean()


def test_memory_beyond_the_result_does_not_grow():
    rng = np.random.default_rng(0)
    n, genes = 12_000, 400
    adata = AnnData(random_array((n, genes), density=0.1, format="csr", dtype=np.float32, random_state=rng))
    adata.obs["condition"] = np.repeat(["a", "b"], n // 2)
    adata.varm["PCs"] = np.linalg.qr(rng.normal(size=(genes, 3)))[0].astype(np.float32)
    adata.obsm["X_pca"] = adata.X @ adata.varm["PCs"]
    sh.tl.hycnn_ot(adata, "a", "b", potential="gaussian")
    tracemalloc.start()
    cells = sh.get.predicted(adata)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Blocks of 1,000 cells take a few times 1.6 MB. All predicted cells would take 10 MB, all cells 29 MB.
    assert peak - cells.X.nbytes < 15e6
    assert cells.X.nbytes == 18_000 * genes * 4


# ---- history and model


def test_history_is_tidy(fitted):
    table = sh.get.history(fitted)
    assert table.columns[:2].tolist() == ["target", "step"]
    assert table["step"].is_monotonic_increasing
    assert table["step"].iloc[-1] == sh.get.model(fitted).params["n_steps"]
    assert table["target"].unique().tolist() == ["IFN-beta"]
    assert sh.get.history(fitted, "two").empty  # the Gaussian map has no history


def test_model_is_the_map(fitted, control):
    moved = sh.get.model(fitted).transport(fitted.obsm["X_pca"][control, :5])
    np.testing.assert_array_equal(moved, fitted.obsm["X_hycnn_ot"][control])
    assert sh.get.model(fitted, "two", "IFN/gamma").n_dims == 5


# ---- errors

READERS = [sh.get.transported, sh.get.predicted, sh.get.model, sh.get.history]


@pytest.mark.parametrize("get", READERS)
def test_errors_name_fits_and_targets(fitted, get):
    with pytest.raises(ValueError, match=r"'nix'.*'hycnn_ot', 'two'"):
        get(fitted, "nix")
    with pytest.raises(ValueError, match=r"'IL-2'.*'IFN-beta', 'IFN/gamma'"):
        get(fitted, "two", "IL-2")
    if get is not sh.get.history:
        with pytest.raises(ValueError, match=r"target=.*'IFN-beta', 'IFN/gamma'"):
            get(fitted, "two")


@pytest.mark.parametrize("get", READERS[:2])
def test_errors_name_what_is_missing(adata, get):
    adata.obs["kept"] = adata.obs.pop("condition")
    with pytest.raises(ValueError, match=r"'control'.*'condition'"):
        get(adata)
    del adata.obsm["X_hycnn_ot"]
    with pytest.raises(ValueError, match=r"'X_hycnn_ot'.*sh.tl.transport"):
        get(adata)


@pytest.mark.parametrize("roles", [[], ["source", "source"], ["treated"], "source"])
def test_roles_that_do_not_exist(fitted, roles):
    with pytest.raises(ValueError, match=r"'source', 'predicted', 'observed'"):
        sh.get.predicted(fitted, roles=roles)
