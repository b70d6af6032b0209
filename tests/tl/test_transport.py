"""Stored maps on other cells, from files, part of the way."""

from __future__ import annotations

import re
import sys
from contextlib import nullcontext
from dataclasses import replace

import anndata
import numpy as np
import pytest
import scanpy as sc

import scot_hycnn as sh


@pytest.fixture
def fit(cells, fast):
    sh.tl.hycnn_ot(cells, "control", "IFN-beta", inverse=True, **fast)
    return cells


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
@pytest.mark.parametrize("potential", ["hycnn", "gaussian"])
@pytest.mark.filterwarnings("ignore:Writing zarr v2")
def test_a_file_is_self_contained(cells, fast, tmp_path, suffix, potential):
    sh.tl.hycnn_ot(cells, "control", "IFN-beta", inverse=True, potential=potential, **fast)
    path = tmp_path / f"fit{suffix}"
    if suffix == ".h5ad":
        cells.write_h5ad(path)
        back = anndata.read_h5ad(path)
    else:
        cells.write_zarr(path)
        back = anndata.read_zarr(path)
    same(back.uns["hycnn_ot"], cells.uns["hycnn_ot"])
    sh.tl.transport(back, key_added="again")
    sh.tl.transport(back, key_added="again", direction="inverse")
    for name in ("", "_inverse"):
        np.testing.assert_array_equal(back.obsm[f"X_again{name}"], cells.obsm[f"X_hycnn_ot{name}"])
    for name in ("displacement", "std"):
        np.testing.assert_array_equal(back.obs[f"again_{name}"], cells.obs[f"hycnn_ot_{name}"])
    # A path to the file does as well as what is in it.
    others = cells.copy()
    sh.tl.transport(others, model=path, key_added="by_path")
    np.testing.assert_array_equal(others.obsm["X_by_path"], cells.obsm["X_hycnn_ot"])


def same(a, b):
    """The same meaning, in types that may differ."""
    if isinstance(b, dict):
        assert set(a) == set(b)
        for key in b:
            same(a[key], b[key])
    else:
        np.testing.assert_array_equal(a, b)
        assert np.asarray(a).dtype.kind == np.asarray(b).dtype.kind


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


@pytest.mark.parametrize("change", ["no column", "no label"])
def test_without_the_label_all_cells_move(fit, new_cells, change):
    others = new_cells(20, seed=5)
    if change == "no column":
        del others.obs["condition"]
    else:
        others = others[(others.obs["condition"] != "control").to_numpy()].copy()
    message = r"has no label 'control', which the map is for, but \['IFN-beta'\]: all cells are moved"
    with nullcontext() if change == "no column" else pytest.warns(UserWarning, match=message):
        sh.tl.transport(others, model=fit)
    assert np.isfinite(others.obsm["X_hycnn_ot"]).all()


def test_numbers_are_the_same_label_in_any_type(fit, new_cells):
    others = new_cells(20, seed=5)
    is_control = (others.obs["condition"] == "control").to_numpy()
    fit.uns["hycnn_ot"]["source"] = "0"
    others.obs["condition"] = np.where(is_control, 0.0, 10.0)
    sh.tl.transport(others, model=fit)
    np.testing.assert_array_equal(np.isfinite(others.obsm["X_hycnn_ot"]).all(1), is_control)


def test_no_cell_to_move_is_an_error(fit, new_cells, unchanged):
    others = new_cells(20, seed=5)
    with unchanged(others), pytest.raises(ValueError, match="nothing to move: mask_obs is False everywhere"):
        sh.tl.transport(others, model=fit, mask_obs=np.zeros(others.n_obs, dtype=bool))


def test_mask_obs_overrides_labels(fit):
    mask = np.arange(fit.n_obs) < 9
    sh.tl.transport(fit, mask_obs=mask, key_added="masked")
    np.testing.assert_array_equal(np.isfinite(fit.obsm["X_masked"]).all(1), mask)


def test_a_map_in_memory_or_in_a_file(fit, new_cells, tmp_path):
    others = new_cells(20, seed=5)
    sh.tl.transport(others, model=fit, key_added="a")
    transport_map = sh.get.model(fit)
    transport_map.save(tmp_path / "map.safetensors")
    for key, model in (
        ("b", transport_map),
        ("c", tmp_path / "map.safetensors"),
        ("d", str(tmp_path / "map.safetensors")),
    ):
        sh.tl.transport(others, model=model, key_added=key)
        np.testing.assert_array_equal(others.obsm[f"X_{key}"], others.obsm["X_a"])


