"""Networks divided among threads: the same maps, and nothing outside is disturbed."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from scot_hycnn.solver import Settings, expected_seconds, fit, fit_many
from scot_hycnn.solver.runtime import _batching as _maps
from scot_hycnn.solver.runtime._threads import in_threads, limited_threads, n_parts
from scot_hycnn.solver.training import _parts
from scot_hycnn.solver.training._methods import RECIPES

QUICK = {"hidden": (8, 8), "max_steps": 40, "batch_size": 64, "n_ensemble": 4, "device": "cpu", "progress": False}


@pytest.fixture
def threads():
    """Set PyTorch's number of threads for one test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def normal(seed, n_cells=300):
    return np.random.default_rng(seed).normal(size=(n_cells, 2))


def bent(seed):
    return normal(seed) + 2 * np.sign(normal(seed))


def alike(fitted, other, x):
    """The same map up to the rounding of products in batches of another size."""
    np.testing.assert_allclose(fitted.transport(x), other.transport(x), rtol=1e-3, atol=1e-3)
    assert (fitted.blend, fitted.status, fitted.params["n_steps"]) == (
        other.blend,
        other.status,
        other.params["n_steps"],
    )


def test_each_item_has_a_thread_of_its_own_and_results_keep_their_order(threads):
    threads(4)
    together = threading.Barrier(2, timeout=60)

    def work(item):
        together.wait()
        return item, torch.get_num_threads(), threading.current_thread() is threading.main_thread()

    with in_threads(2) as each:
        assert each(work, [1, 2]) == [(1, 2, False), (2, 2, False)]
    with in_threads(1) as each:
        assert each(lambda item: (item, threading.current_thread()), [1]) == [(1, threading.main_thread())]
    assert torch.get_num_threads() == 4


def test_a_failure_is_raised_and_leaves_no_thread_and_no_number_of_threads_behind(threads):
    threads(3)
    running = threading.active_count()
    with pytest.raises(ZeroDivisionError), in_threads(3) as each:
        each(lambda item: 1 / item, [1, 0, 2])
    seen = []
    other = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    other.start()
    other.join()
    assert (threading.active_count(), torch.get_num_threads(), seen) == (running, 3, [3])


def in_new_thread(function):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result(timeout=60)


def test_new_threads_begin_with_the_number_of_the_program_meanwhile(threads):
    """Also where the thread that trains has another number, as one of a pool may."""
    threads(4)

    def work(item):
        return item, torch.get_num_threads(), in_new_thread(torch.get_num_threads)

    with in_threads(2) as each:
        assert each(work, [1, 2]) == [(1, 2, 4), (2, 2, 4)]
        threads(6)
        assert each(work, [1, 2]) == [(1, 2, 6), (2, 2, 6)]
    assert torch.get_num_threads() == 6

    def elsewhere():
        with limited_threads(2), in_threads(2) as each:
            return torch.get_num_threads(), each(work, [1, 2])

    assert in_new_thread(elsewhere) == (2, [(1, 1, 6), (2, 1, 6)])
    with limited_threads(3):
        assert (torch.get_num_threads(), in_new_thread(torch.get_num_threads)) == (3, 6)
    assert (torch.get_num_threads(), in_new_thread(torch.get_num_threads)) == (6, 6)


def test_what_numpy_is_to_ignore_is_ignored_in_threads_too():
    with np.errstate(over="ignore"), in_threads(2) as each:
        assert each(lambda x: float(np.float64(x) * 1e300), [1e300, 1.0]) == [np.inf, 1e300]


def test_networks_are_divided_on_a_cpu_only(threads):
    threads(3)
    assert [n_parts("cpu", n) for n in (1, 2, 3, 8)] == [1, 2, 3, 3]
    assert [n_parts(device, 8) for device in ("cuda:1", "mps", "meta")] == [1, 1, 1]


@pytest.mark.parametrize("method", RECIPES)
@pytest.mark.parametrize("n_threads", [2, 3])
def test_members_of_one_map_become_what_they_are_in_one_thread(threads, method, n_threads):
    """With three threads and four members the middle part has one or two of them."""
    x, y = normal(0), bent(1)
    alone = fit(x, y, solver=method, **QUICK)
    threads(n_threads)
    alike(fit(x, y, solver=method, **QUICK), alone, x)


