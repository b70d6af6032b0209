"""How long a fit will take."""

from __future__ import annotations

from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from scot_hycnn.solver import _cost, expected_seconds

OPTIONS = {"hidden": (8, 8), "max_steps": 100, "batch_size": 32, "n_ensemble": 2, "device": "cpu"}


def test_it_is_a_positive_time():
    assert 0 < expected_seconds(5, **OPTIONS) < 60


def test_it_is_proportional_to_the_steps(monkeypatch):
    clock = count()
    monkeypatch.setattr(_cost, "time", SimpleNamespace(perf_counter=lambda: float(next(clock))))
    short, long = (expected_seconds(5, **(OPTIONS | {"max_steps": steps})) for steps in (100, 1000))
    assert long == pytest.approx(10 * short)
    assert short == pytest.approx(100 * _cost.GRADIENTS_PER_STEP / 3)  # three gradients were timed: one second


def test_larger_fits_take_longer():
    large = OPTIONS | {"hidden": (256, 256), "batch_size": 512}
    assert expected_seconds(20, **large) > expected_seconds(5, **OPTIONS)


def test_global_random_states_are_not_touched():
    before = torch.get_rng_state(), np.random.get_state()
    expected_seconds(5, **OPTIONS)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert all(np.array_equal(a, b) for a, b in zip(np.random.get_state(), before[1], strict=True))
