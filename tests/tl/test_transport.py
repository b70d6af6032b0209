"""Stored maps on other cells, from files, part of the way."""

from __future__ import annotations

import re
import sys
from dataclasses import replace

import anndata
import numpy as np
import pytest
import scanpy as sc

import scot_hycnn as sh


@pytest.fixture(scope="module")
def networks(new_cells):
    cells = new_cells()
    sh.tl.hycnn_ot(cells, "control", "IFN-beta", inverse=True, max_steps=12, hidden=(8, 8), n_ensemble=2)
    return cells


@pytest.fixture
def fit(networks):
    return networks.copy()


@pytest.fixture
def fitted(cells):
    """The Gaussian map, which is enough for errors."""
    sh.tl.hycnn_ot(cells, "control", "IFN-beta", potential="gaussian")
    return cells


def test_a_layer_that_was_not_decoded_is_kept(fitted):
    new = fitted[fitted.obs["condition"] == "control"].copy()
    del new.obsm["X_hycnn_ot"], new.uns["hycnn_ot"]
    new.obs = new.obs[["condition"]]
    new.layers["hycnn_ot"] = new.X.copy()
    sh.tl.transport(new, model=fitted)
    assert "X_hycnn_ot" in new.obsm
    assert "hycnn_ot" in new.layers


def test_a_file_is_self_contained(fit, tmp_path):
    path = tmp_path / "fit.h5ad"
    fit.write_h5ad(path)
    back = anndata.read_h5ad(path)
    sh.tl.transport(back, key_added="again")
    sh.tl.transport(back, key_added="again", direction="inverse")
    for name in ("", "_inverse"):
        np.testing.assert_array_equal(back.obsm[f"X_again{name}"], fit.obsm[f"X_hycnn_ot{name}"])
    for name in ("displacement", "std"):
        np.testing.assert_array_equal(back.obs[f"again_{name}"], fit.obs[f"hycnn_ot_{name}"])
    # The path to the file is a model too.
    sh.tl.transport(back, model=path, key_added="by_path")
    np.testing.assert_array_equal(back.obsm["X_by_path"], fit.obsm["X_hycnn_ot"])


def test_displacement_interpolation(fit):
    x, moved = fit.obsm["X_pca"], fit.obsm["X_hycnn_ot"]
    for t in (0.0, 0.25, 1.0):
        sh.tl.transport(fit, t=t, key_added=f"t{t}")
        np.testing.assert_allclose(fit.obsm[f"X_t{t}"], (1 - t) * x + t * moved, atol=1e-5)
        np.testing.assert_allclose(fit.obs[f"t{t}_displacement"], t * fit.obs["hycnn_ot_displacement"], atol=1e-5)


def test_another_anndata(fit, new_cells):
    others = new_cells(20, seed=5)
    is_control = (others.obs["condition"] == "control").to_numpy()
    expected = sh.get.model(fit).transport(others.obsm["X_pca"][is_control])
    sh.tl.transport(others, model=fit)
    np.testing.assert_array_equal(others.obsm["X_hycnn_ot"][is_control], expected)
    assert np.isnan(others.obsm["X_hycnn_ot"][~is_control]).all()
    assert "hycnn_ot" not in others.uns


def test_without_the_column_all_cells_move(fit, new_cells):
    others = new_cells(20, seed=5)
    del others.obs["condition"]
    sh.tl.transport(others, model=fit)
    assert np.isfinite(others.obsm["X_hycnn_ot"]).all()


def test_without_the_label_all_cells_move_with_a_warning(fit, new_cells):
    others = new_cells(20, seed=5)
    others.obs["condition"] = others.obs["condition"].cat.rename_categories({"control": "Control"})
    sh.tl.transport(
        others, model=fit, mask_obs=np.ones(50, dtype=bool), key_added="masked"
    )  # a mask chooses: no warning
    with pytest.warns(UserWarning, match=r"'control'.*'Control', 'IFN-beta'") as caught:
        sh.tl.transport(others, model=fit)
    assert caught[0].filename == __file__
    assert np.isfinite(others.obsm["X_hycnn_ot"]).all()


