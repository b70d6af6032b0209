"""Centred maps on an AnnData: every cell is moved around the mean of the source cells of its group."""

from __future__ import annotations

import sys

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from anndata import AnnData

import scot_hycnn as sh

# These cells have no loadings by which the space of a map is recognised.
pytestmark = pytest.mark.filterwarnings("ignore:There is no fingerprint")
SCALE, SHIFT = np.array([2.0, 1.0, 0.5]), np.array([1.0, 0.0, -1.0])


def make_donors(names, seed=0, n=60):
    """Control and treated cells of donors with their own baselines, who respond alike around these."""
    rng = np.random.default_rng(seed)
    parts, obs = [], []
    for name in names:
        baseline = 5 * rng.normal(size=3)
        noise = rng.normal(size=(2, n, 3))
        parts += [baseline + noise[0], baseline + noise[1] * SCALE + SHIFT]
        obs += [(condition, name) for condition in ("control", "drug") for _ in range(n)]
    adata = AnnData(obs=pd.DataFrame(obs, columns=["condition", "donor"], index=[str(i) for i in range(len(obs))]))
    adata.obsm["X_pca"] = np.concatenate(parts).astype(np.float32)
    order = rng.permutation(adata.n_obs)
    return adata[order].copy()


OPTIONS = {"group_key": "donor", "leave_out": "groups", "potential": "gaussian"}


@pytest.fixture(scope="module")
def module_fit():
    adata = make_donors(list("ABCDE/"))
    sh.tl.hycnn_ot(adata, "control", "drug", inverse=True, **OPTIONS)
    return adata


@pytest.fixture
def fitted(module_fit):
    return module_fit.copy()


def of(adata, donor, condition="control"):
    return ((adata.obs["donor"] == donor) & (adata.obs["condition"] == condition)).to_numpy()


def test_a_fit_moves_each_donor_around_its_own_baseline(fitted):
    assert fitted.uns["hycnn_ot"]["validation"]["drug"]["winner"] == "centred Gaussian map"
    transport_map = sh.get.model(fitted)
    for donor in "A/":
        cells = fitted.obsm["X_pca"][of(fitted, donor)]
        around = transport_map.around(cells.mean(0))
        np.testing.assert_allclose(fitted.obsm["X_hycnn_ot"][of(fitted, donor)], around.transport(cells), atol=1e-4)
        treated = fitted.obsm["X_pca"][of(fitted, donor, "drug")]
        back = fitted.obsm["X_hycnn_ot_inverse"][of(fitted, donor, "drug")]
        np.testing.assert_allclose(around.transport(back), treated, atol=1e-3)
    displacement = np.linalg.norm(fitted.obsm["X_hycnn_ot"] - fitted.obsm["X_pca"], axis=1)
    np.testing.assert_allclose(fitted.obs["hycnn_ot_displacement"], displacement, atol=1e-4)


def test_a_new_donor_is_moved_around_its_own_source_cells(fitted):
    new = make_donors(["new"], seed=9, n=400)
    # Some of them, to half of the way, by the mean of all its source cells.
    control = new.obsm["X_pca"][of(new, "new")]
    around = sh.get.model(fitted).around(control.mean(0))
    mask = of(new, "new") & (np.arange(new.n_obs) < 300)
    sh.tl.transport(new, model=fitted, mask_obs=mask)
    np.testing.assert_allclose(new.obsm["X_hycnn_ot"][mask], around.transport(new.obsm["X_pca"][mask]), atol=1e-4)
    sh.tl.transport(new, model=fitted, t=0.5, key_added="half")
    moved = new.obsm["X_half"][of(new, "new")]
    np.testing.assert_allclose(moved, (control + around.transport(control)) / 2, atol=1e-4)
    treated = new.obsm["X_pca"][of(new, "new", "drug")]
    distance = sh.metrics.energy_distance(around.transport(control), treated)
    assert distance < 0.05 < sh.metrics.energy_distance(control, treated)


def test_a_donor_of_the_fit_keeps_its_centre_and_another_column_can_be_named(fitted):
    donor = of(fitted, "A")
    some = fitted[np.flatnonzero(donor)[:7]].copy()
    expected = some.obsm["X_hycnn_ot"].copy()
    sh.tl.transport(some, key_added="again")
    np.testing.assert_allclose(some.obsm["X_again"], expected, atol=1e-5)
    some.obs = some.obs.rename(columns={"donor": "patient"})
    sh.tl.transport(some, key_added="named", group_key="patient")
    np.testing.assert_allclose(some.obsm["X_named"], expected, atol=1e-5)


@pytest.mark.filterwarnings("ignore:Writing zarr v2")
def test_files_keep_the_centres(fitted, tmp_path):
    fitted.write_h5ad(tmp_path / "fit.h5ad")
    sh.get.model(fitted).save(tmp_path / "map.safetensors")
    expected = fitted.obsm["X_hycnn_ot"]
    for path in ("fit.h5ad", "map.safetensors"):
        others = fitted.copy()
        sh.tl.transport(others, model=tmp_path / path, key_added="again")
        np.testing.assert_allclose(others.obsm["X_again"], expected, atol=1e-5)