def test_members_of_many_maps_become_what_they_are_in_one_thread(threads):
    """Seven parts of twelve members: most parts have members of two maps."""
    x, ys = normal(0), [bent(1), bent(2), bent(3)]
    alone = fit_many(x, ys, **QUICK)
    threads(7)
    for fitted, other in zip(fit_many(x, ys, **QUICK), alone, strict=True):
        alike(fitted, other, x)


def test_groups_are_drawn_alike(threads):
    x, y, of = normal(0), bent(1), np.repeat(["a", "b", "c"], 100)
    options = QUICK | {"groups": (of, of), "leave_out": "groups", "max_steps": 20}
    alone = fit(x, y, **options)
    threads(3)
    alike(fit(x, y, **options), alone, x)


@pytest.mark.parametrize("stopped", [{0}, {1}, {1, 2}])
def test_a_map_that_stops_early_leaves_the_others_in_their_parts(threads, stop, stopped):
    x, ys = normal(0), [bent(1), bent(2), bent(3)]
    alone = fit_many(x, ys, **QUICK)
    stop(*stopped)
    threads(5)
    for number, (fitted, other) in enumerate(zip(fit_many(x, ys, **QUICK), alone, strict=True)):
        if number in stopped:
            assert (fitted.blend, fitted.params["n_steps"]) == (0, 20)
        else:
            alike(fitted, other, x)


def test_the_same_bits_again_with_the_same_threads(threads):
    threads(2)
    x, y = normal(0), bent(1)
    first, second = (fit(x, y, **QUICK) for _ in range(2))
    assert torch.equal(first.theta, second.theta)


def test_an_interrupt_ends_all_threads(threads, monkeypatch):
    threads(2)
    step, running = _parts.Part.step, threading.active_count()

    def interrupted(part, number):
        if number == 3:
            raise KeyboardInterrupt
        return step(part, number)

    monkeypatch.setattr(_parts.Part, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit(normal(0), bent(1), **QUICK)
    assert (threading.active_count(), torch.get_num_threads()) == (running, 2)


def test_batches_are_larger_with_more_threads_and_of_one_size(threads, fitted_batches):
    x, ys = normal(0), [bent(seed) for seed in range(9)]
    options = {"n_ensemble": 8, "potential": "gaussian", "device": "cpu", "progress": False}
    for n_threads, sizes in ((1, [2, 2, 2, 2, 1]), (2, [3, 3, 3]), (8, [9])):
        threads(n_threads)
        fitted_batches.clear()
        fit_many(x, ys, **options)
        assert fitted_batches == sizes


def test_batches_fit_into_memory(monkeypatch, fitted_batches):
    x, ys = normal(0), [bent(seed) for seed in range(3)]
    options = {"potential": "gaussian", "device": "cpu", "progress": False}
    for most, sizes in ((10**8, [3]), (2 * 1200, [2, 1]), (1200, [1, 1, 1]), (1, [1, 1, 1])):
        monkeypatch.setattr(_maps, "MOST_VALUES", most)
        fitted_batches.clear()
        fit_many(x, ys, **options)
        assert fitted_batches == sizes


def test_the_expected_time_is_that_of_the_slowest_thread(threads):
    settings = Settings.for_cells(500, 5, device="cpu", rng=0, **{k: QUICK[k] for k in ("max_steps", "n_ensemble")})
    threads(2)
    assert 0 < expected_seconds(5, settings) < np.inf
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("method", ["transport", "inverse", "out_of_support", "potential", "conjugate"])
def test_blocks_of_cells_come_back_in_their_order(threads, method):
    fitted, cells = fit(normal(0), bent(1), **QUICK), normal(2, 3000)
    alone = getattr(fitted, method)(cells)
    threads(3)
    np.testing.assert_allclose(getattr(fitted, method)(cells), alone, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(getattr(fitted, method)(cells[:7]), alone[:7], rtol=1e-5, atol=1e-5)
    assert torch.get_num_threads() == 3
