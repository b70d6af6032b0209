"""Sinkhorn divergence: closed forms, limits, and what an epsilon may be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from scot_hycnn.metrics import _sinkhorn, energy_distance, sinkhorn_divergence, w2

CELLS = arrays(np.float64, (5, 2), elements=st.integers(-8, 8).map(lambda i: i / 4))


def normal(seed, n_cells=60, n_dims=3, mean=0.0, scale=1.0):
    return mean + scale * np.random.default_rng(seed).normal(size=(n_cells, n_dims))


def plain(x, y, epsilon, steps=20_000):
    """Sinkhorn's iterations in the log domain as they are written in books."""

    def cost_of(x, y):
        cost = ((x[:, None] - y) ** 2).sum(-1)
        f, g = np.zeros(len(x)), np.zeros(len(y))
        for _ in range(steps):
            f = -epsilon * np.log(np.exp((g - cost) / epsilon).mean(axis=1))
            g = -epsilon * np.log(np.exp((f[:, None] - cost) / epsilon).mean(axis=0))
        return f.mean() + g.mean()

    return cost_of(x, y) - (cost_of(x, x) + cost_of(y, y)) / 2


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 10.0])
def test_plain_iterations(epsilon):
    x, y = normal(0, 9), normal(1, 7, mean=0.5)
    assert sinkhorn_divergence(x, y, epsilon=epsilon) == pytest.approx(plain(x, y, epsilon, 3000), rel=1e-5)


def test_gaussians_in_closed_form():
    """Janati et al. 2020, th. 1, for N(0, 1) and N(m, s²) with cost |x - y|²; 2,000 cells leave a few percent."""
    m, s, epsilon = 2.0, 3.0, 1.0

    def entropic(a, b):  # of centred normal distributions with standard deviations a, b
        root = np.sqrt(16 * a**2 * b**2 / epsilon**2 + 1)
        return a**2 + b**2 - epsilon / 2 * (root - np.log((1 + root) / 2) - 1)

    expected = m**2 + entropic(1, s) - (entropic(1, 1) + entropic(s, s)) / 2
    value = sinkhorn_divergence(normal(0, 2000, 1), normal(1, 2000, 1, mean=m, scale=s), epsilon=epsilon)
    assert value == pytest.approx(expected, rel=0.07)


def test_between_w2_and_the_distance_of_the_means():
    x, y = normal(0), normal(1, mean=1)
    assert sinkhorn_divergence(x, y, epsilon=0.01) == pytest.approx(w2(x, y), rel=0.01)
    apart = ((x.mean(axis=0) - y.mean(axis=0)) ** 2).sum()
    assert sinkhorn_divergence(x, y, epsilon=1e5) == pytest.approx(apart, rel=1e-3)


@settings(max_examples=25, deadline=None)
@given(x=CELLS, y=CELLS)
def test_not_negative_symmetric_and_zero_for_equal_clouds(x, y):
    value = sinkhorn_divergence(x, y, epsilon=0.5)
    assert value >= -1e-5
    assert sinkhorn_divergence(y, x, epsilon=0.5) == pytest.approx(value, abs=1e-4)
    assert sinkhorn_divergence(x[::-1], x, epsilon=0.5) == pytest.approx(0, abs=1e-5)


def test_the_default_epsilon_is_a_tenth_of_the_observed_variance():
    x, y = normal(0), normal(1, mean=1)
    epsilon = 0.1 * np.trace(np.cov(y.T))
    assert sinkhorn_divergence(x, y) == sinkhorn_divergence(x, y, epsilon=epsilon)
    assert sinkhorn_divergence(8 * x, 8 * y) == pytest.approx(64 * sinkhorn_divergence(x, y), rel=1e-4)


def test_a_translation_far_away_costs_its_square():
    x = normal(0, n_dims=2)
    assert sinkhorn_divergence(x, x + np.array([3e3, 4e3]), epsilon=0.1) == pytest.approx(25e6)


def test_far_from_the_origin_no_digits_are_lost():
    x, y = normal(0), normal(1, mean=1)
    assert sinkhorn_divergence(x + 1e6, y + 1e6) == pytest.approx(sinkhorn_divergence(x, y), rel=1e-6)


def test_cells_above_max_cells_are_drawn():
    x, y = normal(0, 100), normal(1, 90)
    first = sinkhorn_divergence(x, y, max_cells=20, rng=1)
    assert sinkhorn_divergence(x, y, max_cells=20, rng=1) == first
    assert sinkhorn_divergence(x, y, max_cells=20, rng=2) != first
    assert sinkhorn_divergence(x, y, max_cells=100, rng=1) == sinkhorn_divergence(x, y)


def test_says_where_it_has_not_converged(monkeypatch):
    monkeypatch.setattr(_sinkhorn, "_ROUNDS", 1)
    with pytest.warns(UserWarning, match=r"have not converged in 20 steps: .* Take a larger epsilon than 0\.001"):
        sinkhorn_divergence(normal(0), normal(1), epsilon=1e-3)


@pytest.mark.parametrize("epsilon", [0.0, -1.0, np.nan, np.inf])
def test_epsilons_that_are_none(epsilon):
    with pytest.raises(ValueError, match="it needs a finite value > 0"):
        sinkhorn_divergence(normal(0), normal(1), epsilon=epsilon)


def test_no_variance_has_no_default_and_needs_none():
    x, y = np.zeros((3, 2)), np.tile([3.0, 4.0], (4, 1))
    with pytest.raises(ValueError, match="y with some variance, if it is None"):
        sinkhorn_divergence(x, y)
    assert sinkhorn_divergence(x, y, epsilon=1.0) == pytest.approx(25)
    assert energy_distance(x, y) == pytest.approx(10)


def test_too_few_cells():
    with pytest.raises(ValueError, match="max_cells=1; at least 2 cells"):
        sinkhorn_divergence(normal(0), normal(1), max_cells=1)
