"""Scores of predicted cells, and genes that change most: known answers and properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import ttest_ind

from scot_hycnn.metrics import deg_overlap, l2_uvp, map_mse, pearson_delta, r2_mean, trace_ratio

CELLS = arrays(np.float64, (6, 3), elements=st.integers(-40, 40).map(lambda i: i / 4))
CHANGE = np.repeat([4.0, -4.0, 0.0], [5, 5, 20])  # five genes go up, five go down


def normal(seed, n_cells=40, n_dims=5, change=0.0):
    return np.random.default_rng(seed).normal(size=(n_cells, n_dims)) + change


def test_map_mse_sums_over_coordinates_and_averages_over_cells():
    assert map_mse([[0, 0], [1, 1]], [[3, 4], [1, 1]]) == pytest.approx(12.5)


@settings(max_examples=25, deadline=None)
@given(predicted=CELLS, observed=CELLS, control=CELLS)
def test_ranges(predicted, observed, control):
    assert map_mse(predicted, observed) == map_mse(observed, predicted) >= 0
    assert (map_mse(predicted, observed) == 0) == np.array_equal(predicted, observed)
    delta, r2 = pearson_delta(predicted, observed, control), r2_mean(predicted, observed)
    assert np.isnan(delta) or abs(delta) <= 1 + 1e-9
    assert np.isnan(r2) or 0 <= r2 <= 1 + 1e-9
    assert 0 <= deg_overlap(predicted, observed, control, n_top=2) <= 1


def test_l2_uvp():
    truth, predicted = normal(0), normal(1)
    mean = np.broadcast_to(truth.mean(axis=0), truth.shape)
    assert l2_uvp(mean, truth) == pytest.approx(100 * (len(truth) - 1) / len(truth))
    assert l2_uvp(truth, truth) == 0
    assert l2_uvp(7 * predicted + 3, 7 * truth + 3) == pytest.approx(l2_uvp(predicted, truth))


def test_trace_ratio_is_that_of_the_traces_of_covariances():
    x, y = normal(0), normal(1, 33)
    assert trace_ratio(x, y) == pytest.approx(np.trace(np.cov(x.T)) / np.trace(np.cov(y.T)))
    assert trace_ratio(0.9 * y + 4, y[::-1]) == pytest.approx(0.81)


def test_variance_of_the_reference_must_not_be_zero():
    constant, cells = np.ones((4, 5)), normal(0, 4)
    for metric, name in ((l2_uvp, "truth"), (trace_ratio, "observed")):
        with pytest.raises(ValueError, match=f"{name} has no variance"):
            metric(cells, constant)
    assert trace_ratio(constant, cells) == 0


def test_correlations_of_means_and_of_changes():
    predicted, observed, control = normal(0), normal(1, 31), normal(2, 22)
    means = [cells.mean(axis=0) for cells in (predicted, observed)]
    assert r2_mean(predicted, observed) == pytest.approx(np.corrcoef(*means)[0, 1] ** 2)
    changes = [mean - control.mean(axis=0) for mean in means]
    assert pearson_delta(predicted, observed, control) == pytest.approx(np.corrcoef(*changes)[0, 1])
    change = np.arange(5.0)  # direction counts, and size does not
    assert pearson_delta(control + 0.1 * change, control + change, control) == pytest.approx(1)
    assert pearson_delta(control - change, control + change, control) == pytest.approx(-1)
    # A correlation with a constant is NaN, without a warning; the identity predicts no change.
    assert np.isnan(pearson_delta(control, observed, control))
    assert np.isnan(r2_mean(np.ones((3, 5)), observed))


# ---- genes that change most


def test_genes_are_ranked_by_welchs_t():
    """A prediction that changes one gene only finds it if it is among those of largest absolute t."""
    observed, control = normal(0, 31, 30, CHANGE / 8), 2 * normal(1, 57, 30)
    ranks = np.argsort(-np.abs(ttest_ind(observed, control, equal_var=False).statistic))
    for gene in range(30):
        predicted = control.copy()
        predicted[:, gene] += 1
        found = deg_overlap(predicted, observed, control, n_top=6)
        assert found == pytest.approx((gene in ranks[:6]) / 6)


def test_genes_that_do_not_vary():
    observed, control = np.zeros((4, 3)), np.zeros((5, 3))
    observed[:, 0], observed[:, 1] = 2, [-1, 1, -1, 1]
    # Only the first gene changes. A prediction cannot bring a gene into the list that no cell expresses.
    assert deg_overlap(observed, observed, control, n_top=2) == 0.5
    assert deg_overlap(np.ones((4, 3)), observed, control, n_top=2) == 0.5


def test_equal_genes_at_the_end_of_a_list_are_taken_in_order():
    observed, control = np.zeros((4, 6)), np.zeros((5, 6))
    observed[:] = [1, 3, 3, 1, 3, 1]  # infinite t in all genes
    predicted = np.zeros((4, 6))
    predicted[:, [0, 1, 5]] = 1
    assert deg_overlap(predicted, observed, control, n_top=2) == 1  # both lists are genes 0 and 1
    assert deg_overlap(predicted, observed, control, n_top=3) == pytest.approx(2 / 3)  # 0, 1, 5 and 0, 1, 2


def test_overlap_of_right_and_wrong_predictions():
    control, observed = normal(0, n_dims=30), normal(1, n_dims=30, change=CHANGE)
    wanted = {0: 1, 5: 0.5, 10: 0}
    for shift, overlap in wanted.items():
        predicted = normal(2, n_dims=30, change=np.roll(CHANGE, shift))
        assert deg_overlap(predicted, observed, control, n_top=10) == pytest.approx(overlap)
    # Neither direction, size nor variance of a prediction counts: the last gene changes by noise only.
    control[:, 29] = 0
    small = control.mean(axis=0) - CHANGE / 4 + 1e-3 * normal(2, n_dims=30)
    assert deg_overlap(small, observed, control, n_top=10) == 1
    assert deg_overlap(control, observed, control, n_top=10) == 0  # the identity


def test_by_chance_the_overlap_is_that_of_random_lists():
    rng = np.random.default_rng(0)
    cells = [(rng.normal(size=(2, 40, 30)), 1e-3 * rng.normal(size=(40, 30))) for _ in range(200)]
    overlaps = [deg_overlap(*pair, control, n_top=10) for pair, control in cells]
    assert np.mean(overlaps) == pytest.approx(1 / 3, abs=0.05)


def test_r2_on_the_genes_that_change():
    control, observed, predicted = (normal(i, n_dims=30, change=c * CHANGE) for i, c in enumerate((0, 1, 0.5)))
    expected = r2_mean(predicted[:, :10], observed[:, :10])
    assert r2_mean(predicted, observed, control, n_top=10) == pytest.approx(expected)
    assert r2_mean(predicted, observed, control) == r2_mean(predicted, observed)
    assert np.isnan(r2_mean(predicted, control, control, n_top=10))  # nothing changes


def test_what_n_top_takes():
    cells = normal(0, n_dims=30)
    for metric in (deg_overlap, r2_mean):
        for n_top in (1, 31):
            with pytest.raises(ValueError, match=f"n_top={n_top}; .* 2 to 30"):
                metric(cells, cells, cells, n_top=n_top)
    with pytest.raises(ValueError, match="n_top=10 takes"):
        r2_mean(cells, cells, n_top=10)
