"""Held-out cells are never seen, groups count the same in both conditions, and cells far away are known."""

from __future__ import annotations

import sys

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc

import scot_hycnn as sh

FAST = {"max_steps": 12, "hidden": (8, 8), "n_ensemble": 2, "progress": False, "device": "cpu"}


@pytest.fixture
def genes():
    """400 cells of two conditions and two types, with logarithms of counts and no representation."""
    rng = np.random.default_rng(0)
    condition, kind = rng.permutation(np.repeat(["control", "drug"], 200)), rng.choice(["B", "T", "NK"], 400)
    level = 2 + (kind == "T")[:, None] * np.arange(20) / 5 + (condition == "drug")[:, None] * np.arange(20)[::-1] / 10
    x = np.log1p(rng.poisson(level)).astype(np.float32)
    obs = pd.DataFrame({"condition": condition, "cell_type": pd.Categorical(kind)}, index=[f"c{i}" for i in range(400)])
    return anndata.AnnData(x, obs=obs)


def weights_of(adata):
    model = adata.uns["hycnn_ot"]["models"]["drug"]
    return model["theta"].tobytes(), model["blend"], *(value for _, value in sorted(model["coordinates"].items()))


def test_poisoned_held_out_cells_change_nothing(genes):
    """Not the components, the Gaussian map, the networks, the choice of the blend or the training cells' prediction."""
    sh.pp.split(genes, stratify=["condition", "cell_type"])
    held = (genes.obs["split"] == "test").to_numpy()
    poisoned = genes.copy()
    poisoned.X[held] = 1000 * poisoned.X[held][:, ::-1] + 7
    fits = []
    for adata in (genes, poisoned):
        sh.pp.pca(adata, n_comps=5, split_key="split")
        sh.tl.hycnn_ot(adata, "control", "drug", groupby="condition", split_key="split", group_key="cell_type", **FAST)
        fits.append(adata)
    for clean, dirty in zip(*map(weights_of, fits), strict=True):
        np.testing.assert_array_equal(clean, dirty)
    clean, dirty = (adata.obsm["X_hycnn_ot"][~held] for adata in fits)
    np.testing.assert_array_equal(clean, dirty)
    held_control = held & (genes.obs["condition"] == "control").to_numpy()
    assert np.isfinite(genes.obsm["X_hycnn_ot"][held_control]).all()  # moved all the same
    for name in ("history", "validation"):
        reports = [adata.uns["hycnn_ot"][name]["drug"] for adata in fits]
        assert [
            key for key in reports[0] if key != "seconds" and not np.array_equal(reports[0][key], reports[1][key])
        ] == []
    assert dirty.shape == clean.shape
    params = genes.uns["hycnn_ot"]["params"]
    assert (params["split_key"], params["group_key"]) == ("split", "cell_type")
    # The test has teeth: without the split the poison shows.
    with pytest.warns(UserWarning, match="Replacing"):
        sh.tl.hycnn_ot(poisoned, "control", "drug", groupby="condition", **FAST)
    assert weights_of(poisoned)[0] != weights_of(genes)[0]


def test_components_that_saw_held_out_cells_are_told(genes):
    sh.pp.split(genes, stratify="condition")
    sc.pp.pca(genes, n_comps=5)
    with pytest.warns(
        UserWarning, match=r"'X_pca' was not fitted on .* run sh.pp.pca\(adata, split_key='split'\)"
    ) as caught:
        sh.tl.hycnn_ot(genes, "control", "drug", groupby="condition", split_key="split", potential="gaussian")
    assert caught[0].filename == __file__


def test_split_and_mask_leave_cells_in_both(genes):
    sh.pp.split(genes, stratify="condition")
    mask = np.arange(400) % 3 > 0
    sh.tl.hycnn_ot(
        genes,
        "control",
        "drug",
        groupby="condition",
        use_rep="X",
        split_key="split",
        mask_obs=mask,
        potential="gaussian",
    )
    trained = mask & (genes.obs["split"] == "train").to_numpy()
    control = trained & (genes.obs["condition"] == "control").to_numpy()
    assert genes.uns["hycnn_ot"]["n_training"]["source"] == control.sum()
    np.testing.assert_allclose(
        genes.uns["hycnn_ot"]["models"]["drug"]["coordinates"]["mean_x"], genes.X[control].mean(0), rtol=1e-5
    )


