"""Principal components are those that scanpy finds on the training cells, and other cells change nothing else."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from scipy import sparse

import scot_hycnn as sh

N_CELLS, N_GENES = 90, 25


@pytest.fixture
def adata():
    """Counts whose spectrum falls, so that every component is well defined."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(np.exp(rng.normal(size=(N_CELLS, 6)) @ rng.normal(size=(6, N_GENES)) * 0.4))
    adata = ad.AnnData(
        np.log1p(counts).astype(np.float32),
        obs=pd.DataFrame(index=[f"cell{i}" for i in range(N_CELLS)]),
        var=pd.DataFrame(index=[f"gene{i}" for i in range(N_GENES)]),
    )
    sh.pp.split(adata, test_size=0.3)
    return adata


@pytest.fixture
def training(adata):
    return (adata.obs["split"] == "train").to_numpy()


# ---- against scanpy


@pytest.mark.parametrize(
    ("form", "mask_var"),
    [
        (np.asarray, None),
        (sparse.csr_matrix, "highly_variable"),
        (sparse.csc_matrix, "some"),
        (sparse.csr_array, "array"),
        (np.asarray, "some"),
    ],
)
def test_with_all_cells_it_is_scanpys(adata, form, mask_var):
    adata.X = form(adata.X)
    adata.var["some"] = np.arange(N_GENES) % 2 == 0
    if mask_var == "highly_variable":
        adata.var["highly_variable"], mask_var = np.arange(N_GENES) < 15, None
    given = {} if mask_var is None else {"mask_var": adata.var["some"].to_numpy() if mask_var == "array" else mask_var}
    ours, theirs = sh.pp.pca(adata, 8, copy=True, **given), sc.pp.pca(adata, 8, copy=True, **given)
    np.testing.assert_array_equal(ours.varm["PCs"], theirs.varm["PCs"])
    np.testing.assert_allclose(ours.obsm["X_pca"], theirs.obsm["X_pca"], atol=1e-5)
    assert ours.obsm["X_pca"].dtype == theirs.obsm["X_pca"].dtype == np.float32
    for key in ("variance", "variance_ratio"):
        np.testing.assert_array_equal(ours.uns["pca"][key], theirs.uns["pca"][key])
    params = ours.uns["pca"]["params"]
    assert params["n_training"] == N_CELLS
    assert set(params) - set(theirs.uns["pca"]["params"]) <= {"n_training", "training_fingerprint"}
    for name, value in theirs.uns["pca"]["params"].items():
        np.testing.assert_array_equal(params[name], value)


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix])
def test_training_cells_decide(adata, training, form):
    adata.layers["log"], adata.X = form(adata.X), None
    sh.pp.pca(adata, 8, split_key="split", layer="log")
    alone = sc.pp.pca(adata[training].copy(), 8, layer="log", copy=True)
    np.testing.assert_array_equal(adata.varm["PCs"], alone.varm["PCs"])
    np.testing.assert_allclose(adata.obsm["X_pca"][training], alone.obsm["X_pca"], atol=1e-5)
    params = adata.uns["pca"]["params"]
    assert {name: params[name] for name in ("layer", "split_key", "n_training")} == {
        "layer": "log",
        "split_key": "split",
        "n_training": 63,
    }


def test_all_cells_are_projected_with_the_training_mean(adata, training):
    sh.pp.pca(adata, 8, split_key="split")
    mean = adata.X[training].mean(axis=0, dtype=float)
    np.testing.assert_allclose(adata.var["pca_mean"], mean, rtol=1e-12)
    np.testing.assert_allclose(adata.obsm["X_pca"], (adata.X - mean) @ adata.varm["PCs"], atol=1e-5)
    np.testing.assert_allclose(adata.obsm["X_pca"][training].mean(axis=0), 0, atol=1e-5)
    assert np.abs(adata.obsm["X_pca"][~training].mean(axis=0)).max() > 0.05


def test_cells_in_several_blocks_of_rows():
    rng = np.random.default_rng(0)
    many = ad.AnnData(sparse.csr_matrix(rng.normal(size=(2500, 6)) * np.arange(1, 7)))
    sh.pp.pca(many, 3, mask_obs=rng.random(2500) < 0.9)
    expected = (many.X.toarray() - many.var["pca_mean"].to_numpy()) @ many.varm["PCs"]
    np.testing.assert_allclose(many.obsm["X_pca"], expected, atol=1e-4)


