"""The learning rate over a fit."""

from __future__ import annotations

import pytest

from scot_hycnn.solver.training._schedule import cosine


def test_it_warms_up_and_anneals():
    rates = [cosine(step, 1000) for step in range(1000)]
    assert rates[0] == pytest.approx(1 / 50, rel=0.01)
    assert rates[-1] == pytest.approx(0.01, abs=1e-3)
    assert rates[500] == pytest.approx(0.505, abs=1e-3)
    peak = rates.index(max(rates))
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert all(0 < rate <= 1 for rate in rates)


def test_the_shortest_fit_has_a_rate():
    assert 0 < cosine(0, 1) <= 1
