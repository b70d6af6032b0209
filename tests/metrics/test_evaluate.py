"""Evaluation: planted answers, equality with the plain metrics, honest intervals, and nothing of the training cells."""

from __future__ import annotations

import sys
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from anndata import AnnData

import scot_hycnn as sh
from scot_hycnn import metrics
from scot_hycnn.metrics import _clouds, _evaluate
from scot_hycnn.metrics._clouds import Cloud, compare
from scot_hycnn.metrics._evaluate import _rows
from scot_hycnn.metrics._scores import Resampling, cloud_scores
from scot_hycnn.metrics._sinkhorn_divergence import default_epsilon

METHODS = ["identity", "mean_shift", "gaussian", "hycnn_ot", "floor"]
OF_CLOUDS = ["energy_distance", "mmd", "w2_squared", "sinkhorn_divergence", "trace_ratio"]
OF_GENES = ["r2_mean", "r2_mean_top20", "pearson_delta", "deg_overlap_top20"]
SHIFT = np.array([3.0, 0.0, -1.0])
N_GENES = 40
GAMMAS = np.array([1.0, 0.1])


def make_cells(n=200, *, seed=0, shift=SHIFT, paired=False):
    """n control and n treated cells of types 'a' and 'b', in shuffled order, half of them for training.

    With ``paired``, treated cells are the control cells moved by the shift, among training and test cells each.
    """
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(2 * n, 3)) * [3, 2, 1]
    residual = rng.normal(size=(2 * n, N_GENES)) + 5 * np.random.default_rng(1).random(N_GENES)
    loadings = np.linalg.qr(np.random.default_rng(2).normal(size=(N_GENES, 3)))[0]
    residual -= residual @ loadings @ loadings.T  # what no component sees
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


@pytest.fixture
def adata():
    adata = make_cells()
    sh.tl.hycnn_ot(adata, "control", "drug", split_key="split", potential="gaussian")
    return adata


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


def test_rows_and_columns(adata):
    table = metrics.evaluate(adata, groupby="cell_type")
    assert table.columns.tolist() == [
        "target", "group", "method", "metric", "value", "low", "high",
        "vs_gaussian", "vs_gaussian_low", "vs_gaussian_high", "n_source", "n_target",
    ]  # fmt: skip
    wanted = [(g, method, metric) for g in ("all", "a", "b") for method in METHODS for metric in OF_CLOUDS + OF_GENES]
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


def test_the_difference_to_the_gaussian_map(adata):
    table = metrics.evaluate(adata, groupby="cell_type").set_index(["group", "metric", "method"])
    gaussian = table["value"].xs("gaussian", level="method")
    for method in METHODS:
        rows = table.xs(method, level="method")
        np.testing.assert_allclose(rows["vs_gaussian"], rows["value"] - gaussian, atol=1e-12)
        known = rows[rows["vs_gaussian"].notna()]
        assert (known["vs_gaussian_low"] <= known["vs_gaussian"]).all()
        assert (known["vs_gaussian"] <= known["vs_gaussian_high"]).all()
    of_gaussian = table.xs("gaussian", level="method")[["vs_gaussian", "vs_gaussian_low", "vs_gaussian_high"]]
    assert (of_gaussian == 0).all(axis=None)


@pytest.mark.parametrize("group", ["all", "a"])
@pytest.mark.parametrize("method", METHODS[:4])
def test_the_plain_metrics_of_the_same_cells(adata, group, method):
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
    table = metrics.evaluate(adata, groupby="cell_type", n_bootstrap=0)
    found, gamma = values(table, group=group, method=method), table.attrs["mmd_gamma"]["drug"][group]
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


def test_couplings_are_those_of_the_plain_metrics():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50, 3)), 1 + 2 * rng.normal(size=(40, 3))
    epsilon = default_epsilon(y)
    x_cloud, y_cloud = (
        Cloud.of(cells, np.ones((1, len(cells))), np.arange(len(cells)), n_coupled=30, epsilon=epsilon, gammas=GAMMAS)
        for cells in (x, y)
    )
    scores = compare(x_cloud, y_cloud, epsilon=epsilon, gammas=GAMMAS, with_w2=True)
    assert scores["mmd"] == pytest.approx(metrics.mmd(x, y, gamma=GAMMAS))
    assert scores["w2_squared"] == pytest.approx(metrics.w2(x[:30], y[:30]))
    plain = metrics.sinkhorn_divergence(x[:30], y[:30], epsilon=epsilon)
    assert scores["sinkhorn_divergence"] == pytest.approx(plain, rel=1e-5)