def test_a_shift_of_proportions_is_not_taken_for_a_response():
    """Planted: cell types do not respond at all, and one is five times as frequent among the treated cells."""
    adata = sh.datasets.pbmc_planted(n_cells=1000)
    control = (adata.obs["condition"] == "control").to_numpy()
    adata = adata[control].copy()
    rng = np.random.default_rng(0)
    kinds = adata.obs["cell_type"].astype(str).to_numpy()
    common = kinds == pd.Series(kinds).value_counts().index[0]
    treated = rng.random(adata.n_obs) < np.where(common, 0.8, 0.3)
    adata.obs["condition"] = np.where(treated, "drug", "control")
    fits = {}
    for name, options in {"plain": {}, "grouped": {"group_key": "cell_type"}}.items():
        sh.tl.hycnn_ot(
            adata, "control", "drug", groupby="condition", n_pcs=5, potential="gaussian", key_added=name, **options
        )
        fits[name] = np.nanmean(adata.obs[f"{name}_displacement"])
    assert fits["grouped"] < 0.5 * fits["plain"]


def test_groups_that_one_condition_lacks_are_logged_and_left_out(genes, capsys):
    genes.obs["cell_type"] = genes.obs["cell_type"].astype(str)
    drug = np.flatnonzero(genes.obs["condition"] == "drug")
    genes.obs.iloc[drug, 1] = genes.obs["cell_type"].iloc[drug].replace("NK", "B")
    before = sc.settings.verbosity, sc.settings.logfile
    sc.settings.verbosity, sc.settings.logfile = 1, sys.stderr
    try:
        sh.tl.hycnn_ot(
            genes, "control", "drug", groupby="condition", use_rep="X", group_key="cell_type", potential="gaussian"
        )
    finally:
        sc.settings.verbosity, sc.settings.logfile = before
    assert "not fitted on cells of ['NK'] (adata.obs['cell_type'])" in capsys.readouterr().err


def test_out_of_support_is_written_for_source_cells(genes):
    sh.tl.hycnn_ot(genes, "control", "drug", groupby="condition", use_rep="X", **FAST)
    score = genes.obs["hycnn_ot_out_of_support"]
    control = genes.obs["condition"] == "control"
    assert score[~control].isna().all()
    assert 0.5 < (score[control] < 1).mean() <= 1
    far = anndata.AnnData(50 * genes[control.to_numpy()].X, obs=genes.obs[control][["condition"]])
    far.var_names = genes.var_names
    sh.tl.transport(far, model=genes, fallback=True)
    assert (far.obs["hycnn_ot_out_of_support"] > 2).all()
    gaussian = sh.solver.TransportMap.from_dict(sh.get.model(genes).to_dict() | {"blend": 0.0}, device="cpu")
    np.testing.assert_allclose(far.obsm["X_hycnn_ot"], gaussian.transport(far.X), rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"group_key": "kind"}, r"group_key='kind' is not a column of adata.obs; it has \['condition', 'cell_type'\]"),
        ({"leave_out": "groups"}, "leave_out='groups' needs group_key, the column of adata.obs that holds the groups"),
        ({"leave_out": "types"}, r"leave_out='types' is unknown; choose one of \['cells', 'groups'\]"),
        ({"group_weights": "root"}, r"group_weights='root' is unknown; choose one of \['sqrt', 'equal', 'observed'\]"),
        ({"split_key": "fold"}, r"split_key='fold' is not a column of adata.obs; .* Run sh.pp.split\(adata\) first"),
        (
            {"split_key": "cell_type"},
            r"no cell of adata.obs\['cell_type'\] is labelled 'train'; it has \['B', 'NK', 'T'\]",
        ),
        ({"group_key": "condition"}, "groups: no group has 5 cells or more in both clouds"),
    ],
)
def test_messages(genes, options, match):
    before = genes.copy()
    with pytest.raises(ValueError, match=match):
        sh.tl.hycnn_ot(genes, "control", "drug", groupby="condition", use_rep="X", **(FAST | options))
    pd.testing.assert_frame_equal(genes.obs, before.obs)
    assert not genes.obsm
    assert not genes.uns


def test_cells_without_a_group(genes):
    genes.obs["cell_type"] = genes.obs["cell_type"].astype(object)
    genes.obs.iloc[[3, 5], 1] = None
    with pytest.raises(
        ValueError, match=r"adata.obs\['cell_type'\] is empty for \d of \d+ cells to fit on, the first 'c"
    ):
        sh.tl.hycnn_ot(genes, "control", "drug", groupby="condition", use_rep="X", group_key="cell_type", **FAST)