def test_numbers_are_the_same_label_in_any_type(fit, new_cells):
    others = new_cells(20, seed=5)
    is_control = (others.obs["condition"] == "control").to_numpy()
    fit.uns["hycnn_ot"]["source"] = "0"
    others.obs["condition"] = np.where(is_control, 0.0, 10.0)
    sh.tl.transport(others, model=fit)
    np.testing.assert_array_equal(np.isfinite(others.obsm["X_hycnn_ot"]).all(1), is_control)


def test_mask_obs_overrides_labels(fit):
    mask = np.arange(fit.n_obs) < 9
    sh.tl.transport(fit, mask_obs=mask, key_added="masked")
    np.testing.assert_array_equal(np.isfinite(fit.obsm["X_masked"]).all(1), mask)


def test_a_map_in_memory_or_in_a_file(fit, new_cells, tmp_path):
    others = new_cells(20, seed=5)
    sh.tl.transport(others, model=fit, key_added="a")
    transport_map, path = sh.get.model(fit), tmp_path / "map.safetensors"
    transport_map.save(path)
    for key, model in (("b", transport_map), ("c", path), ("d", str(path))):
        sh.tl.transport(others, model=model, key_added=key)
        np.testing.assert_array_equal(others.obsm[f"X_{key}"], others.obsm["X_a"])


def test_a_map_of_arrays_moves_all_cells_and_warns_of_an_unknown_space(fit, new_cells):
    others = new_cells(20, seed=5)
    bare = replace(sh.get.model(fit), origin={})
    with pytest.warns(UserWarning, match="'X_pca'") as caught:
        sh.tl.transport(others, model=bare)
    assert caught[0].filename == __file__
    np.testing.assert_array_equal(others.obsm["X_hycnn_ot"], bare.transport(others.obsm["X_pca"]))


def test_a_map_without_its_anndata_refuses_other_loadings(fit, new_cells, unchanged):
    others = new_cells(20, seed=5)
    others.varm["PCs"] = -others.varm["PCs"]
    with unchanged(others), pytest.raises(ValueError, match=r"'X_pca'.*other loadings"):
        sh.tl.transport(others, model=sh.get.model(fit))


def test_several_targets(cells):
    labels = cells.obs["condition"].astype(object).fillna("none")
    labels.iloc[np.flatnonzero(labels == "IFN-beta")[::2]] = "BCR/FcR-XL"
    cells.obs["condition"] = labels
    sh.tl.hycnn_ot(cells, "control", ["BCR/FcR-XL", "IFN-beta"], inverse=True, potential="gaussian")
    new = cells.copy()
    sh.tl.transport(new, key_added="new")
    sh.tl.transport(new, key_added="new", direction="inverse")
    sh.tl.transport(new, key_added="one", target="BCR/FcR-XL")
    for slug in ("BCR_FcR-XL", "IFN-beta"):
        for name in ("", "_inverse"):
            np.testing.assert_array_equal(new.obsm[f"X_new{name}_{slug}"], cells.obsm[f"X_hycnn_ot{name}_{slug}"])
    assert [name for name in new.obsm if "one" in name] == ["X_one_BCR_FcR-XL"]


def test_x_pca_and_pca_are_the_same(fit):
    others = fit.copy()
    others.obsm["pca"] = others.obsm.pop("X_pca")
    sh.tl.transport(others, key_added="again")
    np.testing.assert_array_equal(others.obsm["X_again"], fit.obsm["X_hycnn_ot"])


def test_expression_is_checked_by_gene_names(cells, unchanged):
    sh.tl.hycnn_ot(cells, "control", "IFN-beta", use_rep="X", potential="gaussian")
    others = cells[:, ::-1].copy()
    with unchanged(others), pytest.raises(ValueError, match=r"'X'.*other loadings or genes"):
        sh.tl.transport(others, model=cells, key_added="x")
    with pytest.raises(ValueError, match=r"6 dimensions of 'X'.* 5"):
        sh.tl.transport(cells[:, :5].copy(), model=cells, key_added="x")