def test_large_clouds_are_drawn_at_random_for_pairs_alone(adata, monkeypatch):
    full = metrics.evaluate(adata, n_bootstrap=0)
    for name, size in (("MAX_ENERGY", 60), ("MAX_MMD", 40), ("MAX_COUPLED", 20)):
        monkeypatch.setattr(_clouds, name, size)
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


def test_the_floor_is_about_zero_and_below_the_identity(adata):
    table = metrics.evaluate(adata)
    floor = pick(table, method="floor").set_index("metric")
    for metric in ("energy_distance", "mmd"):
        assert floor["low"][metric] < 0 < floor["high"][metric]
    none = values(table, method="identity")
    for metric in ("energy_distance", "mmd", "w2_squared", "sinkhorn_divergence"):
        assert floor["value"][metric] < none[metric] / 2
    assert floor["low"]["trace_ratio"] < 1 < floor["high"]["trace_ratio"]
    assert floor["value"]["r2_mean"] > none["r2_mean"]


def test_the_baselines_are_the_fits_and_not_those_of_evaluated_cells(adata):
    """Treated test cells far away: a mean shift fitted on them would reach them."""
    far = part(adata, "drug")
    del adata.varm["PCs"]  # coordinates alone are changed, and genes would not belong to them
    adata.obsm["X_pca"][far] += 50.0
    table = metrics.evaluate(adata, n_bootstrap=0)
    for method in METHODS[:4]:
        assert values(table, method=method)["energy_distance"] > 100


def test_gaussian_is_the_blend_zero_of_the_same_fit(adata):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="solver.fit")
        sh.tl.hycnn_ot(
            adata, "control", "drug", split_key="split", max_steps=20, hidden=(8,), n_ensemble=1, key_added="net"
        )
    for model in adata.uns["net"]["models"].values():
        model["blend"] = 1.0
    net, closed = (metrics.evaluate(adata, key, n_bootstrap=0) for key in ("net", "hycnn_ot"))
    pd.testing.assert_series_equal(values(net, method="gaussian"), values(closed, method="gaussian"))
    assert values(net, method="hycnn_ot")["energy_distance"] != values(net, method="gaussian")["energy_distance"]


def test_fallback_is_the_fits(adata, monkeypatch):
    asked = []
    transport = sh.solver.TransportMap.transport
    monkeypatch.setattr(
        sh.solver.TransportMap,
        "transport",
        lambda self, x, **options: (asked.append(options.get("fallback", False)), transport(self, x, **options))[1],
    )
    metrics.evaluate(adata, n_bootstrap=0)
    assert not any(asked)
    adata.uns["hycnn_ot"]["params"]["fallback"] = True
    metrics.evaluate(adata, n_bootstrap=0)
    assert sum(asked) == 1


# ---- intervals


def test_intervals_cover():
    """Of 150 pairs of samples, about 95 % of the intervals hold the value of the distributions."""
    rng = np.random.default_rng(0)
    big = rng.normal(size=(2, 3000, 2)) * [2, 1] + np.array([0, 1])[:, None, None]
    truth = {
        "energy_distance": metrics.energy_distance(*big),
        "mmd": metrics.mmd(*big, gamma=GAMMAS),
        "trace_ratio": 1.0,
    }
    tables = []
    for seed in range(150):
        x, y = rng.normal(size=(2, 60, 2)) * [2, 1] + np.array([0, 1])[:, None, None]
        draws = Resampling.draw(60, 60, 50, np.random.default_rng(seed))
        scores = cloud_scores({"identity": x}, y, draws, gammas=GAMMAS, with_w2=True)
        tables.append({metric: scores["identity", metric] for metric in OF_CLOUDS})
    for metric in OF_CLOUDS:
        value = np.array([table[metric][0] for table in tables])
        half = 1.96 * np.array([table[metric][1:].std(ddof=1) for table in tables])
        # Couplings of samples are biased: their intervals are around the mean of such samples.
        covered = np.abs(value - truth.get(metric, value.mean())) <= half
        assert 0.88 <= covered.mean() <= 1, metric
        assert half.mean() == pytest.approx(1.96 * value.std(), rel=0.25), metric


