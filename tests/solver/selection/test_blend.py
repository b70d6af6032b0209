"""The blend of networks and Gaussian map: its potential, its scores, and the choice."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from scot_hycnn.metrics import energy_distance
from scot_hycnn.potentials import HyCNN
from scot_hycnn.solver import Settings
from scot_hycnn.solver.data._training_data import TrainingData
from scot_hycnn.solver.model._blended import Blended, solve
from scot_hycnn.solver.selection._blend import (
    BLENDS,
    CONVERGED,
    J_STANDARD_ERRORS,
    Score,
    by_blend,
    choose_blend,
    recentred,
    score_blends,
)

NETWORK = HyCNN(n_dims=3, hidden=(8, 8), strong_convexity=0.5)
WEIGHTS = NETWORK.weights(NETWORK.init(2, torch.Generator().manual_seed(0)))


def of_split(fraction, rng=0):
    """Settings of which the split of the cells reads the fraction and the seed."""
    return Settings.for_cells(100, 100, 2, device="cpu", rng=rng, validation_fraction=fraction)


def normal(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# ---- the blended potential


def test_blend_zero_is_half_the_squared_norm():
    f, x = Blended(NETWORK, WEIGHTS, 0.0), normal(1, 20, 3)
    assert torch.equal(f.gradient(x), x)
    assert torch.equal(f.value(x), 0.5 * x.square().sum(1))
    maximisers, residual = solve(f.gradient, x, x)
    assert torch.equal(maximisers, x)
    assert not residual.any()


def test_blend_one_is_the_mean_of_the_members():
    f, x = Blended(NETWORK, WEIGHTS, 1.0), normal(1, 20, 3)
    members = [Blended(NETWORK, {name: w[k : k + 1] for name, w in WEIGHTS.items()}, 1.0) for k in range(2)]
    torch.testing.assert_close(f.gradient(x), (members[0].gradient(x) + members[1].gradient(x)) / 2)
    torch.testing.assert_close(f.value(x), (members[0].value(x) + members[1].value(x)) / 2)
    torch.testing.assert_close(f.member_gradients(x), torch.stack([member.gradient(x) for member in members]))


@pytest.mark.parametrize("blend", [0.25, 1.0])
def test_value_gradient_and_maximisers_of_a_blend(blend):
    gaussian, f, network = (Blended(NETWORK, WEIGHTS, a) for a in (0.0, blend, 1.0))
    x = normal(1, 50, 3).requires_grad_()
    torch.testing.assert_close(f.gradient(x), (1 - blend) * gaussian.gradient(x) + blend * network.gradient(x))
    torch.testing.assert_close(f.value(x), (1 - blend) * gaussian.value(x) + blend * network.value(x))
    (expected,) = torch.autograd.grad(f.value(x).sum(), x)
    torch.testing.assert_close(f.gradient(x), expected)
    y = normal(1, 50, 3)
    points, residual = solve(f.gradient, y, y)
    torch.testing.assert_close(residual, (f.gradient(points) - y).norm(dim=1))
    assert residual.max() <= 1e-3
    # A start elsewhere leads to the same point: f is strictly convex.
    torch.testing.assert_close(solve(f.gradient, y, 3 * normal(2, 50, 3))[0], points, atol=0.01, rtol=0)


# ---- scores


@pytest.fixture(scope="module")
def cells():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(400, 3)) * [1, 2, 3] + 5, 3 * rng.standard_gamma(2, size=(300, 3))
    return TrainingData.prepare(x, y, of_split(0.25))


@pytest.fixture(scope="module")
def scores(cells):
    return score_blends(Blended(NETWORK, WEIGHTS, 1.0), cells)


def test_energy_distance_mean_and_variance_are_those_of_the_moved_cells(cells, scores):
    for blend, score in zip(BLENDS, scores, strict=True):
        balanced = Blended(NETWORK, WEIGHTS, blend).gradient(cells.x_validation)
        moved = cells.coordinates.invert_target(balanced.double().numpy())
        expected = energy_distance(moved, cells.y_validation_original)
        assert score.energy_distance == pytest.approx(expected, rel=1e-4, abs=1e-5)
        y = cells.y_validation_original
        off = np.linalg.norm(moved.mean(0) - y.mean(0)) / np.sqrt(y.var(0).sum())
        assert score.mean_error == pytest.approx(off, rel=1e-4)
        assert score.variance_ratio == pytest.approx(moved.var(0).sum() / y.var(0).sum(), rel=1e-4)


def test_cells_shares_of_the_energy_distance_add_up_to_it(cells, scores):
    """2 E|X - Y| - 2 E|X - X'| and 2 E|X - Y|: half their sum lacks E|Y - Y'| alone."""
    y = torch.as_tensor(cells.y_validation_original)
    within_y = float(torch.pdist(y).mean())
    for score in scores:
        assert (len(score.energy_x), len(score.energy_y)) == (len(cells.x_validation), len(y))
        shares = (score.energy_x.mean() + score.energy_y.mean()) / 2
        assert shares - within_y == pytest.approx(score.energy_distance, abs=1e-6)


def test_the_semi_dual_of_the_gaussian_map_is_half_the_squared_norms(cells, scores):
    squared = (cells.x_validation.square().sum(1).mean() + cells.y_validation.square().sum(1).mean()) / 2
    assert scores[0].semi_dual == pytest.approx(float(squared) / cells.coordinates.scale, rel=1e-5)
    assert scores[0].residual == 0


def test_the_semi_dual_is_convex_in_the_blend(scores):
    for left in range(len(BLENDS) - 2):
        a, b, c = BLENDS[left : left + 3]
        low, middle, high = (score.semi_dual for score in scores[left : left + 3])
        assert middle <= ((c - b) * low + (b - a) * high) / (c - a) + 1e-5 * abs(middle)


def test_some_blends_can_be_scored_alone(cells, scores):
    (alone,) = score_blends(Blended(NETWORK, WEIGHTS, 1.0), cells, [0.0])
    assert alone.semi_dual == scores[0].semi_dual
    assert alone.energy_distance == scores[0].energy_distance
    _, half = score_blends(Blended(NETWORK, WEIGHTS, 1.0), cells, [0.0, 0.5])
    assert half.semi_dual == pytest.approx(scores[3].semi_dual, rel=1e-4)


def test_a_network_that_overflows_scores_nothing_and_spoils_nothing(cells):
    broken = {name: torch.full_like(w, math.nan) for name, w in WEIGHTS.items()}
    gaussian, *others = score_blends(Blended(NETWORK, broken, 1.0), cells)
    assert math.isfinite(gaussian.semi_dual)
    assert choose_blend([gaussian, *others]) == 0


# ---- the choice

NOISE = np.linspace(-1, 1, 50)


def score(j, energy=0.0, residual=0.0, *, spread=0.0, energy_spread=0.0):
    """Return a score with this J and energy distance, whose cells scatter around their mean."""
    return Score(j + spread * NOISE, np.zeros(40), energy_spread * NOISE, np.zeros(40), energy, residual)


def test_the_smallest_semi_dual_wins():
    assert choose_blend([score(0), score(-1), score(-3), score(-2)]) == 2
    assert choose_blend([score(0), score(-1), score(-2), score(-3)]) == 3
    assert choose_blend([score(0), score(-1 + 1e-9), score(-1), score(-1 + 1e-9, spread=1)]) == 2


def test_the_gaussian_map_stays_where_it_is_best():
    assert choose_blend([score(3)]) == 0
    assert choose_blend([score(0), score(1), score(2)]) == 0
    assert choose_blend([score(0), score(0), score(0)]) == 0


def test_the_energy_distance_has_a_veto():
    assert choose_blend([score(0), score(-1), score(-3, energy=0.5)]) == 1
    assert choose_blend([score(0, energy=0.5), score(-1), score(-3, energy=0.5)]) == 1
    assert choose_blend([score(0, energy=0.5), score(-1, energy=0.5), score(-3)]) == 2


def test_the_veto_needs_two_standard_errors():
    error = float(np.sqrt(NOISE.var(ddof=1) / len(NOISE)))
    assert choose_blend([score(0), score(-1, energy=1.9 * error, energy_spread=1)]) == 1
    assert choose_blend([score(0), score(-1, energy=2.1 * error, energy_spread=1)]) == 0


def test_conjugates_that_did_not_converge_are_out():
    assert choose_blend([score(0), score(-1), score(-9, residual=CONVERGED)]) == 1
    assert choose_blend([score(0), score(-1), score(-9, residual=math.nan)]) == 1


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite_are_out(bad):
    assert choose_blend([score(0), score(-1), score(bad)]) == 1
    assert choose_blend([score(0), score(bad), score(bad)]) == 0
    assert choose_blend([score(bad), score(bad)]) == 0
    assert choose_blend([score(0), score(-1), score(-2, energy=bad)]) == 1
    assert choose_blend([score(0), score(-1, energy_spread=bad)]) == 0


def test_the_gaussian_map_is_given_up_for_a_standard_error_only():
    error = J_STANDARD_ERRORS * float(np.sqrt(NOISE.var(ddof=1) / len(NOISE)))
    assert choose_blend([score(0), score(-0.9 * error, spread=1)]) == 0
    assert choose_blend([score(0), score(-1.1 * error, spread=1)]) == 1


# ---- columns of the scores


def test_columns_have_a_row_for_each_blend(cells, scores):
    columns = by_blend(scores, BLENDS)
    assert {len(column) for column in columns.values()} == {len(BLENDS)}
    assert columns["blends"].tolist() == list(BLENDS)
    np.testing.assert_array_equal(columns["J_by_blend"], [score.semi_dual for score in scores])
    np.testing.assert_array_equal(columns["energy_distance_by_blend"], [score.energy_distance for score in scores])


def test_errors_are_those_of_the_difference_from_the_gaussian_map(scores):
    """Cell by cell, source and target apart."""
    columns, gaussian = by_blend(scores, BLENDS), scores[0]
    for name, of_x, of_y in (("J", "potential_x", "conjugate_y"), ("energy", "energy_x", "energy_y")):
        expected = []
        for score in scores:
            apart = [getattr(score, part) - getattr(gaussian, part) for part in (of_x, of_y)]
            expected.append(math.sqrt(sum(values.var(ddof=1) / len(values) for values in apart)))
        np.testing.assert_allclose(columns[f"{name}_error_by_blend"], expected)
        assert columns[f"{name}_error_by_blend"][0] == 0
        assert (columns[f"{name}_error_by_blend"][1:] > 0).all()


# ---- the shift that recentres an ensemble


def sparse_counts(seed, n_cells=600, n_genes=100, depth=60):
    """Return log-normalised counts, of which a cell has few, in principal components that are mostly noise."""
    rng = np.random.default_rng(seed)
    expression = rng.lognormal(0, 1.5, n_genes)
    changed = expression * np.exp(np.where(rng.random(n_genes) < 0.1, rng.normal(size=n_genes), 0))
    sizes = rng.lognormal(np.log(depth), 0.4, (2, n_cells, 1))
    counts = [rng.poisson(size * mean / mean.sum()) for size, mean in zip(sizes, (expression, changed), strict=True)]
    logs = [np.log1p(part / np.maximum(part.sum(1, keepdims=True), 1) * 1e4) for part in counts]
    origin = np.concatenate(logs).mean(0)
    axes = np.linalg.svd(np.concatenate(logs) - origin, full_matrices=False)[2][:20]
    return tuple((part - origin) @ axes.T for part in logs)


def spoiled(cells, shift):
    """Return networks whose map is off by a constant, and their weights."""
    network = HyCNN(cells.x.shape[1], (4,), output_scale=0.01, strong_convexity=0.99)
    theta = network.init(2, torch.Generator().manual_seed(0))
    weights = network.weights(theta)
    weights["w"] = weights["w"] + shift
    return network, weights


def test_a_constant_error_of_the_networks_is_taken_back():
    x, y = sparse_counts(2, 300)
    cells = TrainingData.prepare(x, y, of_split(0.1))
    network, weights = spoiled(cells, 0.7)
    moved = [
        cells.coordinates.invert_target(ensemble.gradient(cells.x_validation).double().numpy())
        for ensemble in (Blended(network, weights, 1.0), recentred(network, weights, cells))
    ]
    before, after = (energy_distance(part, cells.y_validation_original) for part in moved)
    assert after < before - 0.1


@torch.no_grad()
def test_scores_are_those_of_the_shifted_potential():
    """J of a blend is its potential's mean plus its conjugate's, by a search from other starts."""
    x, y = sparse_counts(3, 300)
    cells = TrainingData.prepare(x, y, of_split(0.1))
    ensemble = recentred(*spoiled(cells, 0.7), cells)
    for score, blend in zip(score_blends(ensemble, cells), (0.0, 0.1, 0.25, 0.5, 0.75, 1.0), strict=True):
        f = Blended(ensemble.network, ensemble.weights, blend, ensemble.shift)
        points, residual = solve(f.gradient, cells.y_validation, cells.y_validation)
        assert residual.max() < 0.01
        conjugate = (points * cells.y_validation).sum(1) - f.value(points)
        expected = (f.value(cells.x_validation).mean() + conjugate.mean()) / cells.coordinates.scale
        assert score.semi_dual == pytest.approx(float(expected), rel=1e-4)