def test_unknown_loadings_warn_in_another_anndata_only(cells):
    del cells.varm["PCs"]
    sh.tl.hycnn_ot(cells, "control", "IFN-beta", potential="gaussian")
    sh.tl.transport(cells, key_added="home")
    with pytest.warns(UserWarning, match="'X_pca'"):
        sh.tl.transport(cells, model=cells.copy(), key_added="elsewhere")


def other_loadings(adata):
    adata.varm["PCs"] = adata.varm["PCs"][::-1].copy()


def drop_rep(adata):
    del adata.obsm["X_pca"]


def narrow(adata):
    adata.obsm["X_pca"] = adata.obsm["X_pca"][:, :2]


def poison(adata):
    adata.obsm["X_pca"][(adata.obs["condition"] == "control").to_numpy()] = np.nan


def newer(adata):
    adata.uns["hycnn_ot"]["schema_version"] = 99


def damage(key, value):
    return lambda adata: adata.uns["hycnn_ot"].__setitem__(key, value)


def drop(key):
    return lambda adata: adata.uns["hycnn_ot"].pop(key)


CASES = {
    "loadings": (other_loadings, {}, "'X_pca'.*other loadings"),
    "no representation": (drop_rep, {}, "'X_pca'"),
    "narrow": (narrow, {}, "3 dimensions of 'X_pca'.* 2"),
    "NaN": (poison, {}, "'X_pca'.* 60 of 60 cells"),
    "other representation": (None, {"use_rep": "X"}, "use_rep='X'.*'X_pca'"),
    "key": (None, {"key": "foo"}, r"'foo'.*\['hycnn_ot'\]"),
    "no fit": (lambda adata: adata.uns.clear(), {}, "sh.tl.hycnn_ot"),
    "target": (None, {"target": "IL-2"}, r"target='IL-2'.*\['IFN-beta'\]"),
    "direction": (None, {"direction": "back"}, "direction='back'.*'forward', 'inverse'"),
    "t": (None, {"t": 1.5}, "t=1.5"),
    "t of the inverse": (None, {"t": 0.5, "direction": "inverse"}, "t=0.5"),
    "fallback of the inverse": (None, {"fallback": True, "direction": "inverse"}, "fallback=True"),
    "fill": (None, {"fill": "zero"}, "fill='zero'"),
    "mask": (None, {"mask_obs": "nix"}, "mask_obs='nix'"),
    "no cell": (None, {"mask_obs": np.zeros(130, dtype=bool)}, "mask_obs"),
    "key_added": (None, {"key_added": "pca"}, "'X_pca'"),
    "newer schema": (newer, {}, "version 99"),
    "no source": (drop("source"), {}, "'source'.*damaged"),
    "rep a string": (damage("rep", "X_pca"), {}, r"\['rep'\].* str .*damaged"),
    "source a number": (damage("source", 3), {}, r"\['source'\].* int "),
    "version a string": (damage("schema_version", "1"), {}, r"\['schema_version'\].* str "),
    "no targets": (damage("targets", {}), {}, "'targets'.*damaged"),
    "no model": (damage("models", {}), {}, "'IFN-beta'.*damaged"),
    "empty model": (damage("models", {"IFN-beta": {}}), {}, "damaged"),
}  # fmt: skip


def test_an_error_names_the_value_and_nothing_changes(fitted, unchanged):
    for spoil, options, values in CASES.values():
        spoilt = fitted.copy()
        if spoil:
            spoil(spoilt)
        with unchanged(spoilt), pytest.raises(ValueError, match=values):
            sh.tl.transport(spoilt, **{"key_added": "new", **options})


