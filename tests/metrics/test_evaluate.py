"""Evaluation: known answers, equality with the metrics of arrays, intervals that cover, and held-out cells only."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from anndata import AnnData

import scot_hycnn as sh
from scot_hycnn import metrics
from scot_hycnn.metrics import _cloud_scores, _evaluate

METHODS = ["identity", "mean_shift", "gaussian", "hycnn_ot", "replicate"]
OF_CLOUDS = ["energy_distance", "mmd", "w2_squared", "sinkhorn_divergence", "trace_ratio"]
OF_GENES = ["r2_mean", "r2_mean_top20", "pearson_delta", "deg_overlap_top20"]
SHIFT = np.array([3.0, 0.0, -1.0])
N_GENES = 40


def make_cells(n=200, *, seed=0, shift=SHIFT, paired=False):
    """n control and n treated cells of types 'a' and 'b', in shuffled order, half of them for training.

    With ``paired``, treated cells are the control cells moved by the shift.
    """
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(2 * n, 3)) * [3, 2, 1]
    residual = rng.normal(size=(2 * n, N_GENES)) + 5 * np.random.default_rng(1).random(N_GENES)
    loadings = np.linalg.qr(np.random.default_rng(2).normal(size=(N_GENES, 3)))[0]
    residual -= residual @ loadings @ loadings.T  # orthogonal to the components
    obs = pd.DataFrame({"condition": np.repeat(["control", "drug"], n)})
    obs["split"] = np.tile(np.repeat(["train", "test"], [n - n // 2, n // 2]), 2)
    obs["cell_type"] = np.tile(np.where(np.arange(n) % 3 == 0, "a", "b"), 2)
    if paired:
        scores[n:], residual[n:] = scores[:n], residual[:n]
    scores[n:] += shift
    order = rng.permutation(2 * n)
    obs.index = [f"cell{i}" for i in range(2 * n)]
    adata = AnnData((scores @ loadings.T + residual)[order], obs=obs.iloc[order])
    adata.obsm["X_pca"], adata.varm["PCs"] = scores[order], loadings
    return adata


@pytest.fixture(scope="module")
def fitted():
    adata = make_cells()
    sh.tl.hycnn_ot(adata, "control", "drug", split_key="split", potential="gaussian")
    return adata


@pytest.fixture
def adata(fitted):
    return fitted.copy()


@pytest.fixture(scope="module")
def scores(fitted):
    return metrics.evaluate(fitted, groupby="cell_type")


def pick(table, **labels):
    for name, label in labels.items():
        table = table[table[name] == label]
    return table


def values(table, **labels):
    return pick(table, **labels).set_index("metric")["value"]


def part(adata, condition, group=None, split="test"):
    chosen = (adata.obs["condition"] == condition) & (adata.obs["split"] == split)
    return np.flatnonzero(chosen if group in (None, "all") else chosen & (adata.obs["cell_type"] == group))


# ---- the table


def test_rows_and_columns(adata, scores):
    table = scores
    assert table.attrs["notes"] == []
    assert table.columns.tolist() == [
        "target", "group", "method", "metric", "value", "low", "high",
        "vs_gaussian", "vs_gaussian_low", "vs_gaussian_high", "n_source", "n_target", "kept_group", "scaled",
    ]  # fmt: skip
    metrics_of_groups, groups = [*OF_CLOUDS, "kept_group", *OF_GENES], ("all, same composition", "all", "a", "b")
    wanted = [(group, method, metric) for group in groups for method in METHODS for metric in metrics_of_groups]
    ceiling = [
        (group, "ceiling", metric) for group in groups for metric in ("r2_mean", "r2_mean_top20", "pearson_delta")
    ]
    n = len(metrics_of_groups) * len(METHODS)
    wanted = [row for i in range(len(groups)) for row in wanted[n * i : n * (i + 1)] + ceiling[3 * i : 3 * (i + 1)]]
    assert list(zip(table["group"], table["method"], table["metric"], strict=True)) == wanted
    assert (table["target"] == "drug").all()
    for group in ("all", "a", "b"):
        rows = pick(table, group=group)
        assert (rows["n_source"] == len(part(adata, "control", group))).all()
        assert (rows["n_target"] == len(part(adata, "drug", group))).all()
    has_no_value = table["value"].isna()
    assert (table["metric"][has_no_value] == "pearson_delta").all()
    assert (table["method"][has_no_value] == "identity").all()
    rows = table[~has_no_value]
    assert ((rows["low"] <= rows["value"]) & (rows["value"] <= rows["high"])).all()
    assert table.loc[has_no_value, ["low", "high"]].isna().all(axis=None)


def test_the_difference_to_the_gaussian_map(scores):
    gaussian = pick(scores, method="gaussian").set_index(["group", "metric"])
    assert (gaussian[["vs_gaussian", "vs_gaussian_low", "vs_gaussian_high"]] == 0).all(axis=None)
    wanted = scores["value"] - scores.set_index(["group", "metric"]).index.map(gaussian["value"])
    np.testing.assert_allclose(scores["vs_gaussian"], wanted, atol=1e-12)
    rows = scores[scores["vs_gaussian"].notna()]
    assert rows["vs_gaussian"].between(rows["vs_gaussian_low"], rows["vs_gaussian_high"]).all()


@pytest.mark.parametrize(
    ("group", "method"), [("a", "identity"), ("all", "mean_shift"), ("a", "gaussian"), ("all", "hycnn_ot")]
)
def test_the_metrics_of_arrays_of_the_same_cells(adata, scores, group, method):
    x_rows, y_rows = part(adata, "control", group), part(adata, "drug", group)
    x, y, fitted = adata.obsm["X_pca"][x_rows], adata.obsm["X_pca"][y_rows], sh.get.model(adata)
    moved = {
        "identity": x,
        "mean_shift": x + fitted.coordinates.mean_y - fitted.coordinates.mean_x,
        "gaussian": replace(fitted, blend=0.0).transport(x),
        "hycnn_ot": fitted.transport(x),
    }[method]
    control, observed = adata.X[x_rows], adata.X[y_rows]
    predicted = control + (moved - x) @ adata.varm["PCs"].T
    found, gamma = values(scores, group=group, method=method), scores.attrs["mmd_gamma"]["drug"][group]
    wanted = {
        "energy_distance": metrics.energy_distance(moved, y),
        "mmd": metrics.mmd(moved, y, gamma=gamma),
        "trace_ratio": metrics.trace_ratio(moved, y),
        "r2_mean": metrics.r2_mean(predicted, observed),
        "r2_mean_top20": metrics.r2_mean(predicted, observed, control, n_top=20),
        "pearson_delta": metrics.pearson_delta(predicted, observed, control),
        "deg_overlap_top20": metrics.deg_overlap(predicted, observed, control, n_top=20),
    }
    for metric, value in wanted.items():
        assert found[metric] == pytest.approx(value, rel=1e-4, abs=1e-6, nan_ok=True), metric


def test_genes_are_summed_over_blocks_of_cells(fitted):
    adata = make_cells(2200, seed=3)
    adata.uns = fitted.uns
    rows = part(adata, "control"), part(adata, "drug")
    assert len(rows[0]) > 1000  # cells of a block
    found = values(metrics.evaluate(adata, n_bootstrap=0), method="identity")
    control, observed = (adata.X[chosen] for chosen in rows)
    assert found["r2_mean_top20"] == pytest.approx(metrics.r2_mean(control, observed, control, n_top=20), rel=1e-6)


def test_cells_of_large_clouds_are_drawn_at_random(adata, monkeypatch):
    full = metrics.evaluate(adata, n_bootstrap=0)
    for name, size in (("MAX_ENERGY", 60), ("MAX_MMD", 40), ("MAX_COUPLED", 20)):
        monkeypatch.setattr(_cloud_scores, name, size)
    few, again, other = (metrics.evaluate(adata, n_bootstrap=0, rng=seed) for seed in (0, 0, 1))
    pd.testing.assert_frame_equal(few, again)
    identity = values(full, method="identity"), values(few, method="identity"), values(other, method="identity")
    for metric in ("energy_distance", "mmd"):
        assert len({scores[metric] for scores in identity}) == 3
    assert identity[1]["energy_distance"] == pytest.approx(identity[0]["energy_distance"], rel=0.5)
    for metric in ["trace_ratio", *OF_GENES[:2]]:
        assert len({scores[metric] for scores in identity}) == 1


# ---- known answers


def test_a_planted_translation_is_exact_for_the_mean_shift():
    adata = make_cells(paired=True)
    sh.tl.hycnn_ot(adata, "control", "drug", split_key="split", potential="gaussian")
    table = metrics.evaluate(adata, n_bootstrap=0)
    exact, none = values(table, method="mean_shift"), values(table, method="identity")
    for metric in ("trace_ratio", *OF_GENES):
        assert exact[metric] == pytest.approx(1, abs=1e-6), metric
    y = adata.obsm["X_pca"][part(adata, "drug")]
    # Two equal clouds: the estimate is unbiased for two that are drawn apart, hence below zero.
    assert exact["energy_distance"] == pytest.approx(metrics.energy_distance(y, y))
    assert none["energy_distance"] > 10 * abs(exact["energy_distance"])
    assert none["deg_overlap_top20"] == 0
    assert np.isnan(none["pearson_delta"])


def test_the_replicate_is_about_zero_and_below_the_identity(scores):
    table = pick(scores, group="all")
    replicate = pick(table, method="replicate").set_index("metric")
    for metric in ("energy_distance", "mmd"):
        assert replicate["low"][metric] < 0 < replicate["high"][metric]
    none = values(table, method="identity")
    for metric in ("energy_distance", "mmd", "w2_squared", "sinkhorn_divergence"):
        assert replicate["value"][metric] < none[metric] / 2
    assert replicate["low"]["trace_ratio"] < 1 < replicate["high"]["trace_ratio"]
    assert replicate["value"]["r2_mean"] > none["r2_mean"]


def test_the_baselines_are_not_made_from_evaluated_cells(adata):
    """Treated test cells are far away: a mean shift that was estimated from them would reach them."""
    far = part(adata, "drug")
    del adata.varm["PCs"]  # coordinates alone are changed, and genes would not belong to them
    adata.obsm["X_pca"][far] += 50.0
    table = metrics.evaluate(adata, n_bootstrap=0)
    for method in METHODS[:4]:
        assert values(table, method=method)["energy_distance"] > 100


def test_fallback_is_that_of_the_fit(adata):
    """With it, source cells that are unlike the training cells are moved by the Gaussian map."""
    sh.tl.hycnn_ot(
        adata, "control", "drug", split_key="split", max_steps=20, hidden=(8,), n_ensemble=1, key_added="net"
    )
    (model,) = adata.uns["net"]["models"].values()
    model["blend"] = 1.0
    adata.obsm["X_pca"][part(adata, "control")] += 1000
    del adata.varm["PCs"]
    tables = []
    for fallback in (False, True):
        adata.uns["net"]["params"]["fallback"] = fallback
        tables.append(metrics.evaluate(adata, "net", n_bootstrap=0))
    closed = metrics.evaluate(adata, n_bootstrap=0)
    net, fallen_back = (values(table, method="hycnn_ot")["energy_distance"] for table in tables)
    gaussian = values(tables[0], method="gaussian")
    # The network was trained on fewer cells than the Gaussian map, and the mean shift is that of the latter.
    for method in ("gaussian", "mean_shift"):
        pd.testing.assert_series_equal(values(tables[0], method=method), values(closed, method=method))
    assert net != gaussian["energy_distance"]
    assert fallen_back == pytest.approx(gaussian["energy_distance"], rel=1e-5)


# ---- intervals


def two_conditions(x, y):
    obs = pd.DataFrame({"condition": np.repeat(["control", "drug"], [len(x), len(y)])})
    obs.index = [f"cell{i}" for i in range(len(obs))]
    return AnnData(obs=obs, obsm={"X_pca": np.concatenate([x, y])})


@pytest.mark.parametrize("n_experiments", [40, pytest.param(100, marks=pytest.mark.slow)])
def test_intervals_cover(n_experiments):
    """Of all experiments, about 95 % of the intervals contain the mean of all experiments.

    The fit moves cells by 0.3 to one side, and the target is 1.2 away on the other side, so that the Gaussian map is
    a little worse than the identity. The interval of their difference shows it, where the intervals of both overlap:
    what the cells share cancels.
    """
    rng = np.random.default_rng(2)
    x = rng.normal(size=(400, 2)) * [2, 1]
    fit = two_conditions(x, x + np.array([0.3, 0]))
    sh.tl.hycnn_ot(fit, "control", "drug", potential="gaussian")
    tables = []
    for seed in range(n_experiments):
        x, y = rng.normal(size=(2, 80, 2)) * [2, 1]
        adata = two_conditions(x, y - np.array([1.2, 0]))
        adata.uns = fit.uns
        table = metrics.evaluate(adata, mask_obs=np.ones(160, dtype=bool), n_bootstrap=40, rng=seed)
        tables.append(table.set_index(["method", "metric"]))
    for metric in OF_CLOUDS:
        for name, low, high in (("value", "low", "high"), ("vs_gaussian", "vs_gaussian_low", "vs_gaussian_high")):
            rows = pd.DataFrame([table.loc["identity", metric] for table in tables])
            covered = rows[name].mean().clip(rows[low], rows[high]) == rows[name].mean()
            half = (rows[high] - rows[low]).mean() / 2
            assert 0.88 <= covered.mean() <= 1, (metric, name)
            assert half == pytest.approx(1.96 * rows[name].std(), rel=0.4), (metric, name)
    distances = [table.xs("energy_distance", level="metric") for table in tables]
    assert np.mean([table["vs_gaussian_high"]["identity"] < 0 for table in distances]) > 0.5
    assert np.mean([table["high"]["identity"] < table["low"]["gaussian"] for table in distances]) < 0.1


def test_intervals_of_genes_are_as_wide_as_values_scatter(fitted):
    tables = []
    for seed in range(1, 21):
        adata = make_cells(120, seed=seed)
        adata.uns, adata.obs["split"] = fitted.uns, "test"
        tables.append(pick(metrics.evaluate(adata, n_bootstrap=30), method="mean_shift").set_index("metric"))
    for metric in ("r2_mean", "pearson_delta"):
        rows = pd.DataFrame([table.loc[metric] for table in tables])
        assert 0.5 < (rows["high"] - rows["low"]).mean() / (2 * 1.96 * rows["value"].std()) < 2, metric


def test_the_seed_decides_and_without_bootstrap_there_are_no_intervals(adata, scores):
    state = np.random.get_state()[1].copy()
    first = metrics.evaluate(adata, n_bootstrap=5, rng=3)
    pd.testing.assert_frame_equal(metrics.evaluate(adata, n_bootstrap=5, rng=np.random.default_rng(3)), first)
    assert not metrics.evaluate(adata, n_bootstrap=5, rng=4)["low"].equals(first["low"])
    assert np.array_equal(np.random.get_state()[1], state)
    table = metrics.evaluate(adata, n_bootstrap=0)
    assert table.loc[~table["method"].isin(["replicate", "ceiling"]), ["low", "high"]].isna().all(axis=None)
    same = pick(scores[scores["metric"] != "kept_group"], group="all")
    np.testing.assert_allclose(table["value"], same["value"], rtol=1e-6)


# ---- which cells


def test_poisoned_training_cells_change_nothing(adata):
    before = metrics.evaluate(adata, groupby="cell_type", n_bootstrap=5)
    training = (adata.obs["split"] == "train").to_numpy()
    adata.X[training] = np.nan
    adata.obsm["X_pca"][training] = np.nan
    adata.obsm["X_hycnn_ot"][:] = 1e6  # the map is asked, not the slot
    pd.testing.assert_frame_equal(metrics.evaluate(adata, groupby="cell_type", n_bootstrap=5), before)


def test_the_split_of_the_fit_is_the_default(adata):
    default = metrics.evaluate(adata, n_bootstrap=0)
    pd.testing.assert_frame_equal(metrics.evaluate(adata, split_key="split", n_bootstrap=0), default)
    test = (adata.obs["split"] == "test").to_numpy()
    pd.testing.assert_frame_equal(metrics.evaluate(adata, mask_obs=test, n_bootstrap=0), default)
    a = (adata.obs["cell_type"] == "a").to_numpy()
    both = metrics.evaluate(adata, split_key="split", mask_obs=a, n_bootstrap=0)
    assert (both["n_source"] == len(part(adata, "control", "a"))).all()


def note_of(table):
    (note,) = table.attrs["notes"]
    return note


def test_without_a_split_all_cells_are_evaluated_and_the_notes_say_it(adata):
    sh.tl.hycnn_ot(adata, "control", "drug", potential="gaussian", key_added="seen")
    table = metrics.evaluate(adata, "seen", n_bootstrap=0)
    assert (table["n_source"] == 200).all()
    assert "All cells are evaluated" in note_of(table)
    assert "'seen'" in note_of(table)


def test_tl_evaluate_logs_the_notes(adata, capsys):
    """After the scores are stored, and not as a Python warning: with ``-W error`` they would be lost."""
    before, sc.settings.logfile = sc.settings.logfile, sys.stderr
    try:
        sh.tl.evaluate(adata, mask_obs=np.ones(adata.n_obs, dtype=bool), n_bootstrap=0)
    finally:
        sc.settings.logfile = before
    assert "200 of the 400" in capsys.readouterr().err
    assert len(sh.get.evaluation(adata))


def test_cells_that_the_fit_has_seen_are_counted(adata):
    table = metrics.evaluate(adata, mask_obs=np.ones(adata.n_obs, dtype=bool), n_bootstrap=0)
    assert "200 of the 400" in note_of(table)
    train = (adata.obs["split"] == "train").to_numpy()
    sh.tl.hycnn_ot(adata, "control", "drug", mask_obs=train, potential="gaussian", key_added="masked")
    assert metrics.evaluate(adata, "masked", mask_obs=~train, n_bootstrap=0).attrs["notes"] == []
    rows = np.concatenate([part(adata, "control"), part(adata, "control", split="train")[:50], part(adata, "drug")])
    table = metrics.evaluate(adata, "masked", mask_obs=np.isin(np.arange(400), rows), n_bootstrap=0)
    n_seen, n_evaluated = np.intersect1d(rows, np.flatnonzero(train)).size, np.unique(rows).size
    assert f"{n_seen} of the {n_evaluated}" in note_of(table)
    others = adata[~train][:150].copy()
    assert metrics.evaluate(others, "masked", mask_obs=np.ones(150, dtype=bool), n_bootstrap=0).attrs["notes"] == []


def test_a_split_that_was_written_again_is_noted():
    adata = make_cells()
    del adata.obs["split"]
    sh.pp.split(adata, stratify="condition")
    sh.tl.hycnn_ot(adata, "control", "drug", split_key="split", potential="gaussian")
    assert metrics.evaluate(adata, n_bootstrap=0).attrs["notes"] == []
    with pytest.warns(UserWarning, match="Replacing"):
        sh.pp.split(adata, stratify="condition", rng=1)
    assert "was made from" in note_of(metrics.evaluate(adata, n_bootstrap=0))


def test_small_groups_are_left_out_and_noted(adata):
    rare = adata.obs["cell_type"].to_numpy(dtype=object)
    rare[part(adata, "control", "a")[:9]] = "rare"
    rare[part(adata, "drug", "a")[:12]] = "rare"
    rare[part(adata, "control", "b")[:5]] = None
    adata.obs["cell_type"] = rare
    table = metrics.evaluate(adata, groupby="cell_type", n_bootstrap=0)
    assert "fewer than 10" in note_of(table)
    assert "rare (9 and 12)" in note_of(table)
    assert table["group"].unique().tolist() == ["all, same composition", "all", "a", "b"]
    assert (pick(table, group="all")["n_source"] == 100).all()
    # Of hundreds of small groups, the first 20 are named.
    adata.obs["cell_type"] = pd.Categorical(np.arange(adata.n_obs) % 80)
    table = metrics.evaluate(adata, groupby="cell_type", n_bootstrap=0)
    assert set(table["group"]) == {"all"}
    assert " more" in note_of(table)
    assert len(note_of(table)) < 1000


def test_ten_cells_are_enough():
    """Halves of five, of which a replicate may draw one alone."""
    adata = make_cells(20)
    sh.tl.hycnn_ot(adata, "control", "drug", mask_obs=np.ones(40, dtype=bool), potential="gaussian")
    adata.uns["hycnn_ot"]["n_training"] = {}
    table = metrics.evaluate(adata, mask_obs=(adata.obs["split"] == "test").to_numpy(), n_bootstrap=300)
    has_value = table["value"].notna()
    assert np.isfinite(table.loc[has_value, ["low", "high"]]).all(axis=None)


def test_cells_that_are_all_equal(adata):
    del adata.varm["PCs"]  # as above
    adata.obsm["X_pca"][part(adata, "drug")] = 1.0
    table = metrics.evaluate(adata, n_bootstrap=5)
    assert table["value"][table["metric"] == "trace_ratio"].isna().all()
    assert pick(table, method="replicate", metric="energy_distance")["value"].item() == 0


def test_several_targets(adata):
    labels = adata.obs["condition"].to_numpy(dtype=object)
    labels[np.flatnonzero(labels == "drug")[::2]] = "other/drug"
    adata.obs["condition"] = labels
    sh.tl.hycnn_ot(adata, "control", ["drug", "other/drug"], split_key="split", potential="gaussian", key_added="two")
    table = metrics.evaluate(adata, "two", n_bootstrap=0)
    assert table["target"].unique().tolist() == ["drug", "other/drug"]
    one = metrics.evaluate(adata, "two", target="other/drug", n_bootstrap=0)
    both = pick(table, target="other/drug").reset_index(drop=True)
    pd.testing.assert_frame_equal(one, both)


# ---- the way to genes


@pytest.mark.parametrize("lost", ["loadings", "expression"])
def test_no_way_to_genes(adata, lost):
    if lost == "loadings":
        del adata.varm["PCs"]
    else:
        adata.X = None
    table = metrics.evaluate(adata, n_bootstrap=0)
    assert table["metric"].unique().tolist() == OF_CLOUDS
    assert "'X_pca'" in note_of(table)


def test_without_pot(adata, monkeypatch):
    monkeypatch.setattr(_evaluate, "find_spec", lambda _: None)
    table = metrics.evaluate(adata, n_bootstrap=0)
    assert table["metric"].unique().tolist() == [name for name in OF_CLOUDS + OF_GENES if name != "w2_squared"]
    assert "pip install 'scot-hycnn[ot]'" in note_of(table)


def test_a_decoder_serves_all_methods(adata):
    mixing = np.random.default_rng(0).normal(size=(3, N_GENES))
    decoder = lambda points: np.exp(points @ mixing / 10)  # noqa: E731
    table = metrics.evaluate(adata, decoder=decoder, n_bootstrap=0)
    x, observed = adata.obsm["X_pca"][part(adata, "control")], adata.X[part(adata, "drug")]
    assert values(table, method="identity")["r2_mean"] == pytest.approx(metrics.r2_mean(decoder(x), observed), rel=1e-4)


def test_maps_of_expression_itself(adata):
    few = adata[:, :6].copy()
    sh.tl.hycnn_ot(few, "control", "drug", use_rep="X", split_key="split", potential="gaussian", key_added="genes")
    table = metrics.evaluate(few, "genes", n_bootstrap=0)
    x, y = few.X[part(few, "control")], few.X[part(few, "drug")]
    moved = sh.get.model(few, "genes").transport(x)
    found = values(table, method="hycnn_ot")
    assert found["pearson_delta"] == pytest.approx(metrics.pearson_delta(moved, y, x), rel=1e-4)
    assert "r2_mean_top20" not in found  # of six genes


def test_a_layer(adata):
    shift = np.arange(N_GENES)  # the same for all cells: a PCA does not see it
    adata.layers["shifted"] = adata.X + shift
    adata.X = 2 * adata.X
    loadings = adata.varm["PCs"]
    x_rows, y_rows = part(adata, "control"), part(adata, "drug")
    change = sh.get.model(adata).transport(adata.obsm["X_pca"][x_rows]) - adata.obsm["X_pca"][x_rows]
    wanted = metrics.r2_mean(adata.layers["shifted"][x_rows] + change @ loadings.T, adata.layers["shifted"][y_rows])
    table = metrics.evaluate(adata, layer="shifted", n_bootstrap=0)
    assert values(table, method="hycnn_ot")["r2_mean"] == pytest.approx(wanted, rel=1e-4)
    with pytest.raises(ValueError, match=r"adata.X does not hold the values.*Pass layer='shifted', which fits"):
        metrics.evaluate(adata, n_bootstrap=0)


# ---- errors

CASES = {
    "no fit": ({"key": "nix"}, "'nix'"),
    "target": ({"target": "nix"}, "target='nix'"),
    "groupby": ({"groupby": "nix"}, "groupby='nix'"),
    "all": ({"groupby": "all_of_them"}, "'all'"),
    "mask": ({"mask_obs": "nix"}, "mask_obs='nix'"),
    "split": ({"split_key": "nix"}, "split_key='nix'"),
    "no test": ({"split_key": "cell_type"}, r"'test'.*\['a', 'b'\]"),
    "layer": ({"layer": "nix"}, "layer='nix'"),
    "replicates": ({"n_bootstrap": 1}, "n_bootstrap=1"),
    "negative": ({"n_bootstrap": -5}, "n_bootstrap=-5"),
    "shape": ({"decoder": lambda points: points}, r"\(100, 3\).*\(100, 40\)"),
    "few cells": ({"mask_obs": np.arange(400) < 9}, r"fewer than 10 .*all \("),
}


def test_errors_name_the_value(adata):
    adata.obs["all_of_them"] = "all"
    for options, message in CASES.values():
        with pytest.raises(ValueError, match=message):
            metrics.evaluate(adata, **options)
    # As where a donor without treated cells is held out.
    controls = (adata.obs["condition"] == "control").to_numpy()
    with pytest.raises(ValueError, match=r"nothing to score.*all \(\d+ and 0\)"):
        metrics.evaluate(adata, mask_obs=controls, groupby="cell_type")


def test_a_decoder_that_is_no_function(adata):
    with pytest.raises(TypeError, match="int"):
        metrics.evaluate(adata, decoder=3)


def test_a_map_that_sends_cells_to_infinity(adata):
    fitted = sh.get.model(adata)
    far = replace(fitted.coordinates, mean_y=fitted.coordinates.mean_y + 1e20)
    adata.uns["hycnn_ot"]["models"]["drug"] = replace(fitted, coordinates=far).to_dict()
    with pytest.raises(ValueError, match="'gaussian'"):
        metrics.evaluate(adata, n_bootstrap=0)
