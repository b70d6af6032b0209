"""Many targets in one call of tl.hycnn_ot: small ones, groups that some lack, columns that are no groups."""

from __future__ import annotations

import io
import warnings

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc

import scot_hycnn as sh

pytestmark = pytest.mark.filterwarnings("ignore:solver.fit")
GAUSSIAN = {"groupby": "drug", "potential": "gaussian", "device": "cpu", "progress": False}


def screen(sizes, *, n_dims=3, kinds=None):
    """Cells of a control and of targets 'd0', 'd1' ... in shuffled order."""
    rng = np.random.default_rng(0)
    drug = np.repeat(["control", *(f"d{k}" for k in range(len(sizes)))], [60, *sizes])
    order = rng.permutation(len(drug))
    obs = pd.DataFrame({"drug": drug, "kind": rng.choice(["B", "T"], len(drug)) if kinds is None else kinds})
    adata = anndata.AnnData(obs=obs.iloc[order].set_index(obs.index[order].astype(str)))
    adata.obsm["X_pca"] = rng.normal(size=(len(drug), n_dims))
    return adata


@pytest.fixture
def log():
    """What scanpy's log has said since the last look, line by line."""
    before = sc.settings.verbosity, sc.settings.logfile
    stream = io.StringIO()

    def lines():
        said = stream.getvalue().splitlines()
        stream.seek(0)
        stream.truncate()
        return said

    sc.settings.verbosity, sc.settings.logfile = 1, stream
    yield lines
    sc.settings.verbosity, sc.settings.logfile = before


def targets(adata):
    return list(adata.uns["hycnn_ot"]["targets"].values())


SIZES = (30, 5, 40, 19, 0, 25)


def labels(adata, n=6):
    adata.obs["drug"] = pd.Categorical(adata.obs["drug"], categories=["control", *(f"d{k}" for k in range(n))])
    return [f"d{k}" for k in range(n)]


def test_all_small_targets_are_named_and_what_leaves_them_out():
    adata = screen(SIZES)
    with pytest.raises(ValueError, match=r"too few cells: 'd1' .5., 'd3' .19., 'd4' .0.; .*skip_small=True") as told:
        sh.tl.hycnn_ot(adata, "control", labels(adata), **GAUSSIAN)
    assert "'d0'" not in str(told.value)
    assert not adata.uns
    assert not adata.obsm.keys() - {"X_pca"}


def test_hundreds_of_small_targets_are_named_in_a_short_message():
    adata = screen([30, *[5] * 200])
    with pytest.raises(ValueError, match=r"200 conditions .* and 180 more") as told:
        sh.tl.hycnn_ot(adata, "control", labels(adata, 201), **GAUSSIAN)
    assert len(str(told.value)) < 1000


def test_small_targets_can_be_skipped(log):
    adata, alone = screen(SIZES), screen(SIZES)
    sh.tl.hycnn_ot(adata, "control", labels(adata), skip_small=True, **GAUSSIAN)
    assert targets(adata) == ["d0", "d2", "d5"]
    (said,) = log()
    assert all(named in said for named in ("3 targets", "'d1' (5)", "'d3' (19)", "'d4' (0)"))
    sh.tl.hycnn_ot(alone, "control", ["d0", "d2", "d5"], skip_small=True, **GAUSSIAN)
    assert log() == []
    for name in ("X_hycnn_ot_d0", "X_hycnn_ot_d2", "X_hycnn_ot_d5"):
        np.testing.assert_array_equal(adata.obsm[name], alone.obsm[name])


def test_one_target_that_is_left_has_the_slots_of_one_target():
    adata = screen((30, 5))
    sh.tl.hycnn_ot(adata, "control", labels(adata, 2), skip_small=True, **GAUSSIAN)
    assert "X_hycnn_ot" in adata.obsm
    other = screen((30, 5))
    other.obsm["X_hycnn_ot"] = other.obsm["X_pca"].copy()
    with pytest.raises(ValueError, match=r"would replace 'X_hycnn_ot' \(adata.obsm\)"):
        sh.tl.hycnn_ot(other, "control", labels(other, 2), skip_small=True, **GAUSSIAN)


@pytest.mark.parametrize("skip_small", [True, False])
@pytest.mark.parametrize(("source", "names"), [("d1", ["d0", "d2"]), ("d0", ["d1", "d3"])])
def test_without_a_source_or_any_target_there_is_no_fit(source, names, skip_small):
    adata = screen(SIZES)
    with pytest.raises(ValueError, match="at least 20 are needed") as told:
        sh.tl.hycnn_ot(adata, source, names, skip_small=skip_small, **GAUSSIAN)
    assert "skip_small" not in str(told.value)


# ---- groups


def kinds_of(sizes, of_target):
    """Kinds of control cells, a third of each of three, and those of each target."""
    return np.concatenate(
        [np.tile(["B", "T", "NK"], 20), *(np.resize(own, n) for own, n in zip(of_target, sizes, strict=True))]
    )


