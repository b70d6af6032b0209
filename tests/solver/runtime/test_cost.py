"""How long a fit will take."""

from __future__ import annotations

from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from scot_hycnn.potentials import MLP
from scot_hycnn.solver import Settings, expected_seconds
from scot_hycnn.solver.runtime import _cost
from scot_hycnn.solver.training._methods import RECIPES

OPTIONS = {
    "hidden": (8, 8),
    "max_steps": 100,
    "batch_size": 32,
    "n_ensemble": 2,
    "validation_fraction": 0.1,
    "device": "cpu",
    "rng": 0,
}


def expected(n_dims=5, **options):
    return expected_seconds(n_dims, Settings.for_cells(500, n_dims, **(OPTIONS | options)))


@pytest.fixture
def one_second(monkeypatch):
    """A clock by which the three gradients that are timed take a second."""
    clock = count()
    monkeypatch.setattr(_cost, "time", SimpleNamespace(perf_counter=lambda: float(next(clock))))


@pytest.mark.parametrize("solver", RECIPES)
def test_it_is_a_positive_time(solver):
    assert 0 < expected(solver=solver) < np.inf


def test_the_gaussian_map_takes_none():
    assert expected(potential="gaussian") == 0


def test_a_potential_of_the_users_is_timed_itself():
    network = MLP(n_dims=5, hidden=(8, 8))
    assert 0 < expected(potential=network, hidden=None) < np.inf


@pytest.mark.parametrize("solver", RECIPES)
def test_it_is_proportional_to_the_steps(one_second, solver):
    short, long = (expected(solver=solver, max_steps=steps) for steps in (100, 1000))
    assert long == pytest.approx(10 * short)
    recipe = RECIPES[solver]
    assert short == pytest.approx(100 * (recipe.remembering or recipe.method).gradients_per_step / 3)


def test_minimax_takes_the_most_gradients_a_step(one_second):
    """S steps on g for each of f."""
    assert max(RECIPES, key=lambda solver: expected(solver=solver)) in ("minimax", "paper")


def test_larger_fits_take_longer():
    assert expected(20, hidden=(256, 256), batch_size=512) > expected()


def test_global_random_states_are_not_touched():
    before = torch.get_rng_state(), np.random.get_state()
    expected()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert all(np.array_equal(a, b) for a, b in zip(np.random.get_state(), before[1], strict=True))
