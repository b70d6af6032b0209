"""The Gaussian map: closed forms, push-forward, shrinkage, scales."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scot_hycnn.datasets import gaussian_pair
from scot_hycnn.potentials import Gaussian


def normal(seed, n_cells, n_dims):
    return np.random.default_rng(seed).normal(size=(n_cells, n_dims))


def random_covariance(rng, n_dims):
    axes, _ = np.linalg.qr(rng.normal(size=(n_dims, n_dims)))
    return (axes * rng.uniform(0.1, 5, n_dims)) @ axes.T


def gaussian_of(seed, n_dims):
    rng = np.random.default_rng(seed)
    return Gaussian(*rng.normal(size=(2, n_dims)), random_covariance(rng, n_dims), random_covariance(rng, n_dims))


seeds, dimensions = st.integers(0, 10_000), st.integers(1, 8)


def test_commuting_covariances_have_the_ratio_of_standard_deviations():
    axes, _ = np.linalg.qr(normal(0, 4, 4))
    of_x, of_y = np.array([1.0, 4.0, 9.0, 0.25]), np.array([4.0, 1.0, 9.0, 1.0])
    gaussian = Gaussian(np.zeros(4), np.ones(4), (axes * of_x) @ axes.T, (axes * of_y) @ axes.T)
    np.testing.assert_allclose(gaussian.matrix, (axes * np.sqrt(of_y / of_x)) @ axes.T, atol=1e-12)


def test_one_dimension_by_hand():
    gaussian = Gaussian(np.array([1.0]), np.array([5.0]), np.array([[4.0]]), np.array([[9.0]]))
    np.testing.assert_allclose(gaussian.gradient([[1.0], [3.0]]), [[5.0], [8.0]])
    np.testing.assert_allclose(gaussian.value([[1.0], [3.0]]), [0.0, 0.5 * 1.5 * 4 + 2 * 5])


@settings(max_examples=40, deadline=None)
@given(seeds, dimensions)
def test_the_matrix_is_positive_definite_and_the_push_forward_has_the_moments_of_the_target(seed, n_dims):
    gaussian = gaussian_of(seed, n_dims)
    matrix = gaussian.matrix
    assert np.array_equal(matrix, matrix.T)
    assert np.linalg.eigvalsh(matrix).min() > 0
    np.testing.assert_allclose(matrix @ gaussian.covariance_x @ matrix, gaussian.covariance_y, atol=1e-9)
    np.testing.assert_allclose(gaussian.gradient(gaussian.mean_x[None])[0], gaussian.mean_y)
    # Swapping the clouds inverts the map.
    backward = Gaussian(gaussian.mean_y, gaussian.mean_x, gaussian.covariance_y, gaussian.covariance_x)
    x = normal(seed, 5, n_dims)
    np.testing.assert_allclose(backward.gradient(gaussian.gradient(x)), x, atol=1e-8)


def test_the_gradient_is_that_of_the_value():
    gaussian, x, h = gaussian_of(3, 4), normal(1, 10, 4), 1e-5
    differences = [(gaussian.value(x + h * axis) - gaussian.value(x - h * axis)) / (2 * h) for axis in np.eye(4)]
    np.testing.assert_allclose(np.transpose(differences), gaussian.gradient(x), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(gaussian.value(gaussian.mean_x[None]), 0)


# ---- estimated from cells


def test_the_same_cloud_moved_is_a_translation():
    x, shift = normal(0, 200, 3), np.array([3, -1, 0])
    np.testing.assert_allclose(Gaussian.fit(x, x + shift).gradient(x), x + shift, atol=1e-9)


def test_cells_of_two_gaussians_give_nearly_the_true_map():
    pair = gaussian_pair(n_dims=4, n_cells=5000)
    mapped = Gaussian.fit(pair.x, pair.y).gradient(pair.x_test)
    moved = ((pair.y_test - pair.x_test) ** 2).sum(1).mean()
    assert ((mapped - pair.y_test) ** 2).sum(1).mean() < 0.01 * moved


def test_moments_of_the_estimate_are_the_clouds():
    x, y = normal(0, 20_000, 3) * [1, 2, 3], normal(1, 15_000, 3) + 7
    gaussian = Gaussian.fit(x, y)
    np.testing.assert_allclose(gaussian.covariance_x, np.cov(x.T, bias=True), atol=0.02)
    np.testing.assert_allclose(gaussian.mean_x, x.mean(0))
    np.testing.assert_allclose(gaussian.mean_y, y.mean(0))


def test_weights_count_as_cells_would():
    """Cells of weight 0 are not there, and the moments are those of NumPy with the same weights."""
    x, y = normal(0, 20_000, 3) * [1, 2, 3], normal(1, 15_000, 3) + 7
    weights = np.random.default_rng(2).uniform(0, 4, len(x)) * (x[:, 0] > -1)
    gaussian = Gaussian.fit(x, y, weights_x=weights)
    np.testing.assert_allclose(gaussian.mean_x, np.average(x, axis=0, weights=weights))
    np.testing.assert_allclose(gaussian.covariance_x, np.cov(x.T, aweights=weights, bias=True), atol=0.03)
    moved = np.where(weights[:, None] == 0, 1e3, x)
    again = Gaussian.fit(moved, y, weights_x=10 * weights)
    np.testing.assert_allclose(again.covariance_x, gaussian.covariance_x, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(gaussian.mean_y, Gaussian.fit(x, y).mean_y)


def test_fewer_cells_than_dimensions_still_give_a_tame_map():
    x, y = normal(0, 20, 50), 2 * normal(1, 25, 50)
    eigenvalues = np.linalg.eigvalsh(Gaussian.fit(x, y).matrix)
    assert eigenvalues.min() > 0.5
    assert eigenvalues.max() < 8
    sample = np.cov(x.T)
    shrunk = Gaussian.fit(x, y).covariance_x
    assert np.linalg.matrix_rank(sample) < 20
    assert np.linalg.cond(shrunk) < 100


def test_a_constant_component_is_only_shifted():
    x, y = normal(0, 300, 3), 2 * normal(1, 300, 3)
    x[:, 1], y[:, 1] = 4.0, 9.0
    moved = Gaussian.fit(x, y).gradient(x)
    np.testing.assert_allclose(moved[:, 1], 9.0, atol=1e-6)
    assert moved[:, [0, 2]].std() == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize(("of_x", "of_y"), [(1e8, 1e8), (1e-30, 1e-30), (1e8, 1.0), (1.0, 1e-8)])
def test_the_map_scales_with_its_cells(of_x, of_y):
    x, y = normal(0, 300, 3), 2 * normal(1, 300, 3) + 1
    expected = Gaussian.fit(x, y).gradient(x)
    np.testing.assert_allclose(Gaussian.fit(x * of_x, y * of_y).gradient(x * of_x), expected * of_y, rtol=1e-6)


def test_points_far_from_the_origin_keep_their_map():
    x, y = normal(0, 300, 3), 2 * normal(1, 300, 3)
    expected = Gaussian.fit(x, y).gradient(x)
    np.testing.assert_allclose(Gaussian.fit(x + 1e6, y - 1e6).gradient(x + 1e6) + 1e6, expected, atol=1e-6)


def test_constant_clouds_are_translated():
    x, y = np.full((30, 2), 3.0), np.full((30, 2), -1.0)
    np.testing.assert_allclose(Gaussian.fit(x, y).gradient(x), y)


def test_lists_and_integers_are_welcome():
    x = [[0, 0], [2, 0], [0, 2], [2, 2], [1, 1]]
    moved = Gaussian.fit(x, [[a + 5, b] for a, b in x]).gradient(x)
    np.testing.assert_allclose(moved, np.add(x, [5, 0]), atol=1e-9)
