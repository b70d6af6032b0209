"""Finished maps and training states in a folder: an interrupted fit continues to the same bits."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest
import torch

from scot_hycnn.solver import fit, fit_many
from scot_hycnn.solver.training._optimiser import Optimiser

QUICK = {"hidden": (8, 8), "max_steps": 20, "batch_size": 32, "n_ensemble": 2, "device": "cpu", "progress": False}
GROUPS = (["a", "b", "c", "d"] * 50, [["a", "b", "c", "d"] * 50] * 2)
# Updates of optimisers in each step of training.
CALLS = {"amortized": 2, "cached": 1, "minimax": 6, "w2gn": 2, "enot": 2, "paper": 6}


def normal(seed, n_cells=200):
    return np.random.default_rng(seed).normal(size=(n_cells, 2))


def targets(n=2):
    return [(y := normal(seed)) + seed * np.sign(y) for seed in range(1, n + 1)]


def same_bits(maps, others):
    for one, other in zip(maps, others, strict=True):
        assert torch.equal(one.theta, other.theta)
        assert (one.blend, one.status, one.w2_squared) == (other.blend, other.status, other.w2_squared)
        assert one.history.keys() == other.history.keys()
        for name in one.history.keys() - {"seconds"}:
            np.testing.assert_array_equal(one.history[name], other.history[name])


@contextmanager
def updates(monkeypatch, *, stop_after=None):
    """Count updates of optimisers; after so many a KeyboardInterrupt, as by Ctrl-C, ends the fit."""
    update, counted = Optimiser.update, []

    def counting(*arguments):
        if len(counted) == stop_after:
            raise KeyboardInterrupt
        counted.append(None)
        return update(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Optimiser, "update", counting)
        yield counted


def interrupt(monkeypatch, n_steps, call):
    with updates(monkeypatch, stop_after=n_steps), pytest.raises(KeyboardInterrupt):
        call()


@pytest.fixture(scope="module")
def alone():
    """One map, without a folder and without interruption."""
    return fit_many(normal(0), targets(1), **QUICK)


def suffixes(folder):
    return sorted(path.suffix for path in folder.iterdir())


@pytest.mark.parametrize(
    ("name", "step"),
    [("cached", 1), ("cached", 9), ("amortized", 19), ("minimax", 9), ("w2gn", 9), ("enot", 19), ("paper", 9)],
)
def test_an_interrupted_fit_continues_to_the_same_bits(tmp_path, monkeypatch, name, step):
    """There is a check after every second step; before the first one there is no state, and the fit begins anew."""
    options = QUICK | ({"conjugates": name} if name in ("amortized", "cached") else {"solver": name})
    call = lambda **more: fit_many(normal(0), targets(), **options, **more)  # noqa: E731
    interrupt(monkeypatch, step * CALLS[name], lambda: call(checkpoint_dir=tmp_path))
    assert suffixes(tmp_path) == [".checkpoint"] * (step > 1)
    with updates(monkeypatch) as counted:
        maps = call(checkpoint_dir=tmp_path)
    assert len(counted) == CALLS[name] * (20 - step // 2 * 2)
    same_bits(maps, call())
    assert suffixes(tmp_path) == [".safetensors"] * 2


def test_maps_that_had_stopped_early_are_kept(tmp_path, monkeypatch):
    """The second of three maps explodes at every step, and stops after half of them."""
    update = Optimiser.update

    def exploding(optimiser, *arguments):
        update(optimiser, *arguments)
        if len(optimiser.theta) == 6:
            optimiser.theta.data[2:4] = torch.nan

    monkeypatch.setattr(Optimiser, "update", exploding)
    expected = fit_many(normal(0), targets(3), **QUICK)
    assert expected[1].params["n_steps"] == 10
    interrupt(monkeypatch, 17, lambda: fit_many(normal(0), targets(3), **QUICK, checkpoint_dir=tmp_path))
    same_bits(fit_many(normal(0), targets(3), **QUICK, checkpoint_dir=tmp_path), expected)


def test_with_several_threads_and_groups(tmp_path, monkeypatch):
    torch.set_num_threads(2)
    options = QUICK | {"n_ensemble": 3, "groups": GROUPS, "max_steps": 10}
    interrupt(monkeypatch, 5 * 2, lambda: fit_many(normal(0), targets(), **options, checkpoint_dir=tmp_path))
    maps = fit_many(normal(0), targets(), **options, checkpoint_dir=tmp_path)
    same_bits(maps, fit_many(normal(0), targets(), **options))


def test_another_number_of_threads_begins_anew(tmp_path, monkeypatch):
    """It divides the networks, and rounds numbers, in another way."""
    interrupt(monkeypatch, 11, lambda: fit(normal(0), targets()[0], **QUICK, checkpoint_dir=tmp_path))
    torch.set_num_threads(2)
    again = fit(normal(0), targets()[0], **QUICK, checkpoint_dir=tmp_path)
    same_bits([again], [fit(normal(0), targets()[0], **QUICK)])


def test_an_interruption_among_the_folds_repeats_neither_networks_nor_finished_folds(tmp_path, monkeypatch):
    """Two maps train for 20 steps, and then the folds of each of them, for 20 steps too."""
    options = QUICK | {"groups": GROUPS, "leave_out": "groups"}
    expected = fit_many(normal(0), targets(), **options)
    interrupt(monkeypatch, 55, lambda: fit_many(normal(0), targets(), **options, checkpoint_dir=tmp_path))
    assert suffixes(tmp_path) == [".checkpoint"] * 3  # of the networks, and of the folds of both maps
    with updates(monkeypatch) as counted:
        same_bits(fit_many(normal(0), targets(), **options, checkpoint_dir=tmp_path), expected)
    assert len(counted) == 6
    assert suffixes(tmp_path) == [".safetensors"] * 2


def test_maps_of_an_interrupted_batch_stay_together(tmp_path, monkeypatch):
    """Eight members each: two maps a batch. The second batch is interrupted; one of its maps is then fitted alone."""
    options = QUICK | {"n_ensemble": 8}
    expected = fit_many(normal(0), targets(4), **options)
    interrupt(monkeypatch, 31, lambda: fit_many(normal(0), targets(4), **options, checkpoint_dir=tmp_path))
    assert suffixes(tmp_path) == [".checkpoint", ".safetensors", ".safetensors"]
    fit_many(normal(0), [targets(4)[2]], **options, checkpoint_dir=tmp_path)
    same_bits(fit_many(normal(0), targets(4), **options, checkpoint_dir=tmp_path), expected)


# ---- finished maps


def test_finished_maps_are_not_fitted_again(tmp_path, monkeypatch):
    """In whatever order, and however their labels are given."""
    folder, labels = tmp_path / "new" / "maps", ["a", "b"] * 100
    call = lambda ys, groups: fit_many(normal(0), ys, groups=groups, checkpoint_dir=folder, **QUICK)  # noqa: E731
    first = call(targets(), (labels, [labels] * 2))
    with updates(monkeypatch) as counted:
        again = call(targets()[::-1], (pd.Categorical(labels), [np.array(labels, dtype=object)] * 2))
    assert not counted
    same_bits(again, first[::-1])


def test_a_finished_map_is_read_onto_the_device_of_the_fit(tmp_path, monkeypatch):
    call = {"x": normal(0), "y": normal(1), "potential": "gaussian", "device": "cpu", "checkpoint_dir": tmp_path}
    fitted = fit(**call)
    # With a graphics card 'auto' would be another device.
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    found = fit(**call)
    assert found.theta.device == torch.device("cpu")
    assert np.array_equal(found.transport(normal(2)), fitted.transport(normal(2)))


def test_other_cells_or_options_do_not_find_a_map(tmp_path):
    call = {"x": normal(0), "ys": [normal(2)], "checkpoint_dir": tmp_path, **QUICK, "potential": "gaussian"}
    fit_many(**call)
    for number, changed in enumerate(
        (
            {"x": normal(1)},
            {"ys": [normal(2)[:100]]},
            {"groups": (["a", "b"] * 100, [["a", "b"] * 100])},
            {"groups": (["a", "b"] * 100, [["b", "a"] * 100])},
            {"rng": 1},
            {"max_steps": 21},
            {"validation_fraction": 0.2},
        )
    ):
        fit_many(**call | changed)
        assert len(suffixes(tmp_path)) == 2 + number


def test_to_begin_anew_replaces_files_when_new_ones_are_there(tmp_path, monkeypatch):
    options = QUICK | {"checkpoint_dir": tmp_path}
    expected = fit_many(normal(0), targets(), **options)
    contents = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    interrupt(monkeypatch, 15, lambda: fit_many(normal(0), targets(), **options, resume=False))
    left = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert contents.items() <= left.items()  # nothing is lost
    with updates(monkeypatch) as counted:
        same_bits(fit_many(normal(0), targets(), **options, resume=False), expected)
    assert len(counted) == 20
    assert {path.name for path in tmp_path.iterdir()} == contents.keys()


def test_damaged_files_are_named_and_replaced_on_request(tmp_path, monkeypatch, alone):
    options = QUICK | {"checkpoint_dir": tmp_path}
    call = lambda **more: fit_many(normal(0), targets(1), **options, **more)  # noqa: E731
    interrupt(monkeypatch, 15, call)
    for _ in ("state", "map"):
        (path,) = tmp_path.iterdir()
        path.write_bytes(path.read_bytes()[:-10])
        with pytest.raises(ValueError, match=f"{path.name}.* damaged"):
            call()
        same_bits(call(resume=False), alone)


class Unread:
    """Cells in a file, which must not be read yet."""

    shape = (200, 2)

    def __array__(self, dtype=None, copy=None):
        raise AssertionError


def test_a_folder_that_cannot_be_one_is_named_before_any_cell_is_read(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    for folder in (tmp_path / "file", tmp_path / "file" / "maps", tmp_path / "nowhere"):
        for call in (fit, lambda x, y, **options: fit_many(x, [y], **options)):
            with pytest.raises(ValueError, match=f"checkpoint_dir='{folder}'"):
                call(Unread(), Unread(), checkpoint_dir=folder, **QUICK)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_to_is_named(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(ValueError, match="checkpoint_dir="):
            fit(Unread(), Unread(), checkpoint_dir=tmp_path / "maps", **QUICK)
    finally:
        tmp_path.chmod(0o700)


def test_a_call_that_is_refused_leaves_no_folder(tmp_path):
    with pytest.raises(ValueError, match="y "):
        fit(normal(0), normal(1)[:5], checkpoint_dir=tmp_path / "maps", **QUICK)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_names_the_file_and_keeps_the_state_before(tmp_path, monkeypatch, alone):
    options = QUICK | {"checkpoint_dir": tmp_path}
    interrupt(monkeypatch, 9, lambda: fit(normal(0), targets()[0], **options))
    (state,) = tmp_path.iterdir()
    before = state.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # As with a full disk or a quota, the write fails in the middle.
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(OSError, match=state.name):
            fit(normal(0), targets()[0], **options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == [state.name]
    assert state.read_bytes() == before
    same_bits([fit(normal(0), targets()[0], **options)], alone)


# ---- kill -9

KILLED = """
import os
import signal
import threading
import numpy as np
import torch
from scot_hycnn.solver import fit_many
from scot_hycnn.solver.training._optimiser import Optimiser

