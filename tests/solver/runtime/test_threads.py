"""Networks in several threads, and fits side by side: the same maps, and no setting of the process changes."""

from __future__ import annotations

import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info

from scot_hycnn.solver import fit, fit_many
from scot_hycnn.solver.runtime._device import in_threads, limited_threads
from scot_hycnn.solver.training._optimiser import Optimiser

QUICK = {"hidden": (8, 8), "max_steps": 6, "batch_size": 64, "n_ensemble": 4, "device": "cpu", "progress": False}


def normal(seed, n_cells=150):
    return np.random.default_rng(seed).normal(size=(n_cells, 2))


def moved_apart(seed):
    return normal(seed) + 2 * np.sign(normal(seed))


def alike(fitted, other, x):
    """The same map up to the rounding of products in batches of another size."""
    both = [one.around(np.zeros(x.shape[1])) if one.centres else one for one in (fitted, other)]
    np.testing.assert_allclose(*(one.transport(x) for one in both), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(fitted.theta, other.theta, rtol=1e-3, atol=1e-3)  # the Gaussian map may be kept
    assert (fitted.blend, fitted.params["n_steps"]) == (other.blend, other.params["n_steps"])


@pytest.mark.parametrize(
    ("n_threads", "options"),
    [
        (2, {}),
        (3, {"conjugates": "amortized"}),
        (2, {"solver": "minimax"}),
        (3, {"solver": "paper"}),
        (3, {"groups": (["a", "b", "c"] * 50,) * 2, "leave_out": "groups"}),
    ],
    ids=["default", "amortized", "minimax", "paper", "groups left out"],
)
def test_members_of_a_map_become_what_they_are_in_one_thread(n_threads, options):
    x, y = normal(0), moved_apart(1)
    alone = fit(x, y, **QUICK | options)
    torch.set_num_threads(n_threads)
    found, again = (fit(x, y, **QUICK | options) for _ in range(2))
    alike(found, alone, x)
    assert torch.equal(found.theta, again.theta)


def test_members_of_many_maps_become_what_they_are_in_one_thread():
    """Seven threads for twelve members: most threads have members of two maps."""
    x, ys = normal(0), [moved_apart(1), moved_apart(2), moved_apart(3)]
    alone = fit_many(x, ys, **QUICK)
    torch.set_num_threads(7)
    for fitted, other in zip(fit_many(x, ys, **QUICK), alone, strict=True):
        alike(fitted, other, x)


def test_small_targets_of_different_sizes_train_together():
    """Each thread has the members of targets of another size, whose conjugates are cached."""
    x, ys = normal(0), [normal(1, 60) + 2 * np.sign(normal(1, 60)), normal(2, 90) + 5, normal(3, 75) * 2]
    alone = [fit(x, y, **QUICK) for y in ys]
    torch.set_num_threads(2)
    for fitted, other in zip(fit_many(x, ys, **QUICK), alone, strict=True):
        alike(fitted, other, x)


def in_new_thread(function):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result(timeout=60)


def test_threads_share_those_of_pytorch_and_leave_other_threads_as_they_are():
    torch.set_num_threads(4)
    together = threading.Barrier(2, timeout=60)

    def work(item):
        together.wait()  # each item has a thread
        return item, torch.get_num_threads(), in_new_thread(torch.get_num_threads)

    with in_threads(2) as each:
        assert each(work, [1, 2]) == [(1, 2, 4), (2, 2, 4)]
    with limited_threads(3):
        assert (torch.get_num_threads(), in_new_thread(torch.get_num_threads)) == (3, 4)
    assert (torch.get_num_threads(), in_new_thread(torch.get_num_threads)) == (4, 4)


def test_a_failure_is_raised_and_leaves_nothing_behind():
    torch.set_num_threads(3)
    running = threading.active_count()
    with pytest.raises(ZeroDivisionError), in_threads(3) as each:
        each(lambda item: 1 / item, [1, 0, 2])
    assert (threading.active_count(), torch.get_num_threads(), in_new_thread(torch.get_num_threads)) == (running, 3, 3)


def test_an_interrupt_ends_all_threads(monkeypatch):
    torch.set_num_threads(2)
    step, steps, running = Optimiser.update, [], threading.active_count()

    def interrupted(*arguments):
        steps.append(None)
        if len(steps) == 7:
            raise KeyboardInterrupt
        return step(*arguments)

    monkeypatch.setattr(Optimiser, "update", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit(normal(0), moved_apart(1), **QUICK)
    assert (threading.active_count(), torch.get_num_threads()) == (running, 2)


def test_errstate_of_numpy_holds_in_threads_too():
    with np.errstate(over="ignore"), in_threads(2) as each:
        assert each(lambda x: float(np.float64(x) * 1e300), [1e300, 1.0]) == [np.inf, 1e300]


def test_blocks_of_cells_come_back_in_their_order():
    fitted, cells = fit(normal(0), moved_apart(1), **QUICK), normal(2, 3000)
    for method in ("transport", "inverse", "out_of_support", "potential", "conjugate"):
        torch.set_num_threads(1)
        alone = getattr(fitted, method)(cells)
        torch.set_num_threads(3)
        np.testing.assert_allclose(getattr(fitted, method)(cells), alone, rtol=1e-5, atol=1e-5)


# ---- fits side by side


def theta_of(seed):
    x, y = np.random.default_rng(seed).normal(size=(2, 200, 2))
    return fit(x, y + seed * np.sign(y), **QUICK).theta.numpy()


def settings_of_the_process():
    return {
        "threads": torch.get_num_threads(),
        "precision": torch.get_float32_matmul_precision(),
        "gradients": torch.is_grad_enabled(),
        "random state of torch": torch.get_rng_state().tolist(),
        "random state of numpy": np.random.get_state()[1].tolist(),
        "errors of numpy": np.geterr(),
        # scikit-learn itself may leave the number of BLAS changed if several threads use it.
        "pools": [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "openmp"],
    }


def test_fits_in_threads_and_processes_give_the_bits_of_fits_in_turn(processes):
    alone, before = [theta_of(seed) for seed in range(3)], settings_of_the_process()
    with ThreadPoolExecutor(3, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        in_pool = list(pool.map(theta_of, range(3)))
    assert settings_of_the_process() == before
    with ProcessPoolExecutor(1, processes, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        in_pool += pool.map(theta_of, range(2))
    for one, other in zip(in_pool, alone + alone[:2], strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_fit_that_begins_in_a_new_thread_while_another_trains_is_divided_as_if_it_were_alone(monkeypatch):
    torch.set_num_threads(2)
    alone, step, lock, inner = theta_of(1), Optimiser.update, threading.Lock(), []

    def begin_another(*arguments):
        with lock:
            begin = not inner
            if begin:
                inner.append(None)
        if begin:
            inner[0] = in_new_thread(lambda: theta_of(1))
        return step(*arguments)

    monkeypatch.setattr(Optimiser, "update", begin_another)
    theta_of(2)
    np.testing.assert_array_equal(inner[0], alone)
