"""Every training method and every family: known answers, and what comes back from a fit."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from scot_hycnn.datasets import brenier_pair
from scot_hycnn.metrics import map_mse
from scot_hycnn.potentials import ICNN, MLP, GroupMax, HyCNN
from scot_hycnn.solver import TransportMap, fit
from scot_hycnn.solver.training._methods import FAMILIES, POTENTIALS, RECIPES

QUICK = {"hidden": (8, 8), "max_steps": 20, "batch_size": 64, "n_ensemble": 2, "device": "cpu"}
TRAINED = {"hidden": (16, 16), "max_steps": 250, "batch_size": 128, "n_ensemble": 1, "device": "cpu"}
# Steps in which each method, at its own rate, finds a map that bends.
STEPS = {"amortized": 250, "minimax": 250, "w2gn": 600, "enot": 500, "paper": 500}
# Short fits may keep the Gaussian map, or not reach it.


def normal(seed, n_cells=300, n_dims=2):
    return np.random.default_rng(seed).normal(size=(n_cells, n_dims))


def mean_shift(pair):
    return pair.x_test + pair.y.mean(0) - pair.x.mean(0)


# ---- training methods


@pytest.mark.parametrize("solver", RECIPES)
def test_every_method_finds_a_translation(solver):
    shift = [5.0, -3.0]
    fitted = fit(normal(0, 600), normal(1, 600) + shift, solver=solver, **TRAINED)
    x = normal(2, 1000)
    # Ours start at the Gaussian map; the paper's learns it.
    assert map_mse(fitted.transport(x), x + shift) < map_mse(x, x + shift) / (20 if solver == "paper" else 100)


@pytest.mark.parametrize("solver", RECIPES)
def test_every_method_finds_a_nonlinear_map(solver):
    pair = brenier_pair("sign", 3, 1000)
    fitted = fit(pair.x, pair.y, solver=solver, **(TRAINED | {"max_steps": STEPS[solver]}))
    error = map_mse(fitted.transport(pair.x_test), pair.y_test)
    assert fitted.ok
    assert error < map_mse(mean_shift(pair), pair.y_test) / 2
    gaussian = fit(pair.x, pair.y, potential="gaussian").transport(pair.x_test)
    assert error < map_mse(gaussian, pair.y_test)
    assert fitted.params["solver"] == solver
    assert fitted.certificate["convexity_gap"] < 1e-4


@pytest.mark.parametrize("solver", RECIPES)
def test_the_same_seed_gives_the_same_bits_by_every_method(solver):
    x, y = normal(0), normal(1) ** 3
    first, again, other = (fit(x, y, solver=solver, rng=seed, **QUICK) for seed in (0, 0, 1))
    assert np.array_equal(first.theta, again.theta)
    assert not np.array_equal(first.theta, other.theta)


# ---- families


@pytest.mark.parametrize("potential", FAMILIES)
def test_every_family_finds_a_nonlinear_map(potential):
    pair = brenier_pair("sign", 2, 1000)
    fitted = fit(pair.x, pair.y, potential=potential, **TRAINED)
    error = map_mse(fitted.transport(pair.x_test), pair.y_test)
    assert error < map_mse(mean_shift(pair), pair.y_test) / 2
    assert fitted.params["potential"] == potential


@pytest.mark.parametrize("solver", RECIPES)
@pytest.mark.parametrize("potential", POTENTIALS)
def test_every_pair_of_potential_and_method_gives_a_finite_map(potential, solver):
    x, y = normal(0, 100), normal(1, 100) ** 3 + 2
    fitted = fit(x, y, potential=potential, solver=solver, **(QUICK | {"max_steps": 4}))
    assert np.isfinite(fitted.transport(x)).all()
    assert fitted.theta.isfinite().all()
    assert all(np.isfinite(value) for value in (fitted.w2_squared, *fitted.certificate.values()))
    if fitted.network.convex or not fitted.blend:
        assert fitted.certificate["convexity_gap"] <= 1e-4
        assert fitted.certificate["monotonicity"] >= -1e-4


@pytest.mark.parametrize("potential", POTENTIALS)
def test_what_a_fit_reports_is_json_and_its_map_survives_files_and_dictionaries(potential, tmp_path):
    x, y = normal(0), normal(1) ** 3
    # The blend is set, so that the networks show in what the map does.
    fitted = replace(fit(x, y, potential=potential, **QUICK), blend=0.5)
    assert json.loads(json.dumps(fitted.params)) == fitted.params | {"hidden": [8, 8]}
    json.dumps({name: np.asarray(value).tolist() for name, value in (fitted.validation | fitted.certificate).items()})
    fitted.save(tmp_path / "map")
    for rebuilt in (TransportMap.load(tmp_path / "map"), TransportMap.from_dict(fitted.to_dict())):
        assert rebuilt.network == fitted.network
        assert np.array_equal(rebuilt.transport(x), fitted.transport(x))
        assert np.array_equal(rebuilt.inverse(y), fitted.inverse(y))


# ---- potentials of the user's

OWN = [
    HyCNN(2, (6, 5), gate="max"),
    GroupMax(2, (6, 5), annealing="cyclic"),
    ICNN(2, (6, 5), activation="relu", strong_convexity=0.0),
    ICNN(2, (6, 5), constraint="soft", temperature=0.5),
    MLP(2, (6, 5), activation="leaky_relu", strong_convexity=1.0),
]
WITHOUT_WIDTHS = {name: value for name, value in QUICK.items() if name != "hidden"}


@pytest.mark.parametrize("solver", ["amortized", "paper"])
@pytest.mark.parametrize("own", OWN, ids=str)
def test_a_potential_of_the_users_is_trained_as_it_is(own, solver, tmp_path):
    x, y = normal(0), normal(1) ** 3
    fitted = fit(x, y, potential=own, solver=solver, **WITHOUT_WIDTHS)
    assert fitted.network is own
    assert (fitted.params["hidden"], fitted.params["potential"]) == ((6, 5), str(own))
    json.dumps(fitted.params)
    fitted.save(tmp_path / "map")
    loaded = TransportMap.load(tmp_path / "map", device="cpu")
    assert loaded.network == own
    assert np.array_equal(loaded.transport(x), fitted.transport(x))


def test_a_potential_of_the_users_finds_a_nonlinear_map():
    pair = brenier_pair("sign", 2, 1000)
    own = HyCNN(2, (16, 16), strong_convexity=0.9, output_scale=0.3)
    options = {name: value for name, value in TRAINED.items() if name != "hidden"}
    fitted = fit(pair.x, pair.y, potential=own, **options)
    assert map_mse(fitted.transport(pair.x_test), pair.y_test) < map_mse(mean_shift(pair), pair.y_test) / 2


def test_the_same_potential_by_name_and_by_hand_is_the_same_fit():
    x, y = normal(0), normal(1) ** 3
    by_name = fit(x, y, potential="icnn-relu", **QUICK)
    by_hand = fit(x, y, potential=by_name.network, **WITHOUT_WIDTHS)
    assert np.array_equal(by_name.theta, by_hand.theta)


@pytest.mark.parametrize("solver", RECIPES)
def test_a_potential_of_other_dimensions_is_an_error(solver):
    with pytest.raises(ValueError, match=r"potential has n_dims=3, and the cells have 2 dimensions"):
        fit(normal(0), normal(1), potential=HyCNN(3, (6, 5)), solver=solver, **WITHOUT_WIDTHS)


def test_widths_beside_a_potential_are_an_error():
    with pytest.raises(ValueError, match=r"hidden=\(8, 8\) goes with a potential's name; .* Leave hidden out"):
        fit(normal(0), normal(1), potential=OWN[0], **QUICK)


@pytest.mark.parametrize("thing", [HyCNN, object(), 3, None])
def test_what_is_no_potential_is_an_error(thing):
    with pytest.raises(ValueError, match=r"potential=.* is unknown; choose one of"):
        fit(normal(0), normal(1), potential=thing, **QUICK)
