"""Predictions of any method: the same cells and rows for every kind of input, known scores, and refused input."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from anndata import AnnData

import scot_hycnn as sh
from scot_hycnn import metrics

N_GENES = 60


def make_cells(n=300, *, seed=0, response=2.0, noise=1.0):
    """n control and n treated cells of types 'a' and 'b', half of them for training, with an exact PCA."""
    rng = np.random.default_rng(seed)
    loadings = np.random.default_rng(1).normal(size=(N_GENES, 5))
    kind = np.tile(np.arange(n) % 3 == 0, 2)
    is_treated = np.repeat([False, True], n)
    latent = rng.normal(size=(2 * n, 5)) + 3 * kind[:, None] * [1, 0, 0, 0, 0]
    change = response * np.random.default_rng(2).normal(size=N_GENES)
    x = 10 + latent @ loadings.T + is_treated[:, None] * change + noise * rng.normal(size=(2 * n, N_GENES))
    obs = pd.DataFrame(
        {
            "condition": np.where(is_treated, "drug", "control"),
            "cell_type": np.where(kind, "a", "b"),
            "split": np.tile(np.where(rng.random(n) < 0.5, "train", "test"), 2),
        },
        index=[f"cell{i}" for i in range(2 * n)],
    )
    adata = AnnData(x.astype(np.float32), obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(N_GENES)]))
    sh.pp.pca(adata, n_comps=10, split_key="split")
    return adata


@pytest.fixture(scope="module")
def fitted():
    adata = make_cells()
    sh.tl.hycnn_ot(adata, "control", "drug", split_key="split", potential="gaussian")
    sh.tl.decode(adata)
    return adata


@pytest.fixture
def adata(fitted):
    return fitted.copy()


def chosen(adata, condition, split="test"):
    return ((adata.obs["condition"] == condition) & (adata.obs["split"] == split)).to_numpy()


def rows(table, method, columns=("group", "metric", "value", "low", "high", "scaled")):
    return table.loc[table["method"] == method, list(columns)].reset_index(drop=True)


def value(table, method, metric, column="value", group="all"):
    return table[(table["method"] == method) & (table["metric"] == metric) & (table["group"] == group)][column].item()


def shuffled(adata, seed=0):
    rng = np.random.default_rng(seed)
    return adata[rng.permutation(adata.n_obs), rng.permutation(adata.n_vars)].copy()


@pytest.mark.parametrize("with_fit", [True, False])
@pytest.mark.parametrize("split_control", [False, True])
def test_every_kind_of_input_gives_the_same_rows(adata, with_fit, split_control):
    source = adata[adata.obs["condition"] == "control"]
    of_genes = AnnData(source.layers["hycnn_ot"], obs=source.obs, var=adata.var)
    of_points = AnnData(obs=source.obs, obsm={"X_pca": source.obsm["X_hycnn_ot"]})
    transport = sh.get.model(adata).transport
    names = {
        "layer": "hycnn_ot",
        "obsm": "X_hycnn_ot",
        "genes": shuffled(of_genes),
        "points": of_points[::-1].copy(),
        "function": transport,
        "function of genes": lambda x: adata[chosen(adata, "control")].layers["hycnn_ot"] + 0 * x[:, :1],
    }
    conditions = {} if with_fit else {"source": "control", "target": "drug", "split_key": "split"}
    table = metrics.evaluate(
        adata, predictions=names, groupby="cell_type", n_bootstrap=5, split_control=split_control, **conditions
    )
    methods = ["identity", "mean_shift", "gaussian", *(["hycnn_ot"] if with_fit else []), *names]
    assert list(dict.fromkeys(table["method"])) == [*methods, "replicate", "ceiling"]
    first = rows(table, "hycnn_ot" if with_fit else "gaussian")
    assert set(first["group"]) == {"all, same composition", "all", "a", "b"}
    for name in names:
        of_name = rows(table, name)
        pd.testing.assert_frame_equal(of_name[["group", "metric"]], first[["group", "metric"]])
        # Without a fit, groups are weighted in the closed-form map.
        tolerance = {"rtol": 2e-3, "atol": 2e-4} if with_fit else {"rtol": 0.3, "atol": 0.3}
        np.testing.assert_allclose(of_name["value"], first["value"], **tolerance)


def test_the_same_scores_beside_the_fit_and_without_it_or_others(adata):
    options = {"groupby": "cell_type", "n_bootstrap": 5}
    beside = metrics.evaluate(adata, predictions={"mine": "hycnn_ot"}, **options)
    no_fit = adata.copy()
    del no_fit.uns["hycnn_ot"]
    alone = metrics.evaluate(
        no_fit, predictions=["X_hycnn_ot", "hycnn_ot"], source="control", target="drug", split_key="split", **options
    )
    # The same cells: what does not depend on a map is equal, and the prediction of the layer too.
    for method in ("identity", "hycnn_ot", "replicate", "ceiling"):
        pd.testing.assert_frame_equal(rows(beside, method), rows(alone, method), rtol=1e-3, atol=1e-4)
    pd.testing.assert_frame_equal(rows(beside, "mine"), rows(alone, "hycnn_ot"), rtol=1e-3, atol=1e-4)


def test_the_names_of_layers_and_of_our_methods_do_not_collide(adata):
    """A layer called hycnn_ot needs another name beside the fit of this name."""
    with pytest.raises(ValueError, match="'hycnn_ot'"):
        metrics.evaluate(adata, predictions="hycnn_ot", n_bootstrap=0)


def test_rows_do_not_depend_on_the_order_of_cells_and_genes(fitted):
    def score(adata):
        table = metrics.evaluate(adata, predictions={"layer": "hycnn_ot"}, n_bootstrap=0)
        return table[~table["metric"].isin(["w2_squared", "sinkhorn_divergence"])]

    order = np.random.default_rng(0).permutation(fitted.n_obs)
    tables = [score(cells) for cells in (fitted, fitted[order].copy())]
    for method in ("layer", "identity", "hycnn_ot"):
        np.testing.assert_allclose(*(rows(table, method)["value"] for table in tables), rtol=1e-3, atol=1e-5)


def test_a_copy_of_the_observed_cells_scores_one_and_no_change_zero():
    """Values beyond 1 are those of the noise that a copy shares with the observed cells."""
    adata = make_cells(1200)
    observed = adata[chosen(adata, "drug")].copy()
    half = np.random.default_rng(0).permutation(observed.n_obs)[: observed.n_obs // 2]
    predictions = {"copy": observed, "half of it": observed[half].copy(), "nothing": lambda x: x}
    conditions = {"source": "control", "target": "drug", "split_key": "split", "groupby": "cell_type"}
    table = metrics.evaluate(adata, predictions=predictions, n_bootstrap=5, **conditions)
    scaled = table[table["scaled"].notna()]
    assert {"energy_distance", "mmd", "pearson_delta", "r2_mean", "r2_mean_top20"} <= set(scaled["metric"])
    assert set(scaled["group"]) == {"all, same composition", "all", "a", "b"}
    for name in ("identity", "nothing"):
        np.testing.assert_allclose(rows(scaled, name)["scaled"], 0, atol=1e-6)
    # Couplings pair a copy with itself, and score better than a replicate.
    scaled = scaled[~scaled["metric"].isin(["w2_squared", "sinkhorn_divergence"])]
    for name in ("copy", "half of it"):
        np.testing.assert_allclose(rows(scaled, name)["scaled"], 1, atol=0.06)
    assert value(table, "ceiling", "pearson_delta") > 0.98


def test_the_ceiling_is_what_the_truth_scores():
    """With noisy cells: the mean over experiments of the true change's correlation with the observed change."""
    ceilings, reached = [], []
    change = 0.5 * np.random.default_rng(2).normal(size=N_GENES)
    for seed in range(12):
        adata = make_cells(400, seed=seed, response=0.5, noise=6.0)
        adata.layers["truth"] = adata.X + change.astype(np.float32)
        table = metrics.evaluate(adata, predictions="truth", source="control", target="drug", n_bootstrap=0)
        ceilings.append(value(table, "ceiling", "pearson_delta"))
        reached.append(value(table, "truth", "pearson_delta"))
    assert np.mean(ceilings) == pytest.approx(np.mean(reached), abs=0.05)
    assert 0.3 < np.mean(reached) < 0.9


