"""What fits have led to stands in uns and in the log; warnings, which may be errors, come after all is written."""

from __future__ import annotations

import sys
import threading
import warnings

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc

import scot_hycnn as sh

QUICK = {"max_steps": 20, "hidden": (8,), "n_ensemble": 1, "device": "cpu"}


@pytest.fixture
def cells():
    """Three hundred cells of each of a control and two drugs, of which one does nothing."""
    rng = np.random.default_rng(0)
    labels = np.repeat(["control", "placebo", "drug"], 300)
    obs = pd.DataFrame({"condition": labels}, index=[f"cell {k}" for k in range(900)])
    points = rng.normal(size=(900, 4)) + 2.0 * (labels == "drug")[:, None]
    return anndata.AnnData(obs=obs, obsm={"X_pca": points})


@pytest.fixture
def log(capsys):
    """What was logged so far, at the level that tells results."""
    before = sc.settings.verbosity, sc.settings.logfile
    sc.settings.verbosity, sc.settings.logfile = "info", sys.stderr
    yield lambda: capsys.readouterr().err
    sc.settings.verbosity, sc.settings.logfile = before


def test_that_the_gaussian_map_was_kept_is_a_result_and_no_warning(cells, log):
    """All warnings are errors here."""
    options = QUICK | {"lr": 2.0, "weight_decay": 0.0}
    sh.tl.hycnn_ot(cells, "control", ["placebo", "drug"], groupby="condition", **options)
    outcomes = cells.uns["hycnn_ot"]["outcome"]
    assert outcomes == {"placebo": "gaussian kept: no response seen", "drug": "gaussian kept: few steps"}
    assert {"X_hycnn_ot_placebo", "X_hycnn_ot_drug"} <= set(cells.obsm)
    text = log()
    assert "No response was seen" in text.split("'placebo'")[-1].split("'drug'")[0]
    assert "Gaussian map was kept" in text.split("'drug'")[-1]
    assert sh.get.model(cells, "hycnn_ot", target="drug").outcome == outcomes["drug"]


def test_everything_is_written_before_a_warning_that_is_an_error(cells):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="non-finite"):
            sh.tl.hycnn_ot(cells, "control", "drug", groupby="condition", **(QUICK | {"lr": 1e30}))
    assert np.isfinite(cells.obsm["X_hycnn_ot"][:300]).all()
    assert cells.uns["hycnn_ot"]["outcome"] == {"drug": "recovered"}


def test_what_will_be_replaced_is_said_before_any_work(cells, monkeypatch):
    sh.tl.hycnn_ot(cells, "control", "placebo", groupby="condition", potential="gaussian")
    monkeypatch.setattr(sh.solver, "fit_many", None)
    with pytest.raises(UserWarning, match=r"Replacing .*'X_hycnn_ot' \(adata.obsm\).*'hycnn_ot' \(adata.uns\)"):
        sh.tl.hycnn_ot(cells, "control", "drug", groupby="condition", potential="gaussian")
    assert cells.uns["hycnn_ot"]["targets"] == {"placebo": "placebo"}


def test_one_warning_for_one_kind_of_trouble(cells):
    with pytest.warns(UserWarning, match="'placebo', 'drug'") as caught:
        sh.tl.hycnn_ot(cells, "control", ["placebo", "drug"], groupby="condition", **(QUICK | {"lr": 1e30}))
    assert len(caught) == 1
    assert caught[0].filename == __file__


def test_fits_side_by_side_leave_the_filters_of_warnings_alone(cells):
    before = list(warnings.filters)
    threads = [
        threading.Thread(target=sh.tl.hycnn_ot, args=(cells.copy(), "control", "drug"), kwargs=QUICK) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(warnings.filters) == before


def test_far_cells_are_named_and_their_rows_kept(cells, log):
    """Rows in the AnnData, also where the fit sees some cells only."""
    cells.obsm["X_pca"][7] = 900.0
    cells.obsm["X_pca"][[650, 800]] = [[500.0] * 4, [-500.0] * 4]
    cells.obs["train"] = np.arange(900) % 5 != 0
    sh.tl.hycnn_ot(cells, "control", "drug", groupby="condition", potential="gaussian", key_added="all")
    text = log()
    assert "1 cell of 'control'" in text
    assert "'cell 7'" in text
    assert "2 cells of 'drug'" in text
    assert "'cell 650', 'cell 800'" in text
    assert cells.uns["all"]["validation"]["drug"]["far_source"].tolist() == [7]
    assert cells.uns["all"]["validation"]["drug"]["far_target"].tolist() == [650, 800]
    sh.tl.hycnn_ot(cells, "control", "drug", mask_obs="train", groupby="condition", potential="gaussian")
    assert cells.uns["hycnn_ot"]["validation"]["drug"]["far_source"].tolist() == [7]
    assert not len(cells.uns["hycnn_ot"]["validation"]["drug"]["far_target"])
    # All source cells are moved, the far one too.
    assert np.isfinite(cells.obsm["X_hycnn_ot"][:300]).all()


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_files_keep_all_of_it(cells, tmp_path, suffix):
    cells.obsm["X_pca"][7] = 900.0
    sh.tl.hycnn_ot(cells, "control", "drug", groupby="condition", potential="gaussian")
    if suffix == ".h5ad":
        cells.write_h5ad(tmp_path / "cells.h5ad")
        again = anndata.read_h5ad(tmp_path / "cells.h5ad")
    else:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Writing zarr v2")
            cells.write_zarr(tmp_path / "cells.zarr")
        again = anndata.read_zarr(tmp_path / "cells.zarr")
    assert again.uns["hycnn_ot"]["validation"]["drug"]["far_source"].tolist() == [7]
    assert again.uns["hycnn_ot"]["validation"]["drug"]["far_target"].tolist() == []
    assert again.uns["hycnn_ot"]["outcome"] == {"drug": "gaussian requested"}
    assert sh.get.model(again).outcome == "gaussian requested"