def test_fallback_goes_forward_only(genes):
    sh.tl.hycnn_ot(genes, "control", "drug", groupby="condition", use_rep="X", potential="gaussian")
    with pytest.raises(ValueError, match="fallback=True goes with direction='forward' only"):
        sh.tl.transport(genes, direction="inverse", fallback=True)


# ---- what was computed from an earlier split or fit


def test_another_split_under_the_same_name_is_told_by_its_cells(genes):
    sh.pp.split(genes, stratify="condition")
    sh.pp.pca(genes, n_comps=5, split_key="split")
    fit = {"groupby": "condition", "split_key": "split", "potential": "gaussian"}
    sh.tl.hycnn_ot(genes, "control", "drug", **fit)
    sh.metrics.evaluate(genes, n_bootstrap=0)  # no warning
    with pytest.warns(UserWarning, match="Replacing"):
        sh.pp.split(genes, stratify="condition", rng=1)
    assert "other training cells" in sh.metrics.evaluate(genes, n_bootstrap=0).attrs["notes"][0]
    with pytest.warns(UserWarning, match="'X_pca' was not fitted on the training cells"):
        sh.tl.hycnn_ot(genes, "control", "drug", key_added="again", **fit)


def test_components_of_the_same_cells_by_mask_are_no_leak(genes):
    sh.pp.split(genes, stratify="condition")
    sh.pp.pca(genes, n_comps=5, mask_obs=(genes.obs["split"] == "train").to_numpy())
    sh.tl.hycnn_ot(genes, "control", "drug", groupby="condition", split_key="split", potential="gaussian")


@pytest.mark.filterwarnings("ignore:All cells are evaluated")
def test_a_new_fit_takes_the_old_ones_genes_and_scores_away(genes):
    sh.pp.pca(genes, n_comps=5)
    sh.tl.hycnn_ot(genes, "control", "drug", groupby="condition", potential="gaussian")
    sh.tl.decode(genes)
    sh.tl.evaluate(genes, n_bootstrap=0)
    assert "hycnn_ot" in genes.layers
    with pytest.warns(UserWarning, match=r"'hycnn_ot' \(adata.layers\), .*'hycnn_ot_evaluation' \(adata.uns\)"):
        sh.tl.hycnn_ot(genes, "control", "drug", groupby="condition", potential="gaussian", n_pcs=3)
    assert "hycnn_ot" not in genes.layers
    assert "hycnn_ot_evaluation" not in genes.uns
    sh.tl.decode(genes)
    with pytest.warns(UserWarning, match=r"Replacing .*'hycnn_ot' \(adata.layers\)"):
        sh.tl.transport(genes)
    assert "hycnn_ot" not in genes.layers


def test_a_decoded_layer_without_other_cells_is_still_ours(genes):
    sh.pp.pca(genes, n_comps=5)
    sh.tl.hycnn_ot(genes, "control", "drug", groupby="condition", potential="gaussian")
    sh.tl.decode(genes)
    controls = genes[genes.obs["condition"] == "control"].copy()
    with pytest.warns(UserWarning, match="Replacing 'hycnn_ot'"):
        sh.tl.decode(controls)
    assert np.isfinite(controls.layers["hycnn_ot"]).all()


def test_transport_falls_back_as_the_fit_did(genes):
    sh.tl.hycnn_ot(genes, "control", "drug", groupby="condition", use_rep="X", fallback=True, **FAST)
    fitted = genes.obsm["X_hycnn_ot"].copy()
    with pytest.warns(UserWarning, match="Replacing"):
        sh.tl.transport(genes)
    np.testing.assert_array_equal(genes.obsm["X_hycnn_ot"], fitted)


def test_too_few_groups_to_leave_out_are_told_before_training(genes):
    genes.obs["half"] = np.where(genes.obs["cell_type"] == "B", "a", "b")
    with pytest.raises(
        ValueError, match=r"needs at least 3 groups with 10 cells or more in source and target; there are"
    ):
        sh.tl.hycnn_ot(
            genes,
            "control",
            "drug",
            groupby="condition",
            use_rep="X",
            group_key="half",
            leave_out="groups",
            max_steps=10**6,
        )
