"""Scores kept beside the fit: as they were computed, in files too, and nothing else touched."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest

import scot_hycnn as sh

SLOT = "hycnn_ot_evaluation"


@pytest.fixture
def fit(new_cells):
    cells, rng = new_cells(100), np.random.default_rng(1)
    cells.obs["split"] = np.where(rng.random(cells.n_obs) < 0.5, "train", "test")
    cells.obs["cell_type"] = rng.choice(["T/cell", "B β"], size=cells.n_obs)
    sh.tl.hycnn_ot(cells, "control", "IFN-beta", split_key="split", potential="gaussian")
    return cells


@pytest.mark.parametrize("file", [None, "scores.h5ad", "scores.zarr"])
@pytest.mark.filterwarnings("ignore:Writing zarr v2")
def test_the_table_of_metrics_evaluate(fit, file, tmp_path):
    sh.tl.evaluate(fit, groupby="cell_type", n_bootstrap=5, rng=3)
    expected = sh.metrics.evaluate(fit, groupby="cell_type", n_bootstrap=5, rng=3)
    if file is not None:
        getattr(fit, f"write_{file[7:]}")(tmp_path / file)
        fit = getattr(anndata, f"read_{file[7:]}")(tmp_path / file)
    table = sh.get.evaluation(fit)
    pd.testing.assert_frame_equal(table, expected, check_dtype=False)
    assert {"T/cell", "B β", "all"} == set(table["group"])


def test_plain_columns_of_equal_length(fit):
    sh.tl.evaluate(fit, n_bootstrap=0)
    stored = fit.uns[SLOT]
    columns = {name: column for name, column in stored.items() if not name.startswith("mmd_gamma")}
    assert all(type(column) is np.ndarray and column.shape == columns["value"].shape for column in columns.values())
    assert {column.dtype.kind for column in columns.values()} == {"U", "f", "i"}
    gammas = {name: column for name, column in stored.items() if name not in columns}
    assert {len(column) for column in gammas.values()} == {1}  # one target, one group


def test_bandwidths_of_the_mmd_come_back(fit, tmp_path):
    sh.tl.evaluate(fit, n_bootstrap=0)
    found = sh.get.evaluation(fit).attrs["mmd_gamma"]
    ((target, groups),) = found.items()
    assert target == "IFN-beta"
    assert len(groups["all"]) == 5
    fit.write_h5ad(tmp_path / "cells.h5ad")
    assert sh.get.evaluation(anndata.read_h5ad(tmp_path / "cells.h5ad")).attrs["mmd_gamma"] == found


def test_nothing_else_changes(fit, unchanged):
    with unchanged(fit):
        copied = sh.tl.evaluate(fit, n_bootstrap=0, copy=True)
    assert SLOT in copied.uns
    with unchanged(fit):
        sh.tl.evaluate(fit, n_bootstrap=0)
        pd.testing.assert_frame_equal(sh.get.evaluation(fit), sh.get.evaluation(copied))
        del fit.uns[SLOT]


def test_another_key_and_cells_in_a_file(fit, tmp_path):
    sh.tl.evaluate(fit, n_bootstrap=0, key_added="mine")
    fit.write_h5ad(tmp_path / "fit.h5ad")
    backed = anndata.read_h5ad(tmp_path / "fit.h5ad", backed="r")
    sh.tl.evaluate(backed, n_bootstrap=0)
    pd.testing.assert_frame_equal(sh.get.evaluation(backed), sh.get.evaluation(fit, "mine"))
    backed.file.close()


def test_a_view_becomes_an_anndata_of_its_own(fit):
    view = fit[fit.obs["split"] == "test"]
    sh.tl.evaluate(view, n_bootstrap=0)
    assert not view.is_view
    assert SLOT not in fit.uns
    assert (sh.get.evaluation(view)["n_source"] == (view.obs["condition"] == "control").sum()).all()


def test_replacing_warns(fit):
    sh.tl.evaluate(fit, n_bootstrap=0)
    with pytest.warns(UserWarning, match=r"Replacing 'hycnn_ot_evaluation' \(adata.uns\)") as caught:
        sh.tl.evaluate(fit, n_bootstrap=0)
    assert {warning.filename for warning in caught if warning.category is UserWarning} == {__file__}


def foreign(adata):
    adata.uns["mine_evaluation"] = "a note of mine"


CASES = {
    "no fit": (None, {"key": "nix"}, "no fit 'nix'"),
    "slash": (None, {"key_added": "a/b"}, "key_added='a/b' is no valid key"),
    "foreign": (foreign, {"key_added": "mine"}, r"would replace adata.uns\['mine_evaluation'\], which scot_"),
    "groupby": (None, {"groupby": "nix"}, "groupby='nix' is not a column"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_sentence_and_no_trace(fit, unchanged, case):
    spoil, options, message = CASES[case]
    if spoil:
        spoil(fit)
    with unchanged(fit), pytest.raises(ValueError, match=message):
        sh.tl.evaluate(fit, **options)


def test_get_says_what_is_missing(fit):
    with pytest.raises(ValueError, match=r"no evaluation 'hycnn_ot_evaluation'; run sh.tl.evaluate first"):
        sh.get.evaluation(fit)
    fit.uns[SLOT] = {"value": np.zeros(3)}
    with pytest.raises(ValueError, match=r"lacks .*: it is damaged, run sh.tl.evaluate again"):
        sh.get.evaluation(fit)
