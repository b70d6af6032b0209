"""Scores of all cells with the same composition, and the share of cells that keep their group: known answers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import scot_hycnn as sh
from scot_hycnn import metrics

SAME = "all, same composition"
# Groups lie far apart; treated cells of each group are control cells of other seeds, moved by a shift.
CENTRES = np.array([[0.0, 0.0, 0.0], [20.0, 0.0, 0.0], [0.0, 20.0, 0.0]])
SHIFT = np.array([0.0, 0.0, 3.0])


def cells_of(sizes, rng, shift=0.0):
    codes = np.repeat(np.arange(3), sizes)
    return CENTRES[codes] + rng.normal(size=(len(codes), 3)) + shift, np.array(["a", "b", "c"])[codes]


def two_conditions(source=(300, 100, 50), target=(100, 300, 50), seed=0, shift=SHIFT):
    """Control and treated cells of other proportions, and a fit that moves each cell by the shift."""
    rng = np.random.default_rng(seed)
    (x, of_x), (y, of_y) = cells_of(source, rng), cells_of(target, rng, shift)
    obs = pd.DataFrame({"condition": np.repeat(["control", "drug"], [len(x), len(y)])})
    obs["type"] = np.concatenate([of_x, of_y])
    obs.index = [f"cell{i}" for i in range(len(obs))]
    adata = AnnData(obs=obs, obsm={"X_pca": np.concatenate([x, y])})
    order = rng.permutation(adata.n_obs)
    return adata[order].copy()


@pytest.fixture(scope="module")
def fitted():
    """One Gaussian of each group has the same covariance, so that the Gaussian map with groups is the shift."""
    adata = two_conditions()
    sh.tl.hycnn_ot(adata, "control", "drug", potential="gaussian", group_key="type", key_added="groups")
    sh.tl.hycnn_ot(adata, "control", "drug", potential="gaussian", key_added="hycnn_ot")
    return adata


@pytest.fixture(scope="module")
def tables(fitted):
    return {key: metrics.evaluate(fitted, key) for key in ("groups", "hycnn_ot")}


def pick(table, **labels):
    for name, label in labels.items():
        table = table[table[name] == label]
    return table


def value(table, group, method, metric):
    return pick(table, group=group, method=method, metric=metric)["value"].item()


def test_groups_are_those_of_the_fit_or_those_that_differ(tables):
    for table in tables.values():
        assert list(dict.fromkeys(table["group"])) == [SAME, "all", "a", "b", "c"]
    # Without groups in the fit, a note says which column was taken.
    assert any("'type'" in note for note in tables["hycnn_ot"].attrs["notes"])
    assert not any("'type'" in note for note in tables["groups"].attrs["notes"])


def test_a_perfect_map_is_at_the_replicate_with_the_same_composition_only(tables):
    """The map of groups moves all cells right: without weights, the change of proportions is taken for an error."""
    table = tables["groups"]
    weighted, plain = (
        pick(table, group=group, metric="energy_distance").set_index("method") for group in (SAME, "all")
    )
    assert weighted["low"]["hycnn_ot"] < weighted["high"]["replicate"] < 0.1
    assert plain["value"]["hycnn_ot"] > 1 > 10 * weighted["value"]["hycnn_ot"]
    # The map without groups has it the other way round: it carries cells of 'a' to 'b'.
    without = [value(tables["hycnn_ot"], group, "hycnn_ot", "energy_distance") for group in (SAME, "all")]
    assert without[0] > 10 * weighted["value"]["hycnn_ot"]
    assert without[0] > without[1]
    assert without[1] < plain["value"]["hycnn_ot"]


def test_the_weighted_scores_are_those_of_weighted_cells(fitted, tables):
    """Energy distance, MMD² and trace ratio against sums over all pairs of cells with their weights."""
    obs, points = fitted.obs, fitted.obsm["X_pca"]
    is_source = (obs["condition"] == "control").to_numpy()
    x, y = fitted.obsm["X_groups"][is_source].astype(float), points[~is_source]
    x_group, y_group = (obs["type"].to_numpy()[rows] for rows in (is_source, ~is_source))
    share = pd.Series(x_group).value_counts(normalize=True)

    def mean_of_groups(p, q, p_group, q_group, distance):
        total = 0.0
        for g in share.index:
            for h in share.index:
                values = distance(np.linalg.norm(p[p_group == g][:, None] - q[q_group == h], axis=2))
                is_one_cloud = p is q and g == h
                mean = values.sum() / (len(values) * (len(values) - 1)) if is_one_cloud else values.mean()
                total += share[g] * share[h] * mean
        return total

    def energy(distance):
        between = mean_of_groups(x, y, x_group, y_group, distance)
        return 2 * between - sum(
            mean_of_groups(p, p, group, group, distance) for p, group in ((x, x_group), (y, y_group))
        )

    gamma = np.array(tables["groups"].attrs["mmd_gamma"]["drug"][SAME])
    unlike = lambda d: 1 - np.exp(-gamma * np.square(d)[..., None]).mean(axis=-1)  # noqa: E731
    weights = share[y_group].to_numpy() / pd.Series(y_group).value_counts()[y_group].to_numpy()
    spread = (weights[:, None] * np.square(y - np.average(y, axis=0, weights=weights))).sum()
    wanted = {
        "energy_distance": energy(lambda d: d),
        "mmd": energy(unlike),
        "trace_ratio": x.var(axis=0).sum() / spread,
    }
    for metric, expected in wanted.items():
        assert value(tables["groups"], SAME, "hycnn_ot", metric) == pytest.approx(expected, rel=5e-3, abs=1e-5), metric


def test_with_equal_proportions_both_rows_agree():
    adata = two_conditions((200, 100, 100), (100, 50, 50))
    sh.tl.hycnn_ot(adata, "control", "drug", potential="gaussian")
    table = metrics.evaluate(adata, groupby="type", n_bootstrap=0)
    for metric in ("trace_ratio", "kept_group"):
        assert value(table, SAME, "hycnn_ot", metric) == pytest.approx(value(table, "all", "hycnn_ot", metric))
    for method in ("identity", "hycnn_ot"):
        both = [value(table, group, method, "energy_distance") for group in (SAME, "all")]
        assert both[0] == pytest.approx(both[1], abs=0.1)


@pytest.mark.parametrize("n_experiments", [10, pytest.param(20, marks=pytest.mark.slow)])
def test_intervals_with_the_same_composition_cover(n_experiments):
    """Of the experiments with a perfect map, nearly all intervals contain 0, the expected energy distance."""
    fit = two_conditions()
    sh.tl.hycnn_ot(fit, "control", "drug", potential="gaussian", group_key="type")
    covered, values = [], []
    for seed in range(n_experiments):
        adata = two_conditions((60, 30, 20), (30, 60, 20), seed=seed, shift=0.0)
        adata.uns = fit.uns
        table = metrics.evaluate(adata, mask_obs=np.ones(adata.n_obs, dtype=bool), n_bootstrap=40, rng=seed)
        row = pick(table, group=SAME, method="identity", metric="energy_distance")
        values.append(row["value"].item())
        covered.append(row["low"].item() <= 0 <= row["high"].item())
    assert np.mean(values) == pytest.approx(0, abs=3 * np.std(values) / np.sqrt(n_experiments))
    assert np.mean(covered) >= 0.85


def test_small_groups_have_no_part_in_the_row():
    adata = two_conditions((100, 100, 9), (100, 50, 30))
    sh.tl.hycnn_ot(adata, "control", "drug", potential="gaussian")
    table = metrics.evaluate(adata, groupby="type", n_bootstrap=0)
    rows = pick(table, group=SAME)
    assert (rows["n_source"] == 200).all()
    assert (rows["n_target"] == 150).all()
    # With one group of enough cells, the row would be that of the group.
    adata = two_conditions((100, 9, 9), (100, 5, 5))
    sh.tl.hycnn_ot(adata, "control", "drug", potential="gaussian")
    table = metrics.evaluate(adata, groupby="type", n_bootstrap=0)
    assert list(dict.fromkeys(table["group"])) == ["all", "a"]


# ---- the share of cells that keep their group


def test_cells_that_keep_their_group(tables):
    """Groups are far apart: the map of groups keeps all cells in theirs, that without groups only as many as fit."""
    for group in (SAME, "all", "a", "b", "c"):
        assert value(tables["groups"], group, "hycnn_ot", "kept_group") == pytest.approx(1)
        assert value(tables["groups"], group, "replicate", "kept_group") == pytest.approx(1)
    # Of 300 cells of 'a', there are only 100 treated ones among 450.
    assert value(tables["hycnn_ot"], "a", "hycnn_ot", "kept_group") < 0.8
    assert value(tables["hycnn_ot"], SAME, "replicate", "kept_group") == pytest.approx(1)
    (note,) = [note for note in tables["hycnn_ot"].attrs["notes"] if "group_key='type'" in note]
    assert "'a'" in note
    assert not any("group_key=" in note for note in tables["groups"].attrs["notes"])


def test_the_column_repeats_the_metric(tables):
    table = tables["hycnn_ot"]
    of_metric = pick(table, metric="kept_group").set_index(["group", "method"])["value"]
    expected = of_metric.reindex(pd.MultiIndex.from_frame(table[["group", "method"]]))
    np.testing.assert_array_equal(table["kept_group"], expected)


def test_the_replicate_of_a_rare_group_is_below_one():
    """Two groups in the same places: of 15 neighbours, those of the rare group are the fewer even for a perfect map."""
    rng = np.random.default_rng(0)
    obs = pd.DataFrame({"condition": np.repeat(["control", "drug"], 400)}, index=[f"c{i}" for i in range(800)])
    obs["type"] = np.tile(np.where(np.arange(400) < 40, "rare", "common"), 2)
    adata = AnnData(obs=obs, obsm={"X_pca": rng.normal(size=(800, 2))})
    sh.tl.hycnn_ot(adata, "control", "drug", potential="gaussian")
    table = metrics.evaluate(adata, groupby="type")
    replicate = {group: value(table, group, "replicate", "kept_group") for group in ("rare", "common")}
    assert replicate["rare"] < 0.2
    assert replicate["common"] > 0.95
    # A perfect map is as good as the replicate, and nothing is said.
    ours = pick(table, group=SAME, method="hycnn_ot", metric="kept_group")
    assert ours["high"].item() > 0.95 * value(table, SAME, "replicate", "kept_group")
    assert not any("group_key=" in note for note in table.attrs["notes"])


def test_without_groups_there_is_no_share(fitted):
    adata = fitted[:, :].copy()
    del adata.obs["type"]
    table = metrics.evaluate(adata, n_bootstrap=0)
    assert table["kept_group"].isna().all()
    assert "kept_group" not in set(table["metric"])
    assert set(table["group"]) == {"all"}


def test_cells_beyond_those_that_are_looked_at(fitted, monkeypatch):
    from scot_hycnn.metrics import _cloud_scores  # its limits are too large for a test

    full = metrics.evaluate(fitted, n_bootstrap=0)
    monkeypatch.setattr(_cloud_scores, "_MAX_CELLS", 150)
    monkeypatch.setattr(_cloud_scores, "_MAX_OF_GROUP", 20)
    few = metrics.evaluate(fitted, n_bootstrap=0)
    for group in (SAME, "all", "a"):
        shares = [value(table, group, "hycnn_ot", "kept_group") for table in (full, few)]
        assert shares[0] == pytest.approx(shares[1], abs=0.12)


def test_scores_of_older_versions_have_no_share(fitted):
    adata = fitted.copy()
    sh.tl.evaluate(adata, n_bootstrap=0)
    del adata.uns["hycnn_ot_evaluation"]["kept_group"]
    assert sh.get.evaluation(adata)["kept_group"].isna().all()
