"""The tool: what it writes, for every form of input."""

from __future__ import annotations

import inspect
import re
import sys

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from scipy import sparse

import scot_hycnn as sh
from scot_hycnn.solver.training import _parts

GAUSSIAN = {"potential": "gaussian"}


def fitted(adata, *args, **kwargs):
    sh.tl.hycnn_ot(adata, *(args or ("control", "IFN-beta")), **GAUSSIAN, **kwargs)
    return adata


def test_slots_of_one_target(cells, fast):
    before = cells.copy()
    assert sh.tl.hycnn_ot(cells, "control", "IFN-beta", inverse=True, **fast) is None
    is_source = (cells.obs["condition"] == "control").to_numpy()
    is_target = (cells.obs["condition"] == "IFN-beta").to_numpy()

    moved, back = cells.obsm["X_hycnn_ot"], cells.obsm["X_hycnn_ot_inverse"]
    assert moved.dtype == back.dtype == np.float32
    assert moved.shape == back.shape == cells.obsm["X_pca"].shape
    np.testing.assert_array_equal(np.isfinite(moved).all(1), is_source)
    np.testing.assert_array_equal(np.isnan(moved).all(1), ~is_source)
    np.testing.assert_array_equal(np.isfinite(back).all(1), is_target)

    transport_map = sh.get.model(cells)
    expected, std = transport_map.transport(cells.obsm["X_pca"][is_source], return_std=True)
    np.testing.assert_array_equal(moved[is_source], expected)
    np.testing.assert_array_equal(back[is_target], transport_map.inverse(cells.obsm["X_pca"][is_target]))
    displacement = np.linalg.norm(expected - cells.obsm["X_pca"][is_source], axis=1)
    for name, values in (("displacement", displacement), ("std", std)):
        column = cells.obs[f"hycnn_ot_{name}"]
        assert column.dtype == np.float32
        np.testing.assert_allclose(column[is_source], values, rtol=1e-6)
        assert column[~is_source].isna().all()

    new = {"X_hycnn_ot", "X_hycnn_ot_inverse"}
    assert set(cells.obsm) - set(before.obsm) == new
    np.testing.assert_array_equal(cells.X, before.X)
    np.testing.assert_array_equal(cells.obsm["X_pca"], before.obsm["X_pca"])
    pd.testing.assert_frame_equal(cells.obs[before.obs.columns], before.obs)


def test_contents_of_uns(cells, fast):
    sh.tl.hycnn_ot(cells, "control", "IFN-beta", rng=3, **fast)
    uns = cells.uns["hycnn_ot"]
    assert (uns["schema_version"], uns["groupby"], uns["source"]) == (1, "condition", "control")
    assert uns["targets"] == {"IFN-beta": "IFN-beta"}
    assert (uns["rep"]["name"], uns["rep"]["n_dims"], len(uns["rep"]["fingerprint"])) == ("X_pca", 3, 64)
    assert uns["params"]["rng"] == 3
    assert uns["params"]["device"] in ("cpu", "cuda", "mps")
    for report in ("history", "validation", "certificate", "status", "models"):
        assert list(uns[report]) == ["IFN-beta"]
    assert set(uns["versions"]) == {"scot_hycnn", "torch", "anndata", "scanpy", "numpy"}
    assert_plain(uns)


def assert_plain(value):
    """Only what h5ad and zarr can hold without a change of meaning."""
    if isinstance(value, dict):
        assert all(isinstance(key, str) and "/" not in key for key in value)
        for inner in value.values():
            assert_plain(inner)
    elif isinstance(value, np.ndarray):
        assert value.dtype.kind in "fiub"
    else:
        assert isinstance(value, (str, int, float, bool, np.generic))