def update(*arguments, original=Optimiser.update):
    seen.append(None)
    if len(seen) == {after}:
        # From another thread, so that the signal comes at any moment of the steps or of the writing that follow.
        threading.Timer({seconds}, os.kill, (os.getpid(), signal.SIGKILL)).start()
    return original(*arguments)

seen = []
Optimiser.update = update
torch.set_num_threads(1)
normal = lambda seed: np.random.default_rng(seed).normal(size=(200, 2))
ys = [(y := normal(seed)) + seed * np.sign(y) for seed in range(1, 4)]
fit_many(normal(0), ys, checkpoint_dir={folder!r}, **{options!r})
"""
LONGER = QUICK | {"max_steps": 80, "n_ensemble": 8}
STEPS = 2 * 80  # two maps are a batch, and then one


def kill(processes, folder, **moment):
    """Run the fit in another process, which ends by a signal that no program can catch."""
    process = processes.Process(target=exec, args=(KILLED.format(folder=str(folder), options=LONGER, **moment), {}))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("n_kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_a_fit_that_is_killed_at_any_moment_continues_to_the_same_bits(processes, tmp_path, n_kills):
    moments, unfinished = random.Random(0), 0
    uninterrupted = fit_many(normal(0), targets(3), **LONGER)
    for number in range(n_kills):
        folder = tmp_path / str(number)
        folder.mkdir()
        kill(processes, folder, after=moments.randint(1, STEPS), seconds=moments.uniform(0, 0.05))
        left = suffixes(folder)
        assert set(left) <= {".checkpoint", ".safetensors", ".partial"}
        unfinished += ".checkpoint" in left
        same_bits(fit_many(normal(0), targets(3), checkpoint_dir=folder, **LONGER), uninterrupted)
        assert ".checkpoint" not in suffixes(folder)
        shutil.rmtree(folder)
    assert unfinished >= n_kills // 2  # the others had no check or no step before the signal