def test_split_control_removes_the_noise_that_both_changes_share():
    """Without a response a predicted cloud of treated cells correlates by the shared source cells alone."""
    found = {False: [], True: []}
    for seed in range(8):
        adata = make_cells(100, seed=seed, response=0.0)
        unseen = make_cells(100, seed=100 + seed, response=0.0)[:100].copy()
        unseen.obs_names = [f"new{i}" for i in range(100)]
        for split_control, values in found.items():
            table = metrics.evaluate(
                adata, predictions=unseen, source="control", target="drug", n_bootstrap=0, split_control=split_control
            )
            values.append(value(table, "prediction", "pearson_delta"))
    assert np.mean(found[False]) > 0.3
    assert abs(np.mean(found[True])) < 0.15


def test_unpaired_cells(adata):
    """Any number of cells, in groups if they have them, and the scores that they have by the metrics of arrays."""
    other = make_cells(700, seed=5)[700:].copy()
    other.obs_names = [f"new{i}" for i in range(other.n_obs)]
    without = other.copy()
    del without.obs["cell_type"]
    few = other[other.obs["cell_type"] == "b"].copy()
    table = metrics.evaluate(
        adata, predictions={"groups": other, "none": without, "few": few}, groupby="cell_type", n_bootstrap=5
    )
    assert set(rows(table, "groups")["group"]) == {"all, same composition", "all", "a", "b"}
    assert set(rows(table, "none")["group"]) == {"all"}
    assert set(rows(table, "few")["group"]) == {"all", "b"}
    assert any("'none'" in note and "cell_type" in note for note in table.attrs["notes"])
    control, observed = (adata[chosen(adata, name)].X for name in ("control", "drug"))
    assert value(table, "groups", "pearson_delta") == pytest.approx(
        metrics.pearson_delta(other.X, observed, control), rel=1e-4
    )
    assert value(table, "groups", "r2_mean") == pytest.approx(metrics.r2_mean(other.X, observed), rel=1e-4)
    b = value(table, "groups", "energy_distance", group="b")
    assert b == pytest.approx(value(table, "few", "energy_distance", group="b"))
    # With the true composition weighted, the same cells in other proportions score the same.
    part = np.append(np.flatnonzero(other.obs["cell_type"] == "a")[:60], np.flatnonzero(other.obs["cell_type"] == "b"))
    again = metrics.evaluate(adata, predictions=other[part].copy(), groupby="cell_type", n_bootstrap=0)
    same = "all, same composition"
    before = value(table, "groups", "pearson_delta", group=same)
    assert value(again, "prediction", "pearson_delta", group=same) == pytest.approx(before, abs=0.02)


