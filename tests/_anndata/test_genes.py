"""Values of features are the same block by block as all at once."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csc_matrix, csr_matrix

from scot_hycnn._anndata import Features, Values


@pytest.mark.parametrize(("kind", "n"), [(np.asarray, 7), (csr_matrix, 2500), (csc_matrix, 1)])
def test_moments_and_columns(kind, n):
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(3000, 4)) * [1, 1e-3, 1, 0] + [0, 1e6, 5, 3]
    rows = rng.permutation(3000)[:n]
    values = Values(kind(matrix), rows)
    mean, variance = values.moments()
    np.testing.assert_allclose(mean, matrix[rows].mean(axis=0), rtol=1e-12)
    expected = matrix[rows].var(axis=0, ddof=1) if n > 1 else np.zeros(4)
    np.testing.assert_allclose(variance, expected, rtol=1e-6, atol=1e-15)
    np.testing.assert_array_equal(values.columns([2, 0]), matrix[rows][:, [2, 0]])
    chosen = np.arange(n) % 2 == 0
    some = Features(list("abcd"), values, values, values).among(chosen, ~chosen)
    np.testing.assert_array_equal(some.predicted.columns([1]), matrix[rows[chosen]][:, [1]])
    np.testing.assert_array_equal(some.observed.columns([1]), matrix[rows[~chosen]][:, [1]])


@pytest.mark.parametrize(("values", "text"), [(np.array([["a"]]), "<U1"), (np.array([[np.nan]]), "row 0")])
def test_values_that_are_no_numbers(values, text):
    with pytest.raises(ValueError, match=text):
        Values(values, np.arange(1)).columns([0])