def test_models_that_hold_no_map(fitted, unchanged, tmp_path):
    transport_map = sh.get.model(fitted)
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    (tmp_path / "bad.h5ad").write_bytes(b"nothing")
    wide = fitted.copy()
    wide.obsm["wide"] = np.zeros((wide.n_obs, 5))
    cases = [
        ({"model": 3}, TypeError, "int"),
        ({"model": tmp_path / "nix.safetensors"}, FileNotFoundError, "nix.safetensors"),
        ({"model": tmp_path / "nix.h5ad"}, FileNotFoundError, "nix.h5ad"),
        ({"model": tmp_path / "bad.safetensors"}, ValueError, "bad.safetensors"),
        ({"model": tmp_path / "bad.h5ad"}, ValueError, "bad.h5ad"),
        ({"model": transport_map, "target": "IFN-beta"}, ValueError, "target='IFN-beta'"),
        ({"model": transport_map, "use_rep": "wide"}, ValueError, "use_rep='wide'.*'X_pca'"),
        ({"model": replace(transport_map, origin={}), "use_rep": "wide"}, ValueError, "3 dimensions.*'wide' has 5"),
        ({"key": fitted}, TypeError, "model="),
    ]
    for options, error, values in cases:
        with unchanged(wide), pytest.raises(error, match=values):
            sh.tl.transport(wide, **{"key_added": "new", **options})


def test_replacing_warns(fit):
    with pytest.warns(UserWarning, match=r"'X_hycnn_ot' \(adata.obsm\)") as caught:
        sh.tl.transport(fit)
    assert caught[0].filename == __file__


def test_fill_identity(fit):
    sh.tl.transport(fit, key_added="new", fill="identity")
    moved = np.isfinite(fit.obsm["X_hycnn_ot"]).all(axis=1)
    np.testing.assert_array_equal(fit.obsm["X_new"][moved], fit.obsm["X_hycnn_ot"][moved])
    np.testing.assert_array_equal(fit.obsm["X_new"][~moved], fit.obsm["X_pca"][~moved].astype(np.float32))
    assert 0 < moved.sum() < fit.n_obs


def test_half_of_the_way_does_not_replace_the_prediction(fit, new_cells, unchanged):
    with unchanged(fit), pytest.raises(ValueError, match=r"'X_hycnn_ot'.*key_added='hycnn_ot_half'"):
        sh.tl.transport(fit, t=0.5)
    others = new_cells(20, seed=5)
    sh.tl.transport(others, model=fit, t=0.5)
    assert "X_hycnn_ot" in others.obsm


def test_the_log_names_the_cells(fit, capsys):
    before = sc.settings.verbosity, sc.settings.logfile
    sc.settings.verbosity, sc.settings.logfile = 3, sys.stderr
    try:
        sh.tl.transport(fit, key_added="new")
    finally:
        sc.settings.verbosity, sc.settings.logfile = before
    assert re.search(r"transporting 60 of 130 cells by the map of 'control', forward, on \w+", capsys.readouterr().err)


def test_copy_and_backed(fit, unchanged, tmp_path):
    with unchanged(fit):
        copied = sh.tl.transport(fit, key_added="new", copy=True)
    assert "X_new" in copied.obsm
    fit.write_h5ad(tmp_path / "fit.h5ad")
    backed = anndata.read_h5ad(tmp_path / "fit.h5ad", backed="r")
    sh.tl.transport(backed, key_added="new")
    np.testing.assert_array_equal(backed.obsm["X_new"], fit.obsm["X_hycnn_ot"])
    backed.file.close()


@pytest.mark.parametrize("fallback", [None, False, True])
def test_the_gaussian_map_of_networks_is_a_model_and_its_own_fallback(fit, fallback):
    gaussian = replace(sh.get.model(fit), blend=0.5).gaussian_map()
    is_control = (fit.obs["condition"] == "control").to_numpy()
    sh.tl.transport(fit, model=gaussian, fallback=fallback, key_added="gaussian")
    np.testing.assert_array_equal(fit.obsm["X_gaussian"][is_control], gaussian.transport(fit.obsm["X_pca"][is_control]))
    assert "gaussian_out_of_support" not in fit.obs  # it is measured from the training cells of the networks
