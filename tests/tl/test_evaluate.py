"""Scores are stored beside the fit as they were computed, and nothing else changes."""

from __future__ import annotations

import sys

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc

import scot_hycnn as sh

SLOT = "hycnn_ot_evaluation"
LABELS = ("target", "group", "method", "metric")
NUMBERS = ("value", "low", "high", "vs_gaussian", "vs_gaussian_low", "vs_gaussian_high", "n_source", "n_target")


@pytest.fixture(scope="module")
def fitted():
    rng, n = np.random.default_rng(1), 210
    adata = anndata.AnnData(rng.random((n, 6)).astype(np.float32))
    adata.obs["condition"] = rng.permutation(np.repeat(["control", "IFN-beta", "other"], [100, 100, 10]))
    adata.obsm["X_pca"] = rng.normal(size=(n, 3)).astype(np.float32)
    adata.obs["split"] = np.where(rng.random(n) < 0.5, "train", "test")
    adata.obs["cell_type"] = rng.choice(["T/cell", "B β"], size=n)
    sh.tl.hycnn_ot(adata, "control", "IFN-beta", split_key="split", potential="gaussian")
    return adata


@pytest.fixture
def fit(fitted):
    return fitted.copy()


@pytest.fixture(scope="module")
def scored(fitted):
    return sh.tl.evaluate(fitted, n_bootstrap=0, copy=True)


@pytest.mark.filterwarnings("ignore:Writing zarr v2")
def test_the_table_of_metrics_evaluate_comes_back_from_files(fit, tmp_path):
    sh.tl.evaluate(fit, groupby="cell_type", n_bootstrap=5, rng=3)
    expected = sh.metrics.evaluate(fit, groupby="cell_type", n_bootstrap=5, rng=3)
    fit.write_h5ad(tmp_path / "scores.h5ad")
    del fit.uns["hycnn_ot"]  # a store of all its arrays would take two seconds
    fit.write_zarr(tmp_path / "scores.zarr")
    for adata in (fit, anndata.read_h5ad(tmp_path / "scores.h5ad"), anndata.read_zarr(tmp_path / "scores.zarr")):
        table = sh.get.evaluation(adata)
        pd.testing.assert_frame_equal(table, expected, check_dtype=False)
        assert {"T/cell", "B β", "all", "all, same composition"} == set(table["group"])
        assert table.attrs["mmd_gamma"] == expected.attrs["mmd_gamma"]
    assert len(expected.attrs["mmd_gamma"]["IFN-beta"]["all"]) == 5


def test_plain_columns_of_equal_length(scored):
    stored = scored.uns[SLOT]
    columns = {name: column for name, column in stored.items() if not name.startswith("mmd_gamma")}
    assert all(type(column) is np.ndarray and column.shape == columns["value"].shape for column in columns.values())
    assert {column.dtype.kind for column in columns.values()} == {"U", "f", "i"}
    assert {len(column) for name, column in stored.items() if name not in columns} == {1}  # one target, one group


def test_nothing_else_changes(fit, scored, unchanged):
    with unchanged(fit):
        sh.tl.evaluate(fit, n_bootstrap=0)
        pd.testing.assert_frame_equal(sh.get.evaluation(fit), sh.get.evaluation(scored))
        del fit.uns[SLOT]


def test_another_key_a_view_and_cells_in_a_file(fit, scored, tmp_path):
    expected = sh.get.evaluation(scored)
    view = fit[fit.obs["split"] == "test"]
    sh.tl.evaluate(view, n_bootstrap=0)
    assert not view.is_view
    assert SLOT not in fit.uns
    assert (sh.get.evaluation(view)["n_source"] == (view.obs["condition"] == "control").sum()).all()
    sh.tl.evaluate(fit, n_bootstrap=0, key_added="mine")
    pd.testing.assert_frame_equal(sh.get.evaluation(fit, "mine"), expected)
    fit.write_h5ad(tmp_path / "fit.h5ad")
    backed = anndata.read_h5ad(tmp_path / "fit.h5ad", backed="r")
    sh.tl.evaluate(backed, n_bootstrap=0)
    pd.testing.assert_frame_equal(sh.get.evaluation(backed), expected)
    backed.file.close()


