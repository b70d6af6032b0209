"""Values of features, a block of cells at a time: the same numbers as all at once."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csc_matrix, csr_matrix

from scot_hycnn._anndata import Values


@pytest.mark.parametrize("kind", [np.asarray, csr_matrix, csc_matrix])
@pytest.mark.parametrize("n", [1, 7, 2500])  # one cell, one block, several
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
    np.testing.assert_array_equal(values.among(chosen).columns([1]), matrix[rows[chosen]][:, [1]])


def test_no_cells_have_no_rows():
    assert Values(np.ones((3, 2)), np.array([], dtype=int)).columns([0]).shape == (0, 1)
