"""tl.hycnn_ot with weights of cells: the columns that it writes, and real cells whose composition changes."""

from __future__ import annotations

import re

import anndata
import numpy as np
import pandas as pd
import pytest

import scot_hycnn as sh

QUICK = {"potential": "gaussian", "progress": False}


@pytest.fixture
def adata():
    """Three separate types, of which the treatment kills half of two and moves all by 2 in the last component."""
    rng = np.random.default_rng(0)
    of = np.concatenate([np.repeat([0, 1, 2], 100), np.repeat([0, 1, 2], [50, 50, 200])])
    treated = np.arange(600) >= 300
    x = 12 * np.eye(3, 5)[of] + rng.normal(size=(600, 5)) + 2 * treated[:, None] * np.eye(5)[4]
    obs = pd.DataFrame({"condition": np.where(treated, "drug/1", "control"), "type": np.array(["a", "b", "c"])[of]})
    order = rng.permutation(600)
    obs = obs.iloc[order].set_index(np.arange(600).astype(str))
    return anndata.AnnData(obs=obs, obsm={"X_pca": x[order]})


def test_weights_and_growth_are_written_for_the_cells_of_the_fit(adata, tmp_path):
    sh.tl.hycnn_ot(adata, "control", "drug/1", unbalanced=0.3, mask_obs=np.arange(600) < 590, **QUICK)
    is_source = (adata.obs["condition"] == "control").to_numpy()
    weight, growth = adata.obs["hycnn_ot_weight"], adata.obs["hycnn_ot_growth"]
    assert weight.isna().to_numpy().nonzero()[0].tolist() == list(range(590, 600))
    assert growth[~is_source].isna().all()
    by_type = growth[is_source].groupby(adata.obs["type"], observed=True).mean()
    np.testing.assert_allclose(by_type, [0.5, 0.5, 2], rtol=0.25)
    validation = adata.uns["hycnn_ot"]["validation"]["drug_1"]
    assert validation["unbalanced"] == 0.3
    assert 0.2 < validation["transported_mass"] < 1.1
    assert "source_weight" not in validation  # they stand in obs
    assert adata.uns["hycnn_ot"]["params"]["unbalanced"] == 0.3

    adata.write_h5ad(tmp_path / "cells.h5ad")
    again = anndata.read_h5ad(tmp_path / "cells.h5ad")
    np.testing.assert_array_equal(again.obs["hycnn_ot_growth"], growth)
    moved = [sh.get.model(one).transport(adata.obsm["X_pca"]) for one in (again, adata)]
    np.testing.assert_allclose(*moved, rtol=1e-5)


def test_a_new_fit_removes_old_weights(adata):
    sh.tl.hycnn_ot(adata, "control", "drug/1", unbalanced=0.3, **QUICK)
    with pytest.warns(UserWarning, match="hycnn_ot_weight"):
        sh.tl.hycnn_ot(adata, "control", "drug/1", **QUICK)
    assert not [name for name in adata.obs if name.endswith(("weight", "growth"))]


def test_several_targets_have_their_own_columns(adata):
    adata.obs["condition"] = adata.obs["condition"].astype(str)
    drug = np.flatnonzero(adata.obs["condition"] == "drug/1")
    adata.obs.iloc[drug[::2], adata.obs.columns.get_loc("condition")] = "drug 2"
    sh.tl.hycnn_ot(adata, "control", ["drug/1", "drug 2"], groupby="condition", unbalanced=0.3, **QUICK)
    assert {"hycnn_ot_weight_drug_1", "hycnn_ot_growth_drug_2"} <= set(adata.obs)


def test_a_failure_leaves_the_anndata_as_it_was(adata):
    adata.obsm["X_pca"][(adata.obs["condition"] != "control").to_numpy()] += 500
    before = adata.copy()
    with pytest.raises(ValueError, match="of the mass to"):
        sh.tl.hycnn_ot(adata, "control", "drug/1", unbalanced=0.01, **QUICK)
    pd.testing.assert_frame_equal(adata.obs, before.obs)
    assert not adata.uns


