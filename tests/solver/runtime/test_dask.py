"""Maps that are fitted by the workers of a Dask cluster."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

import numpy as np
import pytest
import torch

from scot_hycnn.solver import fit_many, resolve_device

QUICK = {"hidden": (8, 8), "max_steps": 20, "batch_size": 64, "n_ensemble": 8, "device": "cpu", "progress": False}


def normal(seed, n_cells=200):
    return np.random.default_rng(seed).normal(size=(n_cells, 2))


def targets(n):
    return [(y := normal(seed)) + seed * np.sign(y) for seed in range(1, n + 1)]


def same(maps, others):
    for one, other in zip(maps, others, strict=True):
        np.testing.assert_array_equal(one.transport(normal(0)), other.transport(normal(0)))
        assert (one.blend, one.status, one.w2_squared) == (other.blend, other.status, other.w2_squared)


@pytest.fixture(scope="module")
def cluster(processes):
    distributed, dask = pytest.importorskip("distributed"), pytest.importorskip("dask")
    with (
        dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}),
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as local,
    ):
        yield local


@pytest.fixture
def client(cluster):
    from distributed import Client

    with Client(cluster) as connected:
        yield connected


def test_workers_find_the_same_maps(client, tmp_path):
    ys = targets(3)
    maps = fit_many(normal(0), ys, client=client, checkpoint_dir=tmp_path, **QUICK)
    same(maps, fit_many(normal(0), ys, **QUICK))
    assert len(list(tmp_path.iterdir())) == 3


def test_groups_that_are_left_out_and_far_cells_are_those_of_a_fit_without_workers(client):
    x, ys = normal(0), targets(2)
    x[3] = 500.0
    labels = ["a"] * 98 + ["b"] * 98 + ["rare"] * 4
    maps = fit_many(x, ys, groups=(labels, [labels] * 2), client=client, potential="gaussian")
    same(maps, fit_many(x, ys, groups=(labels, [labels] * 2), potential="gaussian"))
    for fitted in maps:
        assert list(fitted.validation["groups_left_out"]) == ["rare"]
        assert fitted.validation["far_source"].tolist() == [3]


def test_a_killed_worker_loses_nothing(client, tmp_path):
    """While the first of four batches are fitted one worker dies; the results are those of an undisturbed run."""
    ys, options = targets(4), QUICK | {"max_steps": 40, "n_ensemble": 16}  # one map is a batch
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
    ys = targets(3)
    fit_many(normal(0), ys[:2], checkpoint_dir=tmp_path, **QUICK)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    fit_many(normal(0), ys, client=client, checkpoint_dir=tmp_path, **QUICK)
    after = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(after) == 3
    assert before.items() <= after.items()


def test_the_bar_counts_maps_that_come_back(client, capsys):
    fit_many(normal(0), targets(3), client=client, **QUICK | {"progress": True})
    assert "3.0/3 maps" in capsys.readouterr().err


def test_wrong_input_is_refused_before_any_fit(client):
    with pytest.raises(ValueError, match=r"ys\[0\] \(target\) has 5 cells"):
        fit_many(normal(0), [normal(1, 5)], client=client, **QUICK)


def test_maps_come_back_on_the_device_of_the_call(client, monkeypatch):
    # With a graphics card here 'auto' would be another device.
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    (fitted,) = fit_many(normal(0), targets(1), client=client, **QUICK)
    assert fitted.device == "cpu"


def test_maps_come_back_where_this_machine_lacks_the_device_of_the_workers(client, tmp_path):
    """The workers claim to have a graphics card, and find the map finished, so that they compute nothing on it."""
    options = QUICK | {"checkpoint_dir": tmp_path}
    expected = fit_many(normal(0), targets(1), **options)

    def claim_a_graphics_card():
        torch.cuda.truth = torch.cuda.is_available, torch.cuda.device_count
        torch.cuda.is_available, torch.cuda.device_count = (lambda: True), (lambda: 1)

    def tell_the_truth():
        torch.cuda.is_available, torch.cuda.device_count = torch.cuda.truth

    client.run(claim_a_graphics_card)
    try:
        maps = fit_many(normal(0), targets(1), client=client, **options | {"device": "cuda"})
    finally:
        client.run(tell_the_truth)
    same(maps, expected)
    assert maps[0].device == str(resolve_device("auto"))


def test_a_device_that_no_worker_can_have(client):
    for device in ("abacus", None):
        with pytest.raises(ValueError, match=f"device={device!r}"):
            fit_many(normal(0), targets(1), client=client, **QUICK | {"device": device})


class InFile:
    """Cells that are read each time they become an array, as rows of a file are."""

    def __init__(self, path):
        self.path, self.shape = path, np.load(path).shape

    def __len__(self):
        return self.shape[0]

    def __array__(self, dtype=None, copy=None):
        return np.load(self.path).astype(dtype or float)


def test_workers_read_cells_from_files(client, tmp_path):
    ys = targets(2)
    for k, y in enumerate(ys):
        np.save(tmp_path / f"{k}.npy", y)
    stored = [InFile(tmp_path / f"{k}.npy") for k in range(2)]
    same(fit_many(normal(0), stored, client=client, **QUICK), fit_many(normal(0), ys, **QUICK))


@pytest.mark.parametrize("client", ["tcp://127.0.0.1:8786", 3, object()])
def test_an_object_that_is_no_client(client):
    with pytest.raises(TypeError, match=r"client=.*dask\.distributed"):
        fit_many(normal(0), [normal(1)], client=client, **QUICK)


def test_without_dask_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ImportError, match=r"client= needs the extra 'dask': pip install 'scot-hycnn\[dask\]'"):
        fit_many(normal(0), [normal(1)], client=object(), **QUICK)