def test_without_a_fit_baselines_come_from_training_cells(adata):
    del adata.uns["hycnn_ot"]
    options = {"source": "control", "target": "drug", "n_bootstrap": 0}
    x, y = (adata[chosen(adata, name, "train")].obsm["X_pca"] for name in ("control", "drug"))
    test_x, test_y = (adata[chosen(adata, name)].obsm["X_pca"] for name in ("control", "drug"))
    shift = metrics.energy_distance(test_x + y.mean(0) - x.mean(0), test_y)
    of_mask = (adata.obs["split"] == "test").to_numpy()
    for cells in ({"split_key": "split"}, {"mask_obs": of_mask}):
        table = metrics.evaluate(adata, **options, **cells)
        assert value(table, "mean_shift", "energy_distance") == pytest.approx(shift, rel=1e-4)
        assert table.attrs["notes"] == []
    every = metrics.evaluate(adata, **options)
    assert "All cells are evaluated" in every.attrs["notes"][0]
    adata.uns["pca"] = {"params": {}}  # of a PCA of all cells
    assert "X_pca" in metrics.evaluate(adata, split_key="split", **options).attrs["notes"][0]
    named = metrics.evaluate(adata, condition_key="condition", split_key="split", **options)
    as_in_fit = metrics.evaluate(adata, groupby="condition", split_key="split", **options)
    pd.testing.assert_frame_equal(named, as_in_fit)


def test_tl_stores_and_other_functions_read_the_rows(adata, tmp_path):
    del adata.uns["hycnn_ot"]
    adata.obsm["mine"] = adata.obsm["X_pca"] + 1
    sh.tl.evaluate(adata, predictions=["mine"], source="control", target="drug", split_key="split", n_bootstrap=5)
    adata.write_h5ad(tmp_path / "scores.h5ad")
    table = sh.get.evaluation(sc.read_h5ad(tmp_path / "scores.h5ad"))
    assert {"mine", "ceiling", "replicate"} <= set(table["method"])
    assert table["scaled"].notna().any()
    axes = sh.pl.evaluation(adata, show=False)
    assert any("mine" in label.get_text() for label in axes[0].get_yticklabels())
    # On the common scale, no change is at 0, and the ceiling or the replicate at 1.
    (ax,) = sh.pl.evaluation(adata, metrics="pearson_delta", scaled=True, show=False)
    assert ax.get_xscale() == "linear"
    dots = [line.get_xdata()[0] for line in ax.get_lines() if line.get_marker() == "o"]
    assert len(dots) == 4
    assert dots[0] == 0
    dashed = [lines for lines in ax.collections if lines.get_linestyle()[0][1] is not None]
    assert any(np.allclose(lines.get_segments()[0][:, 0], 1) for lines in dashed if hasattr(lines, "get_segments"))


