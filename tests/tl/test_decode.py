"""Predicted expression: the formula, what it must not change, and errors."""

from __future__ import annotations

import sys

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import torch
from scipy.sparse import csr_matrix

import scot_hycnn as sh


@pytest.fixture
def fit(cells):
    sh.tl.hycnn_ot(cells, "control", "IFN-beta", potential="gaussian")
    return cells


def is_source(adata):
    return (adata.obs["condition"] == "control").to_numpy()


def expected(adata, values, moved="X_hycnn_ot"):
    """The formula, in double precision, of the source cells."""
    rows = is_source(adata)
    change = adata.obsm[moved][rows].astype(np.float64) - adata.obsm["X_pca"][rows]
    return values[rows] + change @ adata.varm["PCs"].T


def is_decoded(adata, layer, values):
    rows = is_source(adata)
    result = adata.layers[layer]
    assert type(result) is np.ndarray
    assert result.dtype == np.float32
    np.testing.assert_allclose(result[rows], values, atol=1e-5)
    assert np.isnan(result[~rows]).all()


@pytest.mark.parametrize(("block_size", "kind"), [(1, np.asarray), (7, csr_matrix), (1000, np.float64)])
def test_the_formula(fit, block_size, kind):
    values = fit.X.copy()
    fit.X = kind(fit.X)
    sh.tl.decode(fit, block_size=block_size)
    is_decoded(fit, "hycnn_ot", expected(fit, values))


def test_a_map_that_moves_nothing_changes_nothing(fit):
    fit.obsm["X_hycnn_ot"] = fit.obsm["X_pca"].copy()
    sh.tl.decode(fit)
    np.testing.assert_array_equal(fit.layers["hycnn_ot"][is_source(fit)], fit.X[is_source(fit)])


@pytest.fixture
def planted(new_cells):
    """Return a maker of cells whose last three genes are linear in the components, and no part of them."""

    def make(noise: float = 0.0, n: int = 300) -> tuple[anndata.AnnData, np.ndarray]:
        adata, rng = new_cells(n), np.random.default_rng(0)
        slopes = np.array([[1.0, 0.5, -0.3], [0.0, 0.0, 0.0], [-0.4, 0.2, 0.6]])
        values = 5 + adata.obsm["X_pca"] @ slopes.T + noise * rng.normal(size=(adata.n_obs, 3))
        wide = anndata.AnnData(np.hstack([adata.X, values]).astype(np.float32), obs=adata.obs, uns=dict(adata.uns))
        wide.obsm["X_pca"] = adata.obsm["X_pca"]
        wide.varm["PCs"] = np.vstack([adata.varm["PCs"], np.zeros((3, 3), np.float32)])
        wide.obs["split"] = np.where(rng.random(wide.n_obs) < 0.2, "test", "train")
        return wide, slopes

    return make


def ridge_change(adata, **options):
    sh.tl.hycnn_ot(adata, "control", "IFN-beta", groupby="condition", potential="gaussian", **options)
    sh.tl.decode(adata)
    rows = is_source(adata)
    return (adata.layers["hycnn_ot"] - adata.X)[rows], (adata.obsm["X_hycnn_ot"] - adata.obsm["X_pca"])[rows]


@pytest.mark.parametrize(("kind", "noise", "tolerance"), [(np.asarray, 0.0, 1e-3), (csr_matrix, 0.5, 0.25)])
def test_genes_outside_of_the_representation_follow_it(planted, kind, noise, tolerance):
    adata, slopes = planted(noise)
    values, adata.X = adata.X, kind(adata.X)
    sh.tl.hycnn_ot(adata, "control", "IFN-beta", groupby="condition", potential="gaussian")
    sh.tl.decode(adata)
    rows = is_source(adata)
    change = adata.layers["hycnn_ot"][rows] - values[rows]
    moved = (adata.obsm["X_hycnn_ot"] - adata.obsm["X_pca"])[rows]
    np.testing.assert_allclose(change[:, 6:], moved @ slopes.T, atol=tolerance)
    np.testing.assert_array_equal(adata.var["hycnn_ot_in_representation"], np.arange(9) < 6)
    cells = sh.get.predicted(adata)
    np.testing.assert_array_equal(cells.var["in_representation"], np.arange(9) < 6)
    np.testing.assert_array_equal(cells[cells.obs["hycnn_ot_role"] == "predicted"].X, adata.layers["hycnn_ot"][rows])


