"""Distances between clouds: known answers, properties, and independence of the block size."""

from __future__ import annotations

import sys
import tracemalloc
from math import erf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from scot_hycnn.metrics import _distances, _samples, energy_distance, mmd, sinkhorn_divergence, w2

CLOUD_DISTANCES = [energy_distance, mmd, w2]


def clouds(n_rows):
    """Clouds of n_rows cells in three dimensions, on a grid so that sums lose no digits that matter."""
    return arrays(np.float64, (n_rows, 3), elements=st.integers(-40, 40).map(lambda i: i / 4))


def normal(seed, n_cells=60, n_dims=3, mean=0.0, scale=1.0):
    return mean + scale * np.random.default_rng(seed).normal(size=(n_cells, n_dims))


# ---- known answers


def test_energy_distance_of_point_masses_is_twice_their_distance():
    assert energy_distance(np.zeros((3, 2)), np.tile([3.0, 4.0], (5, 1))) == pytest.approx(10)


def test_energy_distance_by_hand():
    # between: (1 + 2 + 1 + 0) / 4 = 1, within x: 2 (one pair), within y: 1.
    assert energy_distance([[0.0], [2.0]], [[1.0], [2.0]]) == pytest.approx(2 * 1 - 2 - 1)


def test_energy_distance_of_gaussians_matches_the_closed_form():
    """In one dimension X - Y ~ N(delta, 2), so that every term is a folded normal mean."""
    delta, n = 1.0, 4000
    between = 2 / np.sqrt(np.pi) * np.exp(-(delta**2) / 4) + delta * erf(delta / 2)
    estimate = energy_distance(normal(0, n, 1), normal(1, n, 1, mean=delta))
    assert estimate == pytest.approx(2 * between - 4 / np.sqrt(np.pi), rel=0.1)


def naive_mmd(x, y, gammas, *, unbiased):
    def mean_kernel(a, b, *, skip_self):
        values = [
            np.mean([np.exp(-gamma * np.sum((a_i - b_j) ** 2)) for gamma in gammas])
            for i, a_i in enumerate(a)
            for j, b_j in enumerate(b)
            if not (skip_self and i == j)
        ]
        return np.mean(values)

    return (
        mean_kernel(x, x, skip_self=unbiased)
        + mean_kernel(y, y, skip_self=unbiased)
        - 2 * mean_kernel(x, y, skip_self=False)
    )


@pytest.mark.parametrize(("gamma", "unbiased"), [(None, True), (0.3, False), ([2, 1, 0.5, 0.1], True), (None, False)])
def test_mmd_equals_a_double_loop(gamma, unbiased):
    x, y = normal(0, 9), normal(1, 7, mean=0.5)
    gammas = np.logspace(1, -3, 50) if gamma is None else np.atleast_1d(gamma)
    expected = naive_mmd(x, y, gammas, unbiased=unbiased)
    assert mmd(x, y, gamma=gamma, unbiased=unbiased) == pytest.approx(expected, abs=1e-12)


def test_w2_in_one_dimension_is_the_difference_of_sorted_values():
    x, y = normal(0, 50, 1), normal(1, 50, 1, mean=2, scale=3)
    assert w2(x, y) == pytest.approx(np.mean((np.sort(x[:, 0]) - np.sort(y[:, 0])) ** 2))


def test_w2_of_a_monotone_map_is_its_mean_squared_displacement():
    """x -> M x with M symmetric positive definite is optimal, also for the empirical distribution."""
    x = normal(0)
    y = x @ np.array([[2.0, 0.5, 0.0], [0.5, 1.0, 0.2], [0.0, 0.2, 0.7]]) + [1, -2, 0]
    expected = np.mean(np.sum((y - x) ** 2, axis=1))
    assert w2(x, np.random.default_rng(2).permutation(y)) == pytest.approx(expected)


def test_w2_of_gaussians_matches_the_closed_form():
    """|m|² + tr(S + I - 2 S^½) with S = diag(9, 1); 1500 cells in two dimensions leave a few percent."""
    scale = np.array([3.0, 1.0])
    assert w2(normal(0, 1500, 2), normal(1, 1500, 2, mean=2.0, scale=scale)) == pytest.approx(12, rel=0.1)


