"""Balanced coordinates: one covariance for both clouds, and nothing lost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scot_hycnn.potentials import Gaussian
from scot_hycnn.solver.data._coordinates import Coordinates


def covariance(rng, n_dims):
    axes, _ = np.linalg.qr(rng.normal(size=(n_dims, n_dims)))
    return (axes * rng.uniform(0.1, 5, n_dims)) @ axes.T


def gaussian_of(seed, n_dims):
    rng = np.random.default_rng(seed)
    return Gaussian(*(5 * rng.normal(size=(2, n_dims))), covariance(rng, n_dims), covariance(rng, n_dims))


def points(seed, n_dims, n=20):
    return 3 * np.random.default_rng(seed).normal(size=(n, n_dims))


examples = given(st.integers(0, 10_000), st.integers(1, 8))


@settings(max_examples=40, deadline=None)
@examples
def test_both_clouds_get_one_diagonal_covariance_of_mean_variance_one(seed, n_dims):
    gaussian = gaussian_of(seed, n_dims)
    coordinates = Coordinates.from_gaussian(gaussian)
    # The change of variables is affine: its linear part is what it does to the axes.
    of_x = coordinates.source(np.eye(n_dims) + gaussian.mean_x)
    of_y = coordinates.target(np.eye(n_dims) + gaussian.mean_y)
    balanced_x, balanced_y = of_x.T @ gaussian.covariance_x @ of_x, of_y.T @ gaussian.covariance_y @ of_y
    np.testing.assert_allclose(balanced_x, balanced_y, atol=1e-8)
    np.testing.assert_allclose(balanced_x, np.diag(np.diag(balanced_x)), atol=1e-8)
    assert np.trace(balanced_x) / n_dims == pytest.approx(1)


@settings(max_examples=30, deadline=None)
@examples
def test_the_identity_is_the_gaussian_map_and_inner_products_are_kept_up_to_the_scale(seed, n_dims):
    """Hence Fenchel conjugates, optimality and J are kept as well."""
    gaussian = gaussian_of(seed, n_dims)
    coordinates = Coordinates.from_gaussian(gaussian)
    x, y = points(seed, n_dims), points(seed + 1, n_dims)
    np.testing.assert_allclose(coordinates.invert_target(coordinates.source(x)), gaussian.gradient(x), atol=1e-8)
    np.testing.assert_allclose(coordinates.invert_source(coordinates.source(x)), x, atol=1e-9)
    np.testing.assert_allclose(coordinates.invert_target(coordinates.target(x)), x, atol=1e-9)
    balanced = (coordinates.source(x) * coordinates.target(y)).sum(1)
    plain = ((x - gaussian.mean_x) * (y - gaussian.mean_y)).sum(1)
    np.testing.assert_allclose(balanced, coordinates.scale * plain, atol=1e-7)


def test_a_potential_in_balanced_coordinates_moves_cells_by_its_gradient():
    """T(x) = grad [f~(B(x - m_x))/c + <m_y, x>], for a potential that is not quadratic."""
    coordinates = Coordinates.from_gaussian(gaussian_of(0, 3))
    x, h = points(0, 3), 1e-5

    def potential(z):
        balanced = coordinates.source(z)
        return np.logaddexp(balanced, 0).sum(1) / coordinates.scale + z @ coordinates.mean_y

    differences = np.transpose([(potential(x + h * e) - potential(x - h * e)) / (2 * h) for e in np.eye(3)])
    slope = 1 / (1 + np.exp(-coordinates.source(x)))
    np.testing.assert_allclose(coordinates.invert_target(slope), differences, atol=1e-7)


@pytest.mark.parametrize("scale", [1e8, 1e-8])
def test_the_scale_of_the_cells_has_no_effect(scale):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(300, 3)), rng.normal(size=(300, 3)) * [1, 2, 3] + 1
    plain, scaled = (Coordinates.from_gaussian(Gaussian.fit(x * s, y * s)) for s in (1, scale))
    # Axes may point either way.
    np.testing.assert_allclose(np.abs(scaled.source(x * scale)), np.abs(plain.source(x)), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(np.abs(scaled.target(y * scale)), np.abs(plain.target(y)), rtol=1e-6, atol=1e-9)
