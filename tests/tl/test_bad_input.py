"""Bad input gets a sentence, and the AnnData stays byte for byte as it was."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import scot_hycnn as sh
from scot_hycnn.tl import _hycnn_ot


def set_obs(**columns):
    return lambda adata: (
        adata.obs.__setitem__(slice(None), adata.obs)
        or [adata.obs.__setitem__(name, make(adata)) for name, make in columns.items()]
    )


def bad_cells(value):
    def spoil(adata):
        rows = np.flatnonzero(adata.obs["condition"] == "control")[:7]
        adata.obsm["X_pca"][rows, 1] = value
        adata.obs_names = [f"bad{i}" if i in rows else f"good{i}" for i in range(adata.n_obs)]

    return spoil


def keep_few(adata):
    rows = np.flatnonzero(adata.obs["condition"] == "control")[5:]
    adata.obs["condition"] = adata.obs["condition"].mask(np.isin(np.arange(adata.n_obs), rows))


def drop_pca(adata):
    del adata.obsm["X_pca"]


def two_columns(adata):
    adata.obs["stim"] = adata.obs["condition"]


def no_columns(adata):
    adata.obs = adata.obs[["n_counts"]]


def other_columns(adata):
    adata.obs["batch"] = pd.Categorical(["a", "b"] * (adata.n_obs // 2))
    adata.obs["donor"] = pd.Categorical(["x", "y"] * (adata.n_obs // 2))
    del adata.obs["condition"]


def overlapping_masks(adata):
    adata.obs["m1"] = np.arange(adata.n_obs) < 70
    adata.obs["m2"] = np.arange(adata.n_obs) > 60


def no_expression(adata):
    adata.X = None


def words(adata):
    adata.obsm["words"] = pd.DataFrame({"a": ["x"] * adata.n_obs}, index=adata.obs_names)


def foreign(adata):
    adata.uns["mine"] = {"a": 1}


def foreign_slots(adata):
    adata.obsm["X_mine"] = np.zeros((adata.n_obs, 2))
    adata.obs["mine_std"] = 1.0


def cube(adata):
    adata.obsm["cube"] = np.zeros((adata.n_obs, 3, 2))


def pca_by_its_newer_name(adata):
    adata.obsm["scvi"] = adata.obsm.pop("X_pca")
    adata.obsm["pca"] = adata.obsm["scvi"].copy()


def many_labels(adata):
    adata.obs["condition"] = pd.Categorical([f"c{i}" for i in range(adata.n_obs)])


CASES = {
    "unknown source": (
        None,
        {"source_key": "ctrl"},
        r"source_key='ctrl' is not a category of adata.obs\['condition'\]; it has \['control', 'IFN-beta'\]\.",
    ),
    "unknown target": (None, {"target_key": "IFN"}, r"target_key='IFN' is not a category .* it has \['control'"),
    "unknown target in a list": (None, {"target_key": ["IFN-beta", "x"]}, "target_key='x' is not a category"),
    "unknown label, groupby": (None, {"source_key": "ctrl", "groupby": "condition"}, "source_key='ctrl' is not"),
    "many labels": (many_labels, {}, r"it has \['c0', .* and 110 more"),
    "same labels": (None, {"target_key": "control"}, "source_key and target_key are both 'control'"),
    "target twice": (None, {"target_key": ["IFN-beta", "IFN-beta"]}, "names 'IFN-beta' more than once"),
    "no target": (None, {"target_key": []}, "target_key is an empty list"),
    "unknown groupby": (
        None,
        {"groupby": "stim"},
        r"groupby='stim' is not a column of adata.obs; it has \['condition'",
    ),
    "ambiguous groupby": (
        two_columns,
        {},
        r"several columns of adata.obs; pass groupby= one of \['condition', 'stim'\]",
    ),
    "no label column": (no_columns, {}, "It has no categorical or string columns"),
    "labels nowhere": (other_columns, {}, r"Candidates are 'batch' with \['a', 'b'\]; 'donor' with \['x', 'y'\]"),
    "masks overlap": (
        overlapping_masks,
        {"source_key": "m1", "target_key": "m2"},
        r"9 cells are in both adata.obs\['m1'\]",
    ),
    "no pca": (drop_pca, {}, r"run sc.pp.pca\(adata\) first"),
    "no pca, named": (drop_pca, {"use_rep": "X_pca"}, r"'X_pca' is not in adata.obsm; run sc.pp.pca\(adata\) first"),
    "unknown rep": (None, {"use_rep": "X_scVI"}, r"use_rep='X_scVI' is not in adata.obsm; adata.obsm has \['X_pca'\]"),
    "no X": (no_expression, {"use_rep": "X"}, "adata.X is empty"),
    "words": (words, {"use_rep": "words"}, "only numbers can be transported"),
    "too many pcs": (
        None,
        {"n_pcs": 4},
        r"n_pcs=4 must be a whole number from 1 to 3, the columns of adata.obsm\['X_pca'\]",
    ),
    "no pcs": (None, {"n_pcs": 0}, "n_pcs=0 must be a whole number from 1 to 3"),
    "half a pc": (None, {"n_pcs": 2.5}, "n_pcs=2.5 must be a whole number from 1 to 3"),
    "pcs by name": (None, {"n_pcs": "2"}, "n_pcs='2' must be a whole number from 1 to 3"),
    "one width": (None, {"hidden": 48}, "hidden=48 must be one or more widths"),
    "the PCA as key": (None, {"key_added": "pca"}, "key_added='pca' would replace the representation 'X_pca'"),
    "no string as key": (None, {"key_added": 3}, "key_added=3 is no valid key"),
    "shuffled mask": (None, {"mask_obs": pd.Series(True, index=["a"] * 130)}, "index is not adata.obs_names"),
    "pcs of X": (None, {"n_pcs": 2, "use_rep": "X"}, "leave n_pcs out"),
    "NaN": (bad_cells(np.nan), {}, r"NaN or infinite values in 7 of 60 cells: ('bad\d+', ){4}'bad\d+' \.\.\."),
    "infinite": (bad_cells(np.inf), {}, "NaN or infinite values in 7 of 60 cells"),
    "few cells": (keep_few, {}, r"'control' of adata.obs\['condition'\] has 5 cells; at least 20 are needed"),
    "masked to few": (
        None,
        {"mask_obs": np.arange(130) < 10},
        "2 conditions .* have too few cells to fit on: 'control' .2., 'IFN-beta' .5.; at least 20",
    ),
    "mask of wrong length": (None, {"mask_obs": np.ones(3, dtype=bool)}, r"shape \(3,\).* each of the 130 cells"),
    "mask of numbers": (None, {"mask_obs": np.ones(130)}, "dtype float64; it needs one boolean"),
    "mask column": (None, {"mask_obs": "n_counts"}, "mask_obs='n_counts' is not a boolean column"),
    "fill": (None, {"fill": "zero"}, r"fill='zero' is unknown; choose one of \['nan', 'identity'\]"),
    "key": (None, {"key_added": "a/b"}, "key_added='a/b' is no valid key"),
    "empty key": (None, {"key_added": ""}, "key_added='' is no valid key"),
    "key of the rep": (None, {"key_added": "pca"}, "key_added='pca' would replace the representation 'X_pca'"),
    "foreign key": (
        foreign,
        {"key_added": "mine"},
        r"would replace adata.uns\['mine'\], which scot_hycnn did not write",
    ),
    "foreign slots": (
        foreign_slots,
        {"key_added": "mine"},
        r"would replace 'X_mine' \(adata.obsm\), 'mine_std' \(adata.obs\), which no fit of this key wrote",
    ),
    "the PCA's newer name as key": (
        pca_by_its_newer_name,
        {"key_added": "pca", "use_rep": "scvi"},
        "key_added='pca' would replace the representation",
    ),
    "cube": (cube, {"use_rep": "cube"}, r"adata.obsm\['cube'\] has shape \(130, 3, 2\)"),
    "true pcs": (None, {"n_pcs": True}, "n_pcs=True must be a whole number"),
    "pcs below none": (None, {"n_pcs": -1}, "n_pcs=-1 must be a whole number"),
    "potential": (None, {"potential": "forest"}, "potential='forest' is unknown"),
    "solver": (None, {"solver": "magic"}, "solver='magic' is unknown"),
    "device": (None, {"device": "tpu"}, "device='tpu'"),
    "hidden": (None, {"hidden": ()}, r"hidden=\(\) must be one or more widths"),
    "steps": (None, {"max_steps": 0}, "max_steps=0"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_sentence_and_no_trace(cells, unchanged, case):
    spoil, options, message = CASES[case]
    if spoil:
        spoil(cells)
    arguments = {"source_key": "control", "target_key": "IFN-beta", "max_steps": 2, "hidden": (4,)} | options
    with unchanged(cells), pytest.raises(ValueError, match=message):
        sh.tl.hycnn_ot(cells, **arguments)


def test_missing_cuda_is_said(cells, unchanged, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with unchanged(cells), pytest.raises(ValueError, match="device='cuda' is not available"):
        sh.tl.hycnn_ot(cells, "control", "IFN-beta", device="cuda")


def test_randomness_of_no_kind(cells, unchanged):
    with unchanged(cells), pytest.raises(TypeError, match=r"rng=1\.5 is of type float; it takes a whole number"):
        sh.tl.hycnn_ot(cells, "control", "IFN-beta", rng=1.5)


def test_no_anndata():
    with pytest.raises(TypeError, match="adata is of type ndarray; an AnnData is needed"):
        sh.tl.hycnn_ot(np.zeros((3, 3)), "a", "b")


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, RuntimeError])
def test_a_failing_fit_leaves_no_trace(cells, unchanged, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(_hycnn_ot._solver, "fit_many", fail)
    with unchanged(cells), pytest.raises(error):
        sh.tl.hycnn_ot(cells, "control", "IFN-beta")


@pytest.mark.parametrize("slot", ["obsm", "uns"])
@pytest.mark.filterwarnings("ignore:Replacing")
def test_a_failing_write_is_rolled_back(cells, unchanged, monkeypatch, slot):
    sh.tl.hycnn_ot(cells, "control", "IFN-beta", potential="gaussian", inverse=True)
    # The second fit replaces slots, removes one, and then fails half-way.
    kind = type(getattr(cells, slot))
    original = kind.update

    def fail(self, *args, **kwargs):
        monkeypatch.setattr(kind, "update", original)
        original(self, *args, **kwargs)
        raise KeyboardInterrupt

    if slot == "uns":

        class Failing(dict):
            def update(self, *args, **kwargs):
                super().update(*args, **kwargs)
                if not getattr(self, "failed", False):
                    self.failed = True
                    raise KeyboardInterrupt

        cells.uns = Failing(cells.uns)
        if not isinstance(cells.uns, Failing):
            pytest.skip("this anndata copies uns")
    else:
        monkeypatch.setattr(kind, "update", fail)
    with unchanged(cells), pytest.raises(KeyboardInterrupt):
        sh.tl.hycnn_ot(cells, "control", "IFN-beta", potential="gaussian")


def test_a_warning_made_an_error_leaves_no_trace(cells, unchanged):
    sh.tl.hycnn_ot(cells, "control", "IFN-beta", potential="gaussian")
    with unchanged(cells), pytest.raises(UserWarning, match="Replacing"):
        sh.tl.hycnn_ot(cells, "control", "IFN-beta", potential="gaussian")