WRONG = {
    "unknown name": (lambda adata: "nix", "'nix'.*hycnn_ot"),
    "a type that is none of these": (lambda adata: np.zeros((3, 2)), "ndarray.*obsm"),
    "the name of a baseline": (lambda adata: {"gaussian": "hycnn_ot"}, "'gaussian'"),
    "nothing": (lambda adata: [], "predictions="),
    "columns": (lambda adata: "narrow", r"\(600, 3\)"),
    "a cell without a prediction": (lambda adata: "holes", "1 of .*mask_obs"),
    "some cells": (lambda adata: adata[chosen(adata, "control")][:20].copy(), "lacks .* of the .* evaluated"),
    "a layer and a key of obsm": (lambda adata: "both", "'both'"),
    "cells of one name": (lambda adata: of_one_name(adata[chosen(adata, "control")].copy()), "obs_names_make_unique"),
    "genes": (lambda adata: adata[:, :30].copy(), "lacks 30 of 60 genes"),
    "too few cells": (lambda adata: renamed(adata[:5].copy()), "5 cells"),
    "a shape": (lambda adata: lambda x: x[:, :2], r"shape \(.*, 2\).*, 10\)"),
    "text": (lambda adata: lambda x: np.full(x.shape, "a"), "no array of numbers"),
    "infinity": (lambda adata: lambda x: x / 0 if False else np.full(x.shape, np.inf), "NaN or infinite"),
}


def of_one_name(adata):
    adata.obs_names = ["cell0"] * adata.n_obs
    return adata


def renamed(adata):
    adata.obs_names = [f"new{i}" for i in range(adata.n_obs)]
    return adata


def test_a_wrong_prediction_is_refused_and_nothing_changes(adata, unchanged):
    adata.obsm["narrow"] = np.zeros((adata.n_obs, 3))
    adata.obsm["holes"] = adata.obsm["X_hycnn_ot"].copy()
    adata.obsm["holes"][np.flatnonzero(chosen(adata, "control"))[3]] = np.nan
    adata.obsm["both"], adata.layers["both"] = adata.obsm["X_hycnn_ot"], adata.layers["hycnn_ot"]
    for make, message in WRONG.values():
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Observation names are not unique", UserWarning)
            prediction = make(adata)
        with unchanged(adata), pytest.raises((ValueError, TypeError), match=re.compile(message, re.DOTALL)):
            sh.tl.evaluate(adata, predictions=prediction, n_bootstrap=0)


def test_without_a_fit_an_error_says_what_is_missing(adata, unchanged):
    for options, message in (
        ({"source": "control"}, "needs target"),
        ({"source": "nix", "target": "drug"}, "source='nix'"),
        ({"source": "control", "target": "drug", "condition_key": "nix"}, "condition_key='nix'"),
        ({"source": "control", "target": "drug", "use_rep": "nix"}, "use_rep='nix'"),
        ({"source": "control", "target": "drug", "split_key": "nix"}, "split_key='nix'"),
        ({"key": "nix"}, "'nix'.*key="),
    ):
        with unchanged(adata), pytest.raises(ValueError, match=message):
            sh.tl.evaluate(adata, predictions={"layer": "hycnn_ot"}, n_bootstrap=0, **options)


def test_without_any_fit_the_way_to_score_predictions_is_named(adata):
    del adata.uns["hycnn_ot"]
    with pytest.raises(ValueError, match="source="):
        metrics.evaluate(adata, predictions={"layer": "hycnn_ot"}, n_bootstrap=0)


def test_genes_need_a_way_to_the_representation(adata):
    del adata.varm["PCs"]
    with pytest.raises(ValueError, match=r"genes.*coordinates"):
        metrics.evaluate(adata, predictions={"layer": "hycnn_ot"}, n_bootstrap=0)
    table = metrics.evaluate(adata, predictions={"points": "X_hycnn_ot"}, n_bootstrap=0)
    np.testing.assert_allclose(rows(table, "points")["value"], rows(table, "hycnn_ot")["value"], rtol=1e-4, atol=1e-6)