def test_several_targets_have_slugs(cells):
    labels = cells.obs["condition"].astype(object)
    labels[labels.isna()] = "control"
    half = np.flatnonzero(labels == "IFN-beta")[::2]
    labels.iloc[half] = "BCR/FcR-XL"
    cells.obs["condition"] = labels.astype("category")
    fitted(cells, "control", ["BCR/FcR-XL", "IFN-beta"], inverse=True)
    assert cells.uns["hycnn_ot"]["targets"] == {"BCR_FcR-XL": "BCR/FcR-XL", "IFN-beta": "IFN-beta"}
    for slug in ("BCR_FcR-XL", "IFN-beta"):
        assert f"X_hycnn_ot_{slug}" in cells.obsm
        assert f"X_hycnn_ot_inverse_{slug}" in cells.obsm
        assert {f"hycnn_ot_displacement_{slug}", f"hycnn_ot_std_{slug}"} <= set(cells.obs)
    # Each map is the one that a fit of its own gives.
    alone = fitted(cells.copy(), "control", "IFN-beta", key_added="alone")
    np.testing.assert_allclose(alone.obsm["X_alone"], cells.obsm["X_hycnn_ot_IFN-beta"], rtol=1e-4, atol=1e-4)


def test_a_small_target_is_named_before_anything_is_fitted(cells, monkeypatch):
    monkeypatch.setattr("scot_hycnn.solver.fit_many", None)
    cells.obs["condition"] = cells.obs["condition"].cat.add_categories("rare").fillna("rare")
    with pytest.raises(ValueError, match=r"'rare' of adata.obs\['condition'\] has 10 cells; at least 20 are needed"):
        fitted(cells, "control", ["IFN-beta", "rare"])


def test_targets_that_keep_the_gaussian_map_are_named(cells):
    labels = cells.obs["condition"].astype(object).fillna("control")
    labels.iloc[np.flatnonzero(labels == "IFN-beta")[::2]] = "other"
    cells.obs["condition"] = labels
    with pytest.warns(UserWarning, match="non-finite") as caught:
        sh.tl.hycnn_ot(cells, "control", ["IFN-beta", "other"], lr=1e30, max_steps=3, hidden=(4,))
    assert [warning.filename for warning in caught] == [__file__]
    text = str(caught[0].message)
    assert "'IFN-beta', 'other'" in text
    assert "Gaussian map was kept" in text


@pytest.fixture
def screen(cells):
    """Seven small targets and a control."""
    big = anndata.concat([cells] * 4, index_unique="-")
    big.obs["drug"] = pd.Categorical(np.resize([f"drug {k}" for k in range(7)], big.n_obs))
    big.obs["drug"] = big.obs["drug"].cat.add_categories("none")
    big.obs.loc[big.obs["condition"] == "control", "drug"] = "none"
    return big


def test_many_targets_are_counted_in_log_and_warning(screen, capsys):
    drugs = [f"drug {k}" for k in range(7)]
    with pytest.warns(UserWarning, match="'drug 0', .*'drug 4' and 2 others .*recovered") as caught:
        sh.tl.hycnn_ot(screen, "none", drugs, groupby="drug", lr=1e30, max_steps=3, hidden=(4,))
    assert len(caught) == 1
    before = sc.settings.verbosity, sc.settings.logfile
    sc.settings.verbosity, sc.settings.logfile = "info", sys.stderr
    try:
        fitted(screen, "none", drugs, groupby="drug", key_added="again")
    finally:
        sc.settings.verbosity, sc.settings.logfile = before
    assert "cells) to 7 targets ('drug 0' (" in capsys.readouterr().err


def test_maps_alone_are_stored_and_move_cells_later(screen):
    drugs = ["drug 0", "drug 1"]
    whole = fitted(screen.copy(), "none", drugs, groupby="drug")
    before = set(screen.obs), set(screen.obsm)
    fitted(screen, "none", drugs, groupby="drug", predict=False)
    assert (set(screen.obs), set(screen.obsm)) == before
    with pytest.raises(ValueError, match=r"lacks 'X_hycnn_ot_drug_1'; run sh.tl.transport\(adata, 'hycnn_ot'\)"):
        sh.get.transported(screen, target="drug 1")
    sh.tl.transport(screen, target="drug 1")
    np.testing.assert_array_equal(screen.obsm["X_hycnn_ot_drug_1"], whole.obsm["X_hycnn_ot_drug_1"])
    assert "X_hycnn_ot_drug_0" not in screen.obsm


def test_maps_alone_and_target_cells_moved_back_exclude_each_other(cells, unchanged):
    with (
        unchanged(cells),
        pytest.raises(ValueError, match="inverse=True moves target cells and predict=False moves none"),
    ):
        fitted(cells, predict=False, inverse=True)


