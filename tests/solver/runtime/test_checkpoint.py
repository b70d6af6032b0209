"""Training that was interrupted goes on as if it had not been: the same bits."""

from __future__ import annotations

import multiprocessing
import random
import resource
import shutil
import signal

import numpy as np
import pytest
import torch

from scot_hycnn.solver import fit, fit_many
from scot_hycnn.solver.training import _parts
from scot_hycnn.solver.training._methods import RECIPES

QUICK = {"hidden": (8, 8), "max_steps": 40, "batch_size": 32, "n_ensemble": 2, "device": "cpu", "progress": False}
GROUPS = (["a", "b", "c", "d"] * 50, [["a", "b", "c", "d"] * 50] * 3)


def normal(seed, n_cells=200):
    return np.random.default_rng(seed).normal(size=(n_cells, 2))


def targets(n=3):
    return [(y := normal(seed)) + seed * np.sign(y) for seed in range(1, n + 1)]


def same_bits(maps, others):
    for one, other in zip(maps, others, strict=True):
        assert torch.equal(one.theta, other.theta)
        assert (one.blend, one.status, one.w2_squared) == (other.blend, other.status, other.w2_squared)
        assert one.history.keys() == other.history.keys()
        for name in one.history.keys() - {"seconds"}:
            np.testing.assert_array_equal(one.history[name], other.history[name])


@pytest.fixture
def interrupt(monkeypatch):
    """Press Ctrl-C in the step of this number; no longer after the next call."""

    def at(number):
        def step(part, now, original=_parts.Part.step):
            if now == number:
                raise KeyboardInterrupt
            return original(part, now)

        return monkeypatch.context(), step

    return at


def interrupted(interrupt, number, call):
    context, step = interrupt(number)
    with context as patch:
        patch.setattr(_parts.Part, "step", step)
        with pytest.raises(KeyboardInterrupt):
            call()


def states(folder):
    return [path for path in folder.iterdir() if path.suffix == ".checkpoint"]


@pytest.mark.parametrize("solver", RECIPES)
@pytest.mark.parametrize("number", [2, 17, 39])
def test_an_interrupted_fit_goes_on_to_the_same_bits(tmp_path, interrupt, solver, number):
    """Before the first check there is nothing to go on from, and the fit begins anew."""
    options = QUICK | {"solver": solver, "checkpoint_dir": tmp_path}
    interrupted(interrupt, number, lambda: fit_many(normal(0), targets(), **options))
    assert len(states(tmp_path)) == (number > 3)
    maps = fit_many(normal(0), targets(), **options)
    same_bits(maps, fit_many(normal(0), targets(), **QUICK | {"solver": solver}))
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".safetensors"] * 3


def test_steps_that_were_done_are_not_done_again(tmp_path, interrupt, monkeypatch):
    options = QUICK | {"checkpoint_dir": tmp_path}
    interrupted(interrupt, 30, lambda: fit(normal(0), targets()[0], **options))
    seen = []

    def step(part, number, original=_parts.Part.step):
        seen.append(number)
        return original(part, number)

    monkeypatch.setattr(_parts.Part, "step", step)
    fit(normal(0), targets()[0], **options)
    assert seen == list(range(28, 40))


@pytest.mark.parametrize("stopped", [(0,), (1, 2)], ids=str)
@pytest.mark.parametrize("number", [25, 33])
def test_maps_that_had_ended_are_kept(tmp_path, interrupt, stop, stopped, number):
    def call(**options):
        stop(*stopped)
        return fit_many(normal(0), targets(), **QUICK, **options)

    expected = call()
    interrupted(interrupt, number, lambda: call(checkpoint_dir=tmp_path))
    same_bits(call(checkpoint_dir=tmp_path), expected)


@pytest.mark.parametrize("n_threads", [2, 3])
def test_with_several_threads(tmp_path, interrupt, n_threads):
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        options = QUICK | {"n_ensemble": 3, "checkpoint_dir": tmp_path}
        interrupted(interrupt, 21, lambda: fit_many(normal(0), targets(), **options))
        maps = fit_many(normal(0), targets(), **options)
        same_bits(maps, fit_many(normal(0), targets(), **QUICK | {"n_ensemble": 3}))
    finally:
        torch.set_num_threads(before)


def test_another_number_of_threads_begins_anew(tmp_path, interrupt):
    """It would divide the networks, and round numbers, in another way."""
    before = torch.get_num_threads()
    interrupted(interrupt, 21, lambda: fit(normal(0), targets()[0], **QUICK, checkpoint_dir=tmp_path))
    torch.set_num_threads(2)
    try:
        again = fit(normal(0), targets()[0], **QUICK, checkpoint_dir=tmp_path)
        same_bits([again], [fit(normal(0), targets()[0], **QUICK)])
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("leave_out", ["cells", "groups"])
def test_with_groups(tmp_path, interrupt, leave_out):
    """Folds without some groups train after the networks themselves."""
    options = QUICK | {"groups": GROUPS, "leave_out": leave_out}
    interrupted(interrupt, 29, lambda: fit_many(normal(0), targets(), **options, checkpoint_dir=tmp_path))
    maps = fit_many(normal(0), targets(), **options, checkpoint_dir=tmp_path)
    same_bits(maps, fit_many(normal(0), targets(), **options))