def test_the_penalty_is_that_of_generalised_cross_validation(planted):
    adata, _ = planted(3.0, n=40)
    ridge_change(adata)
    of_fit = adata.obs["condition"].isin(["control", "IFN-beta"]).to_numpy()
    z, x = (values[of_fit].astype(float) for values in (adata.obsm["X_pca"], adata.X))
    z, x = z - z.mean(axis=0), x - x.mean(axis=0)
    n, largest = len(z), np.linalg.eigvalsh(z.T @ z)[-1]
    for gene in (6, 7, 8):
        best = np.inf
        for alpha in largest * np.logspace(-8, 2, 41):
            hat = z @ np.linalg.solve(z.T @ z + alpha * np.eye(3), z.T)
            score = ((x[:, gene] - hat @ x[:, gene]) ** 2).sum() / (n - 1 - np.trace(hat)) ** 2
            if score < best:
                best, wanted = score, np.linalg.solve(z.T @ z + alpha * np.eye(3), z.T @ x[:, gene])
        np.testing.assert_allclose(adata.varm["hycnn_ot_loadings"][gene], wanted, atol=1e-5)


@pytest.mark.parametrize("how", ["split", "mask", "name"])
def test_no_held_out_cell_is_learned_from(planted, how):
    results = []
    for spoilt in (False, True):
        adata, _ = planted(1.0)
        held_out = (adata.obs["split"] == "test").to_numpy()
        adata.obs["use"] = ~held_out
        if spoilt:
            adata.X[np.ix_(held_out, [6, 7, 8])] *= -7
        options = {"split": {"split_key": "split"}, "mask": {"mask_obs": ~held_out}, "name": {"mask_obs": "use"}}[how]
        ridge_change(adata, **options)
        shuffled = adata[np.random.default_rng(1).permutation(adata.n_obs)].copy()
        del shuffled.varm["hycnn_ot_loadings"]
        again = sh.get.predicted(shuffled, roles=["predicted"])[adata.obs_names[is_source(adata)] + "-predicted"]
        kept = ~held_out[is_source(adata)]
        np.testing.assert_allclose(again.X[kept], adata.layers["hycnn_ot"][is_source(adata)][kept], atol=1e-4)
        scores = sh.metrics.evaluate(adata, mask_obs=held_out, n_bootstrap=0)
        results.append(adata.varm["hycnn_ot_loadings"])
    np.testing.assert_array_equal(results[0], results[1])
    assert "pearson_delta_in_representation" in set(scores["metric"])


def test_a_part_of_the_cells_is_decoded_as_all_are(planted):
    adata, _ = planted(1.0)
    ridge_change(adata)
    few = adata[np.flatnonzero(is_source(adata))[:5]].copy()
    target = adata[(adata.obs["condition"] == "IFN-beta").to_numpy()][:5].copy()
    part = anndata.concat([few, target], merge="same", uns_merge="same")
    assert "hycnn_ot_loadings" in part.varm
    found = sh.get.predicted(part, roles=["predicted"]).X
    np.testing.assert_array_equal(found, few.layers["hycnn_ot"])


def test_genes_that_cannot_be_learned_stay_and_the_log_says_so(planted, capsys):
    adata, _ = planted()
    sh.tl.hycnn_ot(adata, "control", "IFN-beta", groupby="condition", potential="gaussian")
    part = adata[np.flatnonzero(is_source(adata))[:5]].copy()
    before = sc.settings.verbosity, sc.settings.logfile
    sc.settings.verbosity, sc.settings.logfile = 3, sys.stderr
    try:
        sh.tl.decode(part)
    finally:
        sc.settings.verbosity, sc.settings.logfile = before
    np.testing.assert_array_equal((part.layers["hycnn_ot"] == part.X).all(axis=0), np.arange(9) >= 6)
    assert "3 genes" in capsys.readouterr().err
    assert "hycnn_ot_loadings" not in part.varm


@pytest.mark.filterwarnings("ignore:Replacing")
def test_a_new_fit_forgets_what_was_learned_for_the_old_one(planted):
    adata, _ = planted(1.0)
    ridge_change(adata)
    first = adata.varm["hycnn_ot_loadings"]
    sh.tl.hycnn_ot(adata, "control", "IFN-beta", groupby="condition", potential="gaussian", split_key="split")
    assert "hycnn_ot_loadings" not in adata.varm
    assert "hycnn_ot_in_representation" not in adata.var
    sh.tl.decode(adata)
    assert (adata.varm["hycnn_ot_loadings"][6:] != first[6:]).any()


def test_fewer_components_than_there_are(cells):
    sh.tl.hycnn_ot(cells, "control", "IFN-beta", n_pcs=2, potential="gaussian")
    sh.tl.decode(cells)
    rows = is_source(cells)
    change = cells.obsm["X_hycnn_ot"][rows] - cells.obsm["X_pca"][rows, :2]
    is_decoded(cells, "hycnn_ot", cells.X[rows] + change @ cells.varm["PCs"][:, :2].T)