# ---- properties


@pytest.mark.parametrize("distance", CLOUD_DISTANCES)
@settings(max_examples=25, deadline=None)
@given(x=clouds(4), y=clouds(5))
def test_symmetric_and_invariant_to_translation_and_order(distance, x, y):
    value = distance(x, y)
    assert distance(y, x) == pytest.approx(value, abs=1e-9)
    assert distance(x + 2.5, y + 2.5) == pytest.approx(value, abs=1e-9)
    assert distance(x[::-1], y) == pytest.approx(value, abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(x=clouds(4), y=clouds(5), factor=st.sampled_from([0.5, 2.0, 8.0]))
def test_values_are_not_negative_and_scale_with_the_units(x, y, factor):
    assert w2(x, y) >= 0
    assert mmd(x, y, unbiased=False) >= -1e-12
    assert w2(x, x) == pytest.approx(0)
    assert mmd(x, x, unbiased=False) == pytest.approx(0, abs=1e-12)
    assert energy_distance(factor * x, factor * y) == pytest.approx(factor * energy_distance(x, y), abs=1e-9)
    assert w2(factor * x, factor * y) == pytest.approx(factor**2 * w2(x, y), abs=1e-9)
    assert mmd(factor * x, factor * y, gamma=1 / factor**2) == pytest.approx(mmd(x, y, gamma=1), abs=1e-9)


@pytest.mark.parametrize("distance", [energy_distance, mmd])
def test_unbiased_for_samples_of_one_distribution(distance):
    """The mean over repetitions is zero within three standard errors, and both signs occur."""
    rng = np.random.default_rng(0)
    values = np.array([distance(*rng.normal(size=(2, 15, 2))) for _ in range(400)])
    assert abs(values.mean()) < 3 * values.std() / np.sqrt(len(values))
    assert values.min() < 0 < values.max()


# ---- blocks, memory, types


@pytest.mark.parametrize("distance", [energy_distance, mmd])
def test_the_size_of_blocks_does_not_matter(distance, monkeypatch):
    x, y = normal(0, 53), normal(1, 31, mean=1)
    expected = distance(x, y)
    for entries in (1, 100, 1000):
        monkeypatch.setattr(_samples, "_BLOCK_ENTRIES", entries)
        assert distance(x, y) == pytest.approx(expected, rel=1e-12)


def test_energy_distance_needs_little_memory():
    x, y = normal(0, 4000), normal(1, 3000)  # all distances at once would take 96 MB
    tracemalloc.start()
    energy_distance(x, y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6


@pytest.mark.parametrize("distance", [w2, sinkhorn_divergence])
def test_cells_above_max_cells_are_drawn_by_the_seed(distance):
    x, y = normal(0, 100), normal(1, 90)
    state = np.random.get_state()[1].copy()
    first = distance(x, y, max_cells=20, rng=1)
    assert distance(x, y, max_cells=20, rng=1) == first
    assert distance(x, y, max_cells=20, rng=2) != first
    assert distance(x, y, max_cells=100, rng=1) == distance(x, y, max_cells=100, rng=2)
    assert np.array_equal(np.random.get_state()[1], state)
    with pytest.raises(ValueError, match="max_cells=1"):
        distance(x, y, max_cells=1)


def test_w2_without_pot(monkeypatch):
    monkeypatch.setitem(sys.modules, "ot", None)
    with pytest.raises(ImportError, match=r"'scot-hycnn\[ot\]'"):
        w2(normal(0), normal(1))


@pytest.mark.parametrize("gamma", [0.0, [1.0, -1.0], [], np.nan])
def test_mmd_refuses_gammas_that_are_not_positive(gamma):
    with pytest.raises(ValueError, match="gamma="):
        mmd(normal(0), normal(1), gamma=gamma)


# ---- Sinkhorn divergence


def plain(x, y, epsilon, steps=20_000):
    """Sinkhorn's iterations in the log domain, as books have them."""

    def cost_of(x, y):
        cost = ((x[:, None] - y) ** 2).sum(-1)
        f, g = np.zeros(len(x)), np.zeros(len(y))
        for _ in range(steps):
            f = -epsilon * np.log(np.exp((g - cost) / epsilon).mean(axis=1))
            g = -epsilon * np.log(np.exp((f[:, None] - cost) / epsilon).mean(axis=0))
        return f.mean() + g.mean()

    return cost_of(x, y) - (cost_of(x, x) + cost_of(y, y)) / 2


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 10.0])
def test_sinkhorn_by_plain_iterations(epsilon):
    x, y = normal(0, 9), normal(1, 7, mean=0.5)
    assert sinkhorn_divergence(x, y, epsilon=epsilon) == pytest.approx(plain(x, y, epsilon, 3000), rel=1e-5)


