"""The mean of the moved cells is that of the target, whatever training has reached."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scot_hycnn.solver.data._cells import Cells

from scot_hycnn.metrics import energy_distance
from scot_hycnn.potentials import HyCNN
from scot_hycnn.solver import TransportMap, fit
from scot_hycnn.solver.selection._blend import Blended, recentred, score_blends

QUICK = {"max_steps": 60, "hidden": (16, 16), "n_ensemble": 2, "lr": 0.05, "device": "cpu"}


def sparse_counts(seed, n_cells=600, n_genes=100, depth=60):
    """Log-normalised counts, of which a cell has few, in principal components that are mostly noise."""
    rng = np.random.default_rng(seed)
    expression = rng.lognormal(0, 1.5, n_genes)
    changed = expression * np.exp(np.where(rng.random(n_genes) < 0.1, rng.normal(size=n_genes), 0))
    sizes = rng.lognormal(np.log(depth), 0.4, (2, n_cells, 1))
    counts = [rng.poisson(size * mean / mean.sum()) for size, mean in zip(sizes, (expression, changed), strict=True)]
    logs = [np.log1p(own / np.maximum(own.sum(1, keepdims=True), 1) * 1e4) for own in counts]
    origin = np.concatenate(logs).mean(0)
    axes = np.linalg.svd(np.concatenate(logs) - origin, full_matrices=False)[2][:20]
    return tuple((own - origin) @ axes.T for own in logs)


def split_in_two(seed, n_cells=600, n_dims=5):
    """Clouds between which no linear map is right."""
    x, y = np.random.default_rng(seed).normal(size=(2, n_cells, n_dims))
    return x, y + 3 * np.sign(y)


@pytest.fixture(scope="module")
def fitted():
    x, y = split_in_two(0)
    fitted = fit(x, y, **QUICK)
    assert fitted.blend > 0
    return fitted, x, y


def training_cells(fitted, x, y):
    """The training cells of this fit, and the weights that it gives them."""
    return Cells.prepare(x, y, 0.1, rng=fitted.params["rng"], device="cpu")


def test_training_means_agree(fitted):
    """To the rounding of networks in single precision."""
    fitted, x, y = fitted
    cells = training_cells(fitted, x, y)
    moved = fitted.transport(cells.coordinates.invert_source(cells.x.double().numpy()))
    mean = cells.coordinates.invert_target(cells.y.double().numpy()).mean(0)
    np.testing.assert_allclose(moved.mean(0), mean, atol=1e-5 * np.abs(y).max())


def test_weighted_training_means_agree_with_groups():
    x, y = split_in_two(1)
    groups = np.resize(["a", "a", "b"], 600), np.resize(["a", "b", "b"], 600)
    fitted = fit(x, y, groups=groups, **(QUICK | {"max_steps": 150}))
    moved, of_x, of_y = fitted.transport(x), *groups
    assert fitted.blend > 0
    # Of all cells, so up to the tenth of them that is held out.
    share = {label: np.sqrt(((of_x == label).mean() + (of_y == label).mean()) / 2) for label in "ab"}
    means = [
        sum(share[label] * cloud[own == label].mean(0) for label in "ab") / sum(share.values())
        for cloud, own in ((moved, of_x), (y, of_y))
    ]
    assert np.linalg.norm(means[0] - means[1]) < 0.05 * np.sqrt(y.var(0).sum())


def test_the_map_is_still_the_gradient_of_its_potential(fitted):
    fitted, x, _y = fitted
    points, step = x[:5].astype(np.float64), 1e-3
    for axis in range(3):
        ends = [fitted.potential(points + sign * step * np.eye(5)[axis]) for sign in (-1, 1)]
        np.testing.assert_allclose((ends[1] - ends[0]) / (2 * step), fitted.transport(points)[:, axis], atol=0.02)
    moved = fitted.transport(x)
    young = fitted.potential(x) + fitted.conjugate(moved) - (x * moved).sum(1)
    assert np.abs(young).max() < 1e-3 * np.abs(fitted.potential(x)).max()
    assert fitted.certificate["convexity_gap"] < 1e-4


def test_files_keep_it(fitted, tmp_path):
    fitted, x, _ = fitted
    fitted.save(tmp_path / "map.safetensors")
    loaded = TransportMap.load(tmp_path / "map.safetensors", device="cpu")
    np.testing.assert_array_equal(loaded.transport(x), fitted.transport(x))
    np.testing.assert_array_equal(loaded.gaussian_map().transport(x), fitted.gaussian_map().transport(x))


def spoiled(cells, shift):
    """Networks whose map is off by a constant, as an ensemble at blend 1."""
    network = HyCNN(cells.x.shape[1], (4,), output_scale=0.01, strong_convexity=0.99)
    theta = network.init(2, torch.Generator().manual_seed(0))
    weights = network.weights(theta)
    weights["w"] = weights["w"] + shift
    return network, weights


def test_a_constant_error_of_the_networks_is_taken_back():
    x, y = sparse_counts(2, 300)
    cells = Cells.prepare(x, y, 0.1, rng=0, device="cpu")
    network, weights = spoiled(cells, 0.7)
    moved = [
        cells.coordinates.invert_target(ensemble.gradient(cells.x_validation).double().numpy())
        for ensemble in (Blended(network, weights, 1.0), recentred(network, weights, cells))
    ]
    before, after = (energy_distance(own, cells.y_validation_original) for own in moved)
    assert after < before - 0.1


@torch.no_grad()
def test_scores_are_those_of_the_shifted_potential():
    """J of a blend is its potential's mean plus its conjugate's, by a search that knows nothing of the shift."""
    x, y = sparse_counts(3, 300)
    cells = Cells.prepare(x, y, 0.1, rng=0, device="cpu")
    ensemble = recentred(*spoiled(cells, 0.7), cells)
    for score, blend in zip(score_blends(ensemble, cells), (0.0, 0.1, 0.25, 0.5, 0.75, 1.0), strict=True):
        f = Blended(ensemble.network, ensemble.weights, blend, ensemble.shift)
        points, residual = f.maximisers(cells.y_validation)
        assert residual.max() < 0.01
        conjugate = (points * cells.y_validation).sum(1) - f.value(points)
        expected = (f.value(cells.x_validation).mean() + conjugate.mean()) / cells.coordinates.scale
        assert score.semi_dual == pytest.approx(float(expected), rel=1e-4)


def test_mean_and_variance_are_reported(fitted):
    fitted, _x, _y = fitted
    validation = fitted.validation
    assert validation["mean_error"] < 0.5
    assert 0.5 < validation["variance_ratio"] < 2
    assert validation["residual"] < 0.1