def test_the_layer_that_the_pca_was_run_on(cells, unchanged):
    cells.layers["log"] = np.log1p(cells.X)
    sc.pp.pca(cells, n_comps=3, layer="log", svd_solver="arpack")
    sh.tl.hycnn_ot(cells, "control", "IFN-beta", potential="gaussian")
    sh.tl.decode(cells)
    is_decoded(cells, "hycnn_ot", expected(cells, cells.layers["log"]))
    cells.X = cells.layers["log"] + 3.0  # the same for all cells: a PCA does not see it
    sh.tl.decode(cells, layer="X", key_added="of_x")
    is_decoded(cells, "of_x", expected(cells, cells.X))
    del cells.layers["log"]
    with unchanged(cells), pytest.raises(ValueError, match=r"'log'.*\['counts'.*layer='X'"):
        sh.tl.decode(cells, key_added="new")


def test_a_pca_under_another_key(cells):
    cells.layers["log"] = np.log1p(cells.X)
    sc.pp.pca(cells, n_comps=3, layer="log", svd_solver="arpack", key_added="mine")
    sh.tl.hycnn_ot(cells, "control", "IFN-beta", use_rep="mine", potential="gaussian")
    sh.tl.decode(cells)
    rows = is_source(cells)
    change = cells.obsm["X_hycnn_ot"][rows] - cells.obsm["mine"][rows]
    is_decoded(cells, "hycnn_ot", cells.layers["log"][rows] + change @ cells.varm["mine"].T)


def test_decoders_results_are_taken_as_they_are(fit):
    seen = []

    def decoder(points):
        assert points.dtype == np.float32
        seen.append(len(points))
        return np.repeat(points, 2, axis=1) - 1.0

    del fit.varm["PCs"]
    sh.tl.decode(fit, decoder=decoder, block_size=25)
    is_decoded(fit, "hycnn_ot", np.repeat(fit.obsm["X_hycnn_ot"][is_source(fit)], 2, axis=1) - 1)
    assert sum(seen) == 60
    assert max(seen) <= 25
    for kind in (torch.from_numpy, csr_matrix, pd.DataFrame):
        sh.tl.decode(fit, decoder=lambda points, kind=kind: kind(decoder(points)), key_added=kind.__name__)
        np.testing.assert_array_equal(fit.layers[kind.__name__], fit.layers["hycnn_ot"])


def test_a_decoder_needs_no_expression(fit):
    bare = anndata.AnnData(None, obs=fit.obs, var=fit.var, uns=fit.uns, obsm=dict(fit.obsm))
    sh.tl.decode(bare, decoder=lambda points: np.repeat(points, 2, axis=1))
    is_decoded(bare, "hycnn_ot", np.repeat(fit.obsm["X_hycnn_ot"][is_source(fit)], 2, axis=1))


@pytest.mark.parametrize("decoder", [None, lambda points: np.repeat(points, 2, axis=1) - 1e3])
def test_clip(fit, decoder):
    fit.X = fit.X - 10  # the same for all cells: a PCA does not see it
    sh.tl.decode(fit, decoder=decoder)
    sh.tl.decode(fit, decoder=decoder, clip=True, key_added="clipped")
    assert np.nanmin(fit.layers["hycnn_ot"]) < 0
    np.testing.assert_array_equal(fit.layers["clipped"], np.maximum(fit.layers["hycnn_ot"], 0))


def test_maps_of_expression_itself(cells):
    sh.tl.hycnn_ot(cells, "control", "IFN-beta", use_rep="X", potential="gaussian", key_added="genes")
    sh.tl.decode(cells, "genes")
    np.testing.assert_array_equal(cells.layers["genes"], cells.obsm["X_genes"])
    table = pd.DataFrame(cells.X, index=cells.obs_names, columns=cells.var_names)
    cells.obsm["smoothed"] = table
    sh.tl.hycnn_ot(cells, "control", "IFN-beta", use_rep="smoothed", potential="gaussian", key_added="table")
    sh.tl.decode(cells, "table")
    np.testing.assert_array_equal(cells.layers["table"], cells.obsm["X_table"])
    with pytest.raises(ValueError, match="layer='counts'"):
        sh.tl.decode(cells, "genes", layer="counts")


def test_several_targets(cells):
    labels = cells.obs["condition"].astype(object).fillna("none")
    labels.iloc[np.flatnonzero(labels == "IFN-beta")[::2]] = "BCR/FcR-XL"
    cells.obs["condition"] = labels
    sh.tl.hycnn_ot(cells, "control", ["BCR/FcR-XL", "IFN-beta"], potential="gaussian")
    sh.tl.decode(cells)
    for slug in ("BCR_FcR-XL", "IFN-beta"):
        is_decoded(cells, f"hycnn_ot_{slug}", expected(cells, cells.X, f"X_hycnn_ot_{slug}"))
    sh.tl.decode(cells, target="IFN-beta", key_added="one")
    assert [name for name in cells.layers if "one" in str(name).split("_")] == ["one_IFN-beta"]