LABELS = {
    "categorical": lambda column: column,
    "object": lambda column: column.astype(object),
    "string": lambda column: column.astype("string"),
    "int category": lambda column: column.cat.rename_categories([0, 1]),
    "float": lambda column: column.cat.rename_categories([0.0, 1.0]).astype(float),
    "nullable int": lambda column: column.cat.rename_categories([0, 1]).astype("Int64"),
    "bool category": lambda column: column.cat.rename_categories([False, True]),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_any_type(cells, kind):
    expected = fitted(cells.copy()).obsm["X_hycnn_ot"]
    column = cells.obs["condition"]
    cells.obs["condition"] = LABELS[kind](column)
    names = (cells.obs.loc[column == label, "condition"].iloc[0] for label in ("control", "IFN-beta"))
    fitted(cells, *map(str, names), groupby="condition")
    np.testing.assert_array_equal(cells.obsm["X_hycnn_ot"], expected)


def test_boolean_columns_are_masks(cells):
    expected = fitted(cells.copy()).obsm["X_hycnn_ot"]
    cells.obs["resting"] = (cells.obs["condition"] == "control").to_numpy()
    cells.obs["treated"] = pd.array((cells.obs["condition"] == "IFN-beta").to_numpy(), dtype="boolean")
    fitted(cells, "resting", "treated")
    np.testing.assert_array_equal(cells.obsm["X_hycnn_ot"], expected)
    assert "groupby" not in cells.uns["hycnn_ot"]
    assert len(sh.get.transported(cells)) == 180


REPRESENTATIONS = {
    "float64": lambda x: x.astype(np.float64),
    "float16": lambda x: x.astype(np.float16),
    "int": lambda x: x.astype(int),
    "fortran": np.asfortranarray,
    "csr matrix": sparse.csr_matrix,
    "csr array": sparse.csr_array,
    "csc matrix": sparse.csc_matrix,
}


@pytest.mark.parametrize("kind", REPRESENTATIONS)
def test_representations_of_any_type(cells, kind):
    exact = np.round(cells.obsm["X_pca"])
    cells.obsm["X_pca"] = exact
    expected = fitted(cells.copy()).obsm["X_hycnn_ot"]
    cells.obsm["X_pca"] = REPRESENTATIONS[kind](exact)
    np.testing.assert_allclose(fitted(cells).obsm["X_hycnn_ot"], expected, atol=1e-5)


def test_a_table_keeps_its_names(cells):
    expected = fitted(cells.copy()).obsm["X_hycnn_ot"]
    cells.obsm["proteins"] = pd.DataFrame(cells.obsm["X_pca"], columns=["CD3", "CD4", "CD8"], index=cells.obs_names)
    fitted(cells, use_rep="proteins")
    np.testing.assert_array_equal(cells.obsm["X_hycnn_ot"], expected)
    assert list(sh.get.transported(cells).var_names) == ["CD3", "CD4", "CD8"]


@pytest.mark.parametrize("convert", [np.asarray, sparse.csr_matrix, sparse.csr_array, sparse.csc_matrix])
def test_expression_itself(cells, convert):
    cells.obsm["same"] = cells.X.copy()
    expected = fitted(cells.copy(), use_rep="same").obsm["X_hycnn_ot"]
    cells.X = convert(cells.X)
    np.testing.assert_array_equal(fitted(cells, use_rep="X").obsm["X_hycnn_ot"], expected)


def test_newer_scanpy_calls_it_pca(cells):
    cells.obsm["pca"] = cells.obsm.pop("X_pca")
    cells.varm["pca"] = cells.varm.pop("PCs")
    fitted(cells)
    assert cells.uns["hycnn_ot"]["rep"]["name"] == "pca"
    assert cells.uns["hycnn_ot"]["rep"]["fingerprint"]


def test_first_components(cells):
    fitted(cells, n_pcs=2)
    assert cells.obsm["X_hycnn_ot"].shape[1] == 2
    alone = cells.copy()
    alone.obsm["X_pca"] = cells.obsm["X_pca"][:, :2]
    np.testing.assert_array_equal(fitted(alone, key_added="x").obsm["X_x"], cells.obsm["X_hycnn_ot"])


def test_views_become_actual_without_touching_the_parent(cells, unchanged):
    view = cells[np.flatnonzero(cells.obs["condition"].notna())]
    with unchanged(cells):
        fitted(view)
    assert not view.is_view
    assert view.obsm["X_hycnn_ot"].shape == (120, 3)


@pytest.mark.parametrize("use_rep", ["X_pca", "X"])
def test_backed_files(cells, tmp_path, use_rep):
    cells.write_h5ad(tmp_path / "cells.h5ad")
    expected = fitted(cells.copy(), use_rep=use_rep).obsm["X_hycnn_ot"]
    backed = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    np.testing.assert_array_equal(fitted(backed, use_rep=use_rep).obsm["X_hycnn_ot"], expected)
    assert backed.isbacked
    backed.file.close()
    assert "X_hycnn_ot" not in anndata.read_h5ad(tmp_path / "cells.h5ad").obsm


def test_views_of_backed_files(cells, tmp_path):
    cells.write_h5ad(tmp_path / "cells.h5ad")
    backed = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    view = backed[np.flatnonzero(cells.obs["condition"].notna())]
    with pytest.raises(ValueError, match=r"view of a file-backed AnnData .* adata.to_memory\(\)"):
        fitted(view)
    copied = sh.tl.hycnn_ot(view, "control", "IFN-beta", copy=True, **GAUSSIAN)
    assert copied.obsm["X_hycnn_ot"].shape == (120, 3)
    backed.file.close()


@pytest.mark.filterwarnings("ignore:Observation names are not unique")
@pytest.mark.filterwarnings("ignore:Variable names are not unique")
def test_duplicated_names_do_not_matter(cells):
    expected = fitted(cells.copy()).obsm["X_hycnn_ot"]
    cells.obs_names = ["same"] * cells.n_obs
    cells.var_names = ["gene"] * cells.n_vars
    np.testing.assert_array_equal(fitted(cells).obsm["X_hycnn_ot"], expected)
    assert len(sh.get.transported(cells)) == 180


def test_held_out_cells_are_not_seen_and_still_moved(cells):
    held_out = np.random.default_rng(1).random(cells.n_obs) < 0.2
    cells.obs["train"] = ~held_out
    poisoned = cells.copy()
    poisoned.obsm["X_pca"][held_out] = 1e6
    for adata, mask in ((cells, "train"), (poisoned, ~held_out)):
        fitted(adata, mask_obs=mask)
    is_control = (cells.obs["condition"] == "control").to_numpy()
    rows = is_control & ~held_out
    np.testing.assert_array_equal(cells.obsm["X_hycnn_ot"][rows], poisoned.obsm["X_hycnn_ot"][rows])
    assert np.isfinite(cells.obsm["X_hycnn_ot"][is_control]).all()


def test_held_out_cells_may_lack_coordinates(cells):
    is_control = (cells.obs["condition"] == "control").to_numpy()
    first = np.flatnonzero(is_control)[0]
    cells.obsm["X_pca"][first] = np.nan
    fitted(cells, mask_obs=np.arange(cells.n_obs) != first)
    assert np.isnan(cells.obsm["X_hycnn_ot"][first]).all()
    assert np.isfinite(cells.obsm["X_hycnn_ot"][is_control]).all(1).sum() == is_control.sum() - 1


def test_fill_identity(cells):
    fitted(cells, fill="identity", inverse=True)
    is_source = (cells.obs["condition"] == "control").to_numpy()
    np.testing.assert_array_equal(cells.obsm["X_hycnn_ot"][~is_source], cells.obsm["X_pca"][~is_source])
    assert not np.isclose(cells.obsm["X_hycnn_ot"][is_source], cells.obsm["X_pca"][is_source]).all(1).any()
    assert np.isfinite(cells.obsm["X_hycnn_ot_inverse"]).all()


def test_copy_leaves_the_original(cells, unchanged):
    with unchanged(cells):
        copied = sh.tl.hycnn_ot(cells, "control", "IFN-beta", copy=True, **GAUSSIAN)
    assert "X_hycnn_ot" in copied.obsm


def test_same_seed_same_bits(cells, fast):
    first, second, other = (cells.copy() for _ in range(3))
    for adata, rng in ((first, 5), (second, 5), (other, 6)):
        sh.tl.hycnn_ot(adata, "control", "IFN-beta", rng=rng, **fast)
    np.testing.assert_array_equal(first.obsm["X_hycnn_ot"], second.obsm["X_hycnn_ot"])
    np.testing.assert_array_equal(*(a.uns["hycnn_ot"]["models"]["IFN-beta"]["theta"] for a in (first, second)))
    assert (
        first.uns["hycnn_ot"]["models"]["IFN-beta"]["theta"] != other.uns["hycnn_ot"]["models"]["IFN-beta"]["theta"]
    ).any()


def test_an_interrupted_fit_leaves_the_cells_as_they_were_and_goes_on(cells, fast, unchanged, tmp_path, monkeypatch):
    expected, options = cells.copy(), fast | {"checkpoint_dir": tmp_path / "maps"}
    sh.tl.hycnn_ot(expected, "control", "IFN-beta", **fast)

    def step(part, number, original=_parts.Part.step):
        if number == 4:
            raise KeyboardInterrupt
        return original(part, number)

    with monkeypatch.context() as patch:
        patch.setattr(_parts.Part, "step", step)
        with unchanged(cells), pytest.raises(KeyboardInterrupt):
            sh.tl.hycnn_ot(cells, "control", "IFN-beta", **options)
    assert [path.suffix for path in (tmp_path / "maps").iterdir()] == [".checkpoint"]
    sh.tl.hycnn_ot(cells, "control", "IFN-beta", **options)
    np.testing.assert_array_equal(cells.obsm["X_hycnn_ot"], expected.obsm["X_hycnn_ot"])
    assert [path.suffix for path in (tmp_path / "maps").iterdir()] == [".safetensors"]


@pytest.mark.parametrize("rng", [np.int64(4), np.random.default_rng(4), None])
def test_randomness_in_numpys_forms(cells, rng):
    fitted(cells, rng=rng)
    seed = cells.uns["hycnn_ot"]["params"]["rng"]
    assert isinstance(seed, int)
    assert seed == 4 or not isinstance(rng, np.integer)
    again = fitted(cells.copy(), rng=seed, key_added="again")
    np.testing.assert_array_equal(again.obsm["X_again"], cells.obsm["X_hycnn_ot"])


def test_replacing_warns_and_leaves_nothing_of_the_old_fit(cells):
    labels = cells.obs["condition"].astype(object).fillna("none")
    labels.iloc[np.flatnonzero(labels == "IFN-beta")[::2]] = "IFN-gamma"
    cells.obs["condition"] = labels
    fitted(cells, "control", ["IFN-beta", "IFN-gamma"], inverse=True)
    with pytest.warns(UserWarning, match=r"Replacing 'X_hycnn_ot_IFN-beta' \(adata.obsm\).*pass key_added") as caught:
        fitted(cells)
    assert caught[0].filename == __file__
    assert set(cells.obsm) == {"X_pca", "X_hycnn_ot"}
    columns = {f"hycnn_ot_{name}" for name in ("displacement", "std", "out_of_support")}
    assert set(cells.obs) == {"condition", "n_counts"} | columns


def test_two_keys_live_side_by_side(cells):
    fitted(cells)
    fitted(cells, key_added="foo")
    assert {"X_foo", "X_hycnn_ot"} <= set(cells.obsm)
    assert {"foo_displacement", "foo_std"} <= set(cells.obs)
    assert {"foo", "hycnn_ot"} <= set(cells.uns)


def test_log_is_scanpys(cells, fast, capsys):
    before = sc.settings.verbosity, sc.settings.logfile
    sc.settings.verbosity, sc.settings.logfile = 3, sys.stderr
    try:
        sh.tl.hycnn_ot(cells, "control", "IFN-beta", **fast)
    finally:
        sc.settings.verbosity, sc.settings.logfile = before
    log = capsys.readouterr().err
    assert "fitting transport from 'control' (60 cells) to 'IFN-beta' (60) of adata.obs['condition']" in log
    assert re.search(r"on 3 dimensions of 'X_pca', on \w+, about \d+ s\n", log)
    assert "finished: added\n    'X_hycnn_ot' (adata.obsm)\n" in log


def test_defaults_are_the_solvers():
    tool, solver = (inspect.signature(f).parameters for f in (sh.tl.hycnn_ot, sh.solver.fit))
    for name, parameter in solver.items():
        if name not in ("x", "y", "groups"):  # the tool's groups are a column, group_key
            assert tool[name].default == parameter.default, name