def test_replacing_warns_at_the_line_of_the_caller(scored):
    scored = scored.copy()
    with pytest.warns(UserWarning, match=rf"'{SLOT}' \(adata.uns\)") as caught:
        sh.tl.evaluate(scored, n_bootstrap=0)
    assert {warning.filename for warning in caught if warning.category is UserWarning} == {__file__}


@pytest.mark.filterwarnings("ignore:Replacing")
def test_the_log_warns_of_training_cells(fit, capsys):
    """By the split of the fit, by numbers if the split is missing, and if the split or the mask is missing."""

    def log(adata, **options):
        before, sc.settings.logfile = sc.settings.logfile, sys.stderr
        try:
            sh.tl.evaluate(adata, n_bootstrap=0, **options)
        finally:
            sc.settings.logfile = before
        return capsys.readouterr().err

    everyone, n_training = (
        np.ones(fit.n_obs, dtype=bool),
        (fit.obs["split"] == "train") & (fit.obs["condition"] != "other"),
    )
    assert "evaluated" not in log(fit)
    assert f"{n_training.sum()} of the 210 evaluated cells" in log(fit, mask_obs=everyone)
    lost = fit.copy()
    lost.obs["moved"] = lost.obs.pop("split")
    assert f"{n_training.sum()} of the 210 evaluated cells" in log(lost, mask_obs=everyone)
    fit.obs["split"] = fit.obs["split"].map({"train": "test", "test": "train"})
    assert "was made from at least" in log(fit)
    del lost.uns["hycnn_ot"]["params"]["split_key"]
    assert "All cells" in log(lost)


def test_an_error_names_the_value_and_nothing_changes(fit, unchanged):
    fit.uns["mine_evaluation"], fit.obs["all_of_them"] = "a note", "all"
    for options, value in (
        ({"key": "nix"}, "'nix'"),
        ({"key_added": "a/b"}, "key_added='a/b'"),
        ({"key_added": "mine"}, "'mine_evaluation'"),
        ({"groupby": "nix"}, "groupby='nix'"),
        ({"groupby": "all_of_them"}, "'all'"),
        ({"split_key": "nix"}, "split_key='nix'"),
        ({"split_key": "cell_type"}, r"'cell_type'.*'test'"),
    ):
        with unchanged(fit), pytest.raises(ValueError, match=value):
            sh.tl.evaluate(fit, **options)


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ({"metric": None}, "'metric'"),
        ({"low": np.zeros(3)}, r"'low': \(3,\)"),
        (dict.fromkeys(NUMBERS, np.array(["text"])) | dict.fromkeys(LABELS, np.array(["a"])), "'value'"),
        ({"method": [[1], [1, 2]]}, "'method'"),
        ({"mmd_gamma": np.zeros(3)}, "'mmd_gamma'"),
        ("no rows", r"\(0,\)"),
        ("scores", "str"),
        (None, "sh.tl.evaluate"),
    ],
)
def test_get_evaluation_names_what_is_damaged(scored, change, value):
    adata, stored = anndata.AnnData(np.zeros((3, 2), np.float32)), dict(scored.uns[SLOT])
    if change == "no rows":
        adata.uns[SLOT] = {name: column[:0] for name, column in stored.items()}
    elif isinstance(change, dict):
        adata.uns[SLOT] = {name: column for name, column in (stored | change).items() if column is not None}
    elif change is not None:
        adata.uns[SLOT] = change
    with pytest.raises(ValueError, match=value):
        sh.get.evaluation(adata)


def test_get_evaluation_lists_the_evaluations_that_exist(scored):
    with pytest.raises(ValueError, match=r"'other_evaluation'.*'hycnn_ot'"):
        sh.get.evaluation(scored, "other")
