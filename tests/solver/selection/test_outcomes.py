"""What a fit has led to is a value: no warning says it, and different things are told apart."""

from __future__ import annotations

import numpy as np
import pytest
from scot_hycnn.solver.selection._response import response

from scot_hycnn.solver import Outcome, TransportMap, fit, fit_many

QUICK = {"max_steps": 40, "hidden": (8, 8), "n_ensemble": 1, "device": "cpu"}
# Networks that are worse than the Gaussian map.
TOO_FAST = {"lr": 2.0, "weight_decay": 0.0}


def normal(seed, n_cells=400, n_dims=3):
    return np.random.default_rng(seed).normal(size=(n_cells, n_dims))


# ---- is there a response?


def test_p_values_are_uniform_where_there_is_none():
    values = [
        response(normal(seed, 60), normal(1000 + seed, 60), None, np.random.default_rng(0))[1] for seed in range(60)
    ]
    assert np.mean(np.array(values) < 0.25) == pytest.approx(0.25, abs=0.15)
    assert min(values) > 0


def test_a_shift_is_a_response():
    _, p = response(normal(0, 200), normal(1, 200) + np.array([0.5, 0, 0]), None, np.random.default_rng(0))
    assert p == 1 / 200


def test_other_proportions_of_groups_are_no_response():
    rng = np.random.default_rng(0)
    of_x, of_y = (rng.permutation(np.repeat([0, 1], sizes)) for sizes in ((250, 50), (50, 250)))
    x, y = normal(1, 300) + 6 * of_x[:, None], normal(2, 300) + 6 * of_y[:, None]
    assert response(x, y, None, rng)[1] < 0.01
    assert response(x, y, (of_x, of_y), rng)[1] > 0.05
    assert response(x, y + np.array([1, 0, 0]), (of_x, of_y), rng)[1] < 0.01


def test_the_distance_is_the_unbiased_energy_distance():
    from scot_hycnn.metrics import energy_distance

    x, y = normal(0, 80), normal(1, 120) + 1
    assert response(x, y, None, np.random.default_rng(0))[0] == pytest.approx(energy_distance(x, y))


# ---- outcomes


def fits(outcome):
    """Cells and options that lead to it."""
    x, y = normal(0), normal(1)
    return {
        Outcome.NETWORKS: lambda: fit(x, y + 3 * np.sign(y), **(QUICK | {"max_steps": 150, "lr": 0.05})),
        Outcome.REQUESTED: lambda: fit(x, y + 3, potential="gaussian"),
        Outcome.NO_RESPONSE: lambda: fit(x, normal(2), **(QUICK | TOO_FAST)),
        Outcome.NOT_TRAINED: lambda: fit(x, y + 3, **(QUICK | TOO_FAST)),
        Outcome.GAUSSIAN: lambda: fit(x, y + 3, **(QUICK | TOO_FAST | {"max_steps": 300})),
        Outcome.RECOVERED: lambda: fit(x, y + 3, **(QUICK | {"lr": 1e30})),
        Outcome.WORSE: lambda: fit(x, 3 * y + 5, solver="paper", **(QUICK | {"max_steps": 1})),
    }[outcome]()


@pytest.mark.parametrize("outcome", [outcome for outcome in Outcome if outcome != Outcome.UNSOLVED])
def test_each_outcome_is_told_apart_and_kept(outcome, tmp_path):
    """Under -W error, as all tests run: whatever happens, the map comes back."""
    fitted = fits(outcome)
    assert fitted.outcome == outcome
    assert (fitted.status == "ok") == (outcome in (Outcome.NETWORKS, Outcome.REQUESTED))
    fitted.save(tmp_path / "map.safetensors")
    loaded = TransportMap.load(tmp_path / "map.safetensors")
    assert (loaded.outcome, loaded.status) == (fitted.outcome, fitted.status)


def test_a_high_residual_is_said(monkeypatch):
    from scot_hycnn.solver import _outcome

    monkeypatch.setattr(_outcome, "CONVERGED", -1.0)
    fitted = fits(Outcome.NETWORKS)
    assert fitted.outcome == Outcome.UNSOLVED
    assert "residual" in fitted.status


def test_many_fits_have_their_own():
    x = normal(0)
    maps = fit_many(x, [normal(2), normal(1) + 3], **(QUICK | TOO_FAST))
    assert [fitted.outcome for fitted in maps] == [Outcome.NO_RESPONSE, Outcome.NOT_TRAINED]


def test_an_older_map_has_none():
    state = fits(Outcome.REQUESTED).to_dict()
    assert TransportMap.from_dict({name: value for name, value in state.items() if name != "outcome"}).outcome == ""


# ---- the Gaussian map beside networks


def test_the_gaussian_map_knows_all_cells():
    x, y = normal(0, 100), normal(1, 100)
    y = y + 3 * np.sign(y)
    fitted = fit(x, y, **(QUICK | {"max_steps": 150, "lr": 0.05}))
    assert fitted.blend > 0
    alone = fit(x, y, potential="gaussian").transport(x)
    np.testing.assert_allclose(fitted.gaussian_map().transport(x), alone, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(fitted.gaussian_map().transport(x).mean(0), y.mean(0), atol=1e-5)
