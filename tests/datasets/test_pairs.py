"""Closed-form pairs: the maps are optimal, the samples fit them, and seeds decide everything."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scot_hycnn.datasets import LogSumExpPotential, brenier_pair, gaussian_pair
from scot_hycnn.metrics import energy_distance, w2

NAMES = ["identity", "scale", "sign", "cubic", "logsumexp"]
MAKERS = {"gaussian": gaussian_pair} | {
    name: (lambda *args, _name=name, **kwargs: brenier_pair(_name, *args, **kwargs)) for name in NAMES
}
each_pair = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
SAMPLES = ["x", "y", "x_test", "y_test"]


@each_pair
def test_shapes_and_types(make):
    pair = make(3, 40, n_test=25)
    assert [getattr(pair, name).shape for name in SAMPLES] == [(40, 3), (40, 3), (25, 3), (25, 3)]
    assert all(getattr(pair, name).dtype == np.float32 for name in SAMPLES)
    assert all(np.isfinite(getattr(pair, name)).all() for name in SAMPLES)
    with pytest.raises(dataclasses.FrozenInstanceError):
        pair.x = pair.y


@each_pair
def test_maps_are_cyclically_monotone(make):
    """Among all assignments of x to T(x) the map's own is the cheapest: the definition of optimality."""
    pair = make(4, 2, n_test=60)
    own_cost = np.mean(np.sum((pair.y_test - pair.x_test.astype(float)) ** 2, axis=1))
    assert w2(pair.x_test, pair.y_test) == pytest.approx(own_cost, rel=1e-5, abs=1e-12)


@each_pair
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_maps_are_monotone(make, seed):
    transport = make(5, 2, rng=seed).transport
    a, b = np.random.default_rng(seed).normal(size=(2, 50, 5))
    assert (np.sum((transport(a) - transport(b)) * (a - b), axis=1) >= 0).all()


@each_pair
def test_target_is_the_image_of_other_draws(make):
    pair = make(2, 800)
    assert energy_distance(pair.y, pair.transport(pair.x)) < 0.05  # same distribution
    assert not np.allclose(pair.y, pair.transport(pair.x), atol=0.1)  # other cells
    np.testing.assert_allclose(pair.y_test, pair.transport(pair.x_test), atol=1e-5)


@each_pair
def test_seed_decides_and_the_global_generator_is_left_alone(make):
    state = np.random.get_state()[1].copy()
    first, again, other = make(3, 20, rng=4), make(3, 20, rng=np.random.default_rng(4)), make(3, 20, rng=5)
    assert all(np.array_equal(getattr(first, name), getattr(again, name)) for name in SAMPLES)
    assert not np.array_equal(first.x, other.x)
    assert np.array_equal(np.random.get_state()[1], state)


@each_pair
@pytest.mark.parametrize("name", ["n_dims", "n_cells", "n_test"])
def test_sizes_have_to_be_positive(make, name):
    sizes = {"n_dims": 2, "n_cells": 5, "n_test": 5, name: 0}
    with pytest.raises(ValueError, match=rf"{name}=0; it has to be at least 1"):
        make(sizes["n_dims"], sizes["n_cells"], n_test=sizes["n_test"])


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match="name='cube' is not a known map; choose one of " + ", ".join(NAMES)):
        brenier_pair("cube", 2, 10)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("identity", [[-0.5, 0.25]]),
        ("scale", [[-0.5 * (1 + np.sin(1) / 2), 0.25 * (1 + np.sin(2) / 2)]]),
        ("sign", [[-1.5, 1.25]]),
        ("cubic", [[-0.5, 0.0625]]),
    ],
)
def test_named_maps_are_the_papers(name, expected):
    transport = brenier_pair(name, 2, 2).transport
    np.testing.assert_allclose(transport(np.array([[-0.5, 0.25]])), expected)


def test_sources_are_the_papers():
    cubic, scale = brenier_pair("cubic", 2, 20_000).x, brenier_pair("scale", 2, 20_000).x
    assert np.abs(cubic).max() <= 1
    assert cubic.var(axis=0) == pytest.approx([1 / 3, 1 / 3], rel=0.03)
    np.testing.assert_allclose(np.cov(scale.T), np.eye(2), atol=0.05)


def test_gaussian_target_has_the_closed_form_moments():
    """Cov(y) = M Cov(x) M, with M read off the map."""
    pair = gaussian_pair(2, 50_000)
    shift = pair.transport(np.zeros((1, 2)))
    M = pair.transport(np.eye(2)) - shift
    np.testing.assert_allclose(M, M.T, atol=1e-12)
    assert np.linalg.eigvalsh(M).min() > 0
    np.testing.assert_allclose(np.cov(pair.y.T), M @ np.cov(pair.x.T) @ M, rtol=0.05, atol=0.02)
    np.testing.assert_allclose(pair.y.mean(axis=0), (pair.x.mean(axis=0) @ M + shift)[0], atol=0.05)


# ---- the potential behind "logsumexp" and the planted response


def random_potential(seed, quadratic=0.5):
    rng = np.random.default_rng(seed)
    return LogSumExpPotential(rng.normal(size=(6, 4)), rng.normal(size=6), 0.7, quadratic)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), t=st.floats(0, 1))
def test_potential_is_convex_on_segments(seed, t):
    f = random_potential(seed, quadratic=0.0).potential
    a, b = 3 * np.random.default_rng(seed + 1).normal(size=(2, 30, 4))
    assert (f(t * a + (1 - t) * b) <= t * f(a) + (1 - t) * f(b) + 1e-9).all()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_transport_is_the_gradient_of_the_potential(seed):
    f = random_potential(seed)
    x, step = 2 * np.random.default_rng(seed).normal(size=(8, 4)), 1e-5
    numeric = np.stack([(f.potential(x + e) - f.potential(x - e)) / (2 * step) for e in step * np.eye(4)], axis=1)
    np.testing.assert_allclose(f.transport(x), numeric, atol=1e-7)


def test_potential_survives_large_arguments():
    f = random_potential(0)
    x = np.full((2, 4), 1e6)
    assert np.isfinite(f.potential(x)).all()
    assert np.isfinite(f.transport(x)).all()


@pytest.mark.parametrize(
    ("vectors", "offsets"),
    [(np.zeros(3), np.zeros(3)), (np.zeros((2, 3)), np.zeros(3)), (np.eye(2), np.eye(2))],
)
def test_potential_refuses_shapes_that_do_not_fit(vectors, offsets):
    with pytest.raises(ValueError, match=r"vectors has shape .* and offsets .*; they have to be \(K, d\)"):
        LogSumExpPotential(vectors, offsets, 1.0, 1.0)


@pytest.mark.parametrize(("temperature", "quadratic"), [(0.0, 1.0), (-1.0, 1.0), (np.nan, 1.0), (1.0, -0.1)])
def test_potential_refuses_parameters_that_are_not_convex(temperature, quadratic):
    with pytest.raises(ValueError, match="a convex function needs temperature > 0 and quadratic >= 0"):
        LogSumExpPotential(np.eye(2), np.zeros(2), temperature, quadratic)
