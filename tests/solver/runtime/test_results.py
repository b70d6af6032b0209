"""Finished maps in a folder, and maps fitted by the workers of a cluster."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from scot_hycnn._anndata._representation import Representation, StoredRows
from scot_hycnn.solver import fit_many
from scot_hycnn.solver.data._checks import check_cells
from scot_hycnn.solver.data._task import Task
from scot_hycnn.solver.runtime import _batching as _maps
from scot_hycnn.solver.runtime import _dask as _cluster
from scot_hycnn.solver.runtime._results import Results

QUICK = {"hidden": (8, 8), "max_steps": 20, "batch_size": 64, "n_ensemble": 8, "device": "cpu", "progress": False}


def normal(seed, n_cells=200):
    return np.random.default_rng(seed).normal(size=(n_cells, 2))


def targets(n):
    return [(y := normal(seed)) + seed * np.sign(y) for seed in range(1, n + 1)]


def same(maps, others):
    for one, other in zip(maps, others, strict=True):
        np.testing.assert_array_equal(one.transport(normal(0)), other.transport(normal(0)))
        assert (one.blend, one.status, one.w2_squared) == (other.blend, other.status, other.w2_squared)


# ---- the folder


def test_a_finished_map_is_not_fitted_again(tmp_path, fitted_batches):
    ys = targets(5)
    first = fit_many(normal(0), ys, checkpoint_dir=tmp_path / "new" / "maps", **QUICK)
    assert (fitted_batches, len(list((tmp_path / "new" / "maps").iterdir()))) == ([2, 2, 1], 5)
    same(fit_many(normal(0), ys[::-1], checkpoint_dir=tmp_path / "new" / "maps", **QUICK), first[::-1])
    assert len(fitted_batches) == 3


def test_an_interruption_loses_no_finished_batch(tmp_path, monkeypatch, fitted_batches):
    ys, done = targets(5), _maps._fit_batch

    def interrupted(*args):
        if len(fitted_batches) == 2:
            raise KeyboardInterrupt
        return done(*args)

    with monkeypatch.context() as patch:
        patch.setattr(_maps, "_fit_batch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fit_many(normal(0), ys, checkpoint_dir=tmp_path, **QUICK)
    assert len(list(tmp_path.iterdir())) == 4
    maps = fit_many(normal(0), ys, checkpoint_dir=tmp_path, **QUICK)
    assert fitted_batches == [2, 2, 1]
    same(maps, fit_many(normal(0), ys, **QUICK))


@pytest.mark.parametrize(
    "changed",
    [
        {"x": normal(1)},
        {"ys": [normal(3)]},
        {"ys": [normal(2)[:100]]},
        {"groups": (["a", "b"] * 100, [["a", "b"] * 100])},
        {"rng": 1},
        {"max_steps": 21},
        {"validation_fraction": 0.2},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_other_cells_or_options_do_not_find_it(tmp_path, fitted_batches, changed):
    call = {"x": normal(0), "ys": [normal(2)], "checkpoint_dir": tmp_path, **QUICK}
    fit_many(**call)
    fit_many(**call | changed)
    assert fitted_batches == [1, 1]


def test_another_device_finds_it(tmp_path):
    x, y = check_cells(normal(0), normal(2))
    here, there = (Task.of(x, y, None, device=device, rng=0) for device in ("cpu", "cuda:1"))
    assert Results(tmp_path)._path(here) == Results(tmp_path)._path(there)


def test_a_damaged_file_is_named(tmp_path):
    fit_many(normal(0), [normal(2)], checkpoint_dir=tmp_path, **QUICK)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match=f"{path.name}' is not a map that scot_hycnn saved, or is damaged"):
        fit_many(normal(0), [normal(2)], checkpoint_dir=tmp_path, **QUICK)


def test_a_folder_that_cannot_be_one(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        ValueError, match=r"checkpoint_dir='.*file' cannot be a folder \(.*exists.*\); name another one"
    ):
        fit_many(normal(0), [normal(2)], checkpoint_dir=tmp_path / "file", **QUICK)


# ---- the cluster


@pytest.fixture(scope="module")
def cluster():
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as local:
        yield local


@pytest.fixture
def client(cluster):
    from distributed import Client

    with Client(cluster) as connected:
        yield connected


def test_workers_find_the_same_maps(client, tmp_path):
    ys = targets(5)
    maps = fit_many(normal(0), ys, client=client, checkpoint_dir=tmp_path, **QUICK)
    same(maps, fit_many(normal(0), ys, **QUICK))
    assert len(list(tmp_path.iterdir())) == 5


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
@pytest.mark.parametrize("asked", [True, False])
def test_memory_is_kept_where_dask_asks_to_give_it_back(monkeypatch, asked):
    calls = []
    monkeypatch.setattr(_cluster.ctypes, "CDLL", lambda name: SimpleNamespace(mallopt=lambda *args: calls.append(args)))
    monkeypatch.setitem(os.environ, "MALLOC_TRIM_THRESHOLD_", "65536")
    if not asked:
        monkeypatch.delitem(os.environ, "MALLOC_TRIM_THRESHOLD_")
    _cluster._keep_freed_memory()
    assert calls == ([(-3, 32 << 20), (-1, 64 << 20)] if asked else [])
    monkeypatch.setattr(_cluster.ctypes, "CDLL", lambda name: SimpleNamespace())  # another C library
    _cluster._keep_freed_memory()


def test_groups_travel_too(client):
    groups = (["a", "b"] * 100, [["a", "b"] * 100, ["a", "b", "b", "b"] * 50])
    maps = fit_many(normal(0), targets(2), groups=groups, client=client, potential="gaussian")
    same(maps, fit_many(normal(0), targets(2), groups=groups, potential="gaussian"))


def test_groups_that_are_left_out_and_far_cells_are_told_by_workers_too(client):
    x, ys = normal(0), targets(2)
    x[3] = 500.0
    labels = ["a"] * 98 + ["b"] * 98 + ["rare"] * 4
    maps = fit_many(x, ys, groups=(labels, [labels] * 2), client=client, potential="gaussian")
    for fitted in maps:
        assert list(fitted.validation["groups_left_out"]) == ["rare"]
        assert fitted.validation["far_source"].tolist() == [3]


def test_a_killed_worker_loses_nothing(client, tmp_path):
    """While the first of four batches are fitted one worker dies; the results are those of an undisturbed run."""
    ys, options = targets(8), QUICK | {"max_steps": 300}
    expected = fit_many(normal(0), ys, **options)
    victim = next(iter(client.run(os.getpid).values()))
    killed = []

    def kill():
        while not any(tmp_path.iterdir()):
            time.sleep(0.02)
        os.kill(victim, signal.SIGKILL)
        killed.append(victim)

    killer = threading.Thread(target=kill)
    killer.start()
    maps = fit_many(normal(0), ys, client=client, checkpoint_dir=tmp_path, **options)
    killer.join()
    assert killed
    same(maps, expected)
    assert victim not in client.run(os.getpid).values()


def test_a_restart_of_a_cluster_skips_what_is_finished(client, tmp_path):
    ys = targets(4)
    fit_many(normal(0), ys[:3], checkpoint_dir=tmp_path, **QUICK)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    fit_many(normal(0), ys, client=client, checkpoint_dir=tmp_path, **QUICK)
    after = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(after) == 4
    assert before.items() <= after.items()


def test_the_bar_counts_maps_that_come_back(client, capsys):
    fit_many(normal(0), targets(3), client=client, **QUICK | {"progress": True})
    assert "3.0/3 maps" in capsys.readouterr().err


def test_what_is_wrong_is_said_before_workers_are_asked(client):
    with pytest.raises(ValueError, match=r"ys\[0\] \(target\) has 5 cells"):
        fit_many(normal(0), [normal(1, 5)], client=client, **QUICK)


def test_workers_read_their_own_rows_from_a_store(client, tmp_path):
    """What travels is how to read them."""
    da, zarr = pytest.importorskip("dask.array"), pytest.importorskip("zarr")
    ys = targets(2)
    zarr.create_array(tmp_path / "cells.zarr", data=np.concatenate(ys), chunks=(50, 2))
    table, rep = da.from_zarr(tmp_path / "cells.zarr"), Representation("X_pca", 2, "")
    stored = [StoredRows(str(k), rep, table, np.arange(k * len(ys[0]), (k + 1) * len(ys[0]))) for k in range(2)]
    maps = fit_many(normal(0), stored, client=client, **QUICK)
    same(maps, fit_many(normal(0), ys, **QUICK))


@pytest.mark.parametrize("client", ["tcp://127.0.0.1:8786", 3, object()])
def test_what_is_no_client(client):
    with pytest.raises(TypeError, match=r"client=.* must be a dask.distributed.Client, such as Client\(LocalCluster"):
        fit_many(normal(0), [normal(1)], client=client, **QUICK)


def test_without_dask_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ImportError, match=r"client= needs the extra 'dask': pip install 'scot-hycnn\[dask\]'"):
        fit_many(normal(0), [normal(1)], client=object(), **QUICK)