def test_scores_are_those_of_the_transported_mass(adata):
    train = np.random.default_rng(1).random(600) < 0.5
    sh.tl.hycnn_ot(adata, "control", "drug/1", mask_obs=train, unbalanced=0.3, **QUICK)
    scores = sh.metrics.evaluate(adata, mask_obs=~train, n_bootstrap=0, groupby="type")
    (note,) = [note for note in scores.attrs["notes"] if "transported mass" in note]
    assert "drug/1" in note
    of_mass = scores[(scores["group"] == "all") & (scores["metric"] == "energy_distance")].set_index("method")
    assert of_mass["n_source"].iloc[0] < (~train & (adata.obs["condition"] == "control")).sum()
    del adata.obs["hycnn_ot_weight"]
    scores = sh.metrics.evaluate(adata, mask_obs=~train, n_bootstrap=0, groupby="type")
    assert any("without a counterpart" in note for note in scores.attrs["notes"])
    # The transported mass has the same proportions in both conditions, and all cells have not.
    of_all = scores[(scores["group"] == "all") & (scores["metric"] == "energy_distance")].set_index("method")
    assert abs(of_mass["value"]["hycnn_ot"]) < 0.2 * of_all["value"]["hycnn_ot"]


def test_growth_is_drawn_and_said(adata, tmp_path):
    adata.obsm["X_umap"] = adata.obsm["X_pca"][:, :2]
    sh.tl.hycnn_ot(adata, "control", "drug/1", unbalanced=0.3, **QUICK)
    ax = sh.pl.growth(adata, groupby="type", show=False)
    drawn = {
        text.get_text()[0]: float(line.get_xdata()[0])
        for text, line in zip(ax.get_yticklabels(), [one for one in ax.lines if one.get_marker() == "o"], strict=True)
    }
    assert drawn == pytest.approx({"a": 0.5, "b": 0.5, "c": 2.0}, rel=0.25)
    assert sh.pl.growth(adata, basis="umap", return_fig=True).axes[-1].get_ylabel() == "growth"
    table = sh.get.summary(adata, groupby="type").set_index("group")
    assert table["growth"].drop("all").to_dict() == pytest.approx(drawn)
    assert ((table["growth_low"] < table["growth"]) & (table["growth"] < table["growth_high"])).drop("all").all()
    sh.pl.report(adata, tmp_path / "report.html", groupby="type")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "have no counterpart after treatment" in page
    with pytest.raises(ValueError, match="basis"):
        sh.pl.growth(adata, basis="tsne", show=False)
    with pytest.raises(ValueError, match="groupby"):
        sh.pl.growth(adata, show=False)


@pytest.mark.parametrize("unbalanced", [0.3, "auto"])
def test_most_of_a_dead_type_is_said_to_have_no_counterpart(adata, tmp_path, unbalanced):
    dead = (adata.obs["type"] == "a") & (adata.obs["condition"] != "control")
    adata = adata[~dead].copy()
    sh.tl.hycnn_ot(adata, "control", "drug/1", unbalanced=unbalanced, **QUICK)
    growth = sh.get.summary(adata, groupby="type").set_index("group")["growth"]
    # The penalty still lets some cells of the dead type be carried over to others.
    assert growth["a"] < 0.3
    assert growth[["b", "c"]].min() > 0.5
    sh.pl.report(adata, tmp_path / "report.html", groupby="type")
    page = " ".join((tmp_path / "report.html").read_text(encoding="utf-8").split())
    assert re.search(r"bout 7\d\W+% of a have no counterpart after treatment", page)


def test_growth_of_a_balanced_fit_is_an_error(adata):
    sh.tl.hycnn_ot(adata, "control", "drug/1", **QUICK)
    with pytest.raises(ValueError, match="unbalanced"):
        sh.pl.growth(adata, groupby="type", show=False)