def test_a_map_of_arrays_moves_all_cells_and_says_what_it_cannot_know(fit, new_cells):
    others = new_cells(20, seed=5)
    bare = replace(sh.get.model(fit), origin={})
    with pytest.warns(UserWarning, match="Nothing says whether 'X_pca' of these cells is the space") as caught:
        sh.tl.transport(others, model=bare)
    assert caught[0].filename == __file__
    np.testing.assert_array_equal(others.obsm["X_hycnn_ot"], bare.transport(others.obsm["X_pca"]))


def test_a_map_on_its_own_refuses_other_loadings(fit, new_cells, unchanged):
    others = new_cells(20, seed=5)
    others.varm["PCs"] = -others.varm["PCs"]
    with unchanged(others), pytest.raises(ValueError, match="other loadings or genes"):
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


def test_fewer_components_than_there_are(cells):
    sh.tl.hycnn_ot(cells, "control", "IFN-beta", n_pcs=2, potential="gaussian")
    sh.tl.transport(cells, key_added="again")
    np.testing.assert_array_equal(cells.obsm["X_again"], cells.obsm["X_hycnn_ot"])


def test_x_pca_and_pca_are_the_same(fit):
    others = fit.copy()
    others.obsm["pca"] = others.obsm.pop("X_pca")
    sh.tl.transport(others, key_added="again")
    np.testing.assert_array_equal(others.obsm["X_again"], fit.obsm["X_hycnn_ot"])


def test_expression_is_checked_by_gene_names(cells, unchanged):
    sh.tl.hycnn_ot(cells, "control", "IFN-beta", use_rep="X", potential="gaussian")
    others = cells[:, ::-1].copy()
    with unchanged(others), pytest.raises(ValueError, match="'X' of these cells has other loadings or genes"):
        sh.tl.transport(others, model=cells, key_added="x")
    with pytest.raises(ValueError, match="6 dimensions of 'X', and these cells have 5"):
        sh.tl.transport(cells[:, :5].copy(), model=cells, key_added="x")


