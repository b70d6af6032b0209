"""Squared distances of the certificate: closed forms, the dual bound, its standard error, and cells that are equal."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from scot_hycnn.datasets import gaussian_pair
from scot_hycnn.potentials import Gaussian, HyCNN
from scot_hycnn.solver import TransportMap, fit
from scot_hycnn.solver.data._coordinates import Coordinates

NETWORK = HyCNN(3, (8, 8), strong_convexity=0.5)


def covariance(rng, n_dims):
    axes, _ = np.linalg.qr(rng.normal(size=(n_dims, n_dims)))
    return (axes * rng.uniform(0.2, 4, n_dims)) @ axes.T


def truth_of(seed=0, n_dims=3):
    """The optimal potential between two Gaussians."""
    rng = np.random.default_rng(seed)
    return Gaussian(*rng.normal(size=(2, n_dims)), covariance(rng, n_dims), covariance(rng, n_dims))


def cells_of(truth, seed, n_cells=500):
    """Unpaired cells of both."""
    rng = np.random.default_rng(seed)
    x = rng.multivariate_normal(truth.mean_x, truth.covariance_x, n_cells)
    return x, rng.multivariate_normal(truth.mean_y, truth.covariance_y, n_cells + 100)


def bures(truth):
    """W_2^2 = |m_x - m_y|^2 + tr(S_x + S_y - 2 (S_x^1/2 S_y S_x^1/2)^1/2): Dowson & Landau (1982)."""
    products = np.linalg.eigvals(truth.covariance_x @ truth.covariance_y).real
    spread = np.trace(truth.covariance_x) + np.trace(truth.covariance_y) - 2 * np.sqrt(products).sum()
    return float(((truth.mean_x - truth.mean_y) ** 2).sum() + spread)


def map_of(gaussian, blend=0.0, seed=0):
    theta = NETWORK.init(2, torch.Generator().manual_seed(seed))
    return TransportMap(NETWORK, theta, Coordinates.from_gaussian(gaussian), blend, w2_squared=0.0)


def test_for_the_optimal_potential_the_dual_is_the_closed_form():
    truth = truth_of()
    certificate = map_of(truth).certify(*cells_of(truth, 1, 20_000))
    error = certificate["w2_squared_error"]
    assert 0 < error < 0.05 * bures(truth)
    assert abs(certificate["w2_squared"] - bures(truth)) < 4 * error


@pytest.mark.parametrize("seed", range(2))
def test_a_fit_bounds_the_closed_form_on_cells_that_it_has_not_seen(seed):
    """The map of gaussian_pair is linear, T(x) = m_y + M (x - m_x), so W_2^2 = E|T(X) - X|^2."""
    pair = gaussian_pair(3, 20_000, n_test=20_000, rng=seed)
    half = 10_000
    fitted = fit(pair.x[:half], pair.y[:half], potential="gaussian", device="cpu")
    certificate = fitted.certify(pair.x[half:], pair.y[half:])
    squared = ((pair.x_test.astype(np.float64) - pair.y_test) ** 2).sum(1)
    error = math.hypot(certificate["w2_squared_error"], squared.std() / math.sqrt(len(squared)))
    assert abs(certificate["w2_squared"] - squared.mean()) < 4 * error


def test_the_standard_error_is_that_over_fresh_cells():
    """In units of it the estimates have standard deviation 1."""
    truth = truth_of(2)
    fitted = map_of(truth)
    estimates = [fitted.certify(*cells_of(truth, seed, 200)) for seed in range(200)]
    off = np.array([(e["w2_squared"] - bures(truth)) / e["w2_squared_error"] for e in estimates])
    assert abs(off.mean()) < 4 / math.sqrt(200)
    assert off.std() == pytest.approx(1, abs=0.2)


def test_value_and_standard_error_are_those_of_the_cells_own_terms():
    """W_2^2 >= E[|X|^2 - 2 f(X)] + E[|Y|^2 - 2 f*(Y)]; so few cells show a divisor n in place of n - 1."""
    truth = truth_of(3)
    fitted = map_of(truth)
    x, y = (cells[:size] for cells, size in zip(cells_of(truth, 0), (7, 5), strict=True))
    terms = (x**2).sum(1) - 2 * fitted.potential(x), (y**2).sum(1) - 2 * fitted.conjugate(y)
    certificate = fitted.certify(x, y)
    assert certificate["w2_squared"] == pytest.approx(max(sum(of_cells.mean() for of_cells in terms), 0), abs=1e-4)
    error = math.hypot(*(of_cells.std(ddof=1) / math.sqrt(len(of_cells)) for of_cells in terms))
    assert certificate["w2_squared_error"] == pytest.approx(error, rel=1e-4)


def wrong_potentials():
    truth = truth_of()
    swapped = Gaussian(truth.mean_x, truth.mean_y, truth.covariance_y, truth.covariance_x)
    stretched = Gaussian(truth.mean_x, truth.mean_y, truth.covariance_x, 4 * truth.covariance_y)
    identity = Gaussian(truth.mean_x, truth.mean_y, truth.covariance_x, truth.covariance_x)
    yield pytest.param(map_of(swapped), id="inverse")
    yield pytest.param(map_of(stretched), id="stretched")
    yield pytest.param(map_of(identity), id="identity")
    yield pytest.param(map_of(truth, blend=0.7), id="blended")
    yield pytest.param(map_of(truth, blend=1.0, seed=1), id="network")


@pytest.mark.parametrize("wrong", list(wrong_potentials()))
def test_for_any_other_potential_the_dual_is_below(wrong):
    truth = truth_of()
    estimates = [wrong.certify(*cells_of(truth, seed, 2000)) for seed in range(5)]
    mean = np.mean([e["w2_squared"] for e in estimates])
    error = np.sqrt(np.mean([e["w2_squared_error"] ** 2 for e in estimates]) / 5)
    assert mean + 4 * error < bures(truth)


def test_for_the_identity_the_dual_is_the_distance_of_the_means():
    """f = |x|^2/2 in centred coordinates: what is left is |m_x - m_y|^2 and the sample's own means."""
    truth = truth_of()
    identity = map_of(Gaussian(truth.mean_x, truth.mean_y, truth.covariance_x, truth.covariance_x))
    x, y = cells_of(truth, 0)
    shift = truth.mean_x - truth.mean_y
    expected = shift @ shift + 2 * shift @ ((x - truth.mean_x).mean(0) - (y - truth.mean_y).mean(0))
    assert identity.certify(x, y)["w2_squared"] == pytest.approx(expected, rel=1e-4)


