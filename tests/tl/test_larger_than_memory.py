"""Cells in files and lazy arrays: the same result as in memory, from the rows that it needs and no others."""

from __future__ import annotations

import errno
import pickle
import sys

import anndata
import dask.array as da
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import zarr
from anndata import AnnData
from anndata.experimental import read_lazy

import scot_hycnn as sh
from scot_hycnn import solver
from scot_hycnn._anndata import _representation

pytestmark = pytest.mark.filterwarnings("ignore:Writing zarr v2")
TINY = {"max_steps": 4, "hidden": (4,), "n_ensemble": 1}
LABELS = ("control", "IFN-beta")


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Everything takes several blocks."""
    monkeypatch.setattr(_representation, "MAX_ROWS", 40)


# ---- forms of the same AnnData, in memory and in files


def as_is(adata, path):
    return adata


def frame(adata, path):
    adata.obsm["X_pca"] = pd.DataFrame(adata.obsm["X_pca"], index=adata.obs_names, columns=list("abc"))
    return adata


def sparse(adata, path):
    adata.obsm["X_pca"], adata.X = sp.csr_matrix(adata.obsm["X_pca"]), sp.csc_matrix(adata.X)
    return adata


def backed(adata, path):
    adata.write_h5ad(path / "cells.h5ad")
    return anndata.read_h5ad(path / "cells.h5ad", backed="r")


def backed_by_gene(adata, path):
    adata.X = sp.csc_matrix(adata.X)
    return backed(adata, path)


def zarr_table(adata, path):
    adata.obsm["X_pca"] = zarr.create_array(path / "pca.zarr", data=adata.obsm["X_pca"], chunks=(7, 3))
    return adata


def hdf5_table(adata, path):
    adata.obsm["X_pca"] = h5py.File(path / "pca.h5", "w").create_dataset("pca", data=adata.obsm["X_pca"])
    return adata


def dask_arrays(adata, path):
    adata.X, adata.obsm["X_pca"] = (da.from_array(values, chunks=(11, -1)) for values in (adata.X, adata.obsm["X_pca"]))
    return adata


def lazy_h5ad(adata, path):
    adata.write_h5ad(path / "cells.h5ad")
    return read_lazy(path / "cells.h5ad")


def lazy_zarr(adata, path):
    adata.write_zarr(path / "cells.zarr")
    return read_lazy(path / "cells.zarr")


def lazy_frame(adata, path):
    return lazy_h5ad(frame(adata, path), path)


def lazy_sparse(adata, path):
    return lazy_zarr(sparse(adata, path), path)


def lazy_sparse_h5ad(adata, path):
    return lazy_h5ad(sparse(adata, path), path)


def view_of_lazy(adata, path):
    return lazy_zarr(adata, path)[:]


ON_DEMAND = (zarr_table, hdf5_table, dask_arrays, lazy_h5ad, lazy_zarr, lazy_sparse)
KINDS = (*ON_DEMAND, frame, sparse, backed, backed_by_gene, lazy_frame, view_of_lazy)


def name_of(kind):
    return getattr(kind, "__name__", None)


def rows_of(adata, label):
    return np.flatnonzero((adata.obs["condition"] == label).to_numpy())


# ---- fits


FITS = {
    "all": {"potential": "gaussian", "max_cells": None, "use_rep": "X"},
    "some": {"split_key": "split", "group_key": "type", "max_cells": 30, **TINY},
}


@pytest.fixture(scope="module")
def in_memory(new_cells):
    """Cells, and the same cells with the fits that those elsewhere must have."""
    cells = new_cells()
    cells.obs["split"] = np.where(np.arange(cells.n_obs) % 4, "train", "test")
    cells.obs["type"] = np.where(np.arange(cells.n_obs) % 3, "B cell", "T cell")
    fitted = cells.copy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_representation, "MAX_ROWS", 40)
        for key, options in FITS.items():
            sh.tl.hycnn_ot(fitted, *LABELS, groupby="condition", key_added=key, **options)
    return cells, fitted


@pytest.mark.parametrize("kind", KINDS, ids=name_of)
def test_the_same_bits_as_in_memory(in_memory, tmp_path, kind):
    plain, cells = in_memory
    elsewhere = kind(plain.copy(), tmp_path)
    for key, options in FITS.items():
        sh.tl.hycnn_ot(elsewhere, *LABELS, groupby="condition", key_added=key, **options)
        expected, found = (adata.uns[key] for adata in (cells, elsewhere))
        assert found["n_training"] == expected["n_training"]
        assert found["rep"] == expected["rep"]
        for name in ("theta", "w2_squared"):
            np.testing.assert_array_equal(found["models"]["IFN-beta"][name], expected["models"]["IFN-beta"][name])
        np.testing.assert_array_equal(elsewhere.obsm[f"X_{key}"], cells.obsm[f"X_{key}"])
        for name in ("displacement", "std", "out_of_support"):
            pd.testing.assert_series_equal(elsewhere.obs[f"{key}_{name}"], cells.obs[f"{key}_{name}"])
    if elsewhere.isbacked:
        elsewhere.file.close()
        assert "X_all" not in anndata.read_h5ad(tmp_path / "cells.h5ad").obsm


ANSWERS = {
    "scores": lambda adata: (sh.tl.evaluate(adata, n_bootstrap=5), sh.get.evaluation(adata))[1],
    "summary": sh.get.summary,
    "growth": lambda adata: sh.pl.growth(adata, show=False).get_xlim(),
    "displacement": lambda adata: sh.pl.displacement(adata, show=False).get_xlim(),
    "deg": sh.get.deg,
}


@pytest.mark.parametrize("group_key", ["lineage", None])
def test_answers_are_those_in_memory(tmp_path, group_key):
    adata = sh.datasets.pbmc_planted(n_cells=300)
    sh.pp.split(adata)
    sh.pp.pca(adata, n_comps=5, split_key="split", key_added="X_train")
    adata.obs["lineage"] = np.where(adata.obs["cell_type"].isin(["CD14+ Monocyte", "Dendritic"]), "myeloid", "other")
    adata.write_h5ad(tmp_path / "cells.h5ad")
    lazy = read_lazy(tmp_path / "cells.h5ad")
    options = {"use_rep": "X_train", "split_key": "split", "potential": "gaussian", "unbalanced": 0.5}
    for cells in (adata, lazy):
        sh.tl.hycnn_ot(cells, *LABELS, group_key=group_key, **options)
    for name, answer in ANSWERS.items():
        if name not in ("displacement", "growth") or group_key is not None:
            expected, found = answer(adata), answer(lazy)
            is_table = isinstance(expected, pd.DataFrame)
            (pd.testing.assert_frame_equal if is_table else np.testing.assert_array_equal)(found, expected)


def sampled(adata, seed, **options):
    """Number of training cells, and the mean of the source cells that the fit is on."""
    call = {"max_cells": 25, "predict": False, "potential": "gaussian", "key_added": "fit", **options}
    fit = sh.tl.hycnn_ot(adata, *LABELS, rng=seed, copy=True, **call)
    return fit.uns["fit"]["n_training"], fit.uns["fit"]["models"]["IFN-beta"]["coordinates"]["mean_x"], fit


def test_the_cap_holds_and_the_seed_decides(cells):
    n_training, mean, _ = sampled(cells, 1)
    assert n_training == {"source": 25, "IFN-beta": 25}
    np.testing.assert_array_equal(sampled(cells, 1)[1], mean)
    assert (sampled(cells, 2)[1] != mean).all()
    # All cells are moved, whatever the fit is on.
    _, same, fit = sampled(cells, np.int64(1), predict=True, inverse=True)
    np.testing.assert_array_equal(same, mean)
    assert np.isfinite(fit.obsm["X_fit"]).all(1).sum() == np.isfinite(fit.obsm["X_fit_inverse"]).all(1).sum() == 60
    for cap in (None, 60):
        assert sampled(cells, 1, max_cells=cap)[0] == {"source": 60, "IFN-beta": 60}


def test_the_sample_is_uniform(cells):
    """Coordinates say in which third of the file a cell is; the mean over 30 samples is that of all cells.

    The mean of one sample of 25 of 60 cells has a standard deviation of at most .08, that of 30 samples .015.
    """
    third = np.arange(cells.n_obs) * 3 // cells.n_obs
    cells.obsm["X_pca"] = np.eye(3)[third] + np.random.default_rng(0).normal(scale=0.01, size=(cells.n_obs, 3))
    mean = np.mean([sampled(cells, seed)[1] for seed in range(30)], axis=0)
    np.testing.assert_allclose(mean, cells.obsm["X_pca"][rows_of(cells, "control")].mean(0), atol=0.05)


def test_a_condition_has_the_same_sample_whichever_are_fitted_beside_it(cells):
    labels = cells.obs["condition"].astype(object)
    labels.iloc[rows_of(cells, "IFN-beta")[:30]] = "other"
    cells.obs["condition"] = labels
    means = []
    for targets in (["IFN-beta"], ["other", "IFN-beta"]):
        options = {"max_cells": 25, "potential": "gaussian", "key_added": str(len(targets))}
        sh.tl.hycnn_ot(cells, "control", targets, predict=False, **options)
        coordinates = cells.uns[str(len(targets))]["models"]["IFN-beta"]["coordinates"]
        means.append([coordinates["mean_x"], coordinates["mean_y"]])
    np.testing.assert_array_equal(*means)


class Recorder:
    """An array that records which of its rows were read."""

    def __init__(self, values):
        self.values, self.rows = values, set()
        self.shape, self.dtype, self.ndim = values.shape, values.dtype, values.ndim

    def __getitem__(self, index):
        self.rows |= set(np.arange(len(self.values))[index[0]].tolist())
        return self.values[index]


@pytest.mark.parametrize("predict", [False, True])
def test_other_rows_are_not_read(cells, predict):
    cells.obs["mask"] = np.arange(cells.n_obs) % 5 > 0
    values = Recorder(cells.obsm["X_pca"].copy())
    options = {"mask_obs": "mask", "potential": "gaussian", "predict": predict, "max_cells": 25}
    recorded = cells.copy()
    recorded.obsm["X_pca"] = da.from_array(values, chunks=(1, 3), meta=np.empty((0, 0), np.float32))
    values.rows.clear()
    sh.tl.hycnn_ot(recorded, *LABELS, **options)
    masked = set(np.flatnonzero(cells.obs["mask"]).tolist())
    source, target = (set(rows_of(cells, label).tolist()) for label in LABELS)
    if predict:
        assert values.rows & source == source
    else:
        assert len(values.rows & source) == 25
        assert values.rows <= masked
    assert len(values.rows & target) == 25
    assert values.rows <= source | target
    # A fit on these rows would refuse NaN; anywhere else it makes no difference.
    others = np.setdiff1d(np.arange(cells.n_obs), sorted(values.rows))
    cells.obsm["X_pca"][others] = np.nan
    sh.tl.hycnn_ot(cells, *LABELS, **options)
    np.testing.assert_array_equal(
        *(adata.uns["hycnn_ot"]["models"]["IFN-beta"]["coordinates"]["matrix"] for adata in (cells, recorded))
    )


@pytest.mark.parametrize("kind", ON_DEMAND, ids=name_of)
def test_cells_that_are_not_moved_stay_in_their_file_until_they_are_fitted_on(cells, tmp_path, monkeypatch, kind):
    """The solver gets an array-like that reads them, here or in the process of a worker."""

    def fit_many(x, ys, **_):
        for stored, label in ((x, "control"), (*ys, "IFN-beta")):
            assert not isinstance(stored, np.ndarray)
            expected = cells.obsm["X_pca"][rows_of(cells, label), :2]
            assert (stored.shape, stored.size, len(stored)) == (expected.shape, expected.size, len(expected))
            np.testing.assert_array_equal(np.asarray(stored), expected)
            assert np.asarray(stored, dtype=np.float64).dtype == np.float64
            np.testing.assert_array_equal(np.asarray(pickle.loads(pickle.dumps(stored))), expected)
        raise KeyboardInterrupt

    monkeypatch.setattr(solver, "fit_many", fit_many)
    with pytest.raises(KeyboardInterrupt):
        sh.tl.hycnn_ot(kind(cells.copy(), tmp_path), *LABELS, groupby="condition", n_pcs=2, predict=False)


def test_a_value_in_a_file_that_is_not_finite_is_found_before_any_work(cells, tmp_path):
    row = rows_of(cells, "control")[3]
    cells.obsm["X_pca"][row, 1] = np.nan
    adata = lazy_zarr(cells, tmp_path)
    with pytest.raises(ValueError, match=f"'X_pca' .*1 of 60 cells of 'control', the first in row {row}"):
        sh.tl.hycnn_ot(adata, *LABELS, predict=False, **TINY)
    assert not adata.uns.get("hycnn_ot")


@pytest.mark.parametrize("kind", [backed, lazy_zarr], ids=name_of)
def test_maps_without_moved_cells_touch_nothing_else(cells, tmp_path, kind):
    adata = kind(cells, tmp_path)
    type_of_obs = type(adata.obs)
    sh.tl.hycnn_ot(adata, *LABELS, predict=False, max_cells=30, **TINY)
    assert type(adata.obs) is type_of_obs
    assert set(adata.obsm) == {"X_pca"}
    sh.get.model(adata).save(tmp_path / "map.safetensors")
    AnnData(uns={"hycnn_ot": adata.uns["hycnn_ot"]}).write_h5ad(tmp_path / "maps.h5ad")
    for key, name in {"one": "map.safetensors", "all": "maps.h5ad"}.items():
        sh.tl.transport(cells, model=tmp_path / name, key_added=key)
    assert np.isfinite(cells.obsm["X_one"][rows_of(cells, "control")]).all()
    np.testing.assert_array_equal(cells.obsm["X_all"], cells.obsm["X_one"])
    if adata.isbacked:
        adata.file.close()


def test_views_of_backed_files_need_a_copy(cells, tmp_path):
    adata = backed(cells, tmp_path)
    view = adata[np.flatnonzero(cells.obs["condition"].notna())]
    with pytest.raises(ValueError, match=r"view of a file-backed AnnData .* adata.to_memory\(\)"):
        sh.tl.hycnn_ot(view, *LABELS, potential="gaussian")
    copied = sh.tl.hycnn_ot(view, *LABELS, copy=True, potential="gaussian")
    assert copied.obsm["X_hycnn_ot"].shape == (120, 3)
    adata.file.close()


def test_a_stored_fit_is_read_lazily_too(cells, tmp_path):
    sh.tl.hycnn_ot(cells, *LABELS, **TINY)
    adata = lazy_h5ad(cells, tmp_path)
    sh.tl.transport(adata, key_added="again")
    np.testing.assert_array_equal(adata.obsm["X_again"], cells.obsm["X_hycnn_ot"])
    copied = sh.tl.transport(adata, key_added="copied", copy=True)
    np.testing.assert_array_equal(copied.obsm["X_copied"], cells.obsm["X_hycnn_ot"])
    assert "X_copied" not in adata.obsm


def test_columns_that_are_not_needed_are_not_read(cells, tmp_path, monkeypatch):
    adata, read = lazy_zarr(cells, tmp_path), []
    to_memory = type(adata.obs).to_memory
    monkeypatch.setattr(type(adata.obs), "to_memory", lambda obs: read.append(list(obs)) or to_memory(obs))
    sh.tl.hycnn_ot(adata, *LABELS, groupby="condition", potential="gaussian", predict=False)
    assert read == [["condition"]]
    with pytest.raises(ValueError, match=r"split_key='nix' .* has \['condition', 'n_counts'"):
        sh.tl.hycnn_ot(adata, *LABELS, groupby="condition", split_key="nix")


def test_a_failure_leaves_obs_lazy(cells, tmp_path):
    adata = lazy_zarr(cells, tmp_path)
    before = type(adata.obs), set(adata.obsm), set(adata.uns)
    with pytest.raises(ValueError, match="max_steps=0"):
        sh.tl.hycnn_ot(adata, *LABELS, max_steps=0)
    assert (type(adata.obs), set(adata.obsm), set(adata.uns)) == before


# ---- moved cells in a store


@pytest.fixture
def fit(cells):
    labels = cells.obs["condition"].astype(object).fillna("none")
    labels.iloc[rows_of(cells, "IFN-beta")[::2]] = "a/b"
    cells.obs["condition"] = labels
    sh.tl.hycnn_ot(cells, "control", ["IFN-beta", "a/b"], inverse=True, key_added="ot", **TINY)
    return cells


FORWARD = {"key_added": "ot2"}
PART = {"fill": "identity", "t": 0.5, "target": "a/b", "key_added": "half"}
INVERSE = {"direction": "inverse", "key_added": "ot2"}


@pytest.mark.parametrize(
    ("kind", "options"),
    [(as_is, FORWARD), (backed, PART), (dask_arrays, INVERSE), (lazy_h5ad, PART), (lazy_zarr, FORWARD)],
    ids=name_of,
)
def test_a_store_holds_the_slots(fit, tmp_path, kind, options):
    expected = sh.tl.transport(fit, "ot", **options, copy=True)
    adata = kind(fit.copy(), tmp_path)
    sh.tl.transport(adata, "ot", **options, output=tmp_path / "moved.zarr")
    assert set(adata.obsm) == set(fit.obsm)
    stored, lazy = (read(tmp_path / "moved.zarr") for read in (anndata.read_zarr, read_lazy))
    assert stored.obs_names.equals(fit.obs_names)
    assert lazy.obs_names.equals(fit.obs_names)
    assert stored.n_vars == 0  # there is nothing of genes in it
    assert set(stored.obsm) == set(expected.obsm) - set(fit.obsm)
    assert set(stored.obs) == set(lazy.obs) == set(expected.obs) - set(fit.obs)
    for name, found in stored.obsm.items():
        assert found.dtype == np.float32
        np.testing.assert_array_equal(lazy.obsm[name].compute(), found)
        # Blocks of other sizes are summed in another order.
        np.testing.assert_allclose(found, expected.obsm[name], rtol=1e-5, atol=1e-5)
    for name in stored.obs:
        np.testing.assert_allclose(stored.obs[name], expected.obs[name], rtol=1e-4, atol=1e-5)
    assert sorted(path.name for path in tmp_path.glob("*moved*")) == ["moved.zarr"]


def test_chunks_are_blocks_and_one_block_has_the_same_bits(fit, unchanged, tmp_path, monkeypatch):
    sh.tl.transport(fit, "ot", target="a/b", output=tmp_path / "blocks.zarr")
    root = zarr.open_group(tmp_path / "blocks.zarr", mode="r")
    assert root["obsm/X_ot_a_b"].chunks == (40, 3)
    assert root["obs/ot_std_a_b"].chunks == (40,)
    monkeypatch.setattr(_representation, "MAX_ROWS", 1000)
    with unchanged(fit):
        sh.tl.transport(fit, "ot", output=str(tmp_path / "moved.zarr"))
    stored = anndata.read_zarr(tmp_path / "moved.zarr")
    for name in stored.obsm:
        np.testing.assert_array_equal(stored.obsm[name], fit.obsm[name])
    for name in stored.obs:
        pd.testing.assert_series_equal(stored.obs[name], fit.obs[name])


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(errno.ENOSPC, "No space left on device")])
def test_an_interrupted_write_leaves_nothing(fit, unchanged, tmp_path, monkeypatch, error):
    append, calls = zarr.Array.append, []

    def fail(self, *args, **options):
        calls.append(len(list(tmp_path.iterdir())))
        if len(calls) == 3:
            raise error
        return append(self, *args, **options)

    monkeypatch.setattr(zarr.Array, "append", fail)
    with unchanged(fit), pytest.raises(error if isinstance(error, type) else type(error)):
        sh.tl.transport(fit, "ot", output=tmp_path / "moved.zarr")
    assert calls == [1, 1, 1]  # something was there
    assert list(tmp_path.iterdir()) == []


def test_a_value_that_is_not_finite_leaves_no_store(fit, tmp_path):
    row = rows_of(fit, "control")[-1]
    fit.obsm["X_pca"][row] = np.nan
    with pytest.raises(ValueError, match=f"'X_pca' .*1 of .* cells: '{fit.obs_names[row]}'"):
        sh.tl.transport(fit, "ot", output=tmp_path / "moved.zarr")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("write", [sh.tl.transport, sh.tl.decode], ids=["transport", "decode"])
def test_outputs_that_cannot_be(cells, unchanged, tmp_path, monkeypatch, write):
    sh.tl.hycnn_ot(cells, *LABELS, potential="gaussian")
    (tmp_path / "there.zarr").mkdir()
    cases = [
        ({"output": tmp_path / "moved.h5ad"}, ValueError, "moved.h5ad' must end in .zarr"),
        ({"output": tmp_path / "there.zarr"}, ValueError, "there.zarr' exists"),
        ({"output": tmp_path / "nix" / "moved.zarr"}, FileNotFoundError, "nix"),
        ({"output": tmp_path / "moved.zarr", "copy": True}, ValueError, "leave copy out"),
    ]
    for options, error, message in cases:
        with unchanged(cells), pytest.raises(error, match=message):
            write(cells, **options)
    monkeypatch.setitem(sys.modules, "zarr", None)
    with unchanged(cells), pytest.raises(ImportError, match=r"scot-hycnn\[lazy\]"):
        write(cells, output=tmp_path / "moved.zarr")
    assert [path.name for path in tmp_path.iterdir()] == ["there.zarr"]


def test_a_view_of_a_file_can_be_written_to_a_store(fit, tmp_path):
    view = backed(fit, tmp_path)[:50]
    sh.tl.transport(view, "ot", target="a/b", output=tmp_path / "moved.zarr")
    assert anndata.read_zarr(tmp_path / "moved.zarr").n_obs == 50
    view.file.close()


# ---- genes in a store


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (as_is, {}),
        (backed, {"layer": "counts", "key_added": "other"}),
        (dask_arrays, {"clip": True}),
        (lazy_sparse_h5ad, {"clip": True, "layer": "counts"}),
    ],
    ids=name_of,
)
def test_decoded_genes_in_a_store_are_those_in_memory(cells, tmp_path, kind, options):
    sh.tl.hycnn_ot(cells, *LABELS, **TINY)
    cells.obsm["X_hycnn_ot"][rows_of(cells, "control")[5]] = np.nan  # a source cell without a prediction
    adata = kind(cells.copy(), tmp_path)
    slots = {name: set(getattr(adata, name)) for name in ("layers", "obsm", "uns")}
    sh.tl.decode(adata, output=tmp_path / "genes.zarr", block_size=40, **options)
    assert {name: set(getattr(adata, name)) for name in slots} == slots
    sh.tl.decode(cells, **options)
    name = options.get("key_added", "hycnn_ot")
    stored = anndata.read_zarr(tmp_path / "genes.zarr")
    assert list(stored.layers) == [name]
    np.testing.assert_array_equal(stored.layers[name], cells.layers[name])
    assert list(stored.obs_names) == list(cells.obs_names)
    assert list(stored.var_names) == list(cells.var_names)
    if adata.isbacked:
        adata.file.close()


def test_predictions_of_one_store_are_decoded_into_another(cells, tmp_path):
    """The whole way of cells that do not fit into memory."""
    adata = lazy_zarr(cells.copy(), tmp_path)
    sh.tl.hycnn_ot(adata, *LABELS, predict=False, **TINY)
    sh.tl.transport(adata, output=tmp_path / "moved.zarr")
    adata.obsm["X_hycnn_ot"] = read_lazy(tmp_path / "moved.zarr").obsm["X_hycnn_ot"]
    sh.tl.decode(adata, output=tmp_path / "genes.zarr")
    sh.tl.hycnn_ot(cells, *LABELS, **TINY)
    sh.tl.decode(cells)
    stored = anndata.read_zarr(tmp_path / "genes.zarr")
    np.testing.assert_array_equal(stored.layers["hycnn_ot"], cells.layers["hycnn_ot"])


def test_a_decoder_that_fails_leaves_no_store(cells, unchanged, tmp_path):
    sh.tl.hycnn_ot(cells, *LABELS, **TINY)
    calls = []

    def decoder(points):
        calls.append(len(points))
        return np.full((len(points), cells.n_vars), np.nan if len(calls) == 2 else 1.0)

    with unchanged(cells), pytest.raises(ValueError, match="finite"):
        sh.tl.decode(cells, decoder=decoder, output=tmp_path / "genes.zarr", block_size=20)
    assert len(calls) == 2
    assert list(tmp_path.iterdir()) == []