def test_the_interval_of_a_difference_tells_apart_what_single_intervals_do_not():
    """Two maps that differ by a shift: what cells share cancels, and the interval is as wide as it should be."""
    rng = np.random.default_rng(2)
    differences, halves, apart = [], [], 0
    for _ in range(100):
        x, y = rng.normal(size=(2, 80, 2)) * [2, 1]
        points = {"gaussian": x + np.array([1.5, 0]), "hycnn_ot": x + np.array([1.2, 0])}
        scores = cloud_scores(points, y, Resampling.draw(80, 80, 50, rng), gammas=GAMMAS, with_w2=False)
        table = {method: row for method, metric, *row in _rows(scores) if metric == "energy_distance"}
        value, _, high, difference, difference_low, difference_high = table["hycnn_ot"]
        assert difference == pytest.approx(value - table["gaussian"][0])
        differences.append(difference)
        halves.append((difference_high - difference_low) / 2)
        apart += high < table["gaussian"][1]
    truth = np.mean(differences)
    covered = np.abs(np.array(differences) - truth) <= halves
    assert 0.88 <= covered.mean() <= 1
    assert np.mean(halves) == pytest.approx(1.96 * np.std(differences), rel=0.25)
    assert truth + np.mean(halves) < 0  # told apart, as a rule
    assert apart < 10  # where the values' own intervals overlap, as a rule


def test_intervals_of_genes_are_as_wide_as_values_scatter():
    def run(seed):
        adata = make_cells(120, seed=seed)
        adata.uns, adata.obs["split"] = fit.uns, "test"
        return pick(metrics.evaluate(adata, n_bootstrap=30), method="mean_shift").set_index("metric")

    fit = make_cells()
    sh.tl.hycnn_ot(fit, "control", "drug", split_key="split", potential="gaussian")
    tables = [run(seed) for seed in range(1, 26)]
    for metric in ("r2_mean", "pearson_delta"):
        scatter = np.std([table["value"][metric] for table in tables])
        half = np.mean([(table["high"] - table["low"])[metric] / 2 for table in tables])
        assert 0.5 < half / (1.96 * scatter) < 2, metric


def test_no_bootstrap_no_interval(adata):
    table = metrics.evaluate(adata, n_bootstrap=0)
    assert table.loc[table["method"] != "floor", ["low", "high"]].isna().all(axis=None)
    scores = metrics.evaluate(adata)
    everything = scores.merge(table, on=["group", "method", "metric"], suffixes=("", "_without"))
    np.testing.assert_allclose(everything["value"], everything["value_without"], rtol=1e-6)


def test_same_seed_same_table(adata):
    state = np.random.get_state()[1].copy()
    first = metrics.evaluate(adata, n_bootstrap=5, rng=3)
    pd.testing.assert_frame_equal(metrics.evaluate(adata, n_bootstrap=5, rng=np.random.default_rng(3)), first)
    assert not metrics.evaluate(adata, n_bootstrap=5, rng=4)["low"].equals(first["low"])
    assert np.array_equal(np.random.get_state()[1], state)


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


def test_without_a_split_all_cells_are_evaluated_and_it_says_so(adata):
    sh.tl.hycnn_ot(adata, "control", "drug", potential="gaussian", key_added="seen")
    with pytest.warns(
        UserWarning, match=r"All cells are evaluated, also those .* 'seen' was made from.*pp\.split"
    ) as w:
        table = metrics.evaluate(adata, "seen", n_bootstrap=0)
    assert w[0].filename == __file__
    assert (table["n_source"] == 200).all()


def test_cells_that_the_fit_has_seen_are_counted(adata):
    everyone = np.ones(adata.n_obs, dtype=bool)
    with pytest.warns(UserWarning, match=r"At least 200 of the 400 evaluated cells are cells that the fit") as caught:
        metrics.evaluate(adata, mask_obs=everyone, n_bootstrap=0)
    assert caught[0].filename == __file__
    # Without a split on record, numbers tell as much as they can: 100 of 200 were seen, 150 are evaluated.
    train = (adata.obs["split"] == "train").to_numpy()
    sh.tl.hycnn_ot(adata, "control", "drug", mask_obs=train, potential="gaussian", key_added="masked")
    metrics.evaluate(adata, "masked", mask_obs=~train, n_bootstrap=0)
    rows = np.concatenate([part(adata, "control"), part(adata, "control", split="train")[:50], part(adata, "drug")])
    with pytest.warns(UserWarning, match="At least 50 of the 250 evaluated cells"):
        metrics.evaluate(adata, "masked", mask_obs=np.isin(np.arange(400), rows), n_bootstrap=0)
    # Fewer cells than were trained on cannot be those.
    others = adata[~train].copy()
    others = others[np.r_[:150]].copy()
    others.uns["masked"]["n_training"] = {"source": 1000, "drug": 1000}
    metrics.evaluate(others, "masked", mask_obs=np.ones(150, dtype=bool), n_bootstrap=0)