def test_targets_with_too_few_cells_in_shared_groups_are_named_or_skipped(log):
    sizes = (30, 40, 30, 30)
    kinds = kinds_of(sizes, [["B", "T"], ["B"], ["plasma"], ["T", "NK"]])
    adata = screen(sizes, kinds=kinds)
    call = {"group_key": "kind", **GAUSSIAN}
    with pytest.raises(ValueError, match=r"2 of 4 targets .*'d1' .one group., 'd2' .no group..*skip_small=True"):
        sh.tl.hycnn_ot(adata, "control", ["d0", "d1", "d2", "d3"], **call)
    assert not adata.uns
    log()
    sh.tl.hycnn_ot(adata, "control", ["d0", "d1", "d2", "d3"], skip_small=True, **call)
    assert targets(adata) == ["d0", "d3"]
    lacking, skipped = log()
    assert "2 targets" in skipped
    assert "'d1' (one group)" in skipped
    assert "'NK' (1 maps)" in lacking
    alone = screen(sizes, kinds=kinds)
    sh.tl.hycnn_ot(alone, "control", ["d0", "d3"], **call)
    np.testing.assert_array_equal(adata.obsm["X_hycnn_ot_d3"], alone.obsm["X_hycnn_ot_d3"])


def test_one_line_says_what_many_maps_lack(log):
    """Every target lacks another of forty rare groups."""
    sizes, rare = [60] * 40, [f"rare {k}" for k in range(40)]
    kinds = kinds_of(sizes, [["B", "T", "NK", *["B"] * 9, own] for own in rare])
    sh.tl.hycnn_ot(adata := screen(sizes, kinds=kinds), "control", labels(adata, 40), group_key="kind", **GAUSSIAN)
    (said,) = log()
    assert "'rare 0' (1 maps)" in said
    assert "and 20 more" in said
    assert len(said) < 1000


def test_a_column_of_numbers_is_no_group_key():
    adata = screen((2500, 100))
    adata.obs["counts"] = np.random.default_rng(0).random(adata.n_obs)
    for target in ("d0", "d1"):
        with pytest.raises(ValueError, match=r"distinct values, .* at most 2,000 .*group_key.*pandas.cut") as told:
            sh.tl.hycnn_ot(adata, "control", target, group_key="counts", **GAUSSIAN)
        assert len(str(told.value)) < 2000


@pytest.mark.parametrize("missing", ["", "nan", "<NA>", None, np.nan])
@pytest.mark.parametrize("dtype", [object, "category"])
def test_a_missing_group_is_told_however_it_is_written(missing, dtype):
    adata = screen((30, 30))
    kinds = adata.obs["kind"].astype(object)
    kinds.iloc[7] = missing
    adata.obs["kind"] = kinds.astype(dtype)
    with pytest.raises(ValueError, match=r"is empty for 1 of 120 cells to fit on, the first '\d+'"):
        sh.tl.hycnn_ot(adata, "control", ["d0", "d1"], group_key="kind", **GAUSSIAN)
    sh.tl.hycnn_ot(adata, "control", ["d0", "d1"], group_key="kind", mask_obs=np.arange(adata.n_obs) != 7, **GAUSSIAN)


@pytest.mark.parametrize("dtype", ["category", "int", "float32", "bool", "string"])
def test_groups_of_any_dtype_are_those_of_strings(dtype):
    adata = screen((40, 40), kinds=np.resize([0, 1], 140))
    expected = adata.copy()
    expected.obs["kind"] = expected.obs["kind"].map({0: "a", 1: "b"})
    adata.obs["kind"] = adata.obs["kind"].astype(dtype)
    for own in (adata, expected):
        sh.tl.hycnn_ot(own, "control", ["d0", "d1"], group_key="kind", **GAUSSIAN)
    np.testing.assert_array_equal(adata.obsm["X_hycnn_ot_d1"], expected.obsm["X_hycnn_ot_d1"])


# ---- what is done once for all targets


def test_labels_with_one_slug_are_told_apart():
    names = [f"{chr(0x4E00 + k)}" for k in range(50)]
    adata = screen([20] * 50)
    adata.obs["drug"] = adata.obs["drug"].replace({f"d{k}": name for k, name in enumerate(names)})
    sh.tl.hycnn_ot(adata, "control", names, predict=False, **GAUSSIAN)
    assert adata.uns["hycnn_ot"]["targets"] == {
        "target" if not k else f"target_{k + 1}": n for k, n in enumerate(names)
    }


def test_cells_of_many_forward_maps_are_found_once():
    adata = screen((30, 30, 30))
    sh.tl.hycnn_ot(adata, "control", labels(adata, 3), **GAUSSIAN)
    others = screen((30,))
    others.obs["drug"] = "new"
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        sh.tl.transport(others, model=adata)
    assert sum("has no label 'control'" in str(warning.message) for warning in told) == 1
    assert {"X_hycnn_ot_d0", "X_hycnn_ot_d1", "X_hycnn_ot_d2"} <= set(others.obsm)


def test_numbers_and_what_prints_like_them_are_found_as_labels():
    adata = screen((30, 30))
    adata.obs["drug"] = adata.obs["drug"].map({"control": 0, "d0": 1, "d1": 2})
    for source, names in ((0, [1, 2]), ("0", ["1", "2"]), (0.0, [1.0, "2.0"])):
        fitted = sh.tl.hycnn_ot(adata, source, names, predict=False, copy=True, **GAUSSIAN)
        assert targets(fitted) == ["1", "2"]
