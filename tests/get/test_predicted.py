"""Source, predicted and observed cells as genes."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from anndata import AnnData
from scipy.sparse import random_array

import scot_hycnn as sh


@pytest.fixture
def adata():
    adata = sh.datasets.pbmc_planted(n_cells=200)
    sh.tl.hycnn_ot(adata, "control", "IFN-beta", n_pcs=5, potential="gaussian")
    return adata


def test_three_kinds_of_cells(adata):
    cells = sh.get.predicted(adata)
    assert cells.obs["hycnn_ot_role"].cat.categories.tolist() == ["source", "predicted", "observed"]
    parts = {role: cells[cells.obs["hycnn_ot_role"] == role] for role in ("source", "predicted", "observed")}
    control = (adata.obs["condition"] == "control").to_numpy()
    np.testing.assert_array_equal(parts["source"].X, adata.X[control].toarray())
    np.testing.assert_array_equal(parts["observed"].X, adata.X[~control].toarray())
    sh.tl.decode(adata)
    np.testing.assert_array_equal(parts["predicted"].X, adata.layers["hycnn_ot"][control])
    assert cells.X.dtype == np.float32
    pd.testing.assert_frame_equal(cells.var, adata.var)
    coordinates = sh.get.transported(adata)
    pd.testing.assert_frame_equal(cells.obs, coordinates.obs)
    np.testing.assert_array_equal(cells.obsm["X_pca"], coordinates.X)


def test_some_of_the_roles(adata):
    cells = sh.get.predicted(adata, roles=["observed", "predicted"])
    full = sh.get.predicted(adata)
    assert cells.obs["hycnn_ot_role"].cat.categories.tolist() == ["observed", "predicted"]
    assert cells.n_obs == 200
    for role in ("observed", "predicted"):
        part, wanted = (a[a.obs["hycnn_ot_role"] == role] for a in (cells, full))
        assert part.obs_names.tolist() == wanted.obs_names.tolist()
        np.testing.assert_array_equal(part.X, wanted.X)
        np.testing.assert_array_equal(part.obsm["X_pca"], wanted.obsm["X_pca"])


@pytest.mark.filterwarnings("ignore")  # scanpy's and numba's own
def test_feeds_rank_genes_groups_unchanged(adata):
    """Genes with the largest planted change come first; fold changes of all genes need values that are clipped."""
    adata.obsm["X_hycnn_ot"] = adata.obsm["X_planted"][:, :5]
    adata.uns["log1p"] = {"base": 2}
    cells = sh.get.predicted(adata)
    assert cells.uns["log1p"] == {"base": 2}
    sc.tl.rank_genes_groups(cells, "hycnn_ot_role", groups=["predicted"], reference="source", method="t-test")
    table = sc.get.rank_genes_groups_df(cells, "predicted").set_index("names")
    control = (adata.obs["condition"] == "control").to_numpy()
    change = (adata.obsm["X_hycnn_ot"] - adata.obsm["X_pca"][:, :5])[control].mean(axis=0) @ adata.varm["PCs"][:, :5].T
    first = pd.Series(change, index=adata.var_names)[table.index[:20]]
    assert (first > 0).all()
    assert first.mean() > 4 * np.abs(change).mean()
    clipped = sh.get.predicted(adata, clip=True)
    sc.tl.rank_genes_groups(clipped, "hycnn_ot_role", groups=["predicted"], reference="source", method="t-test")
    assert np.isfinite(sc.get.rank_genes_groups_df(clipped, "predicted")["logfoldchanges"]).all()


def test_maps_of_expression_itself(adata):
    few = adata[:, :6].copy()
    few.X = few.X.toarray() + np.random.default_rng(0).random(few.shape, dtype=np.float32)
    sh.tl.hycnn_ot(few, "control", "IFN-beta", use_rep="X", potential="gaussian", key_added="genes")
    cells = sh.get.predicted(few, "genes")
    np.testing.assert_array_equal(cells.X, sh.get.transported(few, "genes").X)
    assert not cells.obsm


def test_a_decoder_takes_the_place_of_loadings_for_predicted_cells_only(adata):
    cells = sh.get.predicted(adata, decoder=lambda points: np.full((len(points), 765), 2.0))
    role = cells.obs["hycnn_ot_role"]
    assert (cells[role == "predicted"].X == 2).all()
    np.testing.assert_array_equal(cells[role != "predicted"].X, adata.X.toarray())


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
    # Blocks of 1,000 cells: a few times 1.6 MB. All predicted cells once more would be 10 MB, all cells 29 MB.
    assert peak - cells.X.nbytes < 15e6
    assert cells.X.nbytes == 18_000 * genes * 4


@pytest.mark.parametrize("roles", [[], ["source", "source"], ["treated"], "source"])
def test_roles_that_are_none(adata, roles):
    with pytest.raises(ValueError, match=r"it takes a list of one or several of \['source', 'predicted', 'observed'\]"):
        sh.get.predicted(adata, roles=roles)


def test_what_it_needs(adata):
    with pytest.raises(ValueError, match="no fit 'nix'"):
        sh.get.predicted(adata, "nix")
    with pytest.raises(ValueError, match=r"layer='nix' is not in adata.layers"):
        sh.get.predicted(adata, layer="nix")
    with pytest.raises(TypeError, match="decoder is of type int"):
        sh.get.predicted(adata, decoder=3)
    del adata.varm["PCs"]
    with pytest.raises(ValueError, match=r"No way from 'X_pca' to genes.*Pass decoder="):
        sh.get.predicted(adata)