def test_sinkhorn_of_gaussians_matches_the_closed_form():
    """Janati et al. 2020, th. 1, for N(0, 1) and N(m, s²) with cost |x - y|²; 2,000 cells leave a few percent."""
    m, s, epsilon = 2.0, 3.0, 1.0

    def entropic(a, b):  # of centred normal distributions with standard deviations a, b
        root = np.sqrt(16 * a**2 * b**2 / epsilon**2 + 1)
        return a**2 + b**2 - epsilon / 2 * (root - np.log((1 + root) / 2) - 1)

    expected = m**2 + entropic(1, s) - (entropic(1, 1) + entropic(s, s)) / 2
    value = sinkhorn_divergence(normal(0, 2000, 1), normal(1, 2000, 1, mean=m, scale=s), epsilon=epsilon)
    assert value == pytest.approx(expected, rel=0.07)


def test_sinkhorn_is_between_w2_and_the_distance_of_the_means():
    x, y = normal(0), normal(1, mean=1)
    assert sinkhorn_divergence(x, y, epsilon=0.01) == pytest.approx(w2(x, y), rel=0.01)
    apart = ((x.mean(axis=0) - y.mean(axis=0)) ** 2).sum()
    assert sinkhorn_divergence(x, y, epsilon=1e5) == pytest.approx(apart, rel=1e-3)


@settings(max_examples=25, deadline=None)
@given(x=clouds(5), y=clouds(5))
def test_sinkhorn_is_not_negative_symmetric_and_zero_for_equal_clouds(x, y):
    value = sinkhorn_divergence(x, y, epsilon=0.5)
    assert value >= -1e-5
    assert sinkhorn_divergence(y, x, epsilon=0.5) == pytest.approx(value, abs=1e-4)
    assert sinkhorn_divergence(x[::-1], x, epsilon=0.5) == pytest.approx(0, abs=1e-5)


def test_the_default_epsilon_is_a_tenth_of_the_observed_variance():
    x, y = normal(0), normal(1, mean=1)
    epsilon = 0.1 * np.trace(np.cov(y.T))
    assert sinkhorn_divergence(x, y) == pytest.approx(sinkhorn_divergence(x, y, epsilon=epsilon), rel=1e-12)
    assert sinkhorn_divergence(8 * x, 8 * y) == pytest.approx(64 * sinkhorn_divergence(x, y), rel=1e-4)


def test_sinkhorn_that_has_not_converged_is_a_warning(monkeypatch):
    monkeypatch.setattr(_distances, "_ROUNDS", 1)
    with pytest.warns(UserWarning, match=r"20 steps.* 0\.001"):
        sinkhorn_divergence(normal(0), normal(1), epsilon=1e-3)


@pytest.mark.parametrize("epsilon", [0.0, -1.0, np.nan, np.inf])
def test_sinkhorn_refuses_an_epsilon_that_is_not_positive(epsilon):
    with pytest.raises(ValueError, match="epsilon="):
        sinkhorn_divergence(normal(0), normal(1), epsilon=epsilon)


def test_sinkhorn_of_a_point_has_no_default_epsilon_and_needs_none():
    x, y = np.zeros((3, 2)), np.tile([3.0, 4.0], (4, 1))
    with pytest.raises(ValueError, match="epsilon="):
        sinkhorn_divergence(x, y)
    assert sinkhorn_divergence(x, y, epsilon=1.0) == pytest.approx(25)