def test_small_groups_are_left_out_and_named(adata):
    rare = adata.obs["cell_type"].to_numpy(dtype=object)
    rare[part(adata, "control", "a")[:9]] = "rare"
    rare[part(adata, "drug", "a")[:12]] = "rare"
    rare[part(adata, "control", "b")[:5]] = None
    adata.obs["cell_type"] = rare
    with pytest.warns(UserWarning, match=r"fewer than 10 evaluated cells .* 'drug': 'rare' \(9 and 12\)\.") as caught:
        table = metrics.evaluate(adata, groupby="cell_type", n_bootstrap=0)
    assert caught[0].filename == __file__
    assert table["group"].unique().tolist() == ["all", "a", "b"]
    assert (pick(table, group="all")["n_source"] == 100).all()


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
    assert pick(table, method="floor", metric="energy_distance")["value"].item() == 0


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


def read_log(function, capsys):
    before = sc.settings.logfile
    sc.settings.logfile = sys.stderr
    try:
        return function(), capsys.readouterr().err
    finally:
        sc.settings.logfile = before


@pytest.mark.parametrize("lost", ["loadings", "expression"])
def test_no_way_to_genes(adata, lost, capsys):
    if lost == "loadings":
        del adata.varm["PCs"]
    else:
        adata.X = None
    table, log = read_log(lambda: metrics.evaluate(adata, n_bootstrap=0), capsys)
    assert table["metric"].unique().tolist() == OF_CLOUDS
    assert "no metrics of genes: 'X_pca' has no loadings in adata.varm, or there is no expression" in log


def test_without_pot(adata, capsys, monkeypatch):
    monkeypatch.setattr(_evaluate, "find_spec", lambda _: None)
    table, log = read_log(lambda: metrics.evaluate(adata, n_bootstrap=0), capsys)
    assert table["metric"].unique().tolist() == [name for name in OF_CLOUDS + OF_GENES if name != "w2_squared"]
    assert "no w2_squared: POT is not installed; pip install 'scot-hycnn[ot]'" in log


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


# ---- sentences

CASES = {
    "no fit": ({"key": "nix"}, "no fit 'nix'; it has the fits"),
    "target": ({"target": "nix"}, "target='nix' is not a target"),
    "groupby": ({"groupby": "nix"}, "groupby='nix' is not a column of adata.obs; it has"),
    "all": ({"groupby": "all_of_them"}, "has a group 'all', which means all cells here"),
    "mask": ({"mask_obs": "nix"}, "mask_obs='nix' is not a boolean column"),
    "split": ({"split_key": "nix"}, r"split_key='nix' is not a column of adata.obs; .*mask_obs"),
    "no test": ({"split_key": "cell_type"}, r"no cell of .* is labelled 'test'; it has \['a', 'b'\]"),
    "layer": ({"layer": "nix"}, "layer='nix' is not in adata.layers"),
    "replicates": ({"n_bootstrap": 1}, "n_bootstrap=1; it takes 2 or more replicates, or 0"),
    "negative": ({"n_bootstrap": -5}, "n_bootstrap=-5; it takes"),
    "shape": ({"decoder": lambda points: points}, r"decoder returned shape \(100, 3\) .*\(100, 40\)"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_sentence(adata, case):
    options, message = CASES[case]
    adata.obs["all_of_them"] = "all"
    with pytest.raises(ValueError, match=message):
        metrics.evaluate(adata, **options)


def test_nothing_to_score(adata):
    few = np.isin(np.arange(adata.n_obs), part(adata, "control")[:9])
    with (
        pytest.raises(ValueError, match="Fewer than 10 evaluated cells in a condition: there is nothing to score"),
        pytest.warns(UserWarning, match=r"Left out.*'all' \(9 and 0\)"),
    ):
        metrics.evaluate(adata, mask_obs=few)


def test_a_decoder_that_is_no_function(adata):
    with pytest.raises(TypeError, match="decoder is of type int"):
        metrics.evaluate(adata, decoder=3)
