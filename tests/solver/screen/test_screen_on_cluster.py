"""Conditions beyond a sample get their weights from the workers of a cluster, in the order of ys."""

from __future__ import annotations

import numpy as np
import pytest

from scot_hycnn.solver import fit_screen
from scot_hycnn.solver.screen import _fit_screen

distributed = pytest.importorskip("distributed")


def test_workers_fit_the_conditions_that_are_not_in_the_sample(monkeypatch):
    monkeypatch.setattr(_fit_screen, "N_SAMPLE", 3)
    rng = np.random.default_rng(0)
    x, shifts = rng.normal(size=(200, 2)), np.arange(5.0)
    ys = [rng.normal(size=(60, 2)) + shift for shift in shifts]
    with (
        distributed.LocalCluster(n_workers=1, processes=False, dashboard_address=":0") as local,
        distributed.Client(local) as client,
    ):
        screen = fit_screen(
            x, ys, covariates={"dose": shifts}, client=client, device="cpu", max_steps=10, hidden=(8,), n_ensemble=1
        )
    assert len(screen.maps) == len(screen.choices) == len(screen.weights) == 5
    moved = [fitted.transport(x).mean() - x.mean() for fitted in screen.maps]
    np.testing.assert_allclose(moved, shifts, atol=0.3)
    assert abs((screen.at({"dose": 2.5})[0].transport(x) - x).mean() - 2.5) < 0.5