def test_it_is_never_negative():
    truth = truth_of()
    far = Gaussian(truth.mean_x + 50, truth.mean_y - 50, truth.covariance_x, truth.covariance_y)
    assert map_of(far).certify(*cells_of(truth, 0))["w2_squared"] == 0


def test_the_transport_cost_of_a_linear_map_is_its_closed_form():
    truth = truth_of()
    x, y = cells_of(truth, 0, 20_000)
    certificate = map_of(truth).certify(x, y)
    exact = ((truth.gradient(x) - x) ** 2).sum(1)
    assert certificate["transport_cost"] == pytest.approx(exact.mean(), rel=1e-5)
    # For the optimal map its expectation is W_2^2.
    assert abs(certificate["transport_cost"] - bures(truth)) < 4 * exact.std() / math.sqrt(len(x))


def test_the_cost_is_above_the_distance_and_the_dual_below_for_a_map_that_is_not_optimal():
    truth = truth_of()
    certificate = map_of(Gaussian(truth.mean_x, truth.mean_y, truth.covariance_x, 4 * truth.covariance_y)).certify(
        *cells_of(truth, 0, 5000)
    )
    assert certificate["w2_squared"] < bures(truth) < certificate["transport_cost"]


@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_squared_distances_have_the_units_of_the_cells_squared(scale):
    truth = truth_of()
    scaled = Gaussian(
        *(scale * mean for mean in (truth.mean_x, truth.mean_y)),
        *(scale**2 * c for c in (truth.covariance_x, truth.covariance_y)),
    )
    x, y = cells_of(truth, 0)
    plain, large = map_of(truth).certify(x, y), map_of(scaled).certify(scale * x, scale * y)
    for name in ("w2_squared", "w2_squared_error", "transport_cost"):
        assert large[name] == pytest.approx(scale**2 * plain[name], rel=1e-4), name


