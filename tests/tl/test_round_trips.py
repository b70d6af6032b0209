"""Results survive files, subsets, copies and renaming: they mean the same, or an error says why not."""

from __future__ import annotations

import warnings

import anndata
import numpy as np
import pandas as pd
import pytest

import scot_hycnn as sh

AWKWARD = ["a/b", "", "A", "a"]
WRITTEN = ("obs", "var", "obsm", "varm", "layers", "uns")
pytestmark = [
    pytest.mark.filterwarnings("ignore:Writing zarr v2"),
    pytest.mark.filterwarnings("ignore:zarr v3 autosharding", "ignore:Consolidated metadata"),
]


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """All slots that the package writes, for targets with awkward names."""
    rng, n = np.random.default_rng(0), 30
    condition = rng.permutation(np.repeat(["control", *AWKWARD], [60, *[n] * len(AWKWARD)]))
    obs = pd.DataFrame({"condition": pd.Categorical(condition), "cell_type": np.resize(["B/β", "T"], len(condition))})
    obs.index = [f"cell{i}" for i in range(len(obs))]
    adata = anndata.AnnData(rng.random((len(obs), 12)).astype(np.float32), obs=obs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        sh.pp.split(adata, test_size=0.1, stratify="condition")
        sh.pp.pca(adata, 3, split_key="split")
        adata.obsm["X_umap"] = adata.obsm["X_pca"][:, :2].copy()
        columns = {"split_key": "split", "group_key": "cell_type", "groupby": "condition"}
        sh.tl.hycnn_ot(adata, "control", AWKWARD, inverse=True, potential="gaussian", **columns)
        sh.tl.project(adata)
        sh.tl.decode(adata)
        sh.tl.evaluate(adata, mask_obs=np.ones(adata.n_obs, dtype=bool), n_bootstrap=2)
    return adata


def through_file(adata, form, folder):
    path = folder / f"cells.{form[:4]}"
    if form == "h5ad":
        adata.write_h5ad(path)
        return anndata.read_h5ad(path)
    if not hasattr(anndata.settings, "zarr_write_format"):
        pytest.skip("this anndata writes one format of zarr")
    with anndata.settings.override(zarr_write_format=int(form[-1])):
        adata.write_zarr(path)
    assert (path / "zarr.json").exists() == (form == "zarr 3")
    return anndata.read_zarr(path)


def assert_same(a, b, where=""):
    """The same keys, kinds and values; strings may be held in another type."""
    if isinstance(b, dict):
        assert set(a) == set(b), where
        for key in b:
            assert_same(a[key], b[key], f"{where}/{key}")
    elif isinstance(b, pd.DataFrame):
        pd.testing.assert_frame_equal(a, b, check_dtype=True, check_categorical=True)
    else:
        a, b = np.asarray(a), np.asarray(b)
        assert a.dtype == b.dtype or b.dtype.kind in "UO", where
        np.testing.assert_array_equal(a.astype(object) if b.dtype.kind in "UO" else a, b, err_msg=where)


def moved_again(adata, name="again"):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        sh.tl.transport(adata, key_added=name)
        sh.tl.transport(adata, key_added=name, direction="inverse")
    return {key.replace(name, "hycnn_ot"): table for key, table in adata.obsm.items() if key.startswith(f"X_{name}")}


# Other tests write maps in the old format of zarr; all slots take five seconds.
@pytest.mark.parametrize("form", ["h5ad", pytest.param("zarr 2", marks=pytest.mark.slow), "zarr 3"])
@pytest.mark.filterwarnings("ignore:(This setting|zarr v3) will be")  # anndata 0.13 on its own setting
def test_files_hold_everything(everything, form, tmp_path):
    back = through_file(everything, form, tmp_path)
    for slot in WRITTEN:
        a, b = getattr(back, slot), getattr(everything, slot)
        assert_same(*((x if isinstance(x, pd.DataFrame) else dict(x)) for x in (a, b)), slot)
    again = moved_again(back)
    assert len(again) == 2 * len(AWKWARD)
    for name, table in again.items():
        np.testing.assert_array_equal(table, everything.obsm[name])
    for name in ("evaluation", "history"):
        read = getattr(sh.get, name)
        pd.testing.assert_frame_equal(read(back), read(everything), check_dtype=False)
    for label in ("", "a/b"):
        np.testing.assert_array_equal(*(sh.get.predicted(a, target=label).X for a in (back, everything)))


def test_a_fit_over_one_that_was_read_leaves_nothing_of_it(everything, tmp_path):
    back = through_file(everything, "h5ad", tmp_path)
    with pytest.warns(UserWarning, match="Replacing"):
        sh.tl.hycnn_ot(back, "control", "a/b", groupby="condition", potential="gaussian")
    assert [name for name in back.obsm if name.startswith("X_hycnn_ot")] == ["X_hycnn_ot"]
    assert not back.layers
    assert "hycnn_ot_evaluation" not in back.uns


# ---- changes between a fit and its use


@pytest.fixture
def fitted(cells):
    sh.tl.hycnn_ot(cells, "control", "IFN-beta", potential="gaussian")
    return cells


def make_unique(adata):
    adata.obs_names = ["cell"] * adata.n_obs
    adata.obs_names_make_unique()
    return adata


def with_raw(adata):
    adata.raw = adata.copy()
    return adata


KEPT = {
    "copy": lambda adata: adata.copy(),
    "a view of cells": lambda adata: adata[np.arange(adata.n_obs) % 2 == 0],
    "cells in another order": lambda adata: adata[::-1].copy(),
    "all genes": lambda adata: adata[:, adata.var_names],
    "raw": with_raw,
    "unique names": make_unique,
    "no expression": lambda adata: anndata.AnnData(obs=adata.obs, obsm=adata.obsm, uns=adata.uns),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Observation names are not unique")
@pytest.mark.parametrize("change", KEPT)
def test_the_fit_is_kept(fitted, change):
    changed = KEPT[change](fitted)
    np.testing.assert_array_equal(moved_again(changed)["X_hycnn_ot"], changed.obsm["X_hycnn_ot"])
    assert len(sh.get.transported(changed)) > 80


def test_other_genes_are_refused(fitted, unchanged):
    part = fitted[:, :4].copy()
    for use in (sh.tl.transport, sh.tl.decode, sh.get.transported, sh.get.predicted):
        with unchanged(part), pytest.raises(ValueError, match=r"'X_pca'.*sh\.get\.model\(adata\)"):
            use(part)
    moved = sh.get.model(part).transport(part.obsm["X_pca"])
    np.testing.assert_array_equal(moved[part.obs["condition"] == "control"], sh.get.transported(fitted).X[60:120])


def test_renamed_categories(fitted, unchanged):
    fitted.rename_categories("condition", ["resting", "treated"])
    for use in (sh.tl.decode, sh.get.transported, sh.get.predicted):
        with unchanged(fitted), pytest.raises(ValueError, match=r"'control'.*'condition'.*'resting', 'treated'"):
            use(fitted)
    with pytest.warns(UserWarning, match=r"'control'.*'resting'"):
        sh.tl.transport(fitted, key_added="new")
    fitted.rename_categories("condition", ["control", "IFN-beta"])
    assert len(sh.get.transported(fitted)) == 180


@pytest.mark.filterwarnings("ignore:Observation names are not unique")
@pytest.mark.parametrize(
    ("other", "uns_merge"),
    [
        ("the same fit", None),
        ("the same fit", "same"),
        ("another fit", "unique"),
        ("another fit", "first"),
        ("no fit", "only"),
        ("no fit", "same"),
    ],
)
def test_concatenated(fitted, new_cells, unchanged, uns_merge, other):
    others = fitted.copy() if other == "the same fit" else new_cells(40, seed=3)
    if other == "another fit":
        sh.tl.hycnn_ot(others, "control", "IFN-beta", potential="gaussian")
    both = anndata.concat([fitted, others], uns_merge=uns_merge, index_unique="-")
    merges = {
        "the same fit": {"same", "unique", "first"},
        "another fit": {"first"},
        "no fit": {"unique", "first", "only"},
    }
    if uns_merge in merges[other]:
        moved = moved_again(both)["X_hycnn_ot"]
        np.testing.assert_array_equal(moved[: fitted.n_obs], fitted.obsm["X_hycnn_ot"])
    else:
        with (
            unchanged(both),
            pytest.raises(ValueError, match="'hycnn_ot'"),
        ):
            sh.tl.transport(both)


# ---- keys of others


def fit_to_mine(adata):
    sh.tl.hycnn_ot(adata, "control", "IFN-beta", key_added="mine")


FOREIGN = {
    "pp.split": (lambda adata: sh.pp.split(adata, key_added="mine"), "obs", "mine"),
    "pp.pca": (lambda adata: sh.pp.pca(adata, 3, key_added="mine"), "obsm", "mine"),
    "pp.pca, mean": (lambda adata: sh.pp.pca(adata, 3, key_added="mine"), "var", "mine_mean"),
    "tl.hycnn_ot": (fit_to_mine, "obsm", "X_mine"),
    "tl.hycnn_ot, column": (fit_to_mine, "obs", "mine_std"),
    "tl.hycnn_ot, uns": (fit_to_mine, "uns", "mine"),
    "tl.transport": (lambda adata: sh.tl.transport(adata, key_added="mine"), "obsm", "X_mine"),
    "tl.transport, column": (lambda adata: sh.tl.transport(adata, key_added="mine"), "obs", "mine_displacement"),
    "tl.decode": (lambda adata: sh.tl.decode(adata, key_added="mine"), "layers", "mine"),
    "tl.project": (lambda adata: sh.tl.project(adata, "pca", key_added="mine"), "obsm", "X_mine"),
    "tl.project, uns": (lambda adata: sh.tl.project(adata, "pca", key_added="mine"), "uns", "mine"),
    "tl.evaluate": (lambda adata: sh.tl.evaluate(adata, key_added="mine"), "uns", "mine_evaluation"),
}  # fmt: skip


@pytest.mark.parametrize("case", FOREIGN)
def test_values_of_others_are_refused_or_announced(fitted, unchanged, case):
    write, slot, name = FOREIGN[case]
    shape = {"obs": (fitted.n_obs,), "obsm": (fitted.n_obs, 2), "var": (fitted.n_vars,), "layers": fitted.shape}
    getattr(fitted, slot)[name] = np.ones(shape.get(slot, (3,)))
    with unchanged(fitted), pytest.raises((ValueError, UserWarning), match=rf"(?=.*{name})(?=.*([Rr]eplac|overwrite))"):
        write(fitted)


@pytest.mark.parametrize("form", ["h5ad", "zarr 2"])
def test_a_fit_that_left_groups_out_comes_back(form, tmp_path):
    """The names of these groups are strings in an array, which files give back as objects."""
    rng = np.random.default_rng(0)
    obs = pd.DataFrame({"condition": np.repeat(["control", "drug"], 60)}, index=[f"c{i}" for i in range(120)])
    obs["cell_type"] = np.tile(np.repeat(["B", "T", "rare"], [30, 27, 3]), 2)
    adata = anndata.AnnData(obs=obs, obsm={"X_pca": rng.normal(size=(120, 2)).astype(np.float32)})
    sh.tl.hycnn_ot(adata, "control", "drug", group_key="cell_type", potential="gaussian")
    back = through_file(adata, form, tmp_path)
    assert list(sh.get.model(back).validation["groups_left_out"]) == ["rare"]
    sh.get.model(back).save(tmp_path / "map.safetensors")
    assert list(sh.solver.TransportMap.load(tmp_path / "map.safetensors").validation["groups_left_out"]) == ["rare"]
    sh.tl.transport(back, key_added="again")
    np.testing.assert_array_equal(back.obsm["X_again"], adata.obsm["X_hycnn_ot"])
