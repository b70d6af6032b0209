"""The summary of a screen, and which of its conditions act alike."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest

import scot_hycnn as sh
from scot_hycnn.metrics import energy_distance

# Conditions with a known answer: names, shifts of the two groups of cells, and cells of each group.
SHIFTS = {"none 1": (0, 0), "none 2": (0, 0), "all": (4, 4), "same": (2, 2), "back": (-3, -3), "half": (0, 5)}


def screen(n=60, seed=0):
    """Cells of a control and six conditions in two groups, which lie far apart, in shuffled order."""
    rng = np.random.default_rng(seed)
    design = [("control", group, n) for group in (0, 1)]
    design += [(name, group, n // 2) for name in SHIFTS for group in (0, 1)]
    condition = np.concatenate([np.repeat(name, size) for name, _, size in design])
    group = np.concatenate([np.repeat(code, size) for _, code, size in design])
    x = rng.normal(size=(len(group), 3)) + 8 * group[:, None] * [0, 1, 0]
    x[:, 0] += [SHIFTS.get(name, (0, 0))[code] for name, code in zip(condition, group, strict=True)]
    obs = pd.DataFrame({"condition": pd.Categorical(condition), "group": pd.Categorical(group.astype(str))})
    obs.index = [f"cell{i}" for i in range(len(obs))]
    adata = anndata.AnnData(obs=obs, obsm={"X_pca": x.astype(np.float32)})
    return adata[rng.permutation(adata.n_obs)].copy()


def fit(adata, **options):
    options = {"groupby": "condition", "potential": "gaussian"} | options
    sh.tl.hycnn_ot(adata, "control", list(SHIFTS), **options)
    return adata


@pytest.fixture(scope="module")
def fitted():
    return fit(screen(), group_key="group")


@pytest.fixture
def adata(fitted):
    return fitted.copy()


def everyone(table):
    return table[table["group"] == "all"].set_index("condition")


# ---- summary


def test_verdicts_of_known_responses(adata):
    table = sh.get.summary(adata)
    assert len(table) == len(SHIFTS) * 3
    overall = everyone(table)
    assert overall.loc[["none 1", "none 2"], "verdict"].tolist() == ["no response"] * 2
    assert (overall.drop(index=["none 1", "none 2", "half"])["verdict"] == "predicted as well as a replicate").all()
    half = table[table["condition"] == "half"].set_index("group")
    assert half.loc["0", "verdict"] == "no response"
    assert half.loc["all", "p_adjusted"] < 0.01
    assert overall.loc["all", "displacement"] == pytest.approx(4, abs=0.6)
    assert (overall["n_source"] == 120).all()
    assert (overall["n_target"] == 60).all()
    assert not overall["held_out"].any()


def test_where_no_change_is_as_near_as_a_replicate_nothing_is_called_good(adata):
    # A test on many cells may see a response that is lost in the noise of the distance.
    adata.uns["hycnn_ot"]["validation"]["none_1"]["p_no_change"] = 1e-9
    row = everyone(sh.get.summary(adata)).loc["none 1"]
    assert row["no_change"] < row["replicate"]
    assert row["verdict"] == "responds, too few cells to score"
    assert np.isnan(row["explained"])


def test_distances_are_energy_distances(adata):
    table = sh.get.summary(adata, groupby="group")
    row = table[(table["condition"] == "same") & (table["group"] == "1")].iloc[0]
    of = {name: (adata.obs["condition"] == name) & (adata.obs["group"] == "1") for name in ("control", "same")}
    x, y = (adata.obsm["X_pca"][rows.to_numpy()] for rows in of.values())
    moved = adata.obsm["X_hycnn_ot_same"][of["control"].to_numpy()]
    assert row["no_change"] == pytest.approx(energy_distance(x, y))
    assert row["predicted"] == pytest.approx(energy_distance(moved, y))
    assert row["explained"] == pytest.approx(1 - row["predicted"] / row["no_change"])
    # All cells: the mean over groups by their shares of the source.
    means = table[(table["condition"] == "same") & (table["group"] != "all")]["no_change"].mean()
    assert everyone(table).loc["same", "no_change"] == pytest.approx(means)


def test_five_in_a_hundred_replicates_are_above_the_replicate(adata):
    rng, above = np.random.default_rng(0), []
    labels, group = adata.obs["condition"].astype(str), adata.obs["group"].astype(int).to_numpy()

    def drawn(shifts):
        points = rng.normal(size=(adata.n_obs, 3)) + 8 * group[:, None] * [0, 1, 0]
        points[:, 0] += np.asarray(shifts)
        return points

    for _ in range(20):
        adata.obsm["X_pca"] = drawn([SHIFTS.get(name, (0, 0))[code] for name, code in zip(labels, group, strict=True)])
        for name, shifts in SHIFTS.items():  # perfect predictions: new draws of the responses
            adata.obsm[f"X_hycnn_ot_{name.replace(' ', '_')}"] = drawn(np.array(shifts)[group])
        table = sh.get.summary(adata, max_cells=40)
        above += (table["predicted"] > table["replicate"]).tolist()
    assert np.mean(above) == pytest.approx(0.05, abs=0.035)


def test_a_wrong_map_is_not_called_good(adata):
    x = adata.obsm["X_pca"]
    adata.obsm["X_hycnn_ot_all"] = x - [4, 0, 0]
    adata.obsm["X_hycnn_ot_same"] = x + np.array([1, 0, 0])
    verdicts = everyone(sh.get.summary(adata))["verdict"]
    assert verdicts["all"] == "not predicted"
    assert verdicts["same"] == "partly predicted"


def test_maps_without_moved_cells_give_the_same(adata):
    alone = fit(screen(), group_key="group", predict=False)
    pd.testing.assert_frame_equal(sh.get.summary(alone), sh.get.summary(adata), rtol=1e-4)


def test_the_order_of_cells_and_of_conditions_makes_no_difference(adata):
    shuffled = adata[np.random.default_rng(1).permutation(adata.n_obs)].copy()
    slots = dict(reversed(adata.uns["hycnn_ot"]["targets"].items()))
    shuffled.uns["hycnn_ot"] = adata.uns["hycnn_ot"] | {"targets": slots}
    first, second = (
        sh.get.summary(cells, max_cells=30).sort_values(["condition", "group"], ignore_index=True)
        for cells in (adata, shuffled)
    )
    pd.testing.assert_frame_equal(first, second)
    alike = [sh.get.similarity(cells, max_cells=50)["cosine"].loc["all", "half"] for cells in (adata, shuffled)]
    assert alike[0] == pytest.approx(alike[1])


def test_held_out_cells_are_used_where_there_is_a_split():
    adata = screen(n=120)
    sh.pp.split(adata, test_size=0.4, stratify=["condition", "group"])
    fit(adata, split_key="split")
    table = sh.get.summary(adata)
    assert table["held_out"].all()
    assert (table["n_source"] == 96).all()
    assert (table["n_target"] == 48).all()


def test_a_shift_of_proportions_is_no_response():
    adata = screen(n=100)
    few = (adata.obs["condition"] == "none 1") & (adata.obs["group"] == "1")
    adata = adata[~few | (np.arange(adata.n_obs) % 4 == 0)].copy()
    fit(adata)
    assert everyone(sh.get.summary(adata)).loc["none 1", "p_adjusted"] < 0.05
    assert everyone(sh.get.summary(adata, groupby="group")).loc["none 1", "verdict"] == "no response"


def test_few_cells_have_no_verdict(adata):
    labels = adata.obs["group"].astype(str).to_numpy()
    half = np.flatnonzero((adata.obs["condition"] == "all") & (labels == "1"))
    labels[half[5:]] = "0"
    adata.obs["group"] = pd.Categorical(labels)
    table = sh.get.summary(adata).set_index(["condition", "group"])
    assert table.loc["all", "1"]["verdict"] == "too few cells"
    assert np.isnan(table.loc["all", "1"]["no_change"])


def test_a_single_responder_among_many_conditions_is_found():
    # One of 199 permutations has p = .005, which is .2 after correction for 40 conditions.
    rng = np.random.default_rng(0)
    labels = np.repeat(["control", *(f"c{i}" for i in range(40))], [100, *[25] * 40])
    x = rng.normal(size=(len(labels), 2))
    x[labels == "c7"] += 1.5
    adata = anndata.AnnData(obs=pd.DataFrame({"condition": labels}, index=[f"cell{i}" for i in range(len(labels))]))
    adata.obsm["X_pca"] = x
    names = [f"c{i}" for i in range(40)]
    sh.tl.hycnn_ot(adata, "control", names, potential="gaussian", predict=False)
    table = sh.get.summary(adata)
    assert table["condition"][table["verdict"] != "no response"].tolist() == ["c7"]


# ---- similarity


def test_similarity_of_known_shifts(adata):
    table = sh.get.similarity(adata)
    cosine, distance, response = table["cosine"], table["distance"], table["response"]
    assert response.index[response["seen"].astype(bool)].tolist() == ["all", "same", "back", "half"]
    assert cosine.loc["all", "same"] > 0.95
    assert cosine.loc["all", "back"] < -0.95
    assert distance.loc["all", "back"] == pytest.approx(7, abs=0.8)
    assert distance.loc["all", "same"] == pytest.approx(2, abs=0.8)
    # 'half' moves one half of the cells by 5 and the other by 0; 'same' moves all by 2.
    assert distance.loc["half", "same"] == pytest.approx(np.sqrt((4 + 9) / 2), abs=0.8)
    for values in (cosine.to_numpy(), distance.to_numpy()):
        np.testing.assert_allclose(values, values.T)
    np.testing.assert_allclose(np.diag(cosine), 1)
    assert not np.diag(distance).any()


def test_distances_of_maps_are_those_of_the_moved_cells(adata):
    control = (adata.obs["condition"] == "control").to_numpy()
    a, b = adata.obsm["X_hycnn_ot_all"][control], adata.obsm["X_hycnn_ot_half"][control]
    expected = np.sqrt(((a - b) ** 2).sum(axis=1).mean())
    assert sh.get.similarity(adata)["distance"].loc["all", "half"] == pytest.approx(expected, rel=1e-4)


def test_wrong_arguments(adata):
    for function in (sh.get.summary, sh.get.similarity):
        with pytest.raises(ValueError, match="max_cells"):
            function(adata, max_cells=1)
        with pytest.raises(ValueError, match="'other'"):
            function(adata, "other")
    with pytest.raises(ValueError, match="'no'"):
        sh.get.summary(adata, groupby="no")