@pytest.mark.parametrize("mask", ["column", "array", "both"])
def test_training_cells_by_a_mask(adata, training, mask):
    adata.obs["mask"] = training
    half = np.arange(N_CELLS) < 60
    given = {
        "column": {"mask_obs": "mask"},
        "array": {"mask_obs": training},
        "both": {"mask_obs": half, "split_key": "split"},
    }[mask]
    expected = training & half if mask == "both" else training
    sh.pp.pca(adata, 8, **given)
    np.testing.assert_array_equal(adata.varm["PCs"], sc.pp.pca(adata[expected].copy(), 8, copy=True).varm["PCs"])
    assert adata.uns["pca"]["params"]["n_training"] == expected.sum()


# ---- no leak


@pytest.mark.parametrize(
    ("form", "spoil"), [(np.asarray, lambda x: 1000 * x), (sparse.csr_matrix, lambda x: x[::-1] - 7)]
)
def test_held_out_cells_change_nothing_else(adata, training, form, spoil):
    values = adata.X.copy()
    values[~training] = spoil(values[~training])
    spoilt = adata.copy()
    adata.X, spoilt.X = form(adata.X), form(values)
    for cells in (adata, spoilt):
        sh.pp.pca(cells, 8, split_key="split")
    np.testing.assert_array_equal(spoilt.varm["PCs"], adata.varm["PCs"])
    np.testing.assert_array_equal(spoilt.var["pca_mean"], adata.var["pca_mean"])
    np.testing.assert_array_equal(spoilt.obsm["X_pca"][training], adata.obsm["X_pca"][training])
    for key in ("variance", "variance_ratio"):
        np.testing.assert_array_equal(spoilt.uns["pca"][key], adata.uns["pca"][key])
    assert not np.allclose(spoilt.obsm["X_pca"][~training], adata.obsm["X_pca"][~training])


# ---- slots


def test_slots_under_a_key_leave_the_others_alone(adata):
    sc.pp.pca(adata, 5)
    before = adata.obsm["X_pca"].copy()
    assert sh.pp.pca(adata, 8, split_key="split", key_added="mine") is None
    assert adata.obsm["mine"].shape == (N_CELLS, 8)
    assert adata.varm["mine"].shape == (N_GENES, 8)
    assert {"mine", "pca"} <= set(adata.uns)
    assert list(adata.var) == ["mine_mean"]
    np.testing.assert_array_equal(adata.obsm["X_pca"], before)


def test_the_mean_subsets_with_the_genes(adata):
    adata.var["highly_variable"] = np.arange(N_GENES) < 15
    sh.pp.pca(adata, 8, split_key="split")
    part = adata[:, 3:20].copy()
    np.testing.assert_array_equal(part.var["pca_mean"], adata.var["pca_mean"].iloc[3:20])
    assert np.isfinite(adata.var["pca_mean"]).all()
    assert not adata.varm["PCs"][15:].any()


def test_replaced_slots_are_named(adata):
    sc.pp.pca(adata, 5)
    with pytest.warns(
        UserWarning, match=r"Replacing 'X_pca' \(adata.obsm\), 'PCs' \(adata.varm\), 'pca' \(adata.uns\)"
    ):
        sh.pp.pca(adata, 8)
    assert adata.obsm["X_pca"].shape == (N_CELLS, 8)


def test_copy_and_view(adata):
    other = sh.pp.pca(adata, 8, copy=True)
    view = adata[:60]
    sh.pp.pca(view, 8)
    assert other.obsm["X_pca"].shape == (N_CELLS, 8)
    assert view.obsm["X_pca"].shape == (60, 8)
    assert not adata.obsm
    assert "pca_mean" not in adata.var


def test_duplicated_names(adata):
    adata.var_names = ["gene"] * N_GENES
    adata.var["highly_variable"] = np.arange(N_GENES) < 15
    sh.pp.pca(adata, 8, split_key="split")
    assert adata.varm["PCs"].shape == (N_GENES, 8)


