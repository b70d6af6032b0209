"""Genes that change most: Welch's t, overlap of lists, R² on the list."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ttest_ind

from scot_hycnn.metrics import deg_overlap, r2_mean
from scot_hycnn.metrics._welch import moments_of, top_genes, welch_t


def normal(seed, n_cells=40, n_genes=30, change=0.0):
    return np.random.default_rng(seed).normal(size=(n_cells, n_genes)) + change


@pytest.fixture
def change():
    """The first five genes go up, the next five down."""
    return np.repeat([4.0, -4.0, 0.0], [5, 5, 20])


def test_t_is_scipys():
    a, b = normal(0, 31), 2 * normal(1, 57)
    t = welch_t(a.mean(axis=0), moments_of(a), moments_of(b))
    np.testing.assert_allclose(t, ttest_ind(a, b, equal_var=False).statistic)


def test_genes_that_do_not_vary():
    a, b = np.zeros((4, 3)), np.zeros((5, 3))
    a[:, 0], a[:, 1] = 2, [-1, 1, -1, 1]
    np.testing.assert_array_equal(welch_t(a.mean(axis=0), moments_of(a), moments_of(b)), [np.inf, 0, 0])
    # A prediction cannot bring a gene into the list that nobody has measured.
    np.testing.assert_allclose(welch_t(np.ones(3), moments_of(a), moments_of(b))[[0, 2]], [np.inf, 0])


def test_top_genes_go_by_size_and_never_without_change():
    t = np.array([[3.0, -5.0, 0.0, 1.0], [0.0, 0.0, 0.0, -1.0]])
    np.testing.assert_array_equal(top_genes(t, 2), [[True, True, False, False], [False, False, False, True]])


def test_overlap_of_a_perfect_and_of_a_wrong_prediction(change):
    control, observed = normal(0), normal(1, change=change)
    assert deg_overlap(normal(2, change=change), observed, control, n_top=10) == 1
    assert deg_overlap(normal(2, change=-change), observed, control, n_top=10) == 1  # direction does not count
    assert deg_overlap(normal(2, change=np.roll(change, 10)), observed, control, n_top=10) == 0
    assert deg_overlap(normal(2, change=np.roll(change, 5)), observed, control, n_top=10) == pytest.approx(0.5)


def test_the_size_of_a_prediction_and_its_variance_do_not_count(change):
    """A gene that no control cell expresses, and whose tiny predicted change has next to no variance."""
    control, observed = normal(0), normal(1, change=change)
    control[:, 29] = 0
    predicted = control.mean(axis=0) + change / 4 + 1e-3 * normal(2)
    assert deg_overlap(predicted, observed, control, n_top=10) == 1


def test_the_identity_finds_no_gene(change):
    control = normal(0)
    assert deg_overlap(control, normal(1, change=change), control, n_top=10) == 0


def test_by_chance_the_overlap_is_that_of_random_lists():
    """Predicted and observed share no change, and control cells hardly any noise that both would see."""
    rng = np.random.default_rng(0)
    values = [
        deg_overlap(rng.normal(size=(40, 30)), rng.normal(size=(40, 30)), 1e-3 * rng.normal(size=(40, 30)), n_top=10)
        for _ in range(200)
    ]
    assert np.mean(values) == pytest.approx(1 / 3, abs=0.05)


def test_r2_on_the_genes_that_change(change):
    control, observed, predicted = normal(0), normal(1, change=change), normal(2, change=change / 2)
    expected = r2_mean(predicted[:, :10], observed[:, :10])
    assert r2_mean(predicted, observed, control, n_top=10) == pytest.approx(expected)
    assert r2_mean(predicted, observed, control) == r2_mean(predicted, observed)
    assert np.isnan(r2_mean(predicted, control, control, n_top=10))  # nothing changes


def test_what_n_top_takes(change):
    control, observed = normal(0), normal(1, change=change)
    for n_top in (1, 31):
        with pytest.raises(ValueError, match=f"n_top={n_top}; it takes a whole number from 2 to 30"):
            deg_overlap(observed, observed, control, n_top=n_top)
        with pytest.raises(ValueError, match=f"n_top={n_top}; it takes a whole number from 2 to 30"):
            r2_mean(observed, observed, control, n_top=n_top)
    with pytest.raises(ValueError, match="n_top=10 takes the genes that change against control; pass control as well"):
        r2_mean(observed, observed, n_top=10)