@pytest.mark.filterwarnings("ignore:Writing zarr v2")
def test_cells_in_a_store_move_as_in_memory(fitted, tmp_path):
    pytest.importorskip("zarr")
    new = make_donors(["A", "new"], seed=9)
    sh.tl.transport(new, model=fitted, output=tmp_path / "moved.zarr")
    sh.tl.transport(new, model=fitted)
    back = anndata.read_zarr(tmp_path / "moved.zarr")
    np.testing.assert_allclose(back.obsm["X_hycnn_ot"], new.obsm["X_hycnn_ot"], atol=1e-5)


def test_evaluate_scores_the_cells_that_were_moved(fitted):
    table = sh.metrics.evaluate(fitted, n_bootstrap=0)
    table = table[table["group"] == "all"].set_index(["method", "metric"])["value"]
    is_source, is_target = (fitted.obs["condition"] == name for name in ("control", "drug"))
    distance = sh.metrics.energy_distance(
        fitted.obsm["X_hycnn_ot"][is_source.to_numpy()], fitted.obsm["X_pca"][is_target.to_numpy()]
    )
    assert table["hycnn_ot", "energy_distance"] == pytest.approx(distance, rel=1e-3, abs=1e-4)


def without_column(adata):
    del adata.obs["donor"]


def without_label(adata):
    adata.obs.loc[adata.obs_names[of(adata, "A")][0], "donor"] = None


def without_source_cells(adata):
    adata.obs.loc[of(adata, "A"), "condition"] = "drug"
    adata.obs["donor"] = adata.obs["donor"].replace({"A": "new"})


@pytest.mark.parametrize(
    ("damage", "options", "match"),
    [
        (without_column, {}, "no column 'donor'"),
        (None, {"group_key": "patient"}, "no column 'patient'"),
        (without_label, {}, "empty for 1 of 360 cells"),
        (without_source_cells, {"direction": "inverse"}, "'new'"),
    ],
)
def test_cells_whose_group_is_unknown_are_refused(fitted, unchanged, damage, options, match):
    others = fitted.copy()
    if damage is not None:
        damage(others)
    with unchanged(others), pytest.raises(ValueError, match=match):
        sh.tl.transport(others, model=fitted, key_added="other", **options)


def test_a_fit_says_before_training_that_cells_to_move_lack_their_group(unchanged):
    adata = make_donors(list("ABCD"))
    adata.obs["use"] = True
    adata.obs.iloc[0, adata.obs.columns.get_loc("use")] = False
    adata.obs.iloc[0, adata.obs.columns.get_loc("condition")] = "control"
    adata.obs.iloc[0, adata.obs.columns.get_loc("donor")] = None
    options = OPTIONS | {"mask_obs": "use", "potential": "hycnn", "max_steps": 10**6}
    with unchanged(adata), pytest.raises(ValueError, match="empty for 1 of"):
        sh.tl.hycnn_ot(adata, "control", "drug", **options)
    sh.tl.hycnn_ot(adata, "control", "drug", predict=False, mask_obs="use", **OPTIONS)


def test_groups_unlike_those_of_the_fit_are_named_if_the_map_was_not_chosen_for_them(capsys):
    adata = make_donors(list("ABCD"))
    new = make_donors(["A", "E"], seed=0)
    new.obsm["X_pca"][of(new, "E")] += 100
    for leave_out, named in (("cells", True), ("groups", False)):
        sh.tl.hycnn_ot(adata, "control", "drug", **OPTIONS | {"leave_out": leave_out}, key_added=leave_out)
        capsys.readouterr()
        before, sc.settings.logfile = sc.settings.logfile, sys.stderr
        try:
            sh.tl.transport(new, leave_out, model=adata)
        finally:
            sc.settings.logfile = before
        said = capsys.readouterr().err
        assert ("'E'" in said and "leave_out='groups'" in said) == named
        assert "'A'" not in said


def test_donors_that_respond_by_their_baseline_are_moved_by_regression():
    rng = np.random.default_rng(0)
    names = [f"donor {k}" for k in range(12)]
    adata = make_donors(names, n=40)
    adata.obsm["X_pca"] = rng.normal(size=(adata.n_obs, 3)).astype(np.float32)
    for k, name in enumerate(names):
        adata.obsm["X_pca"][(adata.obs["donor"] == name).to_numpy()] += np.float32([k, 0, 0])
        adata.obsm["X_pca"][of(adata, name, "drug")] += np.float32([0, k - 4, 0])
    seen = adata[(adata.obs["donor"] != "donor 7").to_numpy()].copy()
    sh.tl.hycnn_ot(seen, "control", "drug", **OPTIONS)
    assert "regression over groups" in seen.uns["hycnn_ot"]["validation"]["drug"]["winner"]
    sh.tl.transport(adata, model=seen)
    moved = adata.obsm["X_hycnn_ot"] - adata.obsm["X_pca"]
    assert np.allclose(moved[of(adata, "donor 7")].mean(0), [0, 3, 0], atol=0.5)
    # Donors of the fit, and cells in another order, move by the same map.
    again = seen[::-1].copy()
    sh.tl.transport(again, key_added="again")
    np.testing.assert_allclose(again.obsm["X_again"], again.obsm["X_hycnn_ot"], atol=1e-5)
    score = adata.obs["hycnn_ot_out_of_support"][of(adata, "donor 7")]
    assert np.median(score) < 1