def test_only_cells_that_have_a_prediction(fit):
    rows = np.flatnonzero(is_source(fit))
    fit.obsm["X_hycnn_ot"][rows[:5]] = np.nan
    sh.tl.decode(fit)
    assert np.isnan(fit.layers["hycnn_ot"][rows[:5]]).all()
    assert np.isfinite(fit.layers["hycnn_ot"][rows[5:]]).all()


def test_target_cells_need_not_be_there(fit):
    source = fit[is_source(fit)].copy()
    sh.tl.decode(source)
    np.testing.assert_allclose(source.layers["hycnn_ot"], expected(source, source.X), atol=1e-5)


def test_copy_view_and_backed(fit, unchanged, tmp_path):
    with unchanged(fit):
        copied = sh.tl.decode(fit, copy=True)
    view = fit[: fit.n_obs // 2]
    sh.tl.decode(view)
    assert not view.is_view
    fit.write_h5ad(tmp_path / "fit.h5ad")
    backed = anndata.read_h5ad(tmp_path / "fit.h5ad", backed="r")
    sh.tl.decode(backed, block_size=9)
    np.testing.assert_array_equal(backed.layers["hycnn_ot"], copied.layers["hycnn_ot"])
    backed.file.close()


def test_replacing_warns(fit):
    sh.tl.decode(fit)
    with pytest.warns(UserWarning, match=r"Replacing 'hycnn_ot' \(adata.layers\)") as caught:
        sh.tl.decode(fit)
    assert {warning.filename for warning in caught if warning.category is UserWarning} == {__file__}


def spoil_x(adata):
    adata.X[np.flatnonzero(is_source(adata))[3], 2] = np.nan


def spoil_loadings(adata):
    adata.varm["PCs"][0] = np.nan
    adata.uns["hycnn_ot"]["rep"]["fingerprint"] = ""


def text_layer(adata):
    adata.layers["text"] = np.full(adata.shape, "a")


CASES = {
    "key": (None, {"key": "nix"}, r"'nix'.*\['hycnn_ot'\]"),
    "target": (None, {"target": "IL-2"}, "'IL-2'"),
    "layer": (None, {"layer": "nix"}, r"'nix'.*\['counts'\]"),
    "layer of text": (text_layer, {"layer": "text"}, "'text'.*<U1"),
    "no prediction": (lambda a: a.obsm.pop("X_hycnn_ot"), {}, "'X_hycnn_ot'.*sh.tl.transport"),
    "prediction of other cells": (lambda a: a.obsm["X_hycnn_ot"].fill(np.nan), {}, "60 source cells.*sh.tl.transport"),
    "no loadings": (lambda a: a.varm.pop("PCs"), {}, "'X_pca'.*decoder="),
    "broken loadings": (spoil_loadings, {}, r"'PCs'.*\(6, 3\)"),
    "no X": (lambda a: setattr(a, "X", None), {}, r"adata\.X.*\['counts'\]"),
    "NaN": (spoil_x, {}, r"adata\.X.*'cell\d+'"),
    "block_size": (None, {"block_size": 0}, "block_size=0"),
    "slash": (None, {"key_added": "a/b"}, "key_added='a/b'"),
    "layer of others": (None, {"key_added": "counts"}, "'counts'"),
    "decoded shape": (None, {"decoder": lambda p: p}, r"\(\d+, 3\).*\(\d+, 6\)"),
    "decoded NaN": (None, {"decoder": lambda p: np.full((len(p), 6), np.nan)}, "infinite"),
    "decoded objects": (None, {"decoder": lambda p: [object()] * len(p)}, "dtype object"),
}  # fmt: skip


def test_an_error_names_the_value_and_nothing_changes(fit, unchanged):
    for spoil, options, value in CASES.values():
        spoilt = fit.copy()
        if spoil:
            spoil(spoilt)
        with unchanged(spoilt), pytest.raises(ValueError, match=value):
            sh.tl.decode(spoilt, **{"key_added": "new", **options})


def test_the_cell_with_a_missing_value_is_named(fit):
    row = np.flatnonzero(is_source(fit))[3]
    spoil_x(fit)
    with pytest.raises(ValueError, match=rf"'cell{row}'"):
        sh.tl.decode(fit, key_added="new")


def test_a_decoder_that_is_no_function(fit, unchanged):
    with unchanged(fit), pytest.raises(TypeError, match="str"):
        sh.tl.decode(fit, decoder="scVI")
