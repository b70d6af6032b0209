"""Fits side by side in one process do not disturb each other, nor what the process had set."""

from __future__ import annotations

import multiprocessing
import threading
import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info

from scot_hycnn.solver import fit
from scot_hycnn.solver.runtime._precision import full_precision
from scot_hycnn.solver.training import _parts

QUICK = {"hidden": (8, 8), "max_steps": 60, "batch_size": 64, "n_ensemble": 2, "device": "cpu", "progress": False}


def clouds(seed):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(2, 200, 2))
    return x, y + seed * np.sign(y)


def fitted_elsewhere(seed):
    warnings.simplefilter("ignore")
    return fit(*clouds(seed), **QUICK).theta.numpy()


def settings():
    """Of the whole process."""
    return {
        "threads": torch.get_num_threads(),
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "grad": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "precision": torch.get_float32_matmul_precision(),
        "torch's random state": torch.get_rng_state().tolist(),
        "numpy's random state": np.random.get_state()[1].tolist(),
        "numpy's errors": np.geterr(),
        "pools": [(pool["internal_api"], pool["num_threads"]) for pool in threadpool_info()],
    }


def test_fits_in_threads_give_the_bits_of_fits_in_turn_and_change_no_setting():
    seeds = range(6)
    alone = [fit(*clouds(seed), **QUICK).theta for seed in seeds]
    before = settings()
    with ThreadPoolExecutor(3, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        together = list(pool.map(lambda seed: fit(*clouds(seed), **QUICK).theta, seeds))
    for one, other in zip(together, alone, strict=True):
        assert torch.equal(one, other)
    assert settings() == before


def test_fits_in_processes_give_the_bits_of_this_one():
    seeds = range(4)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        together = list(pool.map(fitted_elsewhere, seeds))
    for seed, theta in zip(seeds, together, strict=True):
        np.testing.assert_array_equal(theta, fit(*clouds(seed), **QUICK).theta.numpy())


def test_contexts_of_full_precision_that_overlap():
    """The first to open is not the last to close."""
    torch.set_float32_matmul_precision("high")
    try:
        first, second = full_precision(), full_precision()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        if hasattr(getattr(torch.backends.mkldnn, "matmul", None), "fp32_precision"):
            assert torch.backends.mkldnn.matmul.fp32_precision == "ieee"
        else:  # before PyTorch 2.9: one setting for all
            assert torch.get_float32_matmul_precision() == "highest"
        second.__exit__(None, None, None)
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_a_fit_begun_in_a_new_thread_while_another_trains(monkeypatch, tmp_path):
    """It divides its networks as it would alone, so it finds its checkpoint and ends at the same bits."""
    torch.set_num_threads(2)
    options = QUICK | {"n_ensemble": 3}
    alone = fit(*clouds(1), **options).theta
    step, seen, second = _parts.Part.step, [], []

    def interrupted(part, number):
        if number == 40:
            raise KeyboardInterrupt
        return step(part, number)

    with monkeypatch.context() as patch:
        patch.setattr(_parts.Part, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fit(*clouds(1), checkpoint_dir=tmp_path, **options)

    def begin_another():
        warnings.simplefilter("ignore")
        seen.append(torch.get_num_threads())
        return fit(*clouds(1), checkpoint_dir=tmp_path, **options).theta

    lock = threading.Lock()

    def noting(part, number):
        if part._settings.rng:  # the first fit; its other part waits for the end of the second
            with lock:
                if number == 5 and not second:
                    with ThreadPoolExecutor(1) as pool:
                        second.append(pool.submit(begin_another).result(timeout=120))
        else:
            seen.append(number)
        return step(part, number)

    monkeypatch.setattr(_parts.Part, "step", noting)
    first = fit(*clouds(2), rng=1, **options).theta
    assert seen[0] == 2
    assert set(seen[1:]) == set(range(36, 60))
    assert torch.equal(second[0], alone)
    monkeypatch.undo()
    assert torch.equal(first, fit(*clouds(2), rng=1, **options).theta)
