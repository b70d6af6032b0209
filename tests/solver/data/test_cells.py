"""Input checks, the split into training and validation cells, and W2 from the dual."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scot_hycnn.solver.data._cells import MAX_VALIDATION_CELLS, Cells, check_cells, split


def normal(seed, n_cells, n_dims):
    return np.random.default_rng(seed).normal(size=(n_cells, n_dims))


def rng(seed=0):
    return np.random.default_rng(seed)


# ---- checks


def test_good_cells_come_back_as_arrays_without_a_copy():
    given = np.ones((20, 3), dtype=np.int32)
    x, y = check_cells(given, [[1.0, 2, 3]] * 25)
    assert x is given
    assert (x.shape, y.shape) == ((20, 3), (25, 3))


@pytest.mark.parametrize("side", ["x (source)", "y (target)"])
@pytest.mark.parametrize(
    ("cells", "match"),
    [
        (np.zeros(30), r"must be numbers of shape \(cells, dimensions\); it has shape \(30,\)"),
        (np.zeros((30, 2, 2)), r"it has shape \(30, 2, 2\)"),
        (np.zeros((30, 0)), r"it has shape \(30, 0\)"),
        (np.full((30, 2), "a"), r"must be numbers .* dtype <U1"),
        (np.zeros((30, 2), dtype=complex), r"must be numbers .* dtype complex128"),
        (np.zeros((30, 2), dtype=object), r"must be numbers .* dtype object"),
        (np.zeros((19, 2)), r"has 19 cells in 2 dimensions; at least 20 are needed"),
        (np.zeros((0, 2)), r"has 0 cells in 2 dimensions"),
    ],
)
def test_cells_that_cannot_be_fitted(side, cells, match):
    pair = {"x (source)": normal(0, 30, 2), "y (target)": normal(1, 30, 2), side: cells}
    with pytest.raises(ValueError, match=rf"{side[0]} \({side[3:-1]}\) {match}|{side[0]} \({side[3:-1]}\).*{match}"):
        check_cells(*pair.values())


def test_many_dimensions_need_twice_as_many_cells():
    check_cells(normal(0, 60, 30), normal(1, 60, 30))
    with pytest.raises(ValueError, match=r"y \(target\) has 59 cells in 30 dimensions; at least 60 .*n_pcs"):
        check_cells(normal(0, 60, 30), normal(1, 59, 30))


def test_dimensions_must_agree():
    with pytest.raises(ValueError, match=r"x \(source\) has 3 dimensions and y \(target\) 2; .* same representation"):
        check_cells(normal(0, 30, 3), normal(1, 30, 2))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_cells_that_are_not_finite_are_counted_and_the_first_named(bad):
    y = normal(1, 30, 2)
    y[[7, 12], [0, 1]] = bad
    with pytest.raises(
        ValueError, match=r"y \(target\) has NaN or infinite values in 2 of 30 rows, the first in row 7"
    ):
        check_cells(normal(0, 30, 2), y)


# ---- split


@settings(max_examples=40, deadline=None)
@given(st.integers(20, 400), st.floats(0.01, 0.5), st.integers(0, 1000))
def test_every_cell_is_in_exactly_one_part(n, fraction, seed):
    cells = np.arange(2.0 * n).reshape(n, 2)
    training, validation = split(cells, fraction, rng(seed))
    assert len(validation) == min(max(round(fraction * n), 5), MAX_VALIDATION_CELLS)
    together = np.concatenate([training, validation])
    np.testing.assert_array_equal(together[np.argsort(together[:, 0])], cells)
    # Rows stay whole and in order.
    assert (np.diff(training[:, 0]) > 0).all()
    assert (np.diff(validation[:, 0]) > 0).all()


def test_validation_is_capped():
    _, validation = split(normal(0, 10_000, 2), 0.5, rng())
    assert len(validation) == MAX_VALIDATION_CELLS


@pytest.mark.parametrize("seed", range(5))
def test_planted_clusters_keep_their_proportions(seed):
    """Each of four far clusters sends its share, give or take one cell: a random split would miss by several."""
    sizes = np.array([400, 300, 200, 100])
    labels = rng(seed).permutation(np.repeat(np.arange(4), sizes))
    cells = 0.1 * normal(seed, 1000, 2) + 10 * np.array([[0, 0], [1, 0], [0, 1], [1, 1]])[labels]
    _, validation = split(cells, 0.1, rng(seed))
    of_validation = np.rint(validation / 10) @ [1, 2]
    counts = np.bincount(of_validation.astype(int), minlength=4)
    assert np.abs(counts - sizes / 10).max() <= 1


def test_the_generator_decides():
    cells = normal(0, 200, 3)
    first, again, other = (split(cells, 0.1, rng(seed))[1] for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    "cells",
    [
        pytest.param(np.full((50, 2), 3.0), id="constant"),
        pytest.param(np.repeat([[0.0, 0.0], [1.0, 1.0]], 25, axis=0), id="two distinct points"),
        pytest.param(np.zeros((50, 2)), id="zeros"),
        pytest.param(normal(0, 50, 2) * 1e8, id="large"),
        pytest.param(normal(0, 50, 2) * 1e-8, id="small"),
        pytest.param(normal(0, 20, 1), id="fewest"),
    ],
)
def test_clouds_that_are_hard_to_cluster(cells):
    training, validation = split(cells, 0.1, rng())
    assert len(validation) == 5
    assert len(training) == len(cells) - 5


def test_splitting_leaves_the_cells_untouched():
    cells = normal(0, 100, 2)
    copy = cells.copy()
    split(cells, 0.1, rng())
    assert np.array_equal(cells, copy)


# ---- the prepared cells


@pytest.fixture
def cells():
    x, y = normal(0, 600, 3) * [1, 2, 3] + 5, normal(1, 400, 3) - 2
    return Cells.prepare(x, y, 0.25, rng=0, device="cpu")


def test_validation_cells_take_no_part_in_the_coordinates(cells):
    """Means of the training cells are at the origin exactly; those of the validation cells are not."""
    for training, validation in ((cells.x, cells.x_validation), (cells.y, cells.y_validation)):
        assert training.mean(0).abs().max() < 1e-6
        assert validation.mean(0).abs().max() > 1e-3
    np.testing.assert_allclose(
        cells.x_validation, cells.coordinates.source(cells.x_validation_original), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(
        cells.y_validation, cells.coordinates.target(cells.y_validation_original), rtol=1e-5, atol=1e-6
    )
    assert [len(part) for part in (cells.x, cells.y, cells.x_validation, cells.y_validation)] == [450, 300, 150, 100]


def test_w2_never_falls_below_zero(cells):
    assert cells.w2_squared(1e9) == 0