def test_an_interruption_among_the_folds_repeats_neither_networks_nor_finished_folds(tmp_path, monkeypatch):
    """Three maps train for 40 steps, and then for each of them the folds, for 40 steps too."""
    options = QUICK | {"groups": GROUPS, "leave_out": "groups"}
    expected = fit_many(normal(0), targets(), **options)
    seen = []

    def step(part, number, original=_parts.Part.step):
        seen.append(number)
        if len(seen) == 40 + 40 + 30:
            raise KeyboardInterrupt
        return original(part, number)

    monkeypatch.setattr(_parts.Part, "step", step)
    with pytest.raises(KeyboardInterrupt):
        fit_many(normal(0), targets(), **options, checkpoint_dir=tmp_path)
    assert len(states(tmp_path)) == 3  # of the networks, and of the folds of two maps
    same_bits(fit_many(normal(0), targets(), **options, checkpoint_dir=tmp_path), expected)
    assert seen[40 + 40 + 30 :] == [*range(28, 40), *range(40)]
    assert not states(tmp_path)


def test_an_interruption_after_training_repeats_none_of_it(tmp_path, interrupt, monkeypatch):
    options = QUICK | {"checkpoint_dir": tmp_path}
    expected = fit_many(normal(0), targets(), **QUICK)

    def finish(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("scot_hycnn.solver.runtime._batching.finish", finish)
        with pytest.raises(KeyboardInterrupt):
            fit_many(normal(0), targets(), **options)
    monkeypatch.setattr(_parts.Part, "step", None)
    same_bits(fit_many(normal(0), targets(), **options), expected)


def test_maps_of_other_batches_keep_their_company(tmp_path, interrupt, monkeypatch):
    """Eight members each: two maps a batch. The second one is interrupted; a map of it is then wanted alone too."""
    options = QUICK | {"n_ensemble": 8}
    expected = fit_many(normal(0), targets(5), **options)
    seen = []

    def step(part, number, original=_parts.Part.step):
        seen.append(number)
        if len(seen) == 40 + 21:
            raise KeyboardInterrupt
        return original(part, number)

    with monkeypatch.context() as patch:
        patch.setattr(_parts.Part, "step", step)
        with pytest.raises(KeyboardInterrupt):
            fit_many(normal(0), targets(5), **options, checkpoint_dir=tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) == 2
    fit_many(normal(0), [targets(5)[2]], **options, checkpoint_dir=tmp_path)
    same_bits(fit_many(normal(0), targets(5), **options, checkpoint_dir=tmp_path), expected)


def test_to_begin_anew(tmp_path, interrupt, monkeypatch):
    options = QUICK | {"checkpoint_dir": tmp_path}
    interrupted(interrupt, 30, lambda: fit(normal(0), targets()[0], **options))
    (state,) = states(tmp_path)
    state.write_bytes(b"damaged")
    with pytest.raises(
        ValueError, match=rf"{state.name}' is damaged. Delete the file, or begin anew with resume=False"
    ):
        fit(normal(0), targets()[0], **options)
    expected = fit(normal(0), targets()[0], **QUICK)
    same_bits([fit(normal(0), targets()[0], **options, resume=False)], [expected])
    (path,) = tmp_path.iterdir()
    path.write_bytes(b"damaged")
    same_bits([fit(normal(0), targets()[0], **options, resume=False)], [expected])


def test_a_full_disk_names_the_file_and_keeps_the_state_before(tmp_path, interrupt):
    options = QUICK | {"checkpoint_dir": tmp_path}
    interrupted(interrupt, 15, lambda: fit(normal(0), targets()[0], **options))
    (state,) = states(tmp_path)
    before = state.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # What a full disk or a quota does, too: the write fails in its midst.
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(
            OSError, match=rf"could not be written \(File too large\); what was .* kept: .*{state.name}'"
        ):
            fit(normal(0), targets()[0], **options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == [state.name]
    assert state.read_bytes() == before
    same_bits([fit(normal(0), targets()[0], **options)], [fit(normal(0), targets()[0], **QUICK)])


# ---- kill -9

KILLED = """
import os
import signal
import threading
import warnings
import numpy as np
import torch
from scot_hycnn.solver import _parts, fit_many

def step(part, number, original=_parts.Part.step):
    seen.append(number)
    if len(seen) == {after}:
        # From another thread, so that it comes at any moment of the steps or of the writing that follow.
        threading.Timer({seconds}, os.kill, (os.getpid(), signal.SIGKILL)).start()
    return original(part, number)

seen = []
_parts.Part.step = step
torch.set_num_threads(1)
warnings.simplefilter("ignore")
normal = lambda seed: np.random.default_rng(seed).normal(size=(200, 2))
ys = [(y := normal(seed)) + seed * np.sign(y) for seed in range(1, 4)]
fit_many(normal(0), ys, checkpoint_dir={folder!r}, **{options!r})
"""
LONGER = QUICK | {"max_steps": 200, "n_ensemble": 8}
STEPS = 2 * 200  # two maps are a batch, and then one


@pytest.fixture(scope="module")
def uninterrupted():
    return fit_many(normal(0), targets(), **LONGER)


def kill(folder, **moment):
    """Run the fit in a process of its own, which ends by a signal that no program can catch."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["scot_hycnn.solver", "scot_hycnn.solver._fit_many"])
    program = KILLED.format(folder=str(folder), options=LONGER, **moment)
    process = context.Process(target=exec, args=(program, {}))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("n_kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_a_fit_that_is_killed_at_any_moment_goes_on_to_the_same_bits(tmp_path, uninterrupted, n_kills):
    moments, unfinished = random.Random(0), 0
    for number in range(n_kills):
        folder = tmp_path / str(number)
        folder.mkdir()
        kill(folder, after=moments.randint(1, STEPS), seconds=moments.uniform(0, 0.05))
        left = [path.suffix for path in folder.iterdir()]
        assert set(left) <= {".checkpoint", ".safetensors", ".partial"}
        unfinished += ".checkpoint" in left
        same_bits(fit_many(normal(0), targets(), checkpoint_dir=folder, **LONGER), uninterrupted)
        assert not states(folder)
        shutil.rmtree(folder)
    assert unfinished >= n_kills // 2  # the others had no check behind them, or no step before them