def test_the_order_of_the_cells_does_not_bias_the_certificate():
    """Files are often sorted by cell type: the first validation cells would then be of one type, and others in y."""
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=(6000, 2)) + np.repeat([[-20, 0], [20, 0]][::order], 3000, axis=0) for order in (1, -1))
    fitted = fit(x, y + 1, potential="gaussian")
    assert abs(fitted.certificate["w2_squared"] - 2) < 4 * fitted.certificate["w2_squared_error"] + 1


# ---- cells that are the same


def slope(scale=3.0, n_dims=3):
    """A map whose monotonicity is known: T(x) = scale * x."""
    return map_of(Gaussian(np.zeros(n_dims), np.zeros(n_dims), np.eye(n_dims), scale**2 * np.eye(n_dims)))


@pytest.mark.parametrize(("jitter", "n_copies"), [(0, 50), (1e-12, 2), (1e-9, 50), (1e-7, 2)])
def test_equal_cells_are_not_compared(jitter, n_copies):
    rng = np.random.default_rng(0)
    x = np.repeat(rng.normal(size=(8, 3)), n_copies, axis=0)
    x = x + jitter * rng.normal(size=x.shape)
    certificate = slope().certify(x, rng.normal(size=(50, 3)))
    assert certificate["monotonicity"] == pytest.approx(3, rel=0.01)
    assert certificate["convexity_gap"] < 0


def test_one_cell_that_differs_from_thousands_is_found():
    x = np.zeros((5000, 3))
    x[1234] = 1
    certificate = slope().certify(x, np.random.default_rng(0).normal(size=(50, 3)))
    assert certificate["monotonicity"] == pytest.approx(3, rel=1e-4)
    assert certificate["convexity_gap"] == pytest.approx(-3 * 3 / 8, rel=1e-4)  # of 3 |x|^2 / 2, halfway to (1, 1, 1)


@pytest.mark.parametrize("jitter", [0, 1e-9])
def test_where_all_cells_are_the_same_there_are_no_pairs(tmp_path, jitter):
    rng = np.random.default_rng(0)
    x, y = np.ones((20, 3)) + jitter * rng.normal(size=(20, 3)), rng.normal(size=(50, 3))
    certificate = slope().certify(x, y)
    assert math.isnan(certificate["monotonicity"])
    assert math.isnan(certificate["convexity_gap"])
    other_values = {name: value for name, value in certificate.items() if name not in ("monotonicity", "convexity_gap")}
    assert all(map(math.isfinite, other_values.values()))
    # A map can store such a certificate.
    dataclasses.replace(slope(), certificate=certificate).save(tmp_path / "map.safetensors")
    loaded = TransportMap.load(tmp_path / "map.safetensors")
    assert loaded.certificate == pytest.approx(certificate, nan_ok=True)


def test_pairs_differ_at_any_origin_and_unit():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 100, 3))
    for origin, unit in ((1e6, 1.0), (0.0, 1e-6), (0.0, 1e6)):
        gaussian = Gaussian(*np.full((2, 3), origin), unit**2 * np.eye(3), 9 * unit**2 * np.eye(3))
        certificate = map_of(gaussian).certify(x * unit + origin, y * unit + origin)
        assert certificate["monotonicity"] == pytest.approx(3, rel=0.01)


def test_the_order_of_the_cells_does_not_matter():
    truth = truth_of()
    x, y = cells_of(truth, 0, 300)
    fitted = map_of(truth, blend=0.7)
    shuffled = np.random.default_rng(1).permutation(len(x))
    assert fitted.certify(x[shuffled], y[::-1]) == pytest.approx(fitted.certify(x, y), rel=1e-4, abs=1e-5)