def test_unknown_loadings_warn_elsewhere_and_not_at_home(cells):
    del cells.varm["PCs"]
    sh.tl.hycnn_ot(cells, "control", "IFN-beta", potential="gaussian")
    sh.tl.transport(cells, key_added="home")
    with pytest.warns(UserWarning, match="Nothing says whether"):
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
    "loadings": (other_loadings, {}, "other loadings or genes .* project these cells with the training cells' PCs"),
    "no rep": (drop_rep, {}, r"fitted on adata.obsm\['X_pca'\], which these cells lack"),
    "narrow": (narrow, {}, "fitted in 3 dimensions of 'X_pca', and these cells have 2"),
    "NaN": (poison, {}, "NaN or infinite values in 60 of 60 cells"),
    "other rep": (None, {"use_rep": "X"}, "use_rep='X', but the map was fitted on 'X_pca'"),
    "key": (
        None,
        {"key": "foo"},
        r"no fit 'foo'; it has the fits \['hycnn_ot'\]: pass key= one of them",
    ),
    "no fit": (lambda adata: adata.uns.clear(), {}, "it has no fits. Run sh.tl.hycnn_ot first"),
    "target": (None, {"target": "IL-2"}, r"target='IL-2' is not a target of .* it has \['IFN-beta'\]"),
    "direction": (None, {"direction": "back"}, r"direction='back' is unknown; choose one of \['forward', 'inverse'\]"),
    "t": (None, {"t": 1.5}, "t=1.5 is outside"),
    "t of the inverse": (None, {"t": 0.5, "direction": "inverse"}, "t=0.5 goes with direction='forward' only"),
    "fill": (None, {"fill": "zero"}, "fill='zero' is unknown"),
    "mask": (None, {"mask_obs": "nix"}, "mask_obs='nix' is not a boolean column"),
    "key_added": (None, {"key_added": "pca"}, "would replace the representation"),
    "newer schema": (newer, {}, "schema version 99; this scot_hycnn reads versions 1 to 1"),
    "no source": (drop("source"), {}, "lacks 'source': the fit is damaged"),
    "rep a string": (damage("rep", "X_pca"), {}, r"\['rep'\] is of type str instead of a dict: the fit is damaged"),
    "source a number": (damage("source", 3), {}, r"\['source'\] is of type int instead of a string"),
    "version a string": (damage("schema_version", "1"), {}, "is of type str instead of an integer"),
    "no targets": (damage("targets", {}), {}, "names no target"),
    "no model": (damage("models", {}), {}, "lacks 'IFN-beta': the fit is damaged"),
    "empty model": (damage("models", {"IFN-beta": {}}), {}, "damaged"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_sentence_and_no_trace(fit, unchanged, case):
    spoil, options, message = CASES[case]
    if spoil:
        spoil(fit)
    with unchanged(fit), pytest.raises(ValueError, match=message):
        sh.tl.transport(fit, **{"key_added": "new", **options})


def test_models_that_are_none(fit, unchanged, tmp_path):
    transport_map = sh.get.model(fit)
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    (tmp_path / "bad.h5ad").write_bytes(b"nothing")
    wide = fit.copy()
    wide.obsm["wide"] = np.zeros((fit.n_obs, 5))
    cases = [
        ({"model": 3}, TypeError, "model is of type int; it takes a TransportMap"),
        ({"model": tmp_path / "nix.safetensors"}, FileNotFoundError, "nix.safetensors"),
        ({"model": tmp_path / "nix.h5ad"}, FileNotFoundError, "There is no file .*nix.h5ad"),
        ({"model": tmp_path / "bad.safetensors"}, ValueError, "is not a map"),
        ({"model": tmp_path / "bad.h5ad"}, ValueError, "cannot be read as AnnData"),
        ({"model": transport_map, "target": "IFN-beta"}, ValueError, "model is a single map"),
        ({"model": transport_map, "use_rep": "wide"}, ValueError, "use_rep='wide', but the map was fitted on 'X_pca'"),
        ({"model": replace(transport_map, origin={}), "use_rep": "wide"}, ValueError, "takes 3 dimensions and 'wide'"),
    ]
    for options, error, message in cases:
        with unchanged(wide), pytest.raises(error, match=message):
            sh.tl.transport(wide, key_added="new", **options)


def test_replacing_warns(fit):
    with pytest.warns(UserWarning, match=r"Replacing 'X_hycnn_ot' \(adata.obsm\)") as caught:
        sh.tl.transport(fit)
    assert caught[0].filename == __file__


def test_fill_identity(fit):
    sh.tl.transport(fit, key_added="new", fill="identity")
    moved = np.isfinite(fit.obsm["X_hycnn_ot"]).all(axis=1)
    np.testing.assert_array_equal(fit.obsm["X_new"][moved], fit.obsm["X_hycnn_ot"][moved])
    np.testing.assert_array_equal(fit.obsm["X_new"][~moved], fit.obsm["X_pca"][~moved].astype(np.float32))
    assert 0 < moved.sum() < fit.n_obs


def test_half_way_never_passes_for_the_prediction(fit, new_cells, unchanged):
    with unchanged(fit), pytest.raises(ValueError, match=r"full prediction 'X_hycnn_ot'.*key_added='hycnn_ot_half'"):
        sh.tl.transport(fit, t=0.5)
    others = new_cells(20, seed=5)
    sh.tl.transport(others, model=fit, t=0.5)
    assert "X_hycnn_ot" in others.obsm


def test_a_missing_label_is_said_once_at_the_callers_line_and_not_where_a_mask_chooses(fit, new_cells):
    others = new_cells(20, seed=5)
    others.obs["condition"] = others.obs["condition"].cat.rename_categories({"control": "Control"})
    sh.tl.transport(others, model=fit, mask_obs=np.ones(50, dtype=bool), key_added="masked")
    with pytest.warns(UserWarning, match=r"\['Control', 'IFN-beta'\]: all cells are moved") as caught:
        sh.tl.transport(others, model=fit)
    assert caught[0].filename == __file__


def test_the_log_says_which_cells(fit, capsys):
    before = sc.settings.verbosity, sc.settings.logfile
    sc.settings.verbosity, sc.settings.logfile = 3, sys.stderr
    try:
        sh.tl.transport(fit, key_added="new")
    finally:
        sc.settings.verbosity, sc.settings.logfile = before
    assert re.search(r"transporting 60 of 130 cells by the map of 'control', forward, on \w+", capsys.readouterr().err)


def test_an_anndata_in_the_place_of_the_key(fit, new_cells):
    with pytest.raises(TypeError, match="key, is an AnnData; pass it as model="):
        sh.tl.transport(new_cells(20, seed=5), fit)


def test_copy_and_backed(fit, unchanged, tmp_path):
    with unchanged(fit):
        copied = sh.tl.transport(fit, key_added="new", copy=True)
    assert "X_new" in copied.obsm
    fit.write_h5ad(tmp_path / "fit.h5ad")
    backed = anndata.read_h5ad(tmp_path / "fit.h5ad", backed="r")
    sh.tl.transport(backed, key_added="new")
    np.testing.assert_array_equal(backed.obsm["X_new"], fit.obsm["X_hycnn_ot"])
    backed.file.close()
