"""Scores out of uns: as they were written, from a file too, and a sentence for what is missing."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scot_hycnn._anndata import EVALUATION_COLUMNS, evaluation_slot, read_evaluation

COLUMNS = {
    "target": np.array(["IFN-β", "IFN-β"]),
    "group": np.array(["all", "B cells"]),
    "method": np.array(["identity", "hycnn_ot"]),
    "metric": np.array(["energy_distance", "energy_distance"]),
    "value": np.array([1.5, 0.1]),
    "low": np.array([1.2, np.nan]),
    "high": np.array([1.7, np.nan]),
    "vs_gaussian": np.array([1.3, -0.1]),
    "vs_gaussian_low": np.array([1.1, np.nan]),
    "vs_gaussian_high": np.array([1.5, np.nan]),
    "n_source": np.array([100, 20]),
    "n_target": np.array([90, 30]),
}


@pytest.fixture
def adata():
    return AnnData(np.zeros((3, 2), np.float32), uns={evaluation_slot("fit"): dict(COLUMNS)})


@pytest.mark.parametrize("file", [None, "scores.h5ad", "scores.zarr"])
@pytest.mark.filterwarnings("ignore:Writing zarr v2")
def test_what_was_written_is_read(adata, file, tmp_path):
    if file is not None:
        getattr(adata, f"write_{file[7:]}")(tmp_path / file)
        adata = getattr(anndata, f"read_{file[7:]}")(tmp_path / file)
    table = read_evaluation(adata, "fit")
    assert tuple(table) == EVALUATION_COLUMNS
    pd.testing.assert_frame_equal(table, pd.DataFrame(COLUMNS), check_dtype=False)


def test_nothing_to_read(adata):
    with pytest.raises(ValueError, match=r"no evaluation 'hycnn_ot_evaluation'; it has those of \['fit'\]"):
        read_evaluation(adata, "hycnn_ot")
    del adata.uns["fit_evaluation"]
    with pytest.raises(ValueError, match=r"no evaluation 'fit_evaluation'; run sh.tl.evaluate first"):
        read_evaluation(adata, "fit")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metric": None}, r"lacks \['metric'\]: it is damaged, run sh.tl.evaluate again"),
        ({"low": np.zeros(3)}, r"columns of different shapes .*'low': \(3,\)"),
        ({"value": np.array(["a", "b"])}, "'value' of dtype <U1 instead of numbers"),
        (dict.fromkeys(COLUMNS, np.zeros(0)), "has no rows"),
    ],
)
def test_damage_is_named(adata, change, message):
    columns = {name: value for name, value in (COLUMNS | change).items() if value is not None}
    adata.uns["fit_evaluation"] = columns
    with pytest.raises(ValueError, match=message):
        read_evaluation(adata, "fit")


def test_what_is_no_dict(adata):
    adata.uns["fit_evaluation"] = "scores"
    with pytest.raises(ValueError, match="is of type str instead of a dict"):
        read_evaluation(adata, "fit")
