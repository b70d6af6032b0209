"""The preset that trains as the paper does: its own coordinates, no blend, the last iterate, and no fall-back."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from scot_hycnn.datasets import brenier_pair
from scot_hycnn.metrics import map_mse
from scot_hycnn.potentials import Gaussian, HyCNN
from scot_hycnn.solver import Outcome, Settings, fit
from scot_hycnn.solver.data._training_data import TrainingData
from scot_hycnn.solver.model._blended import Blended
from scot_hycnn.solver.selection._blend import score_blends
from scot_hycnn.solver.training._early_stopping import Monitor, score_ensembles
from scot_hycnn.solver.training._optimiser import Optimiser

SHORT = {"solver": "paper", "hidden": (8, 8), "batch_size": 64, "device": "cpu"}


def of_split(fraction, rng=0):
    """Settings of which the split of the cells reads the fraction and the seed."""
    return Settings.for_cells(100, 100, 2, device="cpu", rng=rng, validation_fraction=fraction)


def normal(seed, n_cells=300, n_dims=2):
    return np.random.default_rng(seed).normal(size=(n_cells, n_dims))


def test_it_takes_the_steps_of_the_paper_and_returns_the_last(monkeypatch):
    """Five steps on g and one on f; the learning rate falls by a cosine from the first step on."""
    update, rates, thetas = Optimiser.update, [], []

    def watched(optimiser, gradient, lr):
        update(optimiser, gradient, lr)
        rates.append(lr)
        thetas.append(optimiser.theta.detach().clone())

    monkeypatch.setattr(Optimiser, "update", watched)
    fitted = fit(normal(0) * [1, 4] + 7, np.tanh(normal(1)) - 2, max_steps=20, **SHORT)
    assert len(rates) == 6 * 20
    expected = [1e-4 + (1e-2 - 1e-4) * (1 + math.cos(math.pi * number / 20)) / 2 for number in range(20)]
    assert rates == pytest.approx([rate for rate in expected for _ in range(6)])
    assert torch.equal(fitted.theta, thetas[-1])
    assert fitted.blend == 1


def test_it_starts_as_published_and_trains_in_centred_coordinates():
    x, y = normal(0) * [1, 4] + 7, np.tanh(normal(1)) - 2
    fitted = fit(x, y, max_steps=3, rng=2, **SHORT)
    training = TrainingData.prepare(x, y, of_split(0.1, rng=2)).coordinates
    assert np.array_equal(fitted.coordinates.matrix, np.eye(2))
    assert fitted.coordinates.scale == 1
    assert np.array_equal(fitted.coordinates.mean_x, training.mean_x)
    assert np.array_equal(fitted.coordinates.mean_y, training.mean_y)
    options = {"annealing": "fixed", "temperature": 1.0, "gate": "smooth", "quadratic_skip": False}
    assert fitted.network == HyCNN(2, (8, 8), strong_convexity=0.0, output_scale=1.0, **options)


def test_its_map_is_the_gradient_of_the_last_potential():
    x, y = normal(0), normal(1) ** 3 + 5
    fitted = fit(x, y, max_steps=10, **SHORT)
    centred = torch.tensor(x - fitted.coordinates.mean_x, dtype=torch.float32)
    gradient = fitted.network.gradient(fitted.network.weights(fitted.theta), centred[None])[0]
    np.testing.assert_allclose(fitted.transport(x), gradient.numpy() + fitted.coordinates.mean_y, rtol=1e-4, atol=1e-4)


def test_a_map_that_is_not_better_than_the_gaussian_one_says_so_and_stays():
    x, y = normal(0), 3 * normal(1) + 5
    fitted = fit(x, y, max_steps=1, **SHORT)
    assert fitted.outcome == Outcome.WORSE
    assert fitted.outcome.is_trouble
    assert "'paper'" in fitted.status
    assert fitted.blend == 1
    assert fitted.validation["energy_distance"] > fitted.validation["energy_distance_gaussian"]
    assert map_mse(fitted.transport(x), fit(x, y, potential="gaussian").transport(x)) > 1


def test_a_map_that_is_better_says_nothing_and_beats_the_mean_shift():
    pair = brenier_pair("sign", 2, 1000)
    options = {"max_steps": 150, "hidden": (16, 16), "batch_size": 128, "n_ensemble": 1, "device": "cpu"}
    fitted = fit(pair.x, pair.y, solver="paper", **options)
    assert fitted.status == "ok"
    assert fitted.validation["energy_distance"] < fitted.validation["energy_distance_gaussian"]
    shifted = pair.x_test + pair.y.mean(0) - pair.x.mean(0)
    assert map_mse(fitted.transport(pair.x_test), pair.y_test) < map_mse(shifted, pair.y_test) / 5


def test_both_scores_of_the_validation_are_reported():
    pair = brenier_pair("sign", 2, 300)
    fitted = fit(pair.x, pair.y, max_steps=40, **SHORT)
    validation = fitted.validation
    assert validation["blends"].tolist() == [0, 1]
    for name in ("J", "energy_distance"):
        assert validation[f"{name}_by_blend"].tolist() == [validation[f"{name}_gaussian"], validation[name]]
    gaussian = fit(pair.x, pair.y, potential="gaussian", device="cpu").validation
    assert validation["J_gaussian"] == gaussian["J"]
    assert validation["energy_distance_gaussian"] == gaussian["energy_distance"]


def test_it_goes_on_to_the_end_where_the_gaussian_map_is_clearly_better():
    x = normal(0, 2000)
    fitted = fit(x, x * [1, 10], max_steps=20, lr=1e-6, **SHORT)
    assert fitted.params["n_steps"] == 20


def test_the_gaussian_map_by_the_papers_name_is_the_gaussian_map():
    """Nothing is trained: there is no network that could be worse."""
    x, y = normal(0), 3 * normal(1) + 5
    fitted = fit(x, y, potential="gaussian", **SHORT)
    assert fitted.status == "ok"
    assert np.array_equal(fitted.transport(x), fit(x, y, potential="gaussian", device="cpu").transport(x))


def test_an_absurd_learning_rate_is_reported():
    fitted = fit(normal(0), normal(1), max_steps=20, **(SHORT | {"lr": 1e10}))
    assert not fitted.ok
    assert fitted.theta.isfinite().all()


# ---- the cells that it trains on


def test_centred_cells_are_the_same_cells_in_their_own_units():
    x, y = normal(0, 200, 3) * [1, 2, 30] + 1e3, 5 * normal(1, 150, 3) - 7
    balanced = TrainingData.prepare(x, y, of_split(0.2))
    centred = balanced.centred()
    mean_x, mean_y = balanced.coordinates.mean_x, balanced.coordinates.mean_y
    np.testing.assert_allclose(centred.x_validation, balanced.x_validation_original - mean_x, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(centred.y_validation, balanced.y_validation_original - mean_y, rtol=1e-4, atol=1e-4)
    for cloud, mean, own in ((x, mean_x, centred.x), (y, mean_y, centred.y)):
        assert torch.cdist(own.double(), torch.tensor(cloud - mean)).min(1).values.max() < 1e-3
    assert [len(part) for part in (centred.x, centred.y)] == [len(balanced.x), len(balanced.y)]
    assert centred.x.dtype == torch.float32


def test_the_gaussian_maps_potentials_are_kept_in_the_new_units():
    """Hence J less the Gaussian map's: f and f* of the Gaussian map at the validation cells, without linear parts."""
    x, y = normal(0, 200, 3) * [1, 2, 30], 5 * normal(1, 150, 3)
    balanced = TrainingData.prepare(x, y, of_split(0.2))
    centred = balanced.centred()
    training = Gaussian.fit(*(np.asarray(cells.double()) for cells in (centred.x, centred.y)))
    np.testing.assert_allclose(centred.gaussian_x, training.value(centred.x_validation), rtol=1e-3, atol=1e-3)
    eta = np.asarray(centred.y_validation.double())
    conjugate = 0.5 * (eta * np.linalg.solve(training.matrix, eta.T).T).sum(1)
    np.testing.assert_allclose(centred.gaussian_y, conjugate, rtol=1e-3, atol=1e-3)
    plain = Blended(None, {"v": torch.zeros(1)}, 0.0).value(balanced.x_validation)
    np.testing.assert_allclose(centred.gaussian_x, plain / balanced.coordinates.scale, rtol=1e-5)


def test_checks_and_scores_agree_in_the_cells_own_coordinates():
    """J less the Gaussian map's, by the monitor of the loop and by the score of the outcome."""
    balanced = TrainingData.prepare(normal(0, 500) * [1, 3], 2 * normal(1, 500) + 4, of_split(0.4))
    centred, network = balanced.centred(), HyCNN(2, (8, 8), strong_convexity=1.0)
    theta = network.init(2, torch.Generator().manual_seed(0))
    monitor = Monitor(centred)
    monitor.check(1, *score_ensembles(network, theta, theta, [monitor]), (torch.zeros(2), torch.zeros(2)))
    (gaussian,) = score_blends(Blended(network, network.weights(theta), 1.0), balanced, (0.0,))
    (alone,) = score_blends(Blended(network, network.weights(theta), 1.0), centred, (1.0,))
    (j,) = monitor.history["J_minus_gaussian"]
    assert j == pytest.approx(alone.semi_dual - gaussian.semi_dual, rel=1e-3)
    assert torch.equal(monitor.last(), theta)