def test_seeds(adata):
    first, again = (sh.pp.pca(adata, 8, rng=np.random.default_rng(4), copy=True).obsm["X_pca"] for _ in range(2))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(np.abs(first), np.abs(sh.pp.pca(adata, 8, rng=5, copy=True).obsm["X_pca"]), atol=1e-3)


# ---- errors

BAD = [
    ({"split_key": "folds"}, "'folds'.*sh.pp.split"),
    ({"split_key": "other"}, r"'other'.*'train'.*\['x'\]"),
    ({"mask_obs": "split"}, "mask_obs='split'"),
    ({"layer": "nix"}, r"layer='nix'.*\['log'\]"),
    ({"mask_var": "hvg"}, "mask_var='hvg'"),
    ({"mask_var": "n"}, "mask_var='n'"),
    ({"mask_var": np.ones(3, dtype=bool)}, r"\(3,\).*25 genes"),
    ({"mask_var": pd.Series(data=True, index=[f"gene{i}" for i in range(25)][::-1])}, "var_names"),
    ({"n_comps": 25}, "n_comps=25.*1 to 24"),
    ({"n_comps": 4, "mask_var": np.arange(25) < 4}, "1 to 3: 90 .* 4 genes"),
    ({"n_comps": 8, "mask_obs": np.arange(90) < 8}, "n_comps=8.*1 to 7: 8 .* 25 genes"),
    ({"n_comps": 2.5}, "n_comps=2.5"),
    ({"n_comps": 0}, "n_comps=0"),
    ({"mask_obs": np.arange(90) < 1}, "1 and 25"),
    ({"key_added": "a/b"}, "key_added='a/b'"),
    ({"layer": "same"}, "do not vary.* 90 training cells"),
]


def test_an_error_names_the_value_and_nothing_changes(adata, unchanged):
    adata.obs["other"], adata.var["n"] = "x", np.arange(N_GENES, dtype=np.int64)
    for options, values in BAD:
        adata.layers["log"] = adata.X
        if options.get("layer") == "same":
            adata.layers["same"] = np.ones(adata.shape)
        with unchanged(adata), pytest.raises(ValueError, match=values):
            sh.pp.pca(adata, **{"n_comps": 3} | options)


@pytest.mark.parametrize(
    ("form", "value", "held_out"),
    [(np.asarray, np.nan, True), (sparse.csr_matrix, np.nan, False), (np.asarray, np.inf, False)],
)
def test_cells_with_missing_values_are_named(adata, unchanged, form, value, held_out):
    training = (adata.obs["split"] == "train").to_numpy()
    rows = np.flatnonzero(training != held_out)[:6]
    adata.obs_names = [f"bad{i}" if i in rows else f"good{i}" for i in range(N_CELLS)]
    adata.X[rows, 3] = value
    adata.X = form(adata.X)
    with unchanged(adata), pytest.raises(ValueError, match=rf"6 of 90 cells: 'bad{rows[0]}'"):
        sh.pp.pca(adata, 8, split_key="split")


def test_no_values(adata, unchanged):
    adata.layers["log"], adata.X = adata.X.copy(), None
    with unchanged(adata), pytest.raises(ValueError, match=r"adata\.X .*\['log'\]"):
        sh.pp.pca(adata, 8)
    adata.layers["text"] = np.full(adata.shape, "a")
    with unchanged(adata), pytest.raises(TypeError, match=r"'text'.*<U1"):
        sh.pp.pca(adata, 8, layer="text")


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix])
def test_values_in_a_file(adata, tmp_path, form):
    adata.X = form(adata.X)
    adata.write_h5ad(tmp_path / "cells.h5ad")
    backed = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    with pytest.raises(TypeError, match=r"adata\.to_memory"):
        sh.pp.pca(backed, 8)
    assert sh.pp.pca(backed, 8, copy=True).obsm["X_pca"].shape == (N_CELLS, 8)
    backed.file.close()


def test_an_interrupted_fit_changes_nothing(adata, unchanged, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(sc.pp, "pca", interrupt)
    with unchanged(adata), pytest.raises(KeyboardInterrupt):
        sh.pp.pca(adata, 8)
