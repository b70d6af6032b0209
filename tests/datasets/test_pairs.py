"""Samples with a map in closed form: the maps are optimal, the samples fit them, and seeds decide everything."""

from __future__ import annotations

import dataclasses
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scot_hycnn.datasets import LogSumExpPotential, brenier_pair, gaussian_pair
from scot_hycnn.metrics import energy_distance, w2

NAMES = ["identity", "scale", "sign", "cubic", "logsumexp"]
MAKERS = {"gaussian": gaussian_pair} | {name: partial(brenier_pair, name) for name in NAMES}
each_pair = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
SAMPLES = ["x", "y", "x_test", "y_test"]


@each_pair
def test_samples(make):
    state = np.random.get_state()[1].copy()
    pair, again, other = make(3, 40, n_test=25), make(3, 40, n_test=25), make(3, 40, rng=5)
    assert [getattr(pair, name).shape for name in SAMPLES] == [(40, 3), (40, 3), (25, 3), (25, 3)]
    for name in SAMPLES:
        assert getattr(pair, name).dtype == np.float32
        assert np.isfinite(getattr(pair, name)).all()
        np.testing.assert_array_equal(getattr(pair, name), getattr(again, name))
    assert not np.array_equal(pair.x, other.x)
    assert np.array_equal(np.random.get_state()[1], state)  # the global generator is not used
    with pytest.raises(dataclasses.FrozenInstanceError):
        pair.x = pair.y
    for name in ("n_dims", "n_cells", "n_test"):
        with pytest.raises(ValueError, match=f"{name}=0"):
            make(**({"n_dims": 2, "n_cells": 5, "n_test": 5} | {name: 0}))


@each_pair
def test_maps_are_optimal(make):
    """Of all assignments of x to T(x), that of the map has the smallest cost."""
    pair = make(4, 2, n_test=60)
    cost = np.mean(np.sum((pair.y_test - pair.x_test.astype(float)) ** 2, axis=1))
    assert w2(pair.x_test, pair.y_test) == pytest.approx(cost, rel=1e-5, abs=1e-12)
    a, b = np.random.default_rng(0).normal(size=(2, 500, 4))
    assert (np.sum((pair.transport(a) - pair.transport(b)) * (a - b), axis=1) >= 0).all()


@each_pair
def test_target_is_the_image_of_other_draws(make):
    pair = make(2, 800)
    assert energy_distance(pair.y, pair.transport(pair.x)) < 0.05  # same distribution
    assert not np.allclose(pair.y, pair.transport(pair.x), atol=0.1)  # other cells
    np.testing.assert_allclose(pair.y_test, pair.transport(pair.x_test), atol=1e-5)


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match="'cube' .*" + ", ".join(NAMES)):
        brenier_pair("cube", 2, 10)


def test_named_maps_and_sources_are_those_of_the_paper():
    x = np.array([[-0.5, 0.25]])
    expected = {
        "identity": x,
        "scale": x * (1 + np.sin([1, 2]) / 2),
        "sign": [[-1.5, 1.25]],
        "cubic": [[-0.5, 0.0625]],
    }
    for name, image in expected.items():
        np.testing.assert_allclose(brenier_pair(name, 2, 2).transport(x), image)
    cubic, scale = brenier_pair("cubic", 2, 20_000).x, brenier_pair("scale", 2, 20_000).x
    assert np.abs(cubic).max() <= 1
    assert cubic.var(axis=0) == pytest.approx([1 / 3, 1 / 3], rel=0.03)
    np.testing.assert_allclose(np.cov(scale.T), np.eye(2), atol=0.05)


def test_gaussian_target_has_the_moments_of_the_closed_form():
    """Cov(y) = M Cov(x) M, with M taken from the map."""
    pair = gaussian_pair(2, 50_000)
    shift = pair.transport(np.zeros((1, 2)))
    M = pair.transport(np.eye(2)) - shift
    np.testing.assert_allclose(M, M.T, atol=1e-12)
    assert np.linalg.eigvalsh(M).min() > 0
    np.testing.assert_allclose(np.cov(pair.y.T), M @ np.cov(pair.x.T) @ M, rtol=0.05, atol=0.02)
    np.testing.assert_allclose(pair.y.mean(axis=0), (pair.x.mean(axis=0) @ M + shift)[0], atol=0.05)


# ---- the potential of "logsumexp" and of the planted response


def random_potential(seed, quadratic=0.5):
    rng = np.random.default_rng(seed)
    return LogSumExpPotential(rng.normal(size=(6, 4)), rng.normal(size=6), 0.7, quadratic)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), t=st.floats(0, 1))
def test_potential_is_convex_and_its_map_is_the_gradient(seed, t):
    f = random_potential(seed, quadratic=0.0)
    a, b = 3 * np.random.default_rng(seed + 1).normal(size=(2, 30, 4))
    assert (f.potential(t * a + (1 - t) * b) <= t * f.potential(a) + (1 - t) * f.potential(b) + 1e-9).all()
    f, x, step = random_potential(seed), a[:8], 1e-5
    numeric = np.stack([(f.potential(x + e) - f.potential(x - e)) / (2 * step) for e in step * np.eye(4)], axis=1)
    np.testing.assert_allclose(f.transport(x), numeric, atol=1e-6)


def test_potential_of_large_arguments_is_finite():
    f, x = random_potential(0), np.full((2, 4), 1e6)
    assert np.isfinite(f.potential(x)).all()
    assert np.isfinite(f.transport(x)).all()


@pytest.mark.parametrize(
    ("vectors", "offsets", "temperature", "quadratic", "message"),
    [
        (np.zeros(3), np.zeros(3), 1.0, 1.0, r"\(3,\) .*\(K, d\)"),
        (np.zeros((2, 3)), np.zeros(3), 1.0, 1.0, r"\(2, 3\) .*\(3,\)"),
        (np.eye(2), np.zeros(2), 0.0, 1.0, "temperature=0.0"),
        (np.eye(2), np.zeros(2), np.nan, 1.0, "temperature=nan"),
        (np.eye(2), np.zeros(2), 1.0, -0.1, "quadratic=-0.1"),
    ],
)
def test_potential_refuses_what_is_not_convex(vectors, offsets, temperature, quadratic, message):
    with pytest.raises(ValueError, match=message):
        LogSumExpPotential(vectors, offsets, temperature, quadratic)
