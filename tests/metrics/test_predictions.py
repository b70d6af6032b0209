"""Scores of predicted cells: known answers and properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from scot_hycnn.metrics import l2_uvp, map_mse, pearson_delta, r2_mean, trace_ratio

CELLS = arrays(np.float64, (6, 3), elements=st.integers(-40, 40).map(lambda i: i / 4))


def normal(seed, n_cells=40, n_dims=5):
    return np.random.default_rng(seed).normal(size=(n_cells, n_dims))


def test_map_mse_sums_over_coordinates_and_averages_over_cells():
    assert map_mse([[0, 0], [1, 1]], [[3, 4], [1, 1]]) == pytest.approx(12.5)


@settings(max_examples=25, deadline=None)
@given(predicted=CELLS, truth=CELLS)
def test_map_mse_is_symmetric_not_negative_and_zero_only_at_the_truth(predicted, truth):
    assert map_mse(predicted, truth) == map_mse(truth, predicted) >= 0
    assert (map_mse(predicted, truth) == 0) == np.array_equal(predicted, truth)


def test_l2_uvp_of_the_target_mean_is_a_hundred_percent():
    truth = normal(0)
    mean = np.broadcast_to(truth.mean(axis=0), truth.shape)
    assert l2_uvp(mean, truth) == pytest.approx(100 * (len(truth) - 1) / len(truth))
    assert l2_uvp(truth, truth) == 0


def test_l2_uvp_does_not_depend_on_units():
    truth, predicted = normal(0), normal(1)
    assert l2_uvp(7 * predicted + 3, 7 * truth + 3) == pytest.approx(l2_uvp(predicted, truth))


def test_trace_ratio_is_the_square_of_the_shrinkage():
    y = normal(0)
    assert trace_ratio(0.9 * y + 4, y) == pytest.approx(0.81)
    assert trace_ratio(y, np.random.default_rng(0).permutation(y)) == pytest.approx(1)


def test_trace_ratio_is_the_trace_of_covariances():
    x, y = normal(0), normal(1, 33)
    assert trace_ratio(x, y) == pytest.approx(np.trace(np.cov(x.T)) / np.trace(np.cov(y.T)))


def test_r2_mean_is_the_squared_correlation_of_gene_means():
    predicted, observed = normal(0), normal(1, 31)
    expected = np.corrcoef(predicted.mean(axis=0), observed.mean(axis=0))[0, 1] ** 2
    assert r2_mean(predicted, observed) == pytest.approx(expected)


def test_pearson_delta_is_the_correlation_of_mean_changes():
    predicted, observed, control = normal(0), normal(1, 31), normal(2, 22)
    baseline = control.mean(axis=0)
    changes = predicted.mean(axis=0) - baseline, observed.mean(axis=0) - baseline
    assert pearson_delta(predicted, observed, control) == pytest.approx(np.corrcoef(*changes)[0, 1])


def test_pearson_delta_sees_direction_and_not_size():
    control = normal(0)
    change = np.arange(5.0)
    assert pearson_delta(control + 0.1 * change, control + change, control) == pytest.approx(1)
    assert pearson_delta(control - change, control + change, control) == pytest.approx(-1)


def test_correlation_with_nothing_is_nan_without_a_warning():
    control, observed = normal(0), normal(1)
    assert np.isnan(pearson_delta(control, observed, control))  # the identity predicts no change
    assert np.isnan(r2_mean(np.ones((3, 5)), observed))


@settings(max_examples=25, deadline=None)
@given(predicted=CELLS, observed=CELLS, control=CELLS)
def test_correlations_stay_in_their_range(predicted, observed, control):
    delta, r2 = pearson_delta(predicted, observed, control), r2_mean(predicted, observed)
    assert np.isnan(delta) or abs(delta) <= 1 + 1e-9
    assert np.isnan(r2) or 0 <= r2 <= 1 + 1e-9


def test_variance_of_the_reference_must_not_be_zero():
    constant, cells = np.ones((4, 5)), normal(0, 4)
    with pytest.raises(ValueError, match=r"truth has no variance: all its rows are equal\. Use map_mse"):
        l2_uvp(cells, constant)
    with pytest.raises(ValueError, match="observed has no variance: all its rows are equal"):
        trace_ratio(cells, constant)
    assert trace_ratio(constant, cells) == 0
