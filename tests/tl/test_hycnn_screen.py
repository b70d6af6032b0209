"""One model for all conditions of a screen, in an AnnData."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest

import scot_hycnn as sh

KEY = "hycnn_screen"
GAUSSIAN = {"groupby": "condition", "potential": "gaussian"}
DOSES = (0.5, 1.0, 2.0, 4.0, 8.0)


def screen(doses=DOSES, n=50, seed=0):
    """Cells of two drugs that move them by the root of the dose, in different directions; the first is 'a'."""
    rng = np.random.default_rng(seed)
    design = [("control", "none", 0.0, 2 * n)] + [
        (f"{drug}/{dose:g}", drug, dose, n) for drug in "ab" for dose in doses
    ]
    obs = pd.concat([pd.DataFrame({"condition": [c] * k, "drug": d, "dose": dose}) for c, d, dose, k in design])
    obs.index = [f"cell{i}" for i in range(len(obs))]
    x = rng.normal(size=(len(obs), 3))
    x[:, 0] += 2 * np.sqrt(obs["dose"]) * (obs["drug"] == "a")
    x[:, 1] += 2 * np.sqrt(obs["dose"]) * (obs["drug"] == "b")
    adata = anndata.AnnData(obs=obs, obsm={"X_pca": x.astype(np.float32)})
    return adata[rng.permutation(adata.n_obs)].copy()


def fit(adata, targets=None, **options):
    options = GAUSSIAN | {"covariate_keys": ["drug", "dose"]} | options
    sh.tl.hycnn_screen(adata, "control", targets, **options)
    return adata


@pytest.fixture(scope="module")
def fitted():
    return fit(screen())


@pytest.fixture
def adata(fitted):
    return fitted.copy()


def control_of(adata):
    return (adata.obs["condition"] == "control").to_numpy()


def mean_move(adata, slot):
    rows = control_of(adata)
    return (adata.obsm[slot][rows] - adata.obsm["X_pca"][rows]).mean(axis=0)


# ---- slots, and what reads them


def test_slots_are_those_of_a_fit_of_several_targets(adata):
    stored = adata.uns[KEY]
    assert stored["source"] == "control"
    assert sorted(stored["targets"].values()) == sorted(f"{drug}/{dose:g}" for drug in "ab" for dose in DOSES)
    assert set(stored["choices"]) == set(stored["targets"])
    assert list(stored["params"]["covariate_keys"]) == ["drug", "dose"]
    np.testing.assert_allclose(mean_move(adata, f"X_{KEY}_a_4"), [4, 0, 0], atol=0.5)
    np.testing.assert_allclose(mean_move(adata, f"X_{KEY}_b_1"), [0, 2, 0], atol=0.5)
    moved = adata.obs[f"{KEY}_displacement_a_4"]
    assert moved.notna().to_numpy().tolist() == control_of(adata).tolist()


def test_everything_that_reads_a_fit_reads_a_screen(adata):
    x = adata.obsm["X_pca"][control_of(adata)]
    fitted = sh.get.model(adata, KEY, "a/4")
    np.testing.assert_allclose(fitted.transport(x), adata.obsm[f"X_{KEY}_a_4"][control_of(adata)], atol=1e-4)
    assert sh.get.transported(adata, KEY, "b/2").n_obs == 250
    sh.tl.evaluate(adata, KEY, target="a/8", n_bootstrap=0)
    scores = sh.get.evaluation(adata, KEY).set_index(["method", "metric"])["value"]
    assert scores["hycnn_ot", "energy_distance"] < 0.1 * scores["identity", "energy_distance"]
    assert (sh.get.summary(adata)["verdict"] == "predicted as well as a replicate").mean() > 0.8
    cosine = sh.get.similarity(adata)["cosine"]
    assert cosine.loc["a/4", "a/8"] > 0.95
    assert abs(cosine.loc["a/4", "b/4"]) < 0.3


def test_a_file_is_complete(adata, tmp_path):
    adata.write_h5ad(tmp_path / "screen.h5ad")
    read = anndata.read_h5ad(tmp_path / "screen.h5ad")
    sh.tl.transport(read, KEY, target="a/4", key_added="again")
    np.testing.assert_allclose(read.obsm["X_again_a_4"], adata.obsm[f"X_{KEY}_a_4"], atol=1e-5)
    for cells in (adata, read):
        sh.tl.transport(cells, KEY, covariates={"drug": "a", "dose": 3})
    np.testing.assert_allclose(read.obsm[f"X_{KEY}_drug_a_dose_3"], adata.obsm[f"X_{KEY}_drug_a_dose_3"], atol=1e-5)


def test_networks_and_training_of_a_screen_are_stored_once_and_found_again(tmp_path):
    adata, quick = sh.datasets.screen_planted(6, 80), {"max_steps": 20, "hidden": (32, 32), "n_ensemble": 2}
    sh.tl.hycnn_screen(adata, "control", groupby="condition", n_pcs=8, predict=False, **quick)
    stored, label = adata.uns[KEY], "drug A, 10 uM, 24 h"
    assert f"X_{KEY}_drug_A_10_uM_24_h" not in adata.obsm
    assert set(stored["choices"].values()) == {"dictionary"}
    assert all(model["theta"].size < stored["shared_theta"].size for model in stored["models"].values())
    ax = sh.pl.history(adata, KEY, show=False)  # the training that conditions share, and the Gaussian map
    assert len(ax.lines) == 2
    assert sh.get.history(adata, KEY, label)["step"].iloc[-1] == 20
    before, x = sh.get.model(adata, KEY, label), adata.obsm["X_pca"][:, :8]
    assert before.blend > 0
    adata.write_h5ad(tmp_path / "screen.h5ad")
    after = sh.get.model(anndata.read_h5ad(tmp_path / "screen.h5ad"), KEY, label)
    np.testing.assert_array_equal(before.transport(x), after.transport(x))
    screen = sh.solver.Screen.from_dict(stored["screen"])
    number = sorted(stored["targets"].values()).index(label)
    np.testing.assert_array_equal(before.transport(x), screen.maps[number].transport(x))


# ---- conditions: which, in which order, and more of them


def test_targets_none_takes_all_others_that_have_cells():
    adata = screen(doses=(1.0, 4.0))
    adata.obs["condition"] = adata.obs["condition"].astype("category").cat.add_categories("without cells")
    fit(adata)
    assert sorted(adata.uns[KEY]["targets"].values()) == ["a/1", "a/4", "b/1", "b/4"]
    fit(adata, ["b/4", "a/1"], key_added="some")
    assert sorted(adata.uns["some"]["targets"].values()) == ["a/1", "b/4"]


def test_the_order_of_conditions_makes_no_difference(adata):
    names = list(adata.uns[KEY]["targets"].values())
    again = fit(screen(), names[::-1])
    for slot in (f"X_{KEY}_a_4", f"X_{KEY}_b_1"):
        np.testing.assert_array_equal(again.obsm[slot], adata.obsm[slot])


def test_conditions_are_added_to_a_fitted_screen(adata, tmp_path):
    new = screen(seed=5)
    fit(new, ["a/2", "b/4"], model=adata)
    np.testing.assert_allclose(mean_move(new, f"X_{KEY}_a_2"), [2 * np.sqrt(2), 0, 0], atol=0.6)
    adata.write_h5ad(tmp_path / "screen.h5ad")
    state = sh.solver.Screen.from_dict(adata.uns[KEY]["screen"])
    for model in (tmp_path / "screen.h5ad", state):
        other = screen(seed=5)
        fit(other, ["a/2", "b/4"], model=model)
        np.testing.assert_allclose(other.obsm[f"X_{KEY}_a_2"], new.obsm[f"X_{KEY}_a_2"], atol=1e-4)


# ---- groups and plates


def test_each_condition_is_compared_with_the_controls_of_its_plate(unchanged):
    adata = screen(doses=(1.0, 4.0))
    rows, rng = control_of(adata), np.random.default_rng(0)
    on_second = np.where(rows, rng.random(adata.n_obs) < 0.5, adata.obs["drug"] == "b")
    adata.obs["plate"] = np.where(on_second, "second", "first")
    adata.obsm["X_pca"][on_second] += 10
    fit(adata, plate_key="plate")
    for slot, expected, plate in ((f"X_{KEY}_a_4", [4, 0, 0], "first"), (f"X_{KEY}_b_4", [0, 4, 0], "second")):
        kept = np.isfinite(adata.obsm[slot]).all(axis=1)
        np.testing.assert_array_equal(kept, rows & (adata.obs["plate"] == plate))
        move = (adata.obsm[slot][kept] - adata.obsm["X_pca"][kept]).mean(axis=0)
        np.testing.assert_allclose(move, expected, atol=0.7)
    assert (sh.get.summary(adata)["predicted"] < 0.3).all()
    assert abs(sh.get.similarity(adata)["cosine"].loc["a/4", "b/4"]) < 0.3
    adata.obs.loc[rows, "plate"] = "first"
    with unchanged(adata), pytest.raises(ValueError, match="'second'"):
        fit(adata, plate_key="plate")


def test_groups_are_read_from_obs():
    adata = screen(doses=(1.0, 4.0))
    kind = np.random.default_rng(0).random(adata.n_obs) < np.where(control_of(adata), 0.3, 0.7)
    adata.obs["kind"] = np.where(kind, "B", "A")
    adata.obsm["X_pca"][kind, 2] += 6
    fit(adata, group_key="kind")
    np.testing.assert_allclose(mean_move(adata, f"X_{KEY}_a_4"), [4, 0, 0], atol=0.8)
    assert {*sh.get.summary(adata)["group"]} == {"all", "A", "B"}
    rare = adata.obs.groupby("condition", observed=True).head(2).index
    adata.obs.loc[rare, "kind"] = "rare"
    fit(adata, group_key="kind", key_added="rare")
    assert sh.get.model(adata, "rare", target="a/4").validation["groups_left_out"].tolist() == ["rare"]


@pytest.mark.parametrize("plate_key", [None, "plate"])
def test_conditions_with_too_few_cells_in_groups_are_named_or_left_out(unchanged, plate_key):
    adata = screen(doses=(1.0, 4.0))
    adata.obs["kind"] = np.random.default_rng(0).choice(["A", "B"], adata.n_obs)
    adata.obs["plate"] = np.where(control_of(adata), adata.obs["kind"].map({"A": "1", "B": "2"}), "1")
    adata.obs.loc[control_of(adata), "kind"] = np.random.default_rng(1).choice(["A", "B"], 100)
    adata.obs.loc[adata.obs["condition"] == "a/4", "kind"] = "A"
    options = {"group_key": "kind", "plate_key": plate_key}
    with unchanged(adata), pytest.raises(ValueError, match=r"'a/4'.*skip_small=True"):
        fit(adata, **options)
    fit(adata, skip_small=True, **options)
    assert sorted(adata.uns[KEY]["targets"].values()) == ["a/1", "b/1", "b/4"]
    alone = fit(adata.copy(), ["a/1", "b/1", "b/4"], key_added="alone", **options)
    np.testing.assert_array_equal(alone.obsm["X_alone_b_4"], adata.obsm[f"X_{KEY}_b_4"])


# ---- conditions that were not measured


def test_a_dose_in_between_is_predicted_and_its_distance_stored(adata):
    sh.tl.transport(adata, KEY, covariates={"drug": "a", "dose": 3})
    move = mean_move(adata, f"X_{KEY}_drug_a_dose_3")
    np.testing.assert_allclose(move, [2 * np.sqrt(3), 0, 0], atol=0.5)
    about = adata.uns[f"{KEY}_unseen_drug_a_dose_3"]
    assert 0 < about["distance"] < 1
    assert dict(zip(about["names"], about["values"], strict=True)) == {"drug": "a", "dose": "3"}


def test_a_new_fit_removes_what_the_old_one_predicted(adata):
    sh.tl.transport(adata, KEY, covariates={"drug": "a", "dose": 3})
    with pytest.warns(UserWarning, match="Replacing"):
        fit(adata, ["a/1", "a/4"])
    assert f"X_{KEY}_drug_a_dose_3" not in adata.obsm
    assert f"{KEY}_unseen_drug_a_dose_3" not in adata.uns


def test_cells_of_another_anndata_are_moved(adata):
    new = screen(seed=3, doses=(1.0,))
    with pytest.warns(UserWarning, match="fingerprint"):
        sh.tl.transport(new, KEY, covariates={"drug": "b", "dose": 6}, model=adata)
    np.testing.assert_allclose(mean_move(new, f"X_{KEY}_drug_b_dose_6"), [0, 2 * np.sqrt(6), 0], atol=0.8)


@pytest.mark.parametrize(
    ("covariates", "said"),
    [
        ({"drug": "a", "dose": 1e9}, "times as far"),
        ({"drug": "c", "dose": 3}, "'c'"),
        ({"dose": 3}, "drug"),
        ({"drug": "a", "dose": float("nan")}, "finite"),
    ],
)
def test_what_is_far_or_unknown_is_refused(adata, unchanged, covariates, said):
    with unchanged(adata), pytest.raises(ValueError, match=said):
        sh.tl.transport(adata, KEY, covariates=covariates)


def test_an_embedding_gives_conditions_their_place(adata):
    angles = {
        f"{drug}/{dose:g}": [np.sqrt(dose) * (drug == "a"), np.sqrt(dose) * (drug == "b")]
        for drug in "ab"
        for dose in DOSES
    }
    table = pd.DataFrame.from_dict(angles, orient="index")
    frame, uns = screen(), screen()
    fit(frame, covariate_keys=(), embedding_key=table)
    uns.uns["places"] = {label: np.array(place) for label, place in reversed(angles.items())}
    fit(uns, covariate_keys=(), embedding_key="places")
    for cells in (frame, uns):
        sh.tl.transport(cells, KEY, covariates={"embedding": [1.8, 0.0]})
    np.testing.assert_array_equal(frame.obsm[f"X_{KEY}_embedding"], uns.obsm[f"X_{KEY}_embedding"])
    move = mean_move(frame, f"X_{KEY}_embedding")
    assert move[0] > 2 * abs(move[1])


# ---- errors, before which nothing is changed


def spoiled(adata):
    adata.obs.loc[adata.obs.index[(adata.obs["condition"] == "a/4").to_numpy()][0], "dose"] = 5.0
    return adata


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"covariate_keys": ["nothing"]}, "'nothing'"),
        ({"covariate_keys": "n_pcs"}, "'n_pcs'"),
        ({"covariate_keys": ()} | {"embedding_key": "nothing"}, "'nothing'"),
        ({"embedding_key": pd.DataFrame([[1.0]], index=["a/1"])}, "no row"),
        ({"embedding_key": pd.DataFrame([[1.0]] * 3, index=["a/1", "b/1", "b/1"])}, "several rows"),
        ({"groupby": "nothing"}, "'nothing'"),
        ({"targets": ["a/3"]}, "a/3"),
        ({"targets": "control"}, "control"),
        ({"max_steps": -1}, "max_steps"),
    ],
)
def test_wrong_arguments_change_nothing(unchanged, options, said):
    adata = screen(doses=(1.0,))
    with unchanged(adata), pytest.raises(ValueError, match=said):
        fit(adata, **options)


def test_a_covariate_with_several_values_in_a_condition_is_refused(unchanged):
    adata = spoiled(screen())
    with unchanged(adata), pytest.raises(ValueError, match="dose") as error:
        fit(adata)
    assert "a/4" in str(error.value)


def test_wrong_types_and_options(adata, unchanged):
    with unchanged(adata):
        with pytest.raises(TypeError, match="model"):
            fit(adata, model=3)
        with pytest.raises(TypeError, match="max_step"):
            fit(adata, max_step=3)
        with pytest.raises(TypeError, match="embedding_key"):
            fit(adata, embedding_key=[1, 2])
        with pytest.raises(ValueError, match="target"):
            sh.tl.transport(adata, KEY, covariates={"dose": 1}, target="a/1")
        with pytest.raises(TypeError, match="model"):
            sh.tl.transport(adata, KEY, covariates={"dose": 1}, model=sh.get.model(adata, KEY, "a/1"))
        with pytest.raises(ValueError, match="'other'"):
            sh.tl.hycnn_screen(adata, "other", **GAUSSIAN)
    controls = adata[adata.obs["condition"] == "control"].copy()
    with unchanged(controls), pytest.raises(ValueError, match="no condition beside 'control'"):
        fit(controls)
    sh.tl.hycnn_ot(adata, "control", "a/1", **GAUSSIAN)
    with pytest.raises(ValueError, match="no screen"):
        sh.tl.transport(adata, "hycnn_ot", covariates={"dose": 1})
    with pytest.raises(ValueError, match="hycnn_screen"):
        fit(screen(), model=sh.get.transported(adata))


def test_copy_leaves_the_cells_as_they_were(unchanged):
    adata = screen(doses=(1.0,))
    with unchanged(adata):
        copied = sh.tl.hycnn_screen(adata, "control", copy=True, **GAUSSIAN)
    assert KEY in copied.uns
